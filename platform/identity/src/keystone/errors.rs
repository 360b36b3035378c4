//! Failures in Keystone's words: `{"error": {"code", "message", "title"}}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::errors::IdentityError;

/// What Keystone appends when it blames the client.
const MALFORMED: &str = "The server could not comply with the request since it is either malformed or otherwise \
                         incorrect. The client is assumed to be in error.";

/// One error as the client sees it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    message: String,
    /// Stands beside `error`, or instead of it where `bare`.
    more: Map<String, Value>,
    bare: bool,
    headers: HeaderMap,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Parts { status, message, more: Map::new(), bare: false, headers: HeaderMap::new() }))
    }

    /// `Could not find user: ID.`
    pub(crate) fn not_found(word: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("Could not find {word}: {id}."))
    }

    pub(crate) fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The caller may not do `action`, as Keystone calls it (`get_user`).
    pub(crate) fn forbidden(action: &str) -> Self {
        let message = format!("You are not authorized to perform the requested action: identity:{action}.");
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// [`ApiError::forbidden`], with the reason.
    pub(crate) fn forbidden_since(action: &str, why: &str) -> Self {
        let message =
            format!("You are not authorized to perform the requested action: identity:{action}: {why}.");
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// Nobody may, for the reason given.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// `attribute` is missing in `target`.
    pub(crate) fn expecting(attribute: &str, target: &str) -> Self {
        Self::malformed(&format!("Expecting to find {attribute} in {target}."))
    }

    pub(crate) fn malformed(what: &str) -> Self {
        Self::invalid(format!("{what} {MALFORMED}"))
    }

    pub(crate) fn conflict(word: &str, detail: &str) -> Self {
        let message = format!("Conflict occurred attempting to store {word} - {detail}.");
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, IdentityError::Unauthorized.to_string())
    }

    /// Adds a member beside `code`, `message` and `title`.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.0.more.insert(key.to_owned(), value);
        self
    }

    /// What was added is the whole body.
    pub(crate) fn bare(mut self) -> Self {
        self.0.bare = true;
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let message = error.to_string();
        match error {
            IdentityError::NotFound { kind, id } => Self::not_found(kind, &id),
            IdentityError::Conflict(_) => Self::new(StatusCode::CONFLICT, message),
            IdentityError::Invalid(_) => Self::invalid(message),
            IdentityError::Forbidden(_) => Self::refused(message),
            IdentityError::Unauthorized | IdentityError::MoreRequired { .. } => Self::unauthorized(),
            IdentityError::PasswordExpired(_) => Self::new(StatusCode::UNAUTHORIZED, message),
            IdentityError::TooMany { retry_after_s } => {
                let error = Self::new(StatusCode::TOO_MANY_REQUESTS, message);
                error.header(RETRY_AFTER, &retry_after_s.to_string())
            }
            IdentityError::Unavailable(why) => {
                tracing::warn!(error = %why, "a Keystone call could not be served");
                let message = "The service is currently unable to handle the request: try again later.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
    }
}

impl From<crate::vault::VaultError> for ApiError {
    fn from(error: crate::vault::VaultError) -> Self {
        IdentityError::Unavailable(error.to_string()).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts { status, message, more, bare, headers } = *self.0;
        let body = if bare {
            Value::Object(more)
        } else {
            let title = status.canonical_reason().unwrap_or("Error");
            let mut error = Map::new();
            error.insert("code".to_owned(), json!(status.as_u16()));
            error.insert("message".to_owned(), json!(message));
            error.insert("title".to_owned(), json!(title));
            error.extend(more);
            json!({ "error": error })
        };
        (status, headers, Json(body)).into_response()
    }
}
