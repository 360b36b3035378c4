//! What a provider's operator chooses beside how to reach it.

use serde::Deserialize;

/// `config.sync` of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SyncOptions {
    /// Make users as soon as they are listed; without: at their first sign-in.
    pub create_users: bool,
    /// A Keystone's roles in projects become assignments here, for projects of the provider's domain and roles with
    /// the same names.
    pub keep_roles: bool,
    /// What the users' domain is called at the other Keystone; without: as here.
    pub remote_domain: Option<String>,
}
