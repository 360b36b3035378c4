//! Who acts: users and groups of a domain.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::yes;

/// A person or a program. Passwords and seeds are not part of it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "User",
    plural = "users",
    status = "UserStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"Enabled","type":"boolean","jsonPath":".spec.enabled"}"#,
    printcolumn = r#"{"name":"Password expires","type":"string","jsonPath":".status.passwordExpiresAt","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct UserSpec {
    /// What the user signs in as; unique in the domain. Absent: `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the domain; cannot change.
    pub domain: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A disabled user does not sign in and none of their tokens is good.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Scope of a sign-in that asks for none, where the user has a role there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_project: Option<String>,
    /// Ids of the groups the user is in; groups of the user's own domain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    pub options: UserOptions,
    /// Id of the [`crate::IdentityProvider`] the user comes from; absent: managed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The user's identities elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub federated: Vec<FederatedIdentity>,
    /// Attributes of Keystone clients that have no meaning here; kept and given back.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::record::any_object")]
    pub extra: Map<String, Value>,
}

/// Keystone's per-user options, by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UserOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_change_password_upon_first_use: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_password_expiry: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_lockout_failure_attempts: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_user_inactivity: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_password: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_factor_auth_enabled: Option<bool>,
    /// Each rule is a set of methods; one complete rule signs the user in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_factor_auth_rules: Option<Vec<Vec<String>>>,
}

/// Who a user is at an identity provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FederatedIdentity {
    pub provider: String,
    pub protocol: String,
    pub unique_id: String,
}

/// What is known of a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UserStatus {
    pub conditions: Vec<Condition>,
    /// When the password has to be changed at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_expires_at: Option<Time>,
    /// Day of the last sign-in, kept where inactivity is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active_at: Option<Time>,
}

impl UserStatus {
    pub fn password_expired(&self, now: Timestamp) -> bool {
        self.password_expires_at.as_ref().is_some_and(|at| at.0 <= now)
    }
}

/// Users that get roles together.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "Group",
    plural = "groups",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSpec {
    /// Unique in the domain. Absent: `metadata.name`. Members are named by the users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the domain; cannot change.
    pub domain: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Id of the [`crate::IdentityProvider`] whose group it is; its members are then the provider's to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::record::any_object")]
    pub extra: Map<String, Value>,
}
