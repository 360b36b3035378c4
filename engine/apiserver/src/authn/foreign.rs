//! Tokens that a component recognises, in TokenReviews.

use std::sync::Arc;

use gantry_kube_types::{Authenticator, ConnectionInfo, StatusError};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::bearer::{TokenAuthenticator, TokenIdentity, refused};

/// An [`Authenticator`] of bearer tokens that are meant for the API server.
pub struct ForeignTokens {
    authenticator: Arc<dyn Authenticator>,
    /// Whom such a token is for.
    audiences: Vec<String>,
}

impl ForeignTokens {
    pub fn new(authenticator: Arc<dyn Authenticator>, audiences: Vec<String>) -> Self {
        Self { authenticator, audiences }
    }
}

#[async_trait::async_trait]
impl TokenAuthenticator for ForeignTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenIdentity>, StatusError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| refused("the token has characters that no header can carry"))?;
        value.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let found = self.authenticator.authenticate(&headers, &ConnectionInfo::default()).await?;
        let Some(user) = found else { return Ok(None) };
        let audiences: Vec<String> = if audiences.is_empty() {
            self.audiences.clone()
        } else {
            self.audiences.iter().filter(|own| audiences.contains(own)).cloned().collect()
        };
        if audiences.is_empty() {
            return Err(refused("the token is not for these audiences"));
        }
        Ok(Some(TokenIdentity { user, audiences }))
    }
}
