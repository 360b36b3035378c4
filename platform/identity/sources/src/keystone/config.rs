//! How to reach a Keystone.

use serde::{Deserialize, Serialize};

use crate::HttpConfig;

/// Another Keystone (Identity API v3). The service account's password is handed to
/// [`crate::KeystoneSource::new`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeystoneConfig {
    /// The API's root, `/v3` included.
    pub url: String,
    /// Who asks on our behalf.
    pub account: KeystoneAccount,
    /// Domains, by id or name, whose people count; empty: all of them.
    #[serde(default)]
    pub domains: Vec<String>,
    /// How to reach it.
    #[serde(default = "http")]
    pub http: HttpConfig,
    /// Bounds.
    #[serde(default)]
    pub limits: KeystoneLimits,
}

/// A user of that Keystone with the role `reader` on its system (validating tokens, listing people and
/// assignments).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeystoneAccount {
    /// The user's name.
    pub user: String,
    /// The name of the user's domain.
    #[serde(default = "default_domain")]
    pub user_domain: String,
    /// The project to work in; without: the system.
    #[serde(default)]
    pub project: Option<String>,
    /// The name of the project's domain.
    #[serde(default = "default_domain")]
    pub project_domain: String,
}

/// Bounds of one Keystone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeystoneLimits {
    /// How long a validated token is taken for valid without asking: so late is a revocation there noticed here.
    pub cache_seconds_max: u64,
    /// Validated tokens kept.
    pub cache_entries_max: usize,
    /// More people than this make a listing fail.
    pub users_max: usize,
    /// More groups than this make a listing fail.
    pub groups_max: usize,
    /// More assignments than this make a listing fail.
    pub assignments_max: usize,
}

impl Default for KeystoneLimits {
    fn default() -> Self {
        Self {
            cache_seconds_max: 10,
            cache_entries_max: 10_000,
            users_max: 100_000,
            groups_max: 10_000,
            assignments_max: 1_000_000,
        }
    }
}

fn default_domain() -> String {
    "Default".to_owned()
}

/// Lists come whole: their bound is larger.
fn http() -> HttpConfig {
    HttpConfig { body_bytes_max: 64 * 1024 * 1024, timeout_ms: 30_000, ..HttpConfig::default() }
}

impl KeystoneConfig {
    /// A Keystone at `url` asked by `account`, with everything else as usual.
    pub fn new(url: &str, account: KeystoneAccount) -> Self {
        let limits = KeystoneLimits::default();
        Self { url: url.to_owned(), account, domains: Vec::new(), http: http(), limits }
    }
}
