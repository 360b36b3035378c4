//! What a provider says about itself (OpenID Connect Discovery 1.0).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::config::OidcConfig;
use crate::SourceError;
use crate::http::Http;

/// The document, as it is sent.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// The document, checked.
pub(super) struct Metadata {
    pub authorization: Url,
    pub token: Url,
    pub keys: Url,
    pub userinfo: Option<Url>,
    pub device: Option<Url>,
    pub end_session: Option<Url>,
    /// Send the client's secret in the body rather than in a header.
    pub secret_in_body: bool,
    /// Answers name their issuer (RFC 9207).
    pub names_issuer: bool,
}

impl Metadata {
    fn read(document: Document, config: &OidcConfig, http: &Http) -> Result<Self, SourceError> {
        if document.issuer != config.issuer {
            let why = format!("it calls itself {:?}; issuer must be written exactly so", document.issuer);
            return Err(SourceError::misconfigured(&config.issuer, why));
        }
        let optional = |what: &str, text: Option<String>| text.map(|text| http.url(what, &text)).transpose();
        // Without the list, the standard's default is the header.
        let methods = document.token_endpoint_auth_methods_supported;
        let offers = |method: &str| methods.as_ref().is_some_and(|m| m.iter().any(|o| o == method));
        Ok(Self {
            authorization: http.url("authorization_endpoint", &document.authorization_endpoint)?,
            token: http.url("token_endpoint", &document.token_endpoint)?,
            keys: http.url("jwks_uri", &document.jwks_uri)?,
            userinfo: optional("userinfo_endpoint", document.userinfo_endpoint)?,
            device: optional("device_authorization_endpoint", document.device_authorization_endpoint)?,
            end_session: optional("end_session_endpoint", document.end_session_endpoint)?,
            secret_in_body: offers("client_secret_post") && !offers("client_secret_basic"),
            names_issuer: document.authorization_response_iss_parameter_supported,
        })
    }
}

/// The document as last fetched.
pub(super) struct MetadataCache {
    state: Mutex<Option<(Arc<Metadata>, Instant)>>,
}

impl MetadataCache {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(None) }
    }

    pub(super) async fn get(&self, http: &Http, config: &OidcConfig) -> Result<Arc<Metadata>, SourceError> {
        let limits = &config.limits;
        // Held while asking: who comes meanwhile waits for the same answer.
        let mut state = self.state.lock().await;
        if let Some((metadata, fetched)) = &*state
            && fetched.elapsed() < Duration::from_secs(limits.metadata_seconds_max)
        {
            return Ok(metadata.clone());
        }
        match fetch(http, config).await {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                *state = Some((metadata.clone(), Instant::now()));
                Ok(metadata)
            }
            Err(error) => match &*state {
                Some((metadata, fetched))
                    if fetched.elapsed() < Duration::from_secs(limits.metadata_stale_seconds_max) =>
                {
                    tracing::warn!(%error, "the provider's description is not fresh");
                    Ok(metadata.clone())
                }
                _ => Err(error),
            },
        }
    }
}

async fn fetch(http: &Http, config: &OidcConfig) -> Result<Metadata, SourceError> {
    let issuer = config.issuer.trim_end_matches('/');
    let url = http.url("issuer", &format!("{issuer}/.well-known/openid-configuration"))?;
    Metadata::read(http.get_json(url).await?, config, http)
}
