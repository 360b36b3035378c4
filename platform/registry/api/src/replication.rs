//! Copies between registries that are kept up by themselves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Remote;

/// Types of a replication's conditions.
pub mod replication_conditions {
    /// The object is good.
    pub const ACCEPTED: &str = "Accepted";
    /// The last run copied everything.
    pub const SYNCED: &str = "Synced";
}

/// Copies images to another registry, or from it, with their signatures and whatever else refers to them.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "registry.gantry.dev",
    version = "v1alpha1",
    kind = "Replication",
    plural = "replications",
    status = "ReplicationStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Direction","type":"string","jsonPath":".spec.direction"}"#,
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".spec.remote.endpoint"}"#,
    printcolumn = r#"{"name":"Synced","type":"string","jsonPath":".status.conditions[?(@.type==\"Synced\")].status"}"#,
    printcolumn = r#"{"name":"Lag","type":"integer","jsonPath":".status.lagSeconds"}"#,
    printcolumn = r#"{"name":"Last-Success","type":"date","jsonPath":".status.lastSuccess"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationSpec {
    /// `push` to the other registry, or `pull` from it.
    pub direction: Direction,
    /// The other registry.
    pub remote: Remote,
    /// Patterns (`*`, `?`) of repositories, as they are called where they come from.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 255)))]
    pub repositories: Vec<String>,
    /// Patterns of tags; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128)))]
    pub tags: Vec<String>,
    /// Of images for several platforms those that are copied, `linux/amd64`; none: all. An index that loses some is
    /// another one, with another digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(regex(pattern = r"^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9_]+)?$")))]
    pub platforms: Vec<String>,
    /// What stands before their names where they go, with its slash: `backup/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128), regex(pattern = r"^([a-z0-9]+([._/-][a-z0-9]+)*/)?$"))]
    pub prefix: String,
    /// Copy as soon as something changes here; of `push` alone.
    #[serde(default)]
    pub on_change: bool,
    /// When to copy, in the five fields of cron, in UTC: `*/15 * * * *`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub schedule: Option<String>,
    /// Bytes a second at most, as a quantity (`10Mi`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<String>,
    /// Remove tags where they go that are gone where they come from.
    #[serde(default)]
    pub deletes: bool,
    /// Do nothing for now.
    #[serde(default)]
    pub suspend: bool,
}

/// Which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Push,
    Pull,
}

/// How far it is; written by the registry alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Time>,
    /// The end of the last run that copied everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// Seconds that the copy may be behind: since the last success, where the last run was none.
    pub lag_seconds: i64,
    /// Tags that could not be copied.
    pub pending: u32,
    /// Of the last run.
    pub tags: u32,
    pub blobs: u32,
    pub bytes: i64,
    pub deleted: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
