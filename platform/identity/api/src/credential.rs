//! Rights handed on: application credentials and trusts.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A user's credential for a program: some of the user's roles in one project.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "ApplicationCredential",
    plural = "applicationcredentials",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"User","type":"string","jsonPath":".spec.user"}"#,
    printcolumn = r#"{"name":"Project","type":"string","jsonPath":".spec.project"}"#,
    printcolumn = r#"{"name":"Expires","type":"date","jsonPath":".spec.expiresAt"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationCredentialSpec {
    /// Unique among the user's.
    pub name: String,
    /// Id of the user who made it.
    pub user: String,
    /// Id of the project it is good for.
    pub project: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Ids of the roles it has; it has none that the user does not have.
    pub roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// It may make other credentials and trusts.
    pub unrestricted: bool,
    /// Ids of the access rules it is limited to; none: no limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_rules: Vec<String>,
}

/// A user (the trustor) lets another (the trustee) act with some of their roles in a project.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "Trust",
    plural = "trusts",
    status = "TrustStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Trustor","type":"string","jsonPath":".spec.trustor"}"#,
    printcolumn = r#"{"name":"Trustee","type":"string","jsonPath":".spec.trustee"}"#,
    printcolumn = r#"{"name":"Project","type":"string","jsonPath":".spec.project"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustSpec {
    pub trustor: String,
    pub trustee: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The trustee's tokens name the trustor as their user.
    pub impersonation: bool,
    pub roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// How many tokens may be made; absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_max: Option<u32>,
    pub allow_redelegation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redelegation_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redelegated_trust: Option<String>,
}

/// What is known of a trust.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustStatus {
    /// Tokens made so far.
    pub uses: u32,
}
