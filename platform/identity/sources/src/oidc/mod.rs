//! People of an OpenID provider (OpenID Connect Core 1.0).
//!
//! Written on reqwest and jsonwebtoken, which the workspace has anyway, rather than on `openidconnect`: that
//! crate brings chrono (which `deny.toml` bans), serde_with, rand 0.8 and newer majors of p256, p384 and
//! ed25519-dalek beside the ones jsonwebtoken uses; and what is security-relevant here (state bound to a
//! browser and used once, redirect lists, rate-limited key refetch, bounds) would be ours all the same.

mod claims;
mod config;
mod discovery;
mod flow;
mod id_token;
mod keys;
mod sealed;
mod tokens;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde_json::{Map, Value};
use url::Url;

pub use config::{OidcClaims, OidcConfig, OidcLimits, SigningAlgorithm};
pub use flow::{OidcBegun, OidcCallback, OidcDevice, OidcDevicePoll, OidcEndpoints, OidcLogin, OidcSecrets};

use crate::SourceError;
use crate::http::Http;
use discovery::{Metadata, MetadataCache};
use id_token::{Expected, Refusal};
use keys::KeyCache;
use sealed::{Pending, Sealer};
use tokens::{Client, NoTokens, Tokens};

/// Claims that the userinfo endpoint cannot add or change.
const PROTOCOL_CLAIMS: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "azp",
    "exp",
    "iat",
    "nbf",
    "nonce",
    "at_hash",
    "c_hash",
    "acr",
    "amr",
    "auth_time",
];
const RETURN_TO_BYTES_MAX: usize = 1024;

/// An OpenID provider. Cheap to clone; clones share what is cached and which sign-ins are used up.
#[derive(Clone)]
pub struct OidcSource {
    inner: Arc<Inner>,
}

struct Inner {
    config: OidcConfig,
    secret: Option<SecretString>,
    http: Http,
    metadata: MetadataCache,
    keys: KeyCache,
    sealer: Sealer,
}

impl OidcSource {
    /// Checks the configuration; nothing is sent yet.
    pub fn new(config: OidcConfig, secrets: OidcSecrets) -> Result<Self, SourceError> {
        config.check()?;
        let http = Http::new(&config.http, &config.issuer)?;
        http.url("issuer", &config.issuer)?;
        let key = secrets.sealing_key.unwrap_or_else(|| SecretBox::new(Box::new(rand::random())));
        let context = format!("gantry sign-in\0{}\0{}", config.issuer, config.client_id);
        let sealer = Sealer::new(key.expose_secret(), &context, config.limits.logins_max);
        let (metadata, keys) = (MetadataCache::new(), KeyCache::new());
        let secret = secrets.client_secret;
        Ok(Self { inner: Arc::new(Inner { config, secret, http, metadata, keys, sealer }) })
    }

    /// Can the provider be reached, is its document right, does it publish a key that counts?
    pub async fn test(&self) -> Result<(), SourceError> {
        let metadata = self.metadata().await?;
        let inner = &*self.inner;
        let keys = inner.keys.get(&inner.http, &metadata.keys, &inner.config.limits, false).await?;
        let algorithms = &inner.config.algorithms;
        if !algorithms.iter().any(|a| keys.candidates(None, a.algorithm()).next().is_some()) {
            let why = "it publishes no key for any of the algorithms";
            return Err(SourceError::misconfigured(&inner.config.issuer, why));
        }
        Ok(())
    }

    /// What a command needs to run the code flow itself; it ends in [`OidcSource::exchange`].
    pub async fn endpoints(&self) -> Result<OidcEndpoints, SourceError> {
        let metadata = self.metadata().await?;
        let config = &self.inner.config;
        Ok(OidcEndpoints {
            issuer: config.issuer.clone(),
            client_id: config.client_id.clone(),
            scopes: config.scope().split(' ').map(str::to_owned).collect(),
            authorization: metadata.authorization.clone(),
            device_authorization: metadata.device.clone(),
        })
    }

