//! Tokens held in memory: those a node joins with and those the process gives its own parts.

use std::collections::HashMap;
use std::sync::RwLock;

use gantry_kube_types::{StatusError, UserInfo};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::bearer::{TokenAuthenticator, TokenIdentity, refused};

/// A process needs a handful; the bound keeps a caller that forgets to remove them from eating memory.
const TOKENS_MAX: usize = 4096;

struct Entry {
    user: UserInfo,
    expires: Option<Timestamp>,
}

/// Tokens and whom they name. Only digests are kept, and look-ups are by digest: neither a dump of the
/// memory nor the time an answer takes says anything about a token.
pub struct StaticTokens {
    entries: RwLock<HashMap<[u8; 32], Entry>>,
    audiences: Vec<String>,
}

impl StaticTokens {
    /// `audiences`: what these tokens are for, the API server's own.
    pub fn new(audiences: Vec<String>) -> Self {
        Self { entries: RwLock::default(), audiences }
    }

    /// Makes `token` name `user` until `expires`. Returns false, and does nothing, when there are too
    /// many tokens or the token is empty.
    #[must_use]
    pub fn add(&self, token: &str, user: UserInfo, expires: Option<Timestamp>) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Timestamp::now();
        entries.retain(|_, entry| entry.expires.is_none_or(|at| at > now));
        if token.is_empty() || entries.len() >= TOKENS_MAX {
            return false;
        }
        entries.insert(digest(token), Entry { user, expires });
        true
    }

    /// The token names nobody from now on.
    pub fn remove(&self, token: &str) {
        let mut entries = self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.remove(&digest(token));
    }
}

impl std::fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticTokens").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenIdentity>, StatusError> {
        let entries = self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(entry) = entries.get(&digest(token)) else { return Ok(None) };
        if entry.expires.is_some_and(|at| at <= Timestamp::now()) {
            return Err(refused("the token has expired"));
        }
        let audiences: Vec<String> = if audiences.is_empty() {
            self.audiences.clone()
        } else {
            self.audiences.iter().filter(|own| audiences.contains(own)).cloned().collect()
        };
        if audiences.is_empty() {
            return Err(refused("the token is not for these audiences"));
        }
        Ok(Some(TokenIdentity { user: entry.user.clone(), audiences }))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
