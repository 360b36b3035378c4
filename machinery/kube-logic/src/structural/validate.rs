//! Values against a schema, in the words of kube-openapi's validation.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock, PoisonError};

use gantry_kube_types::{FieldError, FieldErrorKind};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::{formats, join};
use crate::schema::{Field, Schema};

/// Compiled patterns kept; more than these and the keeping begins anew.
const PATTERNS_MAX: usize = 1024;

/// A schema that was read, or one within `allOf`, `anyOf`, `oneOf` or `not`, which only validate.
#[derive(Clone, Copy)]
pub(super) enum Node<'s> {
    Schema(&'s Schema),
    Raw(&'s Value),
}

impl<'s> Node<'s> {
    /// `None`: nothing to check below here (built-in parts are checked elsewhere).
    fn rules(self) -> Option<&'s Map<String, Value>> {
        match self {
            Self::Schema(schema) => schema.rules.as_deref(),
            Self::Raw(raw) => raw.as_object(),
        }
    }

    fn field(self, name: &str) -> Option<Node<'s>> {
        match self {
            Self::Schema(schema) => match schema.field(name) {
                Field::Known(schema) => Some(Self::Schema(schema)),
                Field::Free | Field::Unknown => None,
            },
            Self::Raw(raw) => {
                let named = raw.get("properties").and_then(|p| p.get(name));
                named.or_else(|| raw.get("additionalProperties").filter(|a| a.is_object())).map(Self::Raw)
            }
        }
    }

    fn items(self) -> Option<Node<'s>> {
        match self {
            Self::Schema(schema) => schema.items().map(Self::Schema),
            Self::Raw(raw) => raw.get("items").map(Self::Raw),
        }
    }
}

pub(super) fn node(value: &Value, schema: Node<'_>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(rules) = schema.rules() else { return };
    if value.is_null() && flag(rules, "nullable") {
        return;
    }
    if !check_type(value, rules, path, errors) {
        return;
    }
    check_enum(value, rules, path, errors);
    match value {
        Value::String(text) => check_string(text, rules, path, errors),
        Value::Number(_) => check_number(value, rules, path, errors),
        Value::Array(items) => check_array(items, schema, rules, path, errors),
        Value::Object(map) => check_object(map, schema, rules, path, errors),
        _ => {}
    }
    check_combinations(value, rules, path, errors);
}

fn flag(rules: &Map<String, Value>, name: &str) -> bool {
    rules.get(name) == Some(&Value::Bool(true))
}

fn invalid(path: &str, value: &Value, words: &str) -> FieldError {
    FieldError::invalid(path, value.clone(), format!("{path} in body {words}"))
}

fn type_error(path: &str, found: &str, wanted: &str) -> FieldError {
    let detail = format!("{path} in body must be of type {wanted}: {}", Value::from(found));
    FieldError::new(FieldErrorKind::TypeInvalid, path, Value::from(found), detail)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn check_type(value: &Value, rules: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let found = type_name(value);
    let int_or_string = flag(rules, "x-kubernetes-int-or-string");
    let wanted = rules.get("type").and_then(Value::as_str).unwrap_or_default();
    let fits = match wanted {
        _ if int_or_string => matches!(found, "integer" | "string"),
        "" => true,
        "number" => matches!(found, "integer" | "number"),
        wanted => wanted == found,
    };
    if !fits {
        errors.push(type_error(path, found, if int_or_string { "integer,string" } else { wanted }));
    }
    fits
}

fn check_enum(value: &Value, rules: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(allowed) = rules.get("enum").and_then(Value::as_array) else { return };
    if !allowed.contains(value) {
        let words = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let allowed: Vec<String> = allowed.iter().map(words).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, value.clone(), &allowed));
    }
}

fn check_string(text: &str, rules: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let value = Value::from(text);
    let limit = |name: &str| rules.get(name).and_then(Value::as_u64);
    let length = text.chars().count() as u64;
    if let Some(max) = limit("maxLength").filter(|max| length > *max) {
        let detail = format!("may not be more than {max} bytes");
        errors.push(FieldError::new(FieldErrorKind::TooLong, path, None, detail));
    }
    if let Some(min) = limit("minLength").filter(|min| length < *min) {
        errors.push(invalid(path, &value, &format!("should be at least {min} chars long")));
    }
    if let Some(pattern) = rules.get("pattern").and_then(Value::as_str)
        && compiled(pattern).is_none_or(|pattern| !pattern.is_match(text))
    {
        errors.push(invalid(path, &value, &format!("should match '{pattern}'")));
    }
    if let Some(format) = rules.get("format").and_then(Value::as_str)
        && !formats::matches(format, text)
    {
        let detail = format!("{path} in body must be of type {format}: {value}");
        errors.push(FieldError::new(FieldErrorKind::TypeInvalid, path, value, detail));
    }
}

/// A pattern, compiled once; `None` where it is not one.
pub(super) fn compiled(pattern: &str) -> Option<Regex> {
    static PATTERNS: OnceLock<Mutex<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let mut known = PATTERNS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(pattern) {
        return found.clone();
    }
    if known.len() >= PATTERNS_MAX {
        known.clear();
    }
    let made = Regex::new(pattern).ok();
    known.insert(pattern.to_owned(), made.clone());
    made
}

