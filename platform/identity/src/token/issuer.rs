//! Issue and verify.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

use super::cache::{Cache, Verified};
use super::claims::{Claims, NewToken};
use super::{IssueError, TOKEN_BYTES_MAX, TokenError, codec};
use crate::keys::KeyRing;

/// How far the clocks of servers that share keys may differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(5);
const ID_BYTES: usize = 16;

/// Where tokens come from and how long they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokensConfig {
    /// The `iss`: the https URL that others reach the discovery document under.
    pub issuer: String,
    /// The `aud` of tokens that ask for none: our own services.
    pub audience: String,
    pub lifetime: SignedDuration,
    /// No token lives longer, whatever is asked.
    pub lifetime_max: SignedDuration,
    /// Verified tokens that are remembered; one takes about 1 KiB.
    pub cache_entries_max: usize,
}

impl TokensConfig {
    /// One day at the longest, four hours by default.
    pub fn new(issuer: &str, audience: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            lifetime: SignedDuration::from_hours(4),
            lifetime_max: SignedDuration::from_hours(24),
            cache_entries_max: 16_384,
        }
    }
}

/// What is asked of a token beside being ours.
#[derive(Clone, Copy, Debug)]
pub struct Checks<'a> {
    /// One of these must be among the token's. Empty: the configuration's.
    pub audiences: &'a [String],
    pub now: Timestamp,
    /// Take a token that expired no longer ago than this (Keystone's `allow_expired`); zero: none.
    pub expired_for: SignedDuration,
}

impl<'a> Checks<'a> {
    /// A token for our own services that is good now.
    pub fn at(now: Timestamp) -> Self {
        Self { audiences: &[], now, expired_for: SignedDuration::ZERO }
    }

    /// A token for one of these.
    pub fn audiences(self, audiences: &'a [String]) -> Self {
        Self { audiences, ..self }
    }
}

/// A token that was made.
#[derive(Clone)]
pub struct Issued {
    /// The token itself: a secret.
    pub token: String,
    pub claims: Arc<Claims>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("claims", &self.claims).finish_non_exhaustive()
    }
}

/// Makes tokens and recognises its own.
pub struct Tokens {
    keys: Arc<KeyRing>,
    config: TokensConfig,
    cache: Cache,
}

impl Tokens {
    pub fn new(keys: Arc<KeyRing>, config: TokensConfig) -> Self {
        let cache = Cache::new(config.cache_entries_max);
        Self { keys, config, cache }
    }

    pub fn config(&self) -> &TokensConfig {
        &self.config
    }

    pub fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// Signs a token. It is remembered as verified: its first use costs no more than the next.
    pub fn issue(&self, new: NewToken, now: Timestamp) -> Result<Issued, IssueError> {
        let claims = self.claims(new, now)?;
        let set = self.keys.set();
        let key = set.signing(now);
        let token = codec::encode(key, &claims, &self.config.issuer)?;
        let claims = Arc::new(claims);
        self.cache.put(digest(&token), Verified { key: key.clone(), claims: claims.clone() });
        Ok(Issued { token, claims })
    }

    /// Is it ours, whole, for us, and within its time? Ask [`crate::revocation`] next.
    pub fn verify(&self, token: &str, checks: Checks<'_>) -> Result<Arc<Claims>, TokenError> {
        self.check(&self.verified(token)?, checks).cloned()
    }

    /// Is it ours and whole? Whether it is good is asked at every use ([`Tokens::check`]).
    pub fn verified(&self, token: &str) -> Result<Verified, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Foreign);
        }
        let digest = digest(token);
        if let Some(known) = self.cache.get(&digest) {
            return Ok(known);
        }
        let (key, claims) = codec::decode(&self.keys.set(), token, &self.config.issuer)?;
        let verified = Verified { key, claims: Arc::new(claims) };
        self.cache.put(digest, verified.clone());
        Ok(verified)
    }

    /// Verified tokens that are remembered.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Is what was signed for us, within its time, and its key not withdrawn?
    pub fn check<'a>(
        &self,
        verified: &'a Verified,
        checks: Checks<'_>,
    ) -> Result<&'a Arc<Claims>, TokenError> {
        let Verified { key, claims } = verified;
        if self.keys.set().get(key.id()).is_none() {
            return Err(TokenError::Header);
        }
        let own = std::slice::from_ref(&self.config.audience);
        let wanted = if checks.audiences.is_empty() { own } else { checks.audiences };
        if !wanted.iter().any(|audience| claims.audiences.contains(audience)) {
            return Err(TokenError::Audience);
        }
        if claims.issued_at.duration_since(checks.now) > LEEWAY {
            return Err(TokenError::NotYet);
        }
        // An expired token has no leeway.
        if checks.now.duration_since(claims.expires_at) >= checks.expired_for {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    fn claims(&self, new: NewToken, now: Timestamp) -> Result<Claims, IssueError> {
        let after = |lifetime| now.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let expires_at = new.expires_at.unwrap_or_else(|| after(self.config.lifetime));
        let expires_at = expires_at.min(after(self.config.lifetime_max));
        // Down to what the token can say.
        let whole = Timestamp::from_second(expires_at.as_second()).unwrap_or(expires_at);
        let issued_at = Timestamp::from_microsecond(new.authenticated_at.min(now).as_microsecond());
        if whole <= now {
            return Err(IssueError::Lifetime);
        }
        let mut id = [0; ID_BYTES];
        SystemRandom::new().fill(&mut id).map_err(|_| IssueError::Random)?;
        let audiences =
            if new.audiences.is_empty() { vec![self.config.audience.clone()] } else { new.audiences };
        Ok(Claims {
            id: URL_SAFE_NO_PAD.encode(id),
            user: new.user,
            user_domain: new.user_domain,
            audiences,
            issued_at: issued_at.unwrap_or(now),
            expires_at: whole,
            methods: new.methods,
            scope: new.scope,
            chain: new.chain,
            trust: new.trust,
            application_credential: new.application_credential,
            roles: new.roles,
            federation: new.federation,
            oauth: new.oauth,
            profile: new.profile,
        })
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("config", &self.config).finish_non_exhaustive()
    }
}

fn digest(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
