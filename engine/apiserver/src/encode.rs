//! Objects as stored bytes.

use std::io::Write;

use bytes::Bytes;
use gantry_store::{Object, Revision};
use serde_json::{Map, Value};

use crate::kind::Kind;

/// An encoded object with a gap for its `resourceVersion`, so that the store's writer only copies bytes.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Right behind `"metadata":{`.
    gap: usize,
    /// Does more metadata follow the gap?
    comma: bool,
}

impl Template {
    /// `metadata.resourceVersion` of the object is ignored.
    pub(crate) fn new(object: &Value) -> Self {
        let empty = Map::new();
        let fields = object.as_object().unwrap_or(&empty);
        let mut metadata = fields.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        metadata.shift_remove("resourceVersion");
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(b'{');
        for (name, value) in fields.iter().filter(|(name, _)| *name != "metadata") {
            write_json(&mut bytes, &name);
            bytes.push(b':');
            write_json(&mut bytes, value);
            bytes.push(b',');
        }
        bytes.extend_from_slice(b"\"metadata\":{");
        let gap = bytes.len();
        let comma = !metadata.is_empty();
        let mut tail = Vec::with_capacity(512);
        write_json(&mut tail, &metadata);
        bytes.extend_from_slice(&tail[1..]);
        bytes.push(b'}');
        Self { bytes, gap, comma }
    }

    pub(crate) fn fill(self, revision: Revision) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes.len() + 48);
        out.extend_from_slice(&self.bytes[..self.gap]);
        // Writing to a vector cannot fail.
        let _ = write!(out, "\"resourceVersion\":\"{revision}\"");
        if self.comma {
            out.push(b',');
        }
        out.extend_from_slice(&self.bytes[self.gap..]);
        Bytes::from(out)
    }
}

fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    // JSON values have string keys and a vector takes every byte, so this cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// The stored object in the version `kind` serves.
pub(crate) fn decode(kind: &Kind, object: &Object) -> Value {
    let mut value: Value = serde_json::from_slice(&object.value).unwrap_or_else(|error| {
        tracing::error!(key = %object.key, %error, "a stored object does not decode");
        Value::Null
    });
    to_served(kind, &mut value);
    value
}

/// The stored object's bytes in the version `kind` serves: the stored ones where the versions agree.
pub(crate) fn served(kind: &Kind, object: &Object) -> Bytes {
    if kind.is_storage_version() {
        return object.value.clone();
    }
    to_bytes(&decode(kind, object))
}

pub(crate) fn to_bytes(value: &Value) -> Bytes {
    let mut out = Vec::with_capacity(512);
    write_json(&mut out, value);
    Bytes::from(out)
}

fn to_served(kind: &Kind, value: &mut Value) {
    if kind.storage.api_version != kind.info.api_version() {
        value["apiVersion"] = Value::String(kind.info.api_version());
        value["kind"] = Value::String(kind.info.kind.to_string());
        kind.strategy.from_storage(value);
    } else if !kind.is_storage_version() {
        // A custom resource written under a storage version of old.
        if value["apiVersion"] != kind.storage.api_version.as_str() {
            value["apiVersion"] = Value::String(kind.info.api_version());
        }
        kind.strategy.from_storage(value);
    }
}

/// Ready to store, from the served version.
pub(crate) fn to_storage(kind: &Kind, object: &Value) -> Template {
    if kind.storage.api_version == kind.info.api_version() {
        return Template::new(object);
    }
    let mut stored = object.clone();
    kind.strategy.to_storage(&mut stored);
    stored["apiVersion"] = Value::String(kind.storage.api_version.clone());
    Template::new(&stored)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_is_spliced_in() {
        for (object, want) in [
            (
                json!({"kind": "A", "metadata": {"name": "x", "resourceVersion": "3"}, "data": {"a": "metadata"}}),
                json!({"kind": "A", "data": {"a": "metadata"}, "metadata": {"resourceVersion": "9", "name": "x"}}),
            ),
            (json!({}), json!({"metadata": {"resourceVersion": "9"}})),
        ] {
            let bytes = Template::new(&object).fill(9);
            assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("valid JSON"), want);
        }
    }
}
