//! Talking to the token endpoint (RFC 6749, section 3.2; RFC 8628).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::discovery::Metadata;
use crate::SourceError;
use crate::http::Http;

/// Who asks.
pub(super) struct Client<'a> {
    pub http: &'a Http,
    pub id: &'a str,
    pub secret: Option<&'a SecretString>,
}

/// What the endpoint gave.
#[derive(Deserialize)]
pub(super) struct Tokens {
    #[serde(deserialize_with = "crate::secret::text")]
    pub access_token: SecretString,
    pub token_type: String,
    #[serde(default, deserialize_with = "crate::secret::optional")]
    pub id_token: Option<SecretString>,
    #[serde(default, deserialize_with = "crate::secret::optional")]
    pub refresh_token: Option<SecretString>,
    pub expires_in: Option<u64>,
}

/// What the device endpoint gave (RFC 8628, section 3.2).
#[derive(Deserialize)]
pub(super) struct DeviceAnswer {
    #[serde(deserialize_with = "crate::secret::text")]
    pub device_code: SecretString,
    pub user_code: String,
    pub verification_uri: String,
    pub verification_uri_complete: Option<String>,
    pub expires_in: u64,
    pub interval: Option<u64>,
}

/// An error in the endpoint's own words (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

/// Why there are no tokens.
pub(super) enum NoTokens {
    /// The endpoint's error code.
    Code(String),
    Source(SourceError),
}

impl From<SourceError> for NoTokens {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl NoTokens {
    /// What an error code means where a person waits.
    pub(super) fn into_source_error(self, name: &str) -> SourceError {
        match self {
            Self::Source(error) => error,
            Self::Code(code) => match code.as_str() {
                "invalid_grant" => {
                    SourceError::rejected("the provider does not accept the code (invalid_grant)")
                }
                "access_denied" => {
                    SourceError::rejected("the sign-in was refused at the provider (access_denied)")
                }
                "expired_token" => {
                    SourceError::rejected("the sign-in took too long; begin again (expired_token)")
                }
                "temporarily_unavailable" | "server_error" => SourceError::unavailable(name, code),
                _ => SourceError::misconfigured(name, format!("it answered {}", shown(&code))),
            },
        }
    }
}

impl Client<'_> {
    /// Asks for tokens.
    pub(super) async fn tokens(
        &self,
        metadata: &Metadata,
        form: &[(&str, &str)],
    ) -> Result<Tokens, NoTokens> {
        let request = self.form(&metadata.token, metadata.secret_in_body, form);
        let answer = self.http.send(request).await?;
        if !answer.status.is_success() {
            return Err(self.refusal(&answer));
        }
        let tokens: Tokens = self.http.json(&answer, "the token endpoint")?;
        if !tokens.token_type.eq_ignore_ascii_case("bearer") {
            let why = "it gives tokens of another type than Bearer";
            return Err(SourceError::misconfigured(self.http.name(), why).into());
        }
        Ok(tokens)
    }

    /// Begins a device authorization.
    pub(super) async fn device(
        &self,
        metadata: &Metadata,
        endpoint: &Url,
        scope: &str,
    ) -> Result<DeviceAnswer, NoTokens> {
        let request = self.form(endpoint, metadata.secret_in_body, &[("scope", scope)]);
        let answer = self.http.send(request).await?;
        if !answer.status.is_success() {
            return Err(self.refusal(&answer));
        }
        Ok(self.http.json(&answer, "the device authorization endpoint")?)
    }

    fn refusal(&self, answer: &crate::http::Answer) -> NoTokens {
        match serde_json::from_slice::<ErrorAnswer>(&answer.body) {
            Ok(error) => NoTokens::Code(error.error),
            Err(_) => {
                let why = format!("the token endpoint answered {}", answer.status);
                SourceError::misconfigured(self.http.name(), why).into()
            }
        }
    }

    fn form(&self, url: &Url, secret_in_body: bool, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut request = self.http.client().post(url.clone());
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        match self.secret {
            Some(secret) if !secret_in_body => {
                // Both are form-encoded before they are joined (RFC 6749, section 2.3.1).
                let encode =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encode(self.id), encode(secret.expose_secret()));
                let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
                if let Ok(mut value) = value {
                    value.set_sensitive(true);
                    request = request.header(AUTHORIZATION, value);
                }
            }
            Some(secret) => {
                body.append_pair("client_id", self.id).append_pair("client_secret", secret.expose_secret());
            }
            None => {
                body.append_pair("client_id", self.id);
            }
        }
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.finish())
    }
}

/// An error code as far as it may be shown: codes are short and plain.
pub(super) fn shown(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect()
}
