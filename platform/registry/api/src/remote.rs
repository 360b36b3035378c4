//! Other registries: how they are reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Another registry, and how one gets in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// Its address, without `/v2/`: `https://registry-1.docker.io`. Passwords go over HTTP to this machine alone.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^https?://[^/?#@]+/?$"))]
    pub endpoint: String,
    /// A Secret with `username` and `password` (type `kubernetes.io/basic-auth`); absent: as a stranger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretReference>,
    /// PEM of the authorities whose certificates it may have; absent: those of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub certificate_authority: Option<String>,
}

/// A Secret by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
