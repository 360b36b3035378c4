//! Custom resources against their structural schema: pruning, defaulting and validation, and the check of
//! the schema itself.

mod check;
mod formats;
#[cfg(test)]
mod tests;
mod validate;

use gantry_kube_types::FieldError;
use serde_json::Value;

use crate::schema::{Field, Schema};

pub use check::check_structural;

/// Fields that an embedded object has whatever its schema says.
const OBJECT_FIELDS: &[&str] = &["apiVersion", "kind", "metadata"];

/// Drops what the schema does not specify; returns the dropped paths.
pub fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut dropped = Vec::new();
    prune_node(object, schema, "", &mut dropped);
    dropped
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn prune_node(value: &mut Value, schema: &Schema, path: &str, dropped: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            match schema.field(name) {
                Field::Known(schema) => prune_node(value, schema, &join(path, name), dropped),
                Field::Free => {}
                Field::Unknown if schema.embedded_resource && OBJECT_FIELDS.contains(&name.as_str()) => {}
                Field::Unknown => {
                    dropped.push(join(path, name));
                    return false;
                }
            }
            true
        }),
        Value::Array(items) => {
            let Some(schema) = schema.items() else { return };
            for (at, item) in items.iter_mut().enumerate() {
                prune_node(item, schema, &format!("{path}[{at}]"), dropped);
            }
        }
        _ => {}
    }
}

/// Fills in defaults: where a field is absent, or null and not nullable. A null that is not allowed and
/// has no default is dropped.
pub fn apply_defaults(object: &mut Value, schema: &Schema) {
    match object {
        Value::Object(map) => {
            for (name, field) in schema.properties() {
                let null = map.get(name).is_some_and(|v| v.is_null() && !field.nullable);
                match &field.default {
                    Some(default) if null || !map.contains_key(name) => {
                        map.insert(name.to_owned(), default.clone());
                    }
                    None if null => {
                        map.shift_remove(name);
                    }
                    _ => {}
                }
            }
            if let Some(additional) = schema.additional() {
                let own = |name: &str| schema.properties().any(|(n, _)| n == name);
                let null = |name: &str, v: &Value| v.is_null() && !additional.nullable && !own(name);
                match &additional.default {
                    Some(default) => {
                        map.iter_mut().filter(|(n, v)| null(n, v)).for_each(|(_, v)| *v = default.clone());
                    }
                    None => map.retain(|n, v| !null(n, v)),
                }
            }
            for (name, value) in map.iter_mut() {
                if let Field::Known(schema) = schema.field(name) {
                    apply_defaults(value, schema);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items() else { return };
            for item in items {
                if item.is_null()
                    && !schema.nullable
                    && let Some(default) = &schema.default
                {
                    *item = default.clone();
                }
                apply_defaults(item, schema);
            }
        }
        _ => {}
    }
}

/// Validates; empty when valid. `metadata` is checked as that of every object, not here.
pub fn validate(object: &Value, schema: &Schema) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate::node(object, validate::Node::Schema(schema), "", &mut errors);
    errors
}
