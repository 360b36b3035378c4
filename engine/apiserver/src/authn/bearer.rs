//! Tokens in the `Authorization` header.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_kube_types::{Authenticator, ConnectionInfo, StatusError, UserInfo};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Longer ones are refused unread.
pub(crate) const TOKEN_BYTES_MAX: usize = 32 << 10;

/// Whom a token names and for whom it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIdentity {
    pub user: UserInfo,
    /// Those of the wanted audiences that the token is for.
    pub audiences: Vec<String>,
}

/// Recognises one kind of token.
#[async_trait::async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `audiences`: one of these must be the token's; empty means the API server's own. `Ok(None)`: not a
    /// token of this kind. `Err`: one of this kind, and bad (its message is for the log and for reviews).
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenIdentity>, StatusError>;
}

/// The first that recognises the token decides; a refusal stands when nobody else does.
pub(crate) async fn ask_all(
    authenticators: &[Arc<dyn TokenAuthenticator>],
    token: &str,
    audiences: &[String],
) -> Result<Option<TokenIdentity>, StatusError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(refused("the token is too long"));
    }
    let mut refusal = None;
    for authenticator in authenticators {
        match authenticator.authenticate_token(token, audiences).await {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    refusal.map_or(Ok(None), Err)
}

/// A 401 with a reason that does not go to the caller: the front door answers with its own words.
pub(crate) fn refused(why: impl Into<String>) -> StatusError {
    StatusError::new(401, "Unauthorized", why)
}

/// `Authorization: Bearer TOKEN` (RFC 6750).
#[derive(Clone)]
pub struct BearerTokenAuthenticator {
    tokens: Vec<Arc<dyn TokenAuthenticator>>,
}

impl BearerTokenAuthenticator {
    pub fn new(tokens: Vec<Arc<dyn TokenAuthenticator>>) -> Self {
        Self { tokens }
    }
}

#[async_trait::async_trait]
impl Authenticator for BearerTokenAuthenticator {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let Some(token) = credential(headers, "bearer") else { return Ok(None) };
        Ok(ask_all(&self.tokens, token, &[]).await?.map(|identity| identity.user))
    }
}

/// `Authorization: Basic` with any user name and a token as the password: what registry clients and
/// browsers send.
#[derive(Clone)]
pub struct BasicTokenAuthenticator {
    tokens: Vec<Arc<dyn TokenAuthenticator>>,
}

impl BasicTokenAuthenticator {
    pub fn new(tokens: Vec<Arc<dyn TokenAuthenticator>>) -> Self {
        Self { tokens }
    }
}

#[async_trait::async_trait]
impl Authenticator for BasicTokenAuthenticator {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let Some(pair) = credential(headers, "basic") else { return Ok(None) };
        if pair.len() > 2 * TOKEN_BYTES_MAX {
            return Err(refused("the credential is too long"));
        }
        let pair = STANDARD.decode(pair).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(pair) = pair else { return Err(refused("the basic credential is not base64 text")) };
        let Some((_, token)) = pair.split_once(':') else {
            return Err(refused("the basic credential has no password"));
        };
        Ok(ask_all(&self.tokens, token, &[]).await?.map(|identity| identity.user))
    }
}

/// The credential of one scheme; scheme names are case-insensitive (RFC 9110, 11.1).
fn credential<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (named, credential) = value.split_once(' ')?;
    let credential = credential.trim();
    (named.eq_ignore_ascii_case(scheme) && !credential.is_empty()).then_some(credential)
}
