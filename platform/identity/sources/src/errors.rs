//! What can go wrong with a source.

/// Why a source gave no answer. Texts are for logs and operators; none ever holds a password, a token or a
/// client secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Unknown name, wrong password, an expired or foreign token: the caller is told no more than that.
    #[error("the source does not accept these credentials")]
    BadCredentials,
    /// The credentials are right, the account is switched off.
    #[error("{user} is disabled in the source")]
    Disabled { user: String },
    /// A login that does not fit together: state, nonce, redirect, signature, audience, lifetime.
    #[error("the sign-in is refused: {why}")]
    Rejected { why: String },
    /// The source cannot be asked now. Asking again later makes sense.
    #[error("{source_name} is not available: {why}")]
    Unavailable { source_name: String, why: String },
    /// Asking again makes no sense before an operator changes the configuration, here or there.
    #[error("{source_name} is misconfigured: {why}")]
    Misconfigured { source_name: String, why: String },
    /// The source holds more than the configured bound. Nothing was cut off silently.
    #[error("{source_name} has more than {max} {what}; raise the bound if that is right")]
    TooLarge { source_name: String, what: &'static str, max: usize },
}

impl SourceError {
    pub(crate) fn unavailable(source_name: &str, why: impl Into<String>) -> Self {
        Self::Unavailable { source_name: source_name.to_owned(), why: why.into() }
    }

    pub(crate) fn misconfigured(source_name: &str, why: impl Into<String>) -> Self {
        Self::Misconfigured { source_name: source_name.to_owned(), why: why.into() }
    }

    pub(crate) fn rejected(why: impl Into<String>) -> Self {
        Self::Rejected { why: why.into() }
    }
}
