//! The one token of every service: a JSON Web Token (RFC 7519) signed with ES256, in compact form.
//!
//! [`Tokens`] issues and verifies. Verification says that a token is ours, whole, for this audience and
//! within its time; whether it has been revoked ([`crate::revocation`]) and whether its user, project and
//! domain are still enabled is asked afterwards, every time.

mod cache;
mod claims;
mod codec;
mod issuer;
#[cfg(test)]
mod tests;

pub use cache::Verified;
pub use claims::{Claims, Federation, NewToken, OAuth, Profile, TokenScope};
pub use issuer::{Checks, Issued, Tokens, TokensConfig};

/// Longer ones are refused unread. Ours have about 600 bytes; headers may have 8 KiB in most servers.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Why a token is not taken. The words are for the log; a client learns that it is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of this issuer, or no token at all: another authenticator may know it.
    #[error("it is not a token of this issuer")]
    Foreign,
    #[error("it is malformed")]
    Malformed,
    #[error("its header is not one of ours: another algorithm, another key, or more than we write")]
    Header,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is for another audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
}

/// Why a token could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error("no random numbers could be had")]
    Random,
    #[error("it would have expired when it was made")]
    Lifetime,
    #[error("it would have {bytes} bytes; {TOKEN_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
}
