//! Small readers over object metadata.
use serde_json::{Map, Value};
pub fn name(object: &Value) -> &str {
    text(object, "name")
}
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}
fn text<'v>(object: &'v Value, field: &str) -> &'v str {
    object["metadata"][field].as_str().unwrap_or("")
}
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object["metadata"]["labels"].as_object()
}
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object["metadata"]["annotations"].as_object()
}
pub fn label<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    labels(object)?.get(key)?.as_str()
}
pub fn annotation<'v>(object: &'v Value, key: &str) -> Option<&'v str> {
    annotations(object)?.get(key)?.as_str()
}
pub fn owner_references(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map_or(&[], Vec::as_slice)
}
/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|o| o["controller"] == Value::Bool(true))
}
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    object["metadata"]["deletionTimestamp"].as_str()
}
pub fn is_being_deleted(object: &Value) -> bool {
    deletion_timestamp(object).is_some()
}
/// `metadata` for writing; what is not an object is replaced by one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    let metadata = object_mut(object).entry("metadata").or_insert(Value::Null);
    object_mut(metadata)
}

fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("set to an object above"),
    }
}

/// Scales an IntOrString (`5` or `"25%"`) by `total`.
pub fn scaled_int_or_percent(value: &Value, total: i64, round_up: bool) -> Result<i64, String> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let text = value.as_str().unwrap_or("");
    let percent = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok());
    let percent = percent.ok_or("invalid value for IntOrString: invalid type: string is not a percentage")?;
    let product = percent.saturating_mul(total);
    Ok(if round_up { product.saturating_add(99).div_euclid(100) } else { product.div_euclid(100) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        for (value, up, want) in [("25%", true, 3), ("25%", false, 2), ("0%", true, 0)] {
            assert_eq!(scaled_int_or_percent(&Value::from(value), 10, up), Ok(want));
        }
        assert_eq!(scaled_int_or_percent(&Value::from(4), 10, true), Ok(4));
        assert!(scaled_int_or_percent(&Value::from("4"), 10, true).is_err());
    }
}
