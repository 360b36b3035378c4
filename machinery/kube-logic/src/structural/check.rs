//! Is a schema structural? The rules and words of apiextensions' validation.

use gantry_kube_types::FieldError;
use serde_json::{Map, Value, json};

use super::validate::{self, Node};
use super::{OBJECT_FIELDS, apply_defaults};
use crate::schema::Schema;

/// The deepest schema that is read.
const DEPTH_MAX: usize = 64;
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const UNSUPPORTED: &[&str] =
    &["$ref", "$schema", "id", "definitions", "dependencies", "patternProperties", "additionalItems"];
/// Belong to the structure: not allowed where a schema only validates.
const STRUCTURE: &[&str] = &["description", "type", "default", "title", "nullable", "additionalProperties"];

/// Where a schema stands in another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Checks a CRD's own `openAPIV3Schema`; `path` is where it stands (`spec.versions[0].schema.openAPIV3Schema`).
pub fn check_structural(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, path, Level::Root, 0, &mut errors);
    errors
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name) == Some(&Value::Bool(true))
}

fn text<'m>(map: &'m Map<String, Value>, name: &str) -> &'m str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn check(schema: &Value, path: &str, level: Level, depth: usize, errors: &mut Vec<FieldError>) {
    let Some(map) = schema.as_object() else {
        let words = "items must be a schema object and not an array";
        let detail =
            if schema.is_array() && level == Level::Item { words } else { "must be a schema object" };
        errors.push(FieldError::forbidden(path, detail));
        return;
    };
    if depth > DEPTH_MAX {
        errors.push(FieldError::forbidden(path, "is nested too deeply"));
        return;
    }
    check_type(map, path, level, errors);
    check_forbidden(map, path, errors);
    check_extensions(map, path, errors);
    check_lists(map, path, errors);
    if let Some(pattern) = map.get("pattern").and_then(Value::as_str)
        && validate::compiled(pattern).is_none()
    {
        errors.push(FieldError::invalid(
            format!("{path}.pattern"),
            pattern,
            "must be a valid regular expression",
        ));
    }
    if level == Level::Root || flag(map, "x-kubernetes-embedded-resource") {
        check_metadata(map, path, errors);
    }
    check_validations(schema, map, path, depth, errors);
    check_default(schema, map, path, level, errors);
    for (name, below) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        // What every object has is specified by the server.
        if !(level == Level::Root && OBJECT_FIELDS.contains(&name.as_str())) {
            check(below, &format!("{path}.properties[{name}]"), Level::Field, depth + 1, errors);
        }
    }
    if let Some(below) = map.get("additionalProperties").filter(|a| !a.is_boolean()) {
        check(below, &format!("{path}.additionalProperties"), Level::Field, depth + 1, errors);
    }
    if let Some(below) = map.get("items") {
        check(below, &format!("{path}.items"), Level::Item, depth + 1, errors);
    }
}