    /// Begins the code flow with PKCE (RFC 7636, S256), state and nonce. `return_to` is given back at the end.
    pub async fn begin(&self, redirect_uri: &str, return_to: Option<&str>) -> Result<OidcBegun, SourceError> {
        let config = &self.inner.config;
        self.check_redirect(redirect_uri)?;
        if return_to.is_some_and(|to| to.len() > RETURN_TO_BYTES_MAX) {
            return Err(SourceError::rejected("the place to return to is too long"));
        }
        let metadata = self.metadata().await?;
        let pending = Pending {
            state: random_text(),
            nonce: random_text(),
            verifier: random_text(),
            redirect_uri: redirect_uri.to_owned(),
            return_to: return_to.map(str::to_owned),
            expires_seconds: now_seconds().saturating_add_unsigned(config.limits.login_seconds_max),
        };
        let challenge = ring::digest::digest(&ring::digest::SHA256, pending.verifier.as_bytes());
        let mut url = metadata.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &config.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &config.scope())
            .append_pair("state", &pending.state)
            .append_pair("nonce", &pending.nonce)
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256");
        Ok(OidcBegun { url, binding: self.inner.sealer.seal(&pending)?.into() })
    }

    /// Completes what [`OidcSource::begin`] began, once, in the browser that has the `binding`.
    pub async fn finish(
        &self,
        callback: &OidcCallback,
        binding: &SecretString,
    ) -> Result<OidcLogin, SourceError> {
        let inner = &*self.inner;
        let pending = inner.sealer.take(binding.expose_secret(), &callback.state, now_seconds())?;
        let metadata = self.metadata().await?;
        match &callback.iss {
            Some(iss) if *iss != inner.config.issuer => {
                return Err(SourceError::rejected("the answer is of another provider (iss)"));
            }
            None if metadata.names_issuer => {
                return Err(SourceError::rejected("the answer does not say who sent it (iss)"));
            }
            _ => {}
        }
        if let Some(error) = &callback.error {
            let why = format!("the provider answered {}", tokens::shown(error));
            return Err(SourceError::rejected(why));
        }
        let code = callback.code.as_ref().ok_or_else(|| SourceError::rejected("the answer has no code"))?;
        let verifier = SecretString::from(pending.verifier);
        let mut login = self.exchange(code, &verifier, &pending.redirect_uri, &pending.nonce).await?;
        login.return_to = pending.return_to;
        Ok(login)
    }

    /// Exchanges a code that a command obtained on its own. It answers for its state; verifier and nonce are
    /// the ones it made.
    pub async fn exchange(
        &self,
        code: &SecretString,
        verifier: &SecretString,
        redirect_uri: &str,
        nonce: &str,
    ) -> Result<OidcLogin, SourceError> {
        self.check_redirect(redirect_uri)?;
        if nonce.is_empty() || verifier.expose_secret().is_empty() {
            return Err(SourceError::rejected("a nonce and a code verifier are needed"));
        }
        let metadata = self.metadata().await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose_secret()),
        ];
        let tokens = self.client().tokens(&metadata, &form).await.map_err(|e| self.source_error(e))?;
        self.login(&metadata, tokens, Some(nonce), Some(code)).await
    }

    /// Begins a sign-in on another device (RFC 8628).
    pub async fn device_begin(&self) -> Result<OidcDevice, SourceError> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = &metadata.device else {
            return Err(SourceError::misconfigured(&self.inner.config.issuer, "it has no device endpoint"));
        };
        let scope = self.inner.config.scope();
        let answer = self.client().device(&metadata, endpoint, &scope).await;
        let answer = answer.map_err(|e| self.source_error(e))?;
        Ok(OidcDevice {
            device_code: answer.device_code,
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            verification_uri_complete: answer.verification_uri_complete,
            expires_in_seconds: answer.expires_in,
            interval_seconds: answer.interval.unwrap_or(5).max(1),
        })
    }

    /// Asks whether the person has finished on the other device.
    pub async fn device_poll(&self, device_code: &SecretString) -> Result<OidcDevicePoll, SourceError> {
        let metadata = self.metadata().await?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device_code.expose_secret()),
        ];
        match self.client().tokens(&metadata, &form).await {
            Ok(tokens) => {
                let login = self.login(&metadata, tokens, None, None).await?;
                Ok(OidcDevicePoll::Done(Box::new(login)))
            }
            Err(NoTokens::Code(code)) if code == "authorization_pending" => Ok(OidcDevicePoll::Pending),
            Err(NoTokens::Code(code)) if code == "slow_down" => Ok(OidcDevicePoll::SlowDown),
            Err(error) => Err(self.source_error(error)),
        }
    }

    /// Who brings this ID token of ours along (`Authorization: Bearer`).
    pub async fn verify(&self, id_token: &SecretString) -> Result<OidcLogin, SourceError> {
        let metadata = self.metadata().await?;
        let claims = self.verified(&metadata, id_token.expose_secret(), None, None, None).await?;
        let user = claims::user(&claims, &self.inner.config.claims, &self.inner.config.issuer)?;
        Ok(OidcLogin {
            user,
            claims,
            id_token: Some(id_token.clone()),
            refresh_token: None,
            expires_in_seconds: None,
            return_to: None,
        })
    }

    /// Asks again who `subject` is, with their refresh token. [`SourceError::BadCredentials`]: the provider has
    /// ended their session. The answer may hold a new refresh token, which then replaces the old one.
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        subject: &str,
    ) -> Result<OidcLogin, SourceError> {
        let metadata = self.metadata().await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose_secret())];
        let tokens = match self.client().tokens(&metadata, &form).await {
            Ok(tokens) => tokens,
            Err(NoTokens::Code(code)) if code == "invalid_grant" => return Err(SourceError::BadCredentials),
            Err(error) => return Err(self.source_error(error)),
        };
        let login = if tokens.id_token.is_some() {
            self.login(&metadata, tokens, None, None).await?
        } else {
            self.login_by_userinfo(&metadata, tokens).await?
        };
        if login.user.id != subject {
            return Err(SourceError::rejected("the refreshed tokens are somebody else's"));
        }
        Ok(login)
    }

    /// Where to send a browser to end the session at the provider too; `None` if it has no such page.
    pub async fn end_session_url(
        &self,
        id_token: Option<&SecretString>,
        redirect_uri: Option<&str>,
    ) -> Result<Option<Url>, SourceError> {
        let config = &self.inner.config;
        if let Some(uri) = redirect_uri
            && !config.post_logout_redirect_uris.iter().any(|allowed| allowed == uri)
        {
            return Err(SourceError::rejected("a sign-out may not come back there"));
        }
        let Some(mut url) = self.metadata().await?.end_session.clone() else { return Ok(None) };
        let mut query = url.query_pairs_mut();
        query.append_pair("client_id", &config.client_id);
        if let Some(token) = id_token {
            query.append_pair("id_token_hint", token.expose_secret());
        }
        if let Some(uri) = redirect_uri {
            query.append_pair("post_logout_redirect_uri", uri);
        }
        drop(query);
        Ok(Some(url))
    }

    fn check_redirect(&self, uri: &str) -> Result<(), SourceError> {
        if self.inner.config.allows_redirect(uri) {
            return Ok(());
        }
        Err(SourceError::rejected("a sign-in may not come back there: it is not among redirectUris"))
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, SourceError> {
        self.inner.metadata.get(&self.inner.http, &self.inner.config).await
    }

    fn client(&self) -> Client<'_> {
        let inner = &*self.inner;
        Client { http: &inner.http, id: &inner.config.client_id, secret: inner.secret.as_ref() }
    }

    fn source_error(&self, error: NoTokens) -> SourceError {
        error.into_source_error(&self.inner.config.issuer)
    }

    async fn login(
        &self,
        metadata: &Metadata,
        tokens: Tokens,
        nonce: Option<&str>,
        code: Option<&SecretString>,
    ) -> Result<OidcLogin, SourceError> {
        let config = &self.inner.config;
        let Some(id_token) = &tokens.id_token else {
            return Err(SourceError::misconfigured(&config.issuer, "it gave no ID token"));
        };
        let access = Some(tokens.access_token.expose_secret());
        let code = code.map(|code| code.expose_secret());
        let mut claims = self.verified(metadata, id_token.expose_secret(), nonce, access, code).await?;
        if config.userinfo {
            let more = self.userinfo(metadata, &tokens.access_token).await?;
            if more.get("sub") != claims.get("sub") {
                return Err(SourceError::rejected("the userinfo endpoint speaks of somebody else"));
            }
            for (name, value) in more {
                if !PROTOCOL_CLAIMS.contains(&name.as_str()) {
                    claims.entry(name).or_insert(value);
                }
            }
        }
        self.made(claims, tokens)
    }

    async fn login_by_userinfo(&self, metadata: &Metadata, tokens: Tokens) -> Result<OidcLogin, SourceError> {
        let claims = self.userinfo(metadata, &tokens.access_token).await?;
        self.made(claims, tokens)
    }

    fn made(&self, claims: Map<String, Value>, tokens: Tokens) -> Result<OidcLogin, SourceError> {
        Ok(OidcLogin {
            user: claims::user(&claims, &self.inner.config.claims, &self.inner.config.issuer)?,
            claims,
            id_token: tokens.id_token,
            refresh_token: tokens.refresh_token,
            expires_in_seconds: tokens.expires_in,
            return_to: None,
        })
    }

    async fn userinfo(
        &self,
        metadata: &Metadata,
        access_token: &SecretString,
    ) -> Result<Map<String, Value>, SourceError> {
        let http = &self.inner.http;
        let Some(url) = &metadata.userinfo else {
            return Err(SourceError::misconfigured(http.name(), "it has no userinfo endpoint"));
        };
        let request = http.client().get(url.clone()).bearer_auth(access_token.expose_secret());
        let answer = http.send(request).await?;
        if !answer.status.is_success() {
            let why = format!("the userinfo endpoint answered {}", answer.status);
            return Err(SourceError::misconfigured(http.name(), why));
        }
        http.json(&answer, "the userinfo endpoint")
    }

    async fn verified(
        &self,
        metadata: &Metadata,
        token: &str,
        nonce: Option<&str>,
        access_token: Option<&str>,
        code: Option<&str>,
    ) -> Result<Map<String, Value>, SourceError> {
        let Inner { config, http, keys, .. } = &*self.inner;
        let expected = Expected {
            issuer: &config.issuer,
            client_id: &config.client_id,
            nonce,
            algorithms: &config.algorithms,
            leeway_seconds: config.limits.leeway_seconds,
            now_seconds: now_seconds(),
            access_token,
            code,
        };
        let known = keys.get(http, &metadata.keys, &config.limits, false).await?;
        let mut outcome = id_token::verify(token, &known, &expected);
        if outcome == Err(Refusal::UnknownKey) {
            let fresh = keys.get(http, &metadata.keys, &config.limits, true).await?;
            outcome = id_token::verify(token, &fresh, &expected);
        }
        outcome.map_err(|refusal| match refusal {
            Refusal::UnknownKey => {
                SourceError::rejected("the ID token is signed with a key nobody published")
            }
            Refusal::Because(why) => SourceError::Rejected { why },
        })
    }
}

/// 256 random bits, in the letters that PKCE and URLs allow.
fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

fn now_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}
