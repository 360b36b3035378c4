//! Why a write is refused.

use gantry_identity_api::GROUP;
use gantry_kube_types::{FieldError, StatusError};

/// The kinds of refusal, in the order in which they matter to the caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Not the caller's to do.
    Forbidden(String),
    /// Makes no sense.
    Invalid(Box<FieldError>),
    /// Names something that is not there, or not known yet: the directory may show it in a moment.
    Missing(Box<FieldError>),
    /// Somebody else has the name.
    Taken(String),
}

pub type Verdict = Result<(), Refusal>;

impl Refusal {
    pub fn forbidden(why: impl Into<String>) -> Self {
        Self::Forbidden(why.into())
    }

    pub fn invalid(field: &str, value: impl Into<serde_json::Value>, why: impl Into<String>) -> Self {
        Self::Invalid(Box::new(FieldError::invalid(field, value, why)))
    }

    pub fn missing(field: &str, id: &str, kind: &str) -> Self {
        Self::Missing(Box::new(FieldError::invalid(field, id, format!("there is no {kind} with this id"))))
    }

    /// As the client sees it.
    pub fn status(self, kind: &str, resource: &str, name: &str) -> StatusError {
        match self {
            Self::Forbidden(why) => StatusError::forbidden(GROUP, resource, name, why),
            Self::Invalid(error) | Self::Missing(error) => StatusError::invalid(GROUP, kind, name, &[*error]),
            Self::Taken(why) => StatusError::conflict(GROUP, resource, name, why),
        }
    }
}
