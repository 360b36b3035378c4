//! From the JSON form of a schema to [`Schema`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::{Definition, Merge, Schema, Type, catalog};

/// A schema that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct SchemaError {
    pub path: String,
    pub reason: String,
}

/// A schema depth no honest document reaches.
const DEPTH_MAX: usize = 128;

impl Schema {
    /// Reads `openAPIV3Schema` of a CustomResourceDefinition version.
    pub fn from_openapi(schema: &Value) -> Result<Schema, SchemaError> {
        let mut root = Builder { definitions: &HashMap::new(), custom: true }.node(schema, "", 0)?;
        root.kind = Type::Object;
        for name in ["apiVersion", "kind"] {
            root.set(name, Schema { kind: Type::String, ..Schema::default() });
        }
        if let Some(metadata) = catalog().reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
            root.set("metadata", metadata);
        }
        Ok(root)
    }
}

pub(super) struct Builder<'d> {
    pub definitions: &'d HashMap<String, Arc<Definition>>,
    /// Keep value validations.
    pub custom: bool,
}

impl Builder<'_> {
    pub fn node(&self, raw: &Value, path: &str, depth: usize) -> Result<Schema, SchemaError> {
        let fail = |reason: &str| SchemaError { path: path.to_owned(), reason: reason.to_owned() };
        if depth > DEPTH_MAX {
            return Err(fail("schema is nested too deeply"));
        }
        let Some(map) = raw.as_object() else {
            return if raw.is_boolean() { Ok(Schema::any()) } else { Err(fail("must be an object")) };
        };
        let flag = |key: &str| map.get(key) == Some(&Value::Bool(true));
        let mut node = Schema {
            kind: read_type(map),
            format: map.get("format").and_then(Value::as_str).map(Into::into),
            nullable: flag("nullable"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            default: map.get("default").cloned(),
            merge: read_merge(map),
            ..Schema::default()
        };
        if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next()) {
            node.reference = self.definitions.get(name).cloned();
        }
        for (name, child) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let child = self.node(child, &format!("{path}.{name}"), depth + 1)?;
            node.properties.push((name.as_str().into(), child));
        }
        node.properties.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(items) = map.get("items") {
            node.items = Some(Box::new(self.node(items, &format!("{path}[]"), depth + 1)?));
        }
        match map.get("additionalProperties") {
            None | Some(Value::Bool(false)) => {}
            Some(child) => {
                node.additional = Some(Box::new(self.node(child, &format!("{path}.*"), depth + 1)?));
            }
        }
        if self.custom {
            let mut rules = map.clone();
            for structure in ["properties", "items", "additionalProperties", "description", "default"] {
                rules.remove(structure);
            }
            node.rules = Some(Box::new(rules));
        }
        Ok(node)
    }
}

fn read_type(map: &Map<String, Value>) -> Type {
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return Type::IntOrString;
    }
    match map.get("type").and_then(Value::as_str) {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ if map.contains_key("properties") => Type::Object,
        _ => Type::Any,
    }
}

fn read_merge(map: &Map<String, Value>) -> Option<Merge> {
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    match (text("x-kubernetes-list-type"), text("x-kubernetes-map-type")) {
        (Some("set"), _) => Some(Merge::Set),
        (Some("map"), _) => {
            let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            Some(Merge::Keyed(intern(keys.into_iter().flatten().filter_map(Value::as_str))))
        }
        (Some("atomic"), _) | (_, Some("atomic")) => Some(Merge::Atomic),
        _ => None,
    }
}

/// Key lists of custom resources are few and recur, so each distinct one is kept for good.
fn intern<'k>(keys: impl Iterator<Item = &'k str>) -> &'static [&'static str] {
    static KNOWN: Mutex<Vec<&'static [&'static str]>> = Mutex::new(Vec::new());
    let keys: Vec<&str> = keys.collect();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.iter().copied().find(|k| *k == keys.as_slice()) {
        return found;
    }
    let leak = |k: &&str| -> &'static str { Box::leak((*k).to_owned().into_boxed_str()) };
    let owned: Vec<&'static str> = keys.iter().map(leak).collect();
    let leaked: &'static [&'static str] = Box::leak(owned.into_boxed_slice());
    known.push(leaked);
    leaked
}
