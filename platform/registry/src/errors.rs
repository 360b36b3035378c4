//! Error bodies (OCI Distribution specification, *Error codes*).

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// The specification's codes, with the status each is sent with unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    TagInvalid,
    RangeInvalid,
    PaginationNumberInvalid,
    /// Of the distribution project: the specification has none.
    Unavailable,
    Unknown,
}

impl ErrorCode {
    fn parts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", S::NOT_FOUND, "blob unknown to registry"),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", S::BAD_REQUEST, "blob upload invalid"),
            Self::BlobUploadUnknown => {
                ("BLOB_UPLOAD_UNKNOWN", S::NOT_FOUND, "blob upload unknown to registry")
            }
            Self::DigestInvalid => {
                ("DIGEST_INVALID", S::BAD_REQUEST, "provided digest did not match uploaded content")
            }
            Self::ManifestBlobUnknown => {
                ("MANIFEST_BLOB_UNKNOWN", S::NOT_FOUND, "manifest references content unknown to registry")
            }
            Self::ManifestInvalid => ("MANIFEST_INVALID", S::BAD_REQUEST, "manifest invalid"),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", S::NOT_FOUND, "manifest unknown to registry"),
            Self::NameInvalid => ("NAME_INVALID", S::BAD_REQUEST, "invalid repository name"),
            Self::NameUnknown => ("NAME_UNKNOWN", S::NOT_FOUND, "repository name not known to registry"),
            Self::SizeInvalid => ("SIZE_INVALID", S::BAD_REQUEST, "content is larger than allowed"),
            Self::Unauthorized => ("UNAUTHORIZED", S::UNAUTHORIZED, "authentication required"),
            Self::Denied => ("DENIED", S::FORBIDDEN, "requested access to the resource is denied"),
            Self::Unsupported => ("UNSUPPORTED", S::METHOD_NOT_ALLOWED, "the operation is unsupported"),
            Self::TooManyRequests => ("TOOMANYREQUESTS", S::TOO_MANY_REQUESTS, "too many requests"),
            Self::TagInvalid => ("TAG_INVALID", S::BAD_REQUEST, "invalid tag"),
            Self::RangeInvalid => {
                ("RANGE_INVALID", S::RANGE_NOT_SATISFIABLE, "range does not follow what was received")
            }
            Self::PaginationNumberInvalid => {
                ("PAGINATION_NUMBER_INVALID", S::BAD_REQUEST, "invalid number of results requested")
            }
            Self::Unavailable => ("UNAVAILABLE", S::SERVICE_UNAVAILABLE, "service unavailable"),
            Self::Unknown => ("UNKNOWN", S::INTERNAL_SERVER_ERROR, "unknown error"),
        }
    }
}

/// One error as the client sees it.
#[derive(Debug)]
pub struct ApiError {
    pub code: ErrorCode,
    status: StatusCode,
    message: String,
    /// Boxed: it is rare, and every handler returns this type.
    detail: Option<Box<serde_json::Value>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What several clients may be told: an error without its details and headers.
#[derive(Clone, Debug)]
pub(crate) struct ApiErrorParts {
    pub(crate) code: ErrorCode,
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl From<ApiErrorParts> for ApiError {
    fn from(parts: ApiErrorParts) -> Self {
        Self::new(parts.code).status(parts.status).message(parts.message)
    }
}

impl ApiError {
    pub(crate) fn into_parts(self) -> ApiErrorParts {
        ApiErrorParts { code: self.code, status: self.status, message: self.message }
    }

    /// The details, with the sentence as `message`.
    pub(crate) fn facts(&self) -> serde_json::Value {
        let mut facts = self.detail.as_deref().cloned().unwrap_or_else(|| json!({}));
        facts["message"] = self.message.as_str().into();
        facts
    }

    pub fn new(code: ErrorCode) -> Self {
        let (_, status, message) = code.parts();
        Self { code, status, message: message.to_owned(), detail: None, headers: Vec::new() }
    }

    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    pub fn detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// 401 with the challenge that tells a client where to get which token.
    pub fn challenge(challenge: &str) -> Self {
        Self::new(ErrorCode::Unauthorized).header(WWW_AUTHENTICATE, challenge)
    }
}

/// Storage failures: the log gets the cause, the client a sentence without paths.
impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            tracing::error!(%error, "the registry's disk is full");
            return Self::new(ErrorCode::Unknown)
                .status(StatusCode::INSUFFICIENT_STORAGE)
                .message("no space left in the registry");
        }
        if error.kind() == std::io::ErrorKind::HostUnreachable {
            tracing::error!(%error, "the registry's storage does not answer");
            return Self::new(ErrorCode::Unavailable)
                .message("the registry's storage does not answer: try again later");
        }
        tracing::error!(%error, "registry storage failed");
        Self::new(ErrorCode::Unknown).message("the registry could not read or write its storage")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, _, _) = self.code.parts();
        let mut error = json!({ "code": code, "message": self.message });
        if let Some(detail) = self.detail {
            error["detail"] = *detail;
        }
        let body = json!({ "errors": [error] }).to_string();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body).into_response();
        response.headers_mut().extend(self.headers.into_iter().map(|(n, v)| (Some(n), v)));
        response
    }
}
