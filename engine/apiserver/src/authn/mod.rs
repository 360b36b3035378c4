//! Who calls the embedded cluster: client certificates, service account tokens and tokens held in
//! memory. Each recogniser is a [`gantry_kube_types::Authenticator`] of the front door; those of tokens
//! also answer TokenReviews.

mod bearer;
mod certificate;
mod claims;
mod discovery;
mod foreign;
mod issue;
mod keys;
mod review;
mod service_account;
mod static_tokens;

pub use bearer::{BasicTokenAuthenticator, BearerTokenAuthenticator, TokenAuthenticator, TokenIdentity};
pub use certificate::ClientCertificates;
pub use discovery::discovery_routes;
pub use foreign::ForeignTokens;
pub use issue::TokenAction;
pub use keys::KeyError;
pub use review::{SelfSubjectReviewAction, TokenReviewAction, self_subject_review, token_review};
pub use service_account::{ServiceAccountTokens, TokenConfig};
pub use static_tokens::StaticTokens;

#[cfg(test)]
mod tests;
