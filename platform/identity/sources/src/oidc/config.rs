//! How to reach an OpenID provider and how to read its tokens.

use std::net::IpAddr;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{HttpConfig, SourceError};

/// An OpenID provider and this platform's registration there. The client secret is handed to
/// [`crate::OidcSource::new`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcConfig {
    /// The issuer, exactly as it stands in its tokens.
    pub issuer: String,
    /// Who we are there.
    pub client_id: String,
    /// Scopes to ask for; `openid` is always asked for.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// Where a sign-in may come back to, compared exactly; at `http://127.0.0.1/…` and `http://[::1]/…` the
    /// port is free (RFC 8252, section 7.3).
    pub redirect_uris: Vec<String>,
    /// Where a sign-out may come back to, compared exactly.
    #[serde(default)]
    pub post_logout_redirect_uris: Vec<String>,
    /// Signatures that count.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<SigningAlgorithm>,
    /// What is read from the tokens.
    #[serde(default)]
    pub claims: OidcClaims,
    /// Ask the userinfo endpoint for claims that the ID token lacks.
    #[serde(default)]
    pub userinfo: bool,
    /// How to reach it.
    #[serde(default)]
    pub http: HttpConfig,
    /// Bounds.
    #[serde(default)]
    pub limits: OidcLimits,
}

/// Asymmetric signatures (RFC 7518). `none` and HMAC cannot be named: with HMAC, whoever knows the public key
/// could sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Which claims say what. A path goes from the outermost claim inwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OidcClaims {
    /// The user's name.
    pub name: Vec<String>,
    /// The name to show.
    pub display_name: Vec<String>,
    /// The mail address; it counts only beside a true `email_verified`, unless `unverified_email`.
    pub email: Vec<String>,
    /// Take the mail address even if the provider has not verified it.
    pub unverified_email: bool,
    /// The groups: a list of texts, or one text.
    pub groups: Option<Vec<String>>,
    /// Put before each group's name, so that no provider can name a group of another source.
    pub groups_prefix: String,
    /// More groups than this are an error.
    pub groups_max: usize,
}

/// Bounds of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OidcLimits {
    /// How far clocks may be apart.
    pub leeway_seconds: u64,
    /// How long a person may take to sign in at the provider.
    pub login_seconds_max: u64,
    /// Sign-ins that came back within `login_seconds_max` and are remembered, so that none is used twice.
    pub logins_max: usize,
    /// How old the discovery document and the keys may grow before they are asked for again.
    pub metadata_seconds_max: u64,
    /// How long old ones are still used when the provider does not answer.
    pub metadata_stale_seconds_max: u64,
    /// Keys are asked for at most this often when a token names an unknown one.
    pub keys_refetch_seconds_min: u64,
}

impl Default for OidcClaims {
    fn default() -> Self {
        let path = |claim: &str| vec![claim.to_owned()];
        Self {
            name: path("preferred_username"),
            display_name: path("name"),
            email: path("email"),
            unverified_email: false,
            groups: None,
            groups_prefix: String::new(),
            groups_max: 1_000,
        }
    }
}

impl Default for OidcLimits {
    fn default() -> Self {
        Self {
            leeway_seconds: 30,
            login_seconds_max: 600,
            logins_max: 100_000,
            metadata_seconds_max: 3_600,
            metadata_stale_seconds_max: 24 * 3_600,
            keys_refetch_seconds_min: 30,
        }
    }
}

fn default_scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).to_vec()
}

fn default_algorithms() -> Vec<SigningAlgorithm> {
    use SigningAlgorithm as S;
    vec![S::RS256, S::PS256, S::ES256, S::ES384, S::EdDSA]
}

impl SigningAlgorithm {
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }

    /// The name in a token's header (RFC 7515, section 4.1.1), if it is one that may count at all.
    pub(super) fn named(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }
}

