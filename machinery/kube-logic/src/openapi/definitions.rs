//! The schemas that operations refer to.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use gantry_kube_types::ResourceInfo;
use serde_json::{Map, Value, json};

use super::{Dialect, Entry};
use crate::schema::{Merge, Schema, Type, catalog, raw_definitions};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
/// Where references point while a document is made; see [`Dialect::reference`].
const NEUTRAL: &str = "#/components/schemas/";

/// Built-in definitions in the form of an OpenAPI v3 document, made once.
fn built_in() -> &'static Map<String, Value> {
    static DEFINITIONS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| {
        let mut definitions = raw_definitions();
        for (name, definition) in &mut definitions {
            settle(name, definition);
        }
        for (name, definition) in missing() {
            definitions.entry(name).or_insert(definition);
        }
        definitions
    })
}

/// Definitions that no stored kind refers to but operations do.
fn missing() -> [(String, Value); 3] {
    [
        (
            format!("{META}Patch"),
            json!({"type": "object",
                "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body."}),
        ),
        (
            format!("{META}WatchEvent"),
            json!({"type": "object", "description": "Event represents a single event to a watched resource.",
                "required": ["type", "object"],
                "properties": {"type": {"type": "string"}, "object": {"$ref": format!("{NEUTRAL}{RAW}")}}}),
        ),
        (RAW.to_owned(), json!({"type": "object", "description": "Any object in JSON form."})),
    ]
}

/// Brings one definition to its published shape and adds how its lists and maps merge.
fn settle(name: &str, definition: &mut Value) {
    let description = definition.get("description").cloned();
    let shape = match name {
        INT_OR_STRING => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        QUANTITY => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        RAW => json!({"type": "object"}),
        _ => Value::Null,
    };
    if !shape.is_null() {
        *definition = shape;
        if let Some(description) = description {
            definition["description"] = description;
        }
        return;
    }
    let Some(schema) = catalog().definition(name) else { return };
    if schema.target().kind == Type::Object && schema.merge() == Merge::Atomic {
        definition["x-kubernetes-map-type"] = "atomic".into();
    }
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, child) in schema.properties() {
        let Some(property) = properties.get_mut(field).and_then(Value::as_object_mut) else { continue };
        extend(property, child);
        wrap_reference(property);
    }
}

/// The `x-kubernetes-` extensions of a field.
fn extend(property: &mut Map<String, Value>, schema: &Schema) {
    let mut put = |name: &str, value: Value| {
        property.insert(format!("x-kubernetes-{name}"), value);
    };
    let strategy = if schema.retain_keys { "merge,retainKeys" } else { "merge" };
    match (schema.target().kind, schema.merge()) {
        (Type::Array, Merge::Keyed(keys)) => {
            put("list-type", "map".into());
            put("list-map-keys", json!(keys));
            put("patch-strategy", strategy.into());
            put("patch-merge-key", keys.first().copied().unwrap_or_default().into());
        }
        (Type::Array, Merge::Set) => {
            put("list-type", "set".into());
            put("patch-strategy", strategy.into());
        }
        (Type::Array, _) => put("list-type", "atomic".into()),
        (Type::Object, Merge::Atomic) => put("map-type", "atomic".into()),
        _ if schema.retain_keys => put("patch-strategy", "retainKeys".into()),
        _ => {}
    }
}

/// OpenAPI 3.0 ignores what stands beside a `$ref`, so such a reference goes into an `allOf`.
fn wrap_reference(property: &mut Map<String, Value>) {
    if property.len() > 1
        && let Some(reference) = property.shift_remove("$ref")
    {
        property.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
    }
}

/// The definition's name of a resource's kind.
pub(super) fn name_of(entry: &Entry<'_>) -> Option<String> {
    if entry.custom.is_some() {
        let mut parts: Vec<&str> = entry.info.group.split('.').collect();
        parts.reverse();
        return Some(format!("{}.{}.{}", parts.join("."), entry.info.version, entry.info.kind));
    }
    catalog().definition_name(&entry.info.gvk()).map(str::to_owned)
}

/// The definition's name of a resource's list: beside that of its kind.
pub(super) fn list_name(name: &str, info: &ResourceInfo) -> String {
    let package = name.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", info.list_kind)
}

pub(super) fn group_version_kind(info: &ResourceInfo, kind: &str) -> Value {
    json!({"group": info.group, "kind": kind, "version": info.version})
}

