//! JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch.

use gantry_kube_types::StatusError;
use serde_json::{Map, Value};

use crate::schema::{Field, Merge, Schema};

/// Operations one JSON patch may hold, as upstream.
const OPERATIONS_MAX: usize = 10_000;

/// Applies an RFC 6902 document. Unreadable: 400; not applicable: 422.
pub fn json_patch(target: &Value, patch: &[u8]) -> Result<Value, StatusError> {
    let patch: json_patch::Patch = serde_json::from_slice(patch)
        .map_err(|e| StatusError::bad_request(format!("error decoding patch: {e}")))?;
    if patch.0.len() > OPERATIONS_MAX {
        return Err(StatusError::too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.0.len()
        )));
    }
    let mut result = target.clone();
    json_patch::patch(&mut result, &patch).map_err(|e| {
        StatusError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {e}"),
        )
    })?;
    Ok(result)
}

/// Applies an RFC 7386 document; it must be an object.
pub fn merge_patch(target: &Value, patch: &Value) -> Result<Value, StatusError> {
    if !patch.is_object() {
        return Err(StatusError::bad_request("error decoding patch: a merge patch must be a JSON object"));
    }
    let mut result = target.clone();
    json_patch::merge(&mut result, patch);
    Ok(result)
}

/// Applies a strategic merge patch.
pub fn strategic_merge(target: &Value, patch: &Value, schema: &Schema) -> Result<Value, StatusError> {
    let Some(patch) = patch.as_object() else {
        return Err(StatusError::bad_request(
            "error decoding patch: a strategic merge patch must be a JSON object",
        ));
    };
    let mut result = target.clone();
    merge_object(&mut result, patch, Some(schema), false).map_err(StatusError::bad_request)?;
    Ok(result)
}

const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

fn child<'s>(schema: Option<&'s Schema>, name: &str) -> Option<&'s Schema> {
    match schema?.field(name) {
        Field::Known(schema) => Some(schema),
        _ => None,
    }
}

fn merge_object(
    target: &mut Value,
    patch: &Map<String, Value>,
    schema: Option<&Schema>,
    retain: bool,
) -> Result<(), String> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(without_directives(patch));
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        None | Some("merge") => {}
        Some(other) => return Err(format!("unknown patch type '{other}' found in map")),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    if let Some(keys) = patch.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|name, _| keys.iter().any(|k| k == name));
    } else if retain {
        map.retain(|name, _| patch.contains_key(name));
    }
    for (name, value) in patch.iter().filter(|(n, _)| !n.starts_with('$')) {
        merge_field(map, name, value, child(schema, name))?;
    }
    for (name, value) in patch {
        if let (Some(field), Some(gone)) = (name.strip_prefix(DELETE), value.as_array())
            && let Some(list) = map.get_mut(field).and_then(Value::as_array_mut)
        {
            list.retain(|item| !gone.contains(item));
        }
        if let (Some(field), Some(order)) = (name.strip_prefix(ORDER), value.as_array()) {
            let schema = child(schema, field);
            if let Some(list) = map.get_mut(field).and_then(Value::as_array_mut) {
                reorder(list, order, merge_key(schema));
            }
        }
    }
    Ok(())
}

