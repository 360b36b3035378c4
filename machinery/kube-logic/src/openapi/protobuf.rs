//! The v2 document in the protobuf form that older clients ask for
//! (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`). Field numbers are those of gnostic's
//! `openapiv2/OpenAPIv2.proto`.

use serde_json::{Map, Value};

/// The v2 document as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`. Responses are left
/// out: no client reads them from this form.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (name, item) in entries(&document["paths"]) {
            paths.message(2, |named| {
                named.string(1, name);
                named.message(2, |out| path_item(out, item));
            });
        }
    });
    out.message(9, |definitions| named_schemas(definitions, &document["definitions"]));
    extensions(&mut out, 16, document);
    out.0
}

/// One message being written: fields in the order they are put.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A string, if it is one.
    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.string(field, text);
        }
    }

    fn texts(&mut self, field: u64, values: &Value) {
        values.as_array().into_iter().flatten().for_each(|value| self.text(field, value));
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    /// A double, if it is a number.
    fn number(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_f64() {
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// An int64, if it is a whole number.
    fn integer(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_i64() {
            self.varint(field << 3);
            self.varint(number.cast_unsigned());
        }
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// `x-…` fields as NamedAny, whose text is YAML (JSON is YAML).
fn extensions(out: &mut Message, field: u64, value: &Value) {
    for (name, value) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
        out.message(field, |named| {
            named.string(1, name);
            named.message(2, |any| any.string(2, &value.to_string()));
        });
    }
}

fn any(out: &mut Message, field: u64, value: &Value) {
    out.message(field, |any| any.string(2, &value.to_string()));
}

fn named_schemas(out: &mut Message, schemas: &Value) {
    for (name, value) in entries(schemas) {
        out.message(1, |named| {
            named.string(1, name);
            named.message(2, |out| schema(out, value));
        });
    }
}

fn schema(out: &mut Message, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(4, &value["description"]);
    if let Some(default) = value.get("default") {
        any(out, 5, default);
    }
    out.number(7, &value["maximum"]);
    out.flag(8, &value["exclusiveMaximum"]);
    out.number(9, &value["minimum"]);
    out.flag(10, &value["exclusiveMinimum"]);
    out.integer(11, &value["maxLength"]);
    out.integer(12, &value["minLength"]);
    out.text(13, &value["pattern"]);
    out.integer(14, &value["maxItems"]);
    out.integer(15, &value["minItems"]);
    out.flag(16, &value["uniqueItems"]);
    out.texts(19, &value["required"]);
    value["enum"].as_array().into_iter().flatten().for_each(|v| any(out, 20, v));
    match &value["additionalProperties"] {
        of @ Value::Object(_) => out.message(21, |item| item.message(1, |out| schema(out, of))),
        of @ Value::Bool(true) => out.message(21, |item| item.flag(2, of)),
        _ => {}
    }
    if value["type"].is_string() {
        out.message(22, |item| item.text(1, &value["type"]));
    }
    if value["items"].is_object() {
        out.message(23, |item| item.message(1, |out| schema(out, &value["items"])));
    }
    value["allOf"].as_array().into_iter().flatten().for_each(|of| out.message(24, |out| schema(out, of)));
    if value["properties"].is_object() {
        out.message(25, |properties| named_schemas(properties, &value["properties"]));
    }
    extensions(out, 31, value);
}

fn path_item(out: &mut Message, item: &Value) {
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = item.get(method) {
            out.message(field, |out| operation(out, value));
        }
    }
    parameters(out, 9, &item["parameters"]);
    extensions(out, 10, item);
}

fn operation(out: &mut Message, value: &Value) {
    out.texts(1, &value["tags"]);
    out.text(3, &value["description"]);
    out.text(5, &value["operationId"]);
    out.texts(6, &value["produces"]);
    out.texts(7, &value["consumes"]);
    parameters(out, 8, &value["parameters"]);
    extensions(out, 13, value);
}

fn parameters(out: &mut Message, field: u64, list: &Value) {
    for value in list.as_array().into_iter().flatten() {
        out.message(field, |item| item.message(1, |out| parameter(out, value)));
    }
}

fn parameter(out: &mut Message, value: &Value) {
    if value["in"] == "body" {
        return out.message(1, |body| {
            body.text(2, &value["name"]);
            body.text(3, &value["in"]);
            body.flag(4, &value["required"]);
            body.message(5, |out| schema(out, &value["schema"]));
        });
    }
    // Query and path parameters differ in the number of their type.
    let (field, type_field) = if value["in"] == "path" { (4, 5) } else { (3, 6) };
    out.message(2, |kind| {
        kind.message(field, |out| {
            out.flag(1, &value["required"]);
            out.text(2, &value["in"]);
            out.text(3, &value["description"]);
            out.text(4, &value["name"]);
            out.text(type_field, &value["type"]);
        });
    });
}
