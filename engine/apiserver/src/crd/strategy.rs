//! What a custom resource's definition says of its objects.

use gantry_kube_logic::jsonpath::JsonPath;
use gantry_kube_logic::schema::SchemaRef;
use gantry_kube_logic::structural;
use gantry_kube_types::FieldError;
use serde_json::Value;

use crate::kind::{Column, ScalePaths, Strategy};
use crate::table;

pub(super) struct Custom {
    schema: SchemaRef,
    /// Empty: only `Age`.
    columns: Vec<(Column, JsonPath)>,
    scale: Option<ScalePaths>,
}

impl Custom {
    pub(super) fn new(version: &Value, schema: SchemaRef) -> Self {
        let scale = &version["subresources"]["scale"];
        let path = |name: &str| scale[name].as_str().map(str::to_owned);
        let scale =
            path("specReplicasPath").zip(path("statusReplicasPath")).map(|(spec, status)| ScalePaths {
                spec_replicas: spec,
                status_replicas: status,
                label_selector: path("labelSelectorPath"),
            });
        let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
        Self { schema, columns: columns.filter_map(column).collect(), scale }
    }
}

/// A column whose path does not parse is left out: it was refused when the definition came.
fn column(column: &Value) -> Option<(Column, JsonPath)> {
    let path = JsonPath::parse(column["jsonPath"].as_str()?).ok()?;
    let kind = match column["type"].as_str()? {
        "integer" => "integer",
        "number" => "number",
        "boolean" => "boolean",
        "date" => "date",
        _ => "string",
    };
    let described = column["description"].as_str().unwrap_or("");
    let priority = column["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0);
    let name = column["name"].as_str()?;
    Some((Column { priority, ..Column::new(name, kind, described) }, path))
}

fn cell(kind: &str, found: &[&Value], now: jiff::Timestamp) -> Value {
    let Some(first) = found.first().filter(|v| !v.is_null()) else { return Value::Null };
    match kind {
        "date" => table::age(first, now).into(),
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" if first.is_number() => (*first).clone(),
        "number" => Value::Null,
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        _ => match first {
            Value::String(text) => text.as_str().into(),
            other => other.to_string().into(),
        },
    }
}

impl Strategy for Custom {
    fn default(&self, object: &mut Value) {
        structural::prune(object, &self.schema);
        structural::apply_defaults(object, &self.schema);
    }

    /// Definitions change under stored objects: what is read is pruned and defaulted anew.
    fn from_storage(&self, object: &mut Value) {
        self.default(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        structural::validate(object, &self.schema)
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        structural::validate(new, &self.schema)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        structural::validate(new, &self.schema)
    }

    fn columns(&self) -> Vec<Column> {
        if self.columns.is_empty() {
            return vec![Column::new("Age", "date", crate::kind::AGE)];
        }
        self.columns.iter().map(|(column, _)| column.clone()).collect()
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        if self.columns.is_empty() {
            return vec![table::age(&object["metadata"]["creationTimestamp"], now).into()];
        }
        self.columns.iter().map(|(column, path)| cell(column.kind, &path.find(object), now)).collect()
    }

    fn scale(&self) -> Option<ScalePaths> {
        self.scale.clone()
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }
}