fn merge_field(
    map: &mut Map<String, Value>,
    name: &str,
    patch: &Value,
    schema: Option<&Schema>,
) -> Result<(), String> {
    match patch {
        Value::Null => {
            map.shift_remove(name);
        }
        Value::Object(patch) if patch.get("$patch").and_then(Value::as_str) == Some("delete") => {
            map.shift_remove(name);
        }
        Value::Object(patch) => {
            merge_object(map.entry(name).or_insert(Value::Null), patch, schema, false)?;
        }
        Value::Array(patch) => {
            let live = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if !live.is_array() {
                *live = Value::Array(Vec::new());
            }
            if let Value::Array(live) = live {
                merge_list(live, patch, schema)?;
            }
        }
        scalar => {
            map.insert(name.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_key(schema: Option<&Schema>) -> Option<&'static str> {
    match schema?.merge() {
        Merge::Keyed(keys) => keys.first().copied(),
        _ => None,
    }
}

fn merge_list(live: &mut Vec<Value>, patch: &[Value], schema: Option<&Schema>) -> Result<(), String> {
    let replace = patch.iter().any(|p| p["$patch"] == "replace");
    let plain = || patch.iter().filter(|p| p.get("$patch").is_none()).map(strip);
    let merge = schema.map_or(Merge::Atomic, Schema::merge);
    if replace {
        *live = plain().collect();
        return Ok(());
    }
    let Some(key) = merge_key(schema) else {
        if merge == Merge::Set {
            let fresh: Vec<Value> = patch.iter().filter(|p| !live.contains(p)).cloned().collect();
            live.extend(fresh);
        } else {
            *live = plain().collect();
        }
        return Ok(());
    };
    for item in patch {
        let Some(fields) = item.as_object() else {
            return Err(format!("invalid type for list element: {item} is not a map"));
        };
        let Some(id) = fields.get(key) else {
            return Err(format!("map: {item} does not contain declared merge key: {key}"));
        };
        if item["$patch"] == "delete" {
            live.retain(|l| &l[key] != id);
            continue;
        }
        let retain = schema.is_some_and(|s| s.retain_keys) && item.get("$retainKeys").is_some();
        match live.iter_mut().find(|l| &l[key] == id) {
            Some(found) => merge_object(found, fields, schema.and_then(Schema::items), retain)?,
            None => {
                let mut fresh = Value::Object(Map::new());
                merge_object(&mut fresh, fields, schema.and_then(Schema::items), false)?;
                live.push(fresh);
            }
        }
    }
    Ok(())
}

/// Puts what `order` names into its order; the rest keeps its place relative to what stood before it.
fn reorder(list: &mut [Value], order: &[Value], key: Option<&str>) {
    let id = |v: &Value| key.map_or_else(|| v.clone(), |k| v[k].clone());
    let order: Vec<Value> = order.iter().map(id).collect();
    let rank = |v: &Value| order.iter().position(|o| *o == id(v));
    let mut named: Vec<Value> = list.iter().filter(|v| rank(v).is_some()).cloned().collect();
    named.sort_by_key(|v| rank(v));
    let mut named = named.into_iter();
    for slot in list.iter_mut() {
        if rank(slot).is_some()
            && let Some(next) = named.next()
        {
            *slot = next;
        }
    }
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = map.iter().filter(|(n, v)| !n.starts_with('$') && !v.is_null());
    kept.map(|(n, v)| (n.clone(), strip(v))).collect()
}

fn strip(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => Value::Array(items.iter().map(strip).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube_types::GroupVersionKind;
    use serde_json::json;

    fn smp(target: Value, patch: Value) -> Value {
        let schema =
            crate::schema::catalog().for_kind(&GroupVersionKind::new("", "v1", "Pod")).expect("built in");
        strategic_merge(&target, &patch, &schema).expect("applies")
    }

    #[test]
    fn strategic_merges_follow_upstream() {
        let live =
            json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b"}]}});
        for (patch, want) in [
            (
                json!([{"name": "a", "image": "y"}]),
                json!([{"name": "a", "image": "y", "args": ["1"]}, {"name": "b"}]),
            ),
            (
                json!([{"name": "a", "args": ["2"]}]),
                json!([{"name": "a", "image": "x", "args": ["2"]}, {"name": "b"}]),
            ),
            (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b"}])),
            (json!([{"name": "c"}, {"$patch": "replace"}]), json!([{"name": "c"}])),
        ] {
            let got = smp(live.clone(), json!({"spec": {"containers": patch}}));
            assert_eq!(got["spec"]["containers"], want);
        }
        let got = smp(live, json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}));
        assert_eq!(got["spec"]["containers"][0]["name"], "b");
        let got = smp(
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
        );
        assert_eq!(got["metadata"]["finalizers"], json!(["b", "c"]));
    }

    #[test]
    fn json_patches_fail_as_upstream() {
        assert_eq!(json_patch(&json!({}), b"{").expect_err("bad").code, 400);
        let missing = br#"[{"op":"remove","path":"/a"}]"#;
        assert_eq!(json_patch(&json!({}), missing).expect_err("missing").code, 422);
        assert_eq!(merge_patch(&json!({"a": 1}), &json!({"a": null})), Ok(json!({})));
    }
}
