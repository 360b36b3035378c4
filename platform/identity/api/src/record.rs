//! Objects that OpenStack's clients keep in an identity service and that Gantry itself only keeps: catalogue,
//! limits, federation, policies, …

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One object of one Keystone collection. Its `metadata.name` is derived from collection, parent and id, because
/// clients choose some ids (`RegionOne`) that are no Kubernetes names.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "identity.gantry.dev",
    version = "v1alpha1",
    kind = "KeystoneRecord",
    plural = "keystonerecords",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Collection","type":"string","jsonPath":".spec.collection"}"#,
    printcolumn = r#"{"name":"ID","type":"string","jsonPath":".spec.id"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct KeystoneRecordSpec {
    /// `regions`, `services`, `endpoints`, `limits`, `mappings`, … as in the API's path.
    pub collection: String,
    /// Id of the object it belongs to (the user of a credential, the provider of a protocol).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Id in the Keystone API.
    pub id: String,
    /// The object's attributes as the API shows them; secrets are not among them.
    #[schemars(schema_with = "any_object")]
    pub attributes: Map<String, Value>,
}

/// An object whose fields are not ours to name.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
