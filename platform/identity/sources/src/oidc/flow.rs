//! What goes into a sign-in and what comes out of it.

use secrecy::{SecretBox, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use crate::ExternalUser;

/// The secrets of a registration.
#[derive(Default)]
pub struct OidcSecrets {
    /// The client's secret; without: a public client.
    pub client_secret: Option<SecretString>,
    /// Seals sign-ins under way; without: made anew, so that they end with the process. Several servers behind
    /// one address need the same one; then each remembers on its own which sign-ins are used up, and a second
    /// use elsewhere fails at the provider, whose codes work once.
    pub sealing_key: Option<SecretBox<[u8; 32]>>,
}

/// Where to send a browser, and what it has to bring back.
#[derive(Debug)]
pub struct OidcBegun {
    /// The provider's page.
    pub url: Url,
    /// For the browser that began: a cookie (`HttpOnly; Secure; SameSite=Lax`, for the callback's path alone),
    /// or the memory of a command. Bound to `state`, sealed, good for [`crate::OidcLimits::login_seconds_max`].
    pub binding: SecretString,
}

/// The query of the redirect back (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Debug, Deserialize)]
pub struct OidcCallback {
    /// Where it belongs.
    #[serde(default)]
    pub state: String,
    /// What is exchanged for tokens.
    #[serde(default, deserialize_with = "crate::secret::optional")]
    pub code: Option<SecretString>,
    /// Who sent it.
    #[serde(default)]
    pub iss: Option<String>,
    /// Why there is no code.
    #[serde(default)]
    pub error: Option<String>,
}

/// A completed sign-in.
#[derive(Debug)]
pub struct OidcLogin {
    /// Who it is.
    pub user: ExternalUser,
    /// Every verified claim, those of the userinfo endpoint included: for mapping rules.
    pub claims: Map<String, Value>,
    /// For the end-session URL.
    pub id_token: Option<SecretString>,
    /// For [`crate::OidcSource::refresh`], if the provider gave one.
    pub refresh_token: Option<SecretString>,
    /// How long the provider's access token holds.
    pub expires_in_seconds: Option<u64>,
    /// What [`crate::OidcSource::begin`] was given.
    pub return_to: Option<String>,
}

/// What a client needs to send a browser to the provider by itself.
#[derive(Clone, Debug)]
pub struct OidcEndpoints {
    pub issuer: String,
    pub client_id: String,
    /// `openid` first.
    pub scopes: Vec<String>,
    pub authorization: Url,
    pub device_authorization: Option<Url>,
}

/// A device authorization under way (RFC 8628, section 3.2).
#[derive(Debug)]
pub struct OidcDevice {
    /// For [`crate::OidcSource::device_poll`].
    pub device_code: SecretString,
    /// What the person types.
    pub user_code: String,
    /// Where they type it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// How long they may take.
    pub expires_in_seconds: u64,
    /// How long to wait between two polls.
    pub interval_seconds: u64,
}

/// How far a device authorization is.
#[derive(Debug)]
pub enum OidcDevicePoll {
    /// The person has not finished: ask again after the interval.
    Pending,
    /// Ask again after the interval, which grows by five seconds.
    SlowDown,
    /// Done.
    Done(Box<OidcLogin>),
}
