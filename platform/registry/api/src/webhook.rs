//! Webhooks: who is told what happens in repositories.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of a webhook's conditions.
pub mod webhook_conditions {
    /// The object is good.
    pub const ACCEPTED: &str = "Accepted";
    /// Events are delivered, or would be.
    pub const READY: &str = "Ready";
}

/// Where events of repositories are sent, as CloudEvents 1.0 over HTTP, signed as Standard Webhooks has it. In a
/// namespace of a project it tells of the project's repositories, in any other of all.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "registry.gantry.dev",
    version = "v1alpha1",
    kind = "RegistryWebhook",
    plural = "registrywebhooks",
    shortname = "regwh",
    namespaced,
    status = "RegistryWebhookStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.url"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Pending","type":"integer","jsonPath":".status.pending"}"#,
    printcolumn = r#"{"name":"Delivered","type":"integer","jsonPath":".status.delivered"}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.failed"}"#,
    printcolumn = r#"{"name":"Last-Delivery","type":"date","jsonPath":".status.lastDelivery"}"#,
    printcolumn = r#"{"name":"Last-Error","type":"string","jsonPath":".status.lastError","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RegistryWebhookSpec {
    /// Where each event is posted to. Redirects are not followed.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^/?#@]+([/?].*)?$"))]
    pub url: String,
    /// The Secret, of this namespace, with the key of the signatures.
    pub secret: WebhookSecret,
    /// PEM of the authorities whose certificates the receiver may have; absent: those of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub certificate_authority: Option<String>,
    /// What it is told of; none: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub events: Vec<EventType>,
    /// Patterns (`*`, `?`) of the repositories that it is told of; none: all that it may be told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 255)))]
    pub repositories: Vec<String>,
    /// How an event is a request.
    #[serde(default)]
    pub content_mode: ContentMode,
    /// An event that could not be delivered for so long is given up.
    #[serde(default = "give_up_after_seconds")]
    #[schemars(range(min = 1, max = 604800))]
    pub give_up_after_seconds: u32,
    /// Deliver nothing for now. Events wait.
    #[serde(default)]
    pub suspend: bool,
}

fn give_up_after_seconds() -> u32 {
    86_400
}

/// A Secret of the same namespace. `secret` in it is the key: `whsec_` and Base64, or the bytes themselves, 24 to 64
/// of them. `previous`, where there is one, signs beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecret {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EventType {
    /// A manifest was pushed.
    Pushed,
    /// A manifest was pulled.
    Pulled,
    /// A tag, an image or a repository was deleted.
    Deleted,
    /// An image was looked through.
    Scanned,
    /// New advisories changed the grade of an image.
    Rated,
    /// A replication changed something in the repository, or copied it elsewhere.
    Replicated,
    /// A push was refused because it would exceed a quota.
    QuotaExceeded,
}

impl EventType {
    /// The attribute `type` of its CloudEvents.
    pub fn cloud_event_type(self) -> &'static str {
        match self {
            Self::Pushed => "dev.gantry.registry.pushed",
            Self::Pulled => "dev.gantry.registry.pulled",
            Self::Deleted => "dev.gantry.registry.deleted",
            Self::Scanned => "dev.gantry.registry.scanned",
            Self::Rated => "dev.gantry.registry.rated",
            Self::Replicated => "dev.gantry.registry.replicated",
            Self::QuotaExceeded => "dev.gantry.registry.quotaExceeded",
        }
    }
}

/// The content modes of CloudEvents' HTTP binding (section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentMode {
    /// The whole event is the body, `application/cloudevents+json`.
    #[default]
    Structured,
    /// The data is the body, the attributes are headers (`ce-type`).
    Binary,
}

/// What came of it; written by the registry alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryWebhookStatus {
    /// Events that wait.
    pub pending: u32,
    /// Events that the receiver took.
    pub delivered: i64,
    /// Events that were given up.
    pub failed: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Time>,
    /// What came of the last attempt that failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_as_in_the_object() {
        use EventType::*;
        for kind in [Pushed, Pulled, Deleted, Scanned, Rated, Replicated, QuotaExceeded] {
            let name = serde_json::to_value(kind).expect("JSON");
            let short = kind.cloud_event_type().strip_prefix("dev.gantry.registry.");
            assert_eq!(name.as_str(), short);
        }
    }
}
