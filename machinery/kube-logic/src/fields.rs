//! Reading objects as strictly as a Kubernetes API server reads them.

use std::collections::HashSet;
use std::fmt;

use gantry_kube_types::StatusError;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::quantity::Quantity;
use crate::schema::{Field, Schema, Type};

/// A JSON document and what a strict reader minds in it.
#[derive(Debug)]
pub struct Parsed {
    pub value: Value,
    /// `duplicate field "spec.x"`; the last one wins.
    pub strict: Vec<String>,
}

/// Parses JSON, or fails with 400.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, StatusError> {
    let mut strict = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let node = Node { path: String::new(), strict: &mut strict };
    let value = node.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    let value = value.map_err(|e| StatusError::bad_request(format!("error decoding JSON: {e}")))?;
    Ok(Parsed { value, strict })
}

struct Node<'s> {
    path: String,
    strict: &'s mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Node {
            path: format!("{}[{}]", self.path, items.len()),
            strict: self.strict,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut told = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = join(&self.path, &key);
            if map.contains_key(&key) && told.insert(key.clone()) {
                self.strict.push(format!("duplicate field \"{path}\""));
            }
            let value = entries.next_value_seed(Node { path, strict: self.strict })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Checks types, drops what the schema does not know (and nulls), brings quantities to canonical
/// form, and returns the strict errors (`unknown field "spec.foo"`). Wrong types are a 400.
pub fn decode(object: &mut Value, schema: &Schema) -> Result<Vec<String>, StatusError> {
    let mut strict = Vec::new();
    decode_node(object, schema, "", &mut strict)
        .map_err(|why| StatusError::bad_request(format!("json: cannot unmarshal {why}")))?;
    Ok(strict)
}

fn decode_node(
    value: &mut Value,
    schema: &Schema,
    path: &str,
    strict: &mut Vec<String>,
) -> Result<(), String> {
    let node = schema.target();
    match (node.kind, &mut *value) {
        (_, Value::Null)
        | (Type::Any, _)
        | (Type::String, Value::String(_))
        | (Type::Boolean, Value::Bool(_)) => {}
        (Type::Number | Type::IntOrString, Value::Number(_)) | (Type::IntOrString, Value::String(_)) => {}
        (Type::Integer, Value::Number(n)) if is_integer(n, node.format.as_deref()) => {}
        (Type::Quantity, Value::String(_) | Value::Number(_)) => {
            let quantity =
                Quantity::from_json(value).map_err(|e| format!("{value} into field {path}: {e}"))?;
            *value = Value::String(quantity.to_string());
        }
        (Type::Array, Value::Array(items)) => {
            if let Some(schema) = node.items() {
                for (at, item) in items.iter_mut().enumerate() {
                    decode_node(item, schema, &format!("{path}[{at}]"), strict)?;
                }
            }
        }
        (Type::Object, Value::Object(map)) => decode_object(map, node, path, strict)?,
        (want, got) => return Err(format!("{} into field {path} of type {}", words(got), type_words(want))),
    }
    Ok(())
}

fn decode_object(
    map: &mut Map<String, Value>,
    node: &Schema,
    path: &str,
    strict: &mut Vec<String>,
) -> Result<(), String> {
    let mut unknown = Vec::new();
    for (name, value) in map.iter_mut() {
        match node.field(name) {
            Field::Known(schema) => decode_node(value, schema, &join(path, name), strict)?,
            Field::Free => {}
            Field::Unknown => unknown.push(name.clone()),
        }
    }
    for name in &unknown {
        strict.push(format!("unknown field \"{}\"", join(path, name)));
    }
    map.retain(|name, value| {
        !unknown.contains(name)
            && (!value.is_null() || !matches!(node.field(name), Field::Known(s) if !s.nullable))
    });
    Ok(())
}

fn is_integer(number: &serde_json::Number, format: Option<&str>) -> bool {
    let Some(number) = number.as_i64() else { return number.is_u64() && format.is_none() };
    format != Some("int32") || i32::try_from(number).is_ok()
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) => format!("number {n}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn type_words(kind: Type) -> &'static str {
    match kind {
        Type::Any => "any",
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "bool",
        Type::IntOrString => "intstr.IntOrString",
        Type::Quantity => "resource.Quantity",
    }
}

/// The 400 of `fieldValidation=Strict`.
pub fn strict_error(kind: &str, version: &str, errors: &[String]) -> StatusError {
    let all = errors.join(", ");
    StatusError::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {all}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube_types::GroupVersionKind;
    use serde_json::json;

    #[test]
    fn pods_are_read_strictly() {
        let schema =
            crate::schema::catalog().for_kind(&GroupVersionKind::new("", "v1", "Pod")).expect("built in");
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"foo": 1, "nodeName": null, "containers": [{"name": "c", "bar": {}, "resources": {"limits": {"cpu": 0.5}}}]}});
        let strict = decode(&mut pod, &schema).expect("types are right");
        assert_eq!(strict, ["unknown field \"spec.containers[0].bar\"", "unknown field \"spec.foo\""]);
        assert_eq!(
            pod["spec"],
            json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m"}}}]})
        );
        let error = decode(&mut json!({"spec": {"containers": "x"}}), &schema).expect_err("wrong type");
        assert_eq!((error.code, error.message.contains("spec.containers")), (400, true));
    }

    #[test]
    fn duplicates_are_told_once() {
        let parsed = parse_json(br#"{"a":{"b":1,"b":2,"b":3}}"#).expect("JSON");
        assert_eq!(parsed.strict, ["duplicate field \"a.b\""]);
        assert_eq!(parsed.value, json!({"a": {"b": 3}}));
        assert!(parse_json(b"{} x").is_err());
    }
}