fn check_number(value: &Value, rules: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_f64() else { return };
    let limit = |name: &str| rules.get(name).and_then(|v| Some((v, v.as_f64()?)));
    if let Some((min, low)) = limit("minimum") {
        let exclusive = flag(rules, "exclusiveMinimum");
        if number < low || (exclusive && number <= low) {
            let or = if exclusive { "" } else { " or equal to" };
            errors.push(invalid(path, value, &format!("should be greater than{or} {min}")));
        }
    }
    if let Some((max, high)) = limit("maximum") {
        let exclusive = flag(rules, "exclusiveMaximum");
        if number > high || (exclusive && number >= high) {
            let or = if exclusive { "" } else { " or equal to" };
            errors.push(invalid(path, value, &format!("should be less than{or} {max}")));
        }
    }
    if let Some((of, step)) = limit("multipleOf").filter(|(_, step)| *step > 0.0) {
        let times = number / step;
        if (times - times.round()).abs() > 1e-9 {
            errors.push(invalid(path, value, &format!("should be a multiple of {of}")));
        }
    }
    let fits = match rules.get("format").and_then(Value::as_str) {
        Some("int32") => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        Some("int64") => value.is_i64() || !value.is_u64(),
        _ => true,
    };
    if !fits && is_whole(value) {
        let format = rules.get("format").and_then(Value::as_str).unwrap_or_default();
        errors.push(invalid(path, value, &format!("must be of type {format}: {value}")));
    }
}

fn check_array(
    items: &[Value],
    schema: Node<'_>,
    rules: &Map<String, Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let limit = |name: &str| rules.get(name).and_then(Value::as_u64);
    let count = items.len() as u64;
    if let Some(max) = limit("maxItems").filter(|max| count > *max) {
        errors.push(too_many(path, count, max));
    }
    if let Some(min) = limit("minItems").filter(|min| count < *min) {
        errors.push(invalid(path, &json!(count), &format!("should have at least {min} items")));
    }
    if let Some(below) = schema.items() {
        for (at, item) in items.iter().enumerate() {
            node(item, below, &format!("{path}[{at}]"), errors);
        }
    }
    check_unique(items, rules, path, errors);
}

fn too_many(path: &str, count: u64, max: u64) -> FieldError {
    let s = if max == 1 { "" } else { "s" };
    FieldError::new(FieldErrorKind::TooMany, path, json!(count), format!("must have at most {max} item{s}"))
}

fn check_unique(items: &[Value], rules: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let identity: Box<dyn Fn(&Value) -> Value> =
        match rules.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Box::new(Value::clone),
            Some("map") => {
                let keys = rules.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let keys: Vec<String> =
                    keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
                Box::new(move |item| {
                    keys.iter()
                        .filter_map(|k| Some((k.clone(), item.get(k)?.clone())))
                        .collect::<Map<_, _>>()
                        .into()
                })
            }
            _ if flag(rules, "uniqueItems") => Box::new(Value::clone),
            _ => return,
        };
    let mut seen = HashSet::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let identity = identity(item);
        // Objects of the same fields in another order are the same: sorted, they are the same text.
        if !seen.insert(sorted(&identity).to_string()) {
            errors.push(FieldError::duplicate(format!("{path}[{at}]"), identity));
        }
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            fields
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        scalar => scalar.clone(),
    }
}

fn check_object(
    map: &Map<String, Value>,
    schema: Node<'_>,
    rules: &Map<String, Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    for name in
        rules.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        if !map.contains_key(name) {
            errors.push(FieldError::required(join(path, name), ""));
        }
    }
    let limit = |name: &str| rules.get(name).and_then(Value::as_u64);
    let count = map.len() as u64;
    if let Some(max) = limit("maxProperties").filter(|max| count > *max) {
        errors.push(too_many(path, count, max));
    }
    if let Some(min) = limit("minProperties").filter(|min| count < *min) {
        errors.push(invalid(path, &json!(count), &format!("should have at least {min} properties")));
    }
    if flag(rules, "x-kubernetes-embedded-resource") {
        for name in ["apiVersion", "kind"] {
            if map.get(name).and_then(Value::as_str).unwrap_or_default().is_empty() {
                errors.push(FieldError::required(join(path, name), "must not be empty"));
            }
        }
    }
    for (name, value) in map {
        if let Some(below) = schema.field(name) {
            node(value, below, &join(path, name), errors);
        }
    }
}

fn check_combinations(value: &Value, rules: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let list = |name: &str| rules.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let valid = |schema: &Value| {
        let mut found = Vec::new();
        node(value, Node::Raw(schema), path, &mut found);
        found.is_empty()
    };
    let mut refuse = |words: String| {
        errors.push(FieldError::invalid(path, "", format!("\"{path}\" must {words}")));
    };
    let any_of = list("anyOf");
    if !any_of.is_empty() && !any_of.iter().any(valid) {
        refuse("validate at least one schema (anyOf)".to_owned());
    }
    let one_of = list("oneOf");
    let count = one_of.iter().filter(|schema| valid(schema)).count();
    if !one_of.is_empty() && count != 1 {
        let found = if count == 0 { "none valid".to_owned() } else { format!("{count} valid alternatives") };
        refuse(format!("validate one and only one schema (oneOf). Found {found}"));
    }
    if rules.get("not").is_some_and(valid) {
        refuse("not validate the schema (not)".to_owned());
    }
    let all_of = list("allOf");
    if !all_of.iter().all(valid) {
        refuse("validate all the schemas (allOf)".to_owned());
        // What is wrong with each says more than that.
        all_of.iter().for_each(|schema| node(value, Node::Raw(schema), path, errors));
    }
}