/// Every schema that the entries need, sorted by name, in the wanted dialect.
pub(super) fn schemas(
    entries: &[Entry<'_>],
    roots: &BTreeSet<String>,
    dialect: Dialect,
) -> Map<String, Value> {
    let built_in = built_in();
    let mut found = std::collections::BTreeMap::new();
    let mut wanted: Vec<String> = roots.iter().cloned().collect();
    for entry in entries {
        let Some(name) = name_of(entry) else { continue };
        let mut schema = match entry.custom {
            Some(schema) => custom(schema, dialect),
            None => built_in.get(&name).cloned().unwrap_or_else(|| json!({"type": "object"})),
        };
        schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(entry.info, &entry.info.kind)]);
        let list = list(&name, entry.info);
        references(&schema, &mut wanted);
        references(&list, &mut wanted);
        found.insert(list_name(&name, entry.info), list);
        found.insert(name, schema);
    }
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let Some(schema) = built_in.get(&name) else { continue };
        references(schema, &mut wanted);
        let mut schema = schema.clone();
        if name.starts_with(META) && matches!(&name[META.len()..], "Status" | "DeleteOptions" | "WatchEvent")
        {
            let kind = json!([{"group": "", "kind": &name[META.len()..], "version": "v1"}]);
            schema["x-kubernetes-group-version-kind"] = kind;
        }
        found.insert(name, schema);
    }
    found
        .into_iter()
        .map(|(name, mut schema)| {
            if dialect == Dialect::V2 {
                to_v2(&mut schema, &name);
            }
            (name, schema)
        })
        .collect()
}

fn references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "$ref" => into.extend(text.strip_prefix(NEUTRAL).map(str::to_owned)),
                    _ => references(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        _ => {}
    }
}

fn list(name: &str, info: &ResourceInfo) -> Value {
    json!({
        "description": format!("{} is a list of {}.", info.list_kind, info.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "items": {"type": "array", "description": format!("List of {}.", info.resource),
                "items": {"$ref": format!("{NEUTRAL}{name}")}},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"description": "Standard list metadata.",
                "allOf": [{"$ref": format!("{NEUTRAL}{META}ListMeta")}]},
        },
        "x-kubernetes-group-version-kind": [group_version_kind(info, &info.list_kind)],
    })
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object.";
const KIND: &str = "Kind is a string value representing the REST resource this object represents.";

/// A custom resource's schema with the fields every object has.
fn custom(schema: &Value, dialect: Dialect) -> Value {
    let mut schema = schema.clone();
    if !schema.is_object() {
        schema = json!({});
    }
    if dialect == Dialect::V2 {
        simplify(&mut schema);
    }
    schema["type"] = "object".into();
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["properties"]["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    schema["properties"]["kind"] = json!({"type": "string", "description": KIND});
    schema["properties"]["metadata"] = json!({"description": "Standard object's metadata.",
        "allOf": [{"$ref": format!("{NEUTRAL}{META}ObjectMeta")}]});
    schema
}

/// Takes out of a custom schema what OpenAPI v2 has no words for; clients then check less, not more.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    let nullable = map.get("nullable") == Some(&Value::Bool(true));
    let loose = nullable || map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    for name in ["oneOf", "anyOf", "allOf", "not", "nullable", "default", "x-kubernetes-validations"] {
        map.shift_remove(name);
    }
    if loose {
        map.retain(|name, _| name == "description" || name.starts_with("x-kubernetes-"));
    }
    for (_, child) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        simplify(child);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(name).filter(|c| c.is_object()) {
            simplify(child);
        }
    }
}

/// OpenAPI v2: other references, without `allOf` around them, and no `oneOf`.
fn to_v2(schema: &mut Value, name: &str) {
    match name {
        INT_OR_STRING | QUANTITY => {
            let map = schema.as_object_mut().into_iter();
            map.for_each(|m| {
                m.shift_remove("oneOf");
            });
            schema["type"] = "string".into();
        }
        _ => rewrite(schema),
    }
}

fn rewrite(node: &mut Value) {
    match node {
        Value::Object(map) => {
            let only = map.get("allOf").and_then(Value::as_array).and_then(|all| match all.as_slice() {
                [one] => one.get("$ref").cloned(),
                _ => None,
            });
            if let Some(reference) = only {
                map.shift_remove("allOf");
                map.insert("$ref".to_owned(), reference);
            }
            for (key, value) in map.iter_mut() {
                match (key.as_str(), value) {
                    ("$ref", Value::String(text)) => {
                        if let Some(name) = text.strip_prefix(NEUTRAL) {
                            *text = Dialect::V2.reference(name);
                        }
                    }
                    (_, value) => rewrite(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        _ => {}
    }
}