fn check_type(map: &Map<String, Value>, path: &str, level: Level, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.type");
    let kind = text(map, "type");
    let loose = flag(map, "x-kubernetes-int-or-string") || flag(map, "x-kubernetes-preserve-unknown-fields");
    match (level, kind) {
        (Level::Root, "") => errors.push(FieldError::required(at, "must not be empty at the root")),
        (Level::Root, "object") => {}
        (Level::Root, other) => errors.push(FieldError::invalid(at, other, "must be object at the root")),
        (_, "") if loose => {}
        (Level::Field, "") => {
            errors.push(FieldError::required(at, "must not be empty for specified object fields"));
        }
        (Level::Item, "") => {
            errors.push(FieldError::required(at, "must not be empty for specified array items"));
        }
        (_, kind) if TYPES.contains(&kind) => {}
        (_, other) => errors.push(FieldError::not_supported(at, other, TYPES)),
    }
    if kind == "array" && !map.contains_key("items") {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
}

fn check_forbidden(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let mut forbid = |name: &str, words: &str| {
        errors.push(FieldError::forbidden(format!("{path}.{name}"), words));
    };
    for name in UNSUPPORTED.iter().filter(|name| map.contains_key(**name)) {
        forbid(name, &format!("{name} is not supported"));
    }
    if flag(map, "uniqueItems") {
        forbid(
            "uniqueItems",
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    match map.get("additionalProperties") {
        Some(Value::Bool(false)) => {
            forbid("additionalProperties", "additionalProperties cannot be set to false");
        }
        Some(_) if map.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty()) => {
            forbid("additionalProperties", "additionalProperties and properties are mutual exclusive");
        }
        _ => {}
    }
}

fn check_extensions(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let kind = text(map, "type");
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if map.get(preserve) == Some(&Value::Bool(false)) {
        errors.push(FieldError::invalid(format!("{path}.{preserve}"), false, "must be true or undefined"));
    }
    if flag(map, "x-kubernetes-int-or-string") && !kind.is_empty() {
        let words = "must be empty if x-kubernetes-int-or-string is true";
        errors.push(FieldError::invalid(format!("{path}.type"), kind, words));
    }
    if flag(map, "x-kubernetes-embedded-resource") {
        if kind != "object" {
            let words = "must be object if x-kubernetes-embedded-resource is true";
            errors.push(FieldError::invalid(format!("{path}.type"), kind, words));
        }
        let properties = map.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty());
        if !properties && !flag(map, preserve) {
            errors.push(FieldError::required(
                format!("{path}.properties"),
                "must not be empty if x-kubernetes-embedded-resource is true without \
                 x-kubernetes-preserve-unknown-fields",
            ));
        }
    }
    let map_type = text(map, "x-kubernetes-map-type");
    let at = format!("{path}.x-kubernetes-map-type");
    if !map_type.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            kind,
            "must be object if x-kubernetes-map-type is specified",
        ));
    } else if !matches!(map_type, "" | "atomic" | "granular") {
        errors.push(FieldError::not_supported(at, map_type, &["atomic", "granular"]));
    }
}

fn check_lists(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let list_type = text(map, "x-kubernetes-list-type");
    let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
    let at = format!("{path}.x-kubernetes-list-map-keys");
    if list_type != "map" {
        if !keys.is_empty() {
            let type_at = format!("{path}.x-kubernetes-list-type");
            errors.push(FieldError::required(
                type_at,
                "must be map if x-kubernetes-list-map-keys is non-empty",
            ));
        }
    } else if keys.is_empty() {
        errors.push(FieldError::required(at.clone(), "must not be empty if x-kubernetes-list-type is map"));
    }
    if list_type.is_empty() {
        return;
    }
    let kind = text(map, "type");
    if kind != "array" {
        let words = "must be array if x-kubernetes-list-type is specified";
        errors.push(FieldError::invalid(format!("{path}.type"), kind, words));
    }
    if !matches!(list_type, "atomic" | "set" | "map") {
        let type_at = format!("{path}.x-kubernetes-list-type");
        errors.push(FieldError::not_supported(type_at, list_type, &["atomic", "map", "set"]));
    }
    if list_type == "map" {
        check_keys(map, &keys, path, errors);
    }
}

fn check_keys(map: &Map<String, Value>, keys: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    let items = map.get("items").unwrap_or(&Value::Null);
    if items["type"] != "object" {
        let words = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(format!("{path}.items.type"), items["type"].clone(), words));
    }
    for (at, key) in keys.iter().enumerate() {
        let key_at = format!("{path}.x-kubernetes-list-map-keys[{at}]");
        let property = items["properties"].get(key);
        let Some(property) = property else {
            errors.push(FieldError::invalid(key_at, *key, "entries must all be names of item properties"));
            continue;
        };
        if keys[..at].contains(key) {
            errors.push(FieldError::duplicate(key_at, *key));
        }
        if matches!(property["type"].as_str(), Some("array" | "object")) {
            errors.push(FieldError::invalid(
                format!("{path}.items.properties[{key}].type"),
                property["type"].clone(),
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            ));
        }
        let required = items["required"].as_array().is_some_and(|r| r.iter().any(|name| name == key));
        if !required && property.get("default").is_none() {
            errors.push(FieldError::required(
                format!("{path}.items.properties[{key}].default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                 property",
            ));
        }
    }
}

/// `metadata` is specified by the server, save for how names look.
fn check_metadata(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(metadata) = map.get("properties").and_then(|p| p.get("metadata")) else { return };
    let at = format!("{path}.properties[metadata]");
    if metadata["type"] != "object" {
        errors.push(FieldError::invalid(format!("{at}.type"), metadata["type"].clone(), "must be object"));
    }
    let plain = |name: &str| matches!(name, "description" | "type" | "properties");
    let others = metadata.as_object().is_some_and(|m| m.keys().any(|name| !plain(name)));
    let fields = metadata["properties"].as_object();
    let names = |fields: &Map<String, Value>| fields.keys().any(|n| n != "name" && n != "generateName");
    if others || fields.is_some_and(names) {
        let words = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(at, words));
    }
}

