//! Who may do what where: roles and their assignments.

use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// A set of rights: Kubernetes RBAC rules, virtual resources included, and the roles it implies.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "Role",
    plural = "roles",
    status = "RoleStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"Implies","type":"string","jsonPath":".spec.implies"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleSpec {
    /// Unique among the platform's roles, or in its domain. Absent: `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the domain that owns it; absent: a role of the whole platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it permits in the scope it is assigned in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
    /// Ids of roles that come with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub implies: Vec<String>,
    /// `immutable: true`: neither changed nor deleted while it is set.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::record::any_object")]
    pub options: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::record::any_object")]
    pub extra: Map<String, Value>,
}

/// What is known of a role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleStatus {
    pub conditions: Vec<Condition>,
}

/// One role for one user or group in one scope. Cannot change: delete it and make another.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "RoleAssignment",
    plural = "roleassignments",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Role","type":"string","jsonPath":".spec.role"}"#,
    printcolumn = r#"{"name":"User","type":"string","jsonPath":".spec.user"}"#,
    printcolumn = r#"{"name":"Group","type":"string","jsonPath":".spec.group"}"#,
    printcolumn = r#"{"name":"Project","type":"string","jsonPath":".spec.project"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"System","type":"boolean","jsonPath":".spec.system"}"#,
    printcolumn = r#"{"name":"Inherited","type":"boolean","jsonPath":".spec.inherited"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleAssignmentSpec {
    /// Id of the role.
    pub role: String,
    /// Id of the user; this or `group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Id of the project; this, `domain` or `system`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// Not for the project or domain itself, but for every project below it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
}

impl RoleAssignmentSpec {
    /// The name an assignment made through the Keystone API or the CLI has: the same assignment twice is one
    /// object.
    pub fn object_name(&self) -> String {
        let (actor_kind, actor) = match (&self.user, &self.group) {
            (Some(id), _) => ("user", id.as_str()),
            (None, group) => ("group", group.as_deref().unwrap_or_default()),
        };
        let (target_kind, target) = match (&self.project, &self.domain) {
            (Some(id), _) => ("project", id.as_str()),
            (None, Some(id)) => ("domain", id.as_str()),
            (None, None) => ("system", "all"),
        };
        let mut hash = Sha256::new();
        let inherited = if self.inherited { "inherited" } else { "" };
        for part in [self.role.as_str(), actor_kind, actor, target_kind, target, inherited] {
            // Lengths keep two lists of parts from running into one text.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(&hash.finalize()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_assignment_has_one_name_and_no_other_has_it() {
        let some = |id: &str| Some(id.to_owned());
        let base = RoleAssignmentSpec { role: "r".to_owned(), user: some("u"), ..Default::default() };
        let all = [
            RoleAssignmentSpec { project: some("x"), ..base.clone() },
            RoleAssignmentSpec { project: some("x"), inherited: true, ..base.clone() },
            RoleAssignmentSpec { domain: some("x"), ..base.clone() },
            RoleAssignmentSpec { system: true, ..base.clone() },
            RoleAssignmentSpec { user: None, group: some("u"), system: true, ..base.clone() },
            RoleAssignmentSpec { role: "ru".to_owned(), user: some(""), system: true, ..base },
        ];
        let names: std::collections::BTreeSet<String> =
            all.iter().map(RoleAssignmentSpec::object_name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| name.len() == 32));
    }
}
