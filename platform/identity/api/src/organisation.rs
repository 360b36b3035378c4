//! Who owns what: domains (organisations) and their tree of projects (tenants).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::yes;

/// An organisation: owns users, groups, roles of its own and a tree of projects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "Domain",
    plural = "domains",
    status = "DomainStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name","priority":0}"#,
    printcolumn = r#"{"name":"Enabled","type":"boolean","jsonPath":".spec.enabled"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct DomainSpec {
    /// What people call it; unique on the platform, without `/` and `:`. Absent: `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// In a disabled domain nobody signs in and no token is good.
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Bounds of everything the domain's projects use together.
    pub quota: Quota,
    /// Attributes of Keystone clients that have no meaning here; kept and given back.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "crate::record::any_object")]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What is known of a domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DomainStatus {
    pub conditions: Vec<Condition>,
    /// What its projects' quotas take of its own.
    pub allocated: Quota,
}

/// A tenant: rights, quotas and environments (namespaces) hang on it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "Project",
    plural = "projects",
    status = "ProjectStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Name","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.domain"}"#,
    printcolumn = r#"{"name":"Parent","type":"string","jsonPath":".spec.parent","priority":1}"#,
    printcolumn = r#"{"name":"Enabled","type":"boolean","jsonPath":".spec.enabled"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectSpec {
    /// What people call it; unique in its domain. Absent: `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Id of the domain; cannot change.
    pub domain: String,
    /// Id of the project above; absent: directly below the domain. Cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Put on every namespace of the project.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Environment>,
    /// Bounds of the project and the projects below it together; carved from the parent's.
    pub quota: Quota,
    /// The Pod Security Standard that is enforced in its namespaces. `privileged`, which enforces nothing, is for an
    /// administrator of the platform to grant.
    pub pod_security: PodSecurityLevel,
    /// Terminal sessions (exec, attach) in the project's namespaces are recorded.
    pub record_sessions: bool,
    /// Attributes of Keystone clients that have no meaning here; kept and given back.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "crate::record::any_object")]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// `dev`, `test`, `prod`, …: one namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// A DNS label.
    pub name: String,
    /// The namespace; absent: `<project's name>-<environment>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A stricter or (by grant) weaker standard than the project's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurityLevel>,
    /// Bounds of this environment alone.
    pub quota: Quota,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Levels of the Kubernetes Pod Security Standards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodSecurityLevel {
    Restricted,
    /// No host paths, host ports, host namespaces, privileged containers or more capabilities.
    #[default]
    Baseline,
    Privileged,
}

impl PodSecurityLevel {
    /// As the label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Baseline => "baseline",
            Self::Privileged => "privileged",
        }
    }
}

/// What is known of a project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectStatus {
    pub conditions: Vec<Condition>,
    pub environments: Vec<EnvironmentStatus>,
    /// What the projects below take of its quota.
    pub allocated: Quota,
}

/// What became of an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentStatus {
    pub name: String,
    pub namespace: String,
    /// Empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// What its namespace takes of quota `addresses`; absent: none. The rest stands in its ResourceQuota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<String>,
}

/// Bounds, as Kubernetes quantities. Absent: what the level above allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Quota {
    /// Sum of CPU requests, in cores (`8`, `500m`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Sum of memory requests, in bytes (`16Gi`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Number of pods that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// Bytes of volumes asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<String>,
    /// Bytes of images in the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
    /// Number of addresses outside the cluster: one for each service of type LoadBalancer, one for each of a service's
    /// `externalIPs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<String>,
    /// Number of services of type LoadBalancer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancers: Option<String>,
}

impl Quota {
    /// The bounds by name, in the order of the fields.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("cpu", &self.cpu),
            ("memory", &self.memory),
            ("pods", &self.pods),
            ("volumes", &self.volumes),
            ("images", &self.images),
            ("addresses", &self.addresses),
            ("loadBalancers", &self.load_balancers),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// The place of one bound by its name in [`Quota::entries`].
    pub fn entry_mut(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "cpu" => Some(&mut self.cpu),
            "memory" => Some(&mut self.memory),
            "pods" => Some(&mut self.pods),
            "volumes" => Some(&mut self.volumes),
            "images" => Some(&mut self.images),
            "addresses" => Some(&mut self.addresses),
            "loadBalancers" => Some(&mut self.load_balancers),
            _ => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }
}
