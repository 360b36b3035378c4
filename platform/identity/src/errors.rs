//! What can go wrong, whatever door the request came in by.

use gantry_kube_types::StatusError;

/// The kinds of failure; each door (Keystone, Kubernetes, CLI) has its own words for them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// What it is and its id or name.
    #[error("Could not find {kind}: {id}.")]
    NotFound { kind: &'static str, id: String },
    /// Something with this name or these attributes is there already, or changed meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// The request makes no sense; says what and where.
    #[error("{0}")]
    Invalid(String),
    /// The caller is known and may not.
    #[error("{0}")]
    Forbidden(String),
    /// Who asks is not known, or showed a bad credential. Never says which part was bad.
    #[error("The request you have made requires authentication.")]
    Unauthorized,
    /// Right so far, but more methods are asked for (multi-factor); the receipt says which.
    #[error("Additional authentications steps required.")]
    MoreRequired { receipt: String, user: String, methods: Vec<String> },
    /// The password is right and has to be changed before it opens anything.
    #[error("The password is expired and needs to be changed for user: {0}.")]
    PasswordExpired(String),
    /// Too many at once, or too many failures; seconds until another try makes sense.
    #[error("Too many requests; try again in {retry_after_s} s.")]
    TooMany { retry_after_s: u32 },
    /// Something this depends on does not answer. The text is for the log.
    #[error("{0}")]
    Unavailable(String),
}

impl IdentityError {
    pub fn not_found(kind: &'static str, id: impl Into<String>) -> Self {
        Self::NotFound { kind, id: id.into() }
    }
}

/// What the API server said of a write, in this component's kinds.
pub(crate) fn of_kube(kind: &'static str, name: &str, error: kube::Error) -> IdentityError {
    match error {
        kube::Error::Api(status) if status.code == 404 => IdentityError::not_found(kind, name),
        kube::Error::Api(status) if status.code == 409 => IdentityError::Conflict(status.message),
        kube::Error::Api(status) if status.code == 403 => IdentityError::Forbidden(status.message),
        kube::Error::Api(status) if matches!(status.code, 400 | 413 | 422) => {
            IdentityError::Invalid(status.message)
        }
        other => IdentityError::Unavailable(other.to_string()),
    }
}

impl From<&IdentityError> for StatusError {
    fn from(error: &IdentityError) -> Self {
        let message = error.to_string();
        match error {
            IdentityError::NotFound { kind, id } => {
                StatusError::not_found(gantry_identity_api::GROUP, kind, id)
            }
            IdentityError::Conflict(_) => status(409, "Conflict", message),
            IdentityError::Invalid(_) => status(422, "Invalid", message),
            IdentityError::Forbidden(_) => status(403, "Forbidden", message),
            IdentityError::Unauthorized
            | IdentityError::MoreRequired { .. }
            | IdentityError::PasswordExpired(_) => StatusError::unauthorized(),
            IdentityError::TooMany { retry_after_s } => {
                StatusError::too_many_requests(message, *retry_after_s)
            }
            // The text is for the log, not for the caller.
            IdentityError::Unavailable(_) => StatusError::internal("the identity service cannot do this now"),
        }
    }
}

fn status(code: u16, reason: &str, message: String) -> StatusError {
    StatusError { code, reason: reason.to_owned(), message, details: None }
}