impl OidcConfig {
    /// A registration with the usual names.
    pub fn new(issuer: &str, client_id: &str, redirect_uris: Vec<String>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            scopes: default_scopes(),
            redirect_uris,
            post_logout_redirect_uris: Vec::new(),
            algorithms: default_algorithms(),
            claims: OidcClaims::default(),
            userinfo: false,
            http: HttpConfig::default(),
            limits: OidcLimits::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), SourceError> {
        let wrong = |why: &str| Err(SourceError::misconfigured(&self.issuer, why));
        if self.client_id.is_empty() {
            return wrong("clientId is empty");
        }
        if self.algorithms.is_empty() {
            return wrong("algorithms is empty");
        }
        if self.claims.name.is_empty() {
            return wrong("claims.name is empty");
        }
        let all = self.redirect_uris.iter().chain(&self.post_logout_redirect_uris);
        for uri in all {
            if Url::parse(uri).is_err() || uri.contains('#') {
                return wrong(&format!("{uri:?} is no absolute URI without fragment"));
            }
        }
        Ok(())
    }

    /// The scopes, `openid` first.
    pub(super) fn scope(&self) -> String {
        let others = self.scopes.iter().filter(|s| *s != "openid").map(String::as_str);
        ["openid"].into_iter().chain(others).collect::<Vec<_>>().join(" ")
    }

    /// May a sign-in come back to `uri`?
    pub(super) fn allows_redirect(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|allowed| allowed == uri || same_but_port(allowed, uri))
    }
}

/// Both are `http` at the same loopback address and differ in the port alone.
fn same_but_port(allowed: &str, uri: &str) -> bool {
    let (Ok(mut left), Ok(mut right)) = (Url::parse(allowed), Url::parse(uri)) else { return false };
    let is_loopback = |url: &Url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        url.scheme() == "http" && host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    // A URL that is not written as it is read could be read otherwise by somebody else.
    if right.as_str() != uri || !is_loopback(&left) || !is_loopback(&right) {
        return false;
    }
    left.set_port(None).is_ok() && right.set_port(None).is_ok() && left == right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_go_where_they_were_registered() {
        let registered =
            ["https://gantry.example/console/callback", "http://127.0.0.1/callback", "http://[::1]/callback"];
        let config = OidcConfig::new("https://idp", "c", registered.map(str::to_owned).to_vec());
        let cases = [
            ("https://gantry.example/console/callback", true),
            ("http://127.0.0.1:41234/callback", true),
            ("http://[::1]:8/callback", true),
            ("http://127.0.0.1/callback", true),
            ("https://gantry.example/console/callback/", false),
            ("https://gantry.example:8443/console/callback", false),
            ("http://gantry.example/console/callback", false),
            ("https://gantry.example/console/callback?next=https://evil", false),
            ("https://gantry.example@evil.example/console/callback", false),
            ("https://GANTRY.example/console/callback", false),
            ("http://127.0.0.1:41234/callback?x=1", false),
            ("http://127.0.0.1:41234/callback#x", false),
            ("http://127.0.0.1:41234/other", false),
            ("http://127.0.0.1:41234/x/../callback", false),
            ("http://user@127.0.0.1:41234/callback", false),
            ("http://127.0.0.1.evil.example:41234/callback", false),
            ("http://127.0.0.2:41234/callback", false),
            ("http://127.1:41234/callback", false),
            ("http://localhost:41234/callback", false),
            ("https://127.0.0.1:41234/callback", false),
            ("javascript:alert(1)", false),
            ("", false),
        ];
        for (uri, expected) in cases {
            assert_eq!(config.allows_redirect(uri), expected, "{uri}");
        }
    }

    #[test]
    fn only_asymmetric_signatures_have_a_name() {
        for name in ["none", "None", "HS256", "HS512", "RS255", "", "rs256"] {
            assert_eq!(SigningAlgorithm::named(name), None, "{name}");
        }
        assert_eq!(SigningAlgorithm::named("EdDSA"), Some(SigningAlgorithm::EdDSA));
    }
}
