//! Registries whose images are pulled through this one and kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Remote, Visibility};

/// Types of an upstream's conditions.
pub mod upstream_conditions {
    /// The object is good, and what is below its prefix is pulled through it.
    pub const ACCEPTED: &str = "Accepted";
    /// It answered when it was last asked.
    pub const REACHABLE: &str = "Reachable";
}

/// A registry whose repositories are pulled through ours, below a prefix: `docker pull HOST/PREFIX/library/debian`.
/// What was pulled once is kept, and is served while the upstream is away.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "registry.gantry.dev",
    version = "v1alpha1",
    kind = "UpstreamRegistry",
    plural = "upstreamregistries",
    shortname = "upstream",
    status = "UpstreamRegistryStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Prefix","type":"string","jsonPath":".spec.prefix"}"#,
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".spec.remote.endpoint"}"#,
    printcolumn = r#"{"name":"Reachable","type":"string","jsonPath":".status.conditions[?(@.type==\"Reachable\")].status"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".status.size"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamRegistrySpec {
    /// What its repositories' names begin with here, `mirror/docker.io`. Cannot change.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-z0-9]+([._/-][a-z0-9]+)*$"))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self == oldSelf", "message": "the prefix of an upstream cannot change"}
    ]))]
    pub prefix: String,
    /// Where they come from.
    pub remote: Remote,
    /// Patterns (`*`, `?`) of the upstream's repositories that may be pulled; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 255)))]
    pub repositories: Vec<String>,
    /// How long a tag is believed before the upstream is asked again.
    #[serde(default = "fresh_seconds")]
    #[schemars(range(max = 2592000))]
    pub fresh_seconds: u32,
    /// Bytes that are kept, as a quantity (`100Gi`): what was not pulled for longest leaves first. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<String>,
    /// Visibility of the repositories that are made below the prefix.
    #[serde(default)]
    pub visibility: Visibility,
}

fn fresh_seconds() -> u32 {
    300
}

/// What is kept of an upstream; written by the registry alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpstreamRegistryStatus {
    pub repositories: u32,
    /// Bytes of everything that is kept, each blob counted once.
    pub size_bytes: i64,
    /// The same for people.
    pub size: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