fn check_validations(
    schema: &Value,
    map: &Map<String, Value>,
    path: &str,
    depth: usize,
    errors: &mut Vec<FieldError>,
) {
    let int_or_string = flag(map, "x-kubernetes-int-or-string");
    for name in ["allOf", "anyOf", "oneOf"] {
        for (at, below) in map.get(name).and_then(Value::as_array).into_iter().flatten().enumerate() {
            if !(int_or_string && says_int_or_string(name, below)) {
                check_nested(below, schema, &format!("{path}.{name}[{at}]"), path, depth + 1, errors);
            }
        }
    }
    if let Some(below) = map.get("not") {
        check_nested(below, schema, &format!("{path}.not"), path, depth + 1, errors);
    }
}

/// The one place where types may stand below: `anyOf: [{type: integer}, {type: string}]`, alone or as a
/// part of `allOf`.
fn says_int_or_string(name: &str, schema: &Value) -> bool {
    match name {
        "anyOf" => *schema == json!({"type": "integer"}) || *schema == json!({"type": "string"}),
        "allOf" => *schema == json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        _ => false,
    }
}

/// A schema that only validates: it says nothing of structure, and speaks only of what is specified.
fn check_nested(
    nested: &Value,
    structure: &Value,
    path: &str,
    structure_path: &str,
    depth: usize,
    errors: &mut Vec<FieldError>,
) {
    let Some(map) = nested.as_object().filter(|_| depth <= DEPTH_MAX) else {
        errors.push(FieldError::forbidden(path, "must be a schema object"));
        return;
    };
    let preserves = structure["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true);
    for name in map.keys() {
        if STRUCTURE.contains(&name.as_str())
            || name.starts_with("x-kubernetes-") && name != "x-kubernetes-validations"
        {
            errors.push(FieldError::forbidden(format!("{path}.{name}"), "must be empty to be structural"));
        }
    }
    for (name, below) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{path}.properties[{name}]");
        let known_at = format!("{structure_path}.properties[{name}]");
        match structure["properties"].get(name).or_else(|| structure.get("additionalProperties")) {
            Some(known) => check_nested(below, known, &at, &known_at, depth + 1, errors),
            None if preserves => {}
            None => errors.push(FieldError::required(known_at, format!("because it is defined in {at}"))),
        }
    }
    if let Some(below) = map.get("items") {
        let (at, known_at) = (format!("{path}.items"), format!("{structure_path}.items"));
        match structure.get("items") {
            Some(known) => check_nested(below, known, &at, &known_at, depth + 1, errors),
            None if preserves => {}
            None => errors.push(FieldError::required(known_at, format!("because it is defined in {at}"))),
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (at, below) in map.get(name).and_then(Value::as_array).into_iter().flatten().enumerate() {
            check_nested(
                below,
                structure,
                &format!("{path}.{name}[{at}]"),
                structure_path,
                depth + 1,
                errors,
            );
        }
    }
    if let Some(below) = map.get("not") {
        check_nested(below, structure, &format!("{path}.not"), structure_path, depth + 1, errors);
    }
}

/// A default must itself be valid, after the defaults within it.
fn check_default(
    schema: &Value,
    map: &Map<String, Value>,
    path: &str,
    level: Level,
    errors: &mut Vec<FieldError>,
) {
    let Some(default) = map.get("default") else { return };
    let at = format!("{path}.default");
    if level == Level::Root {
        errors.push(FieldError::forbidden(at, "must not be set at the root"));
        return;
    }
    if default.is_null() && !flag(map, "nullable") {
        errors.push(FieldError::invalid(
            at,
            default.clone(),
            "must not be null where the field is not nullable",
        ));
        return;
    }
    // Read within an object, because the root of a schema is always one.
    let holder = json!({"type": "object", "properties": {"default": schema}});
    let Ok(holder) = Schema::from_openapi(&holder) else { return };
    let mut object = json!({"default": default});
    apply_defaults(&mut object, &holder);
    let mut found = Vec::new();
    validate::node(&object, Node::Schema(&holder), "", &mut found);
    for error in found {
        errors.push(FieldError { field: format!("{path}.{}", error.field), ..error });
    }
}
