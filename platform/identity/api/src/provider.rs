//! Where users come from when they are not managed here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::yes;

/// Annotation with which an operator says how many people a listing may disable at once.
pub const CONFIRM_DISABLE: &str = "identity.gantry.dev/confirm-disable";

/// An LDAP directory, an OpenID provider or another Keystone whose users sign in here.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "IdentityProvider",
    plural = "identityproviders",
    status = "IdentityProviderStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"Enabled","type":"boolean","jsonPath":".spec.enabled"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Synced","type":"date","jsonPath":".status.syncedAt"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentityProviderSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub provider_type: ProviderType,
    /// Id of the domain its users appear in.
    pub domain: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// How often users and groups are read anew, in seconds.
    #[serde(default = "five_minutes")]
    pub sync_interval_seconds: u32,
    /// Settings of the type, as its guide documents them; secrets are not among them.
    #[schemars(schema_with = "crate::record::any_object")]
    pub config: Map<String, Value>,
    /// `namespace/name` of the Secret with `password`, `clientSecret` or `caBundle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Outside group name → ids of groups here; absent: groups appear under their own names.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub group_mapping: std::collections::BTreeMap<String, Vec<String>>,
}

fn five_minutes() -> u32 {
    300
}

/// How an outside source is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderType {
    #[default]
    Ldap,
    Oidc,
    Keystone,
}

impl ProviderType {
    /// As `spec.type` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ldap => "ldap",
            Self::Oidc => "oidc",
            Self::Keystone => "keystone",
        }
    }
}

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentityProviderStatus {
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synced_at: Option<Time>,
    pub users: u64,
    pub groups: u64,
}
