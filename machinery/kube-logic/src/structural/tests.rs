use super::*;
use proptest::prelude::*;
use serde_json::json;

fn schema(spec: Value) -> Schema {
    Schema::from_openapi(&json!({"type": "object", "properties": {"spec": spec}})).expect("a schema")
}

/// The errors of a `spec` under its schema.
fn errors(rules: Value, spec: Value) -> Vec<String> {
    let object = json!({"apiVersion": "e/v1", "kind": "E", "metadata": {"name": "n"}, "spec": spec});
    validate(&object, &schema(rules)).iter().map(ToString::to_string).collect()
}

#[test]
fn values_are_validated_in_upstreams_words() {
    let string = |more: Value| {
        let mut rules = json!({"type": "string"});
        rules.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        rules
    };
    for (rules, value, want) in [
        (
            json!({"type": "integer"}),
            json!("x"),
            "Invalid value: \"string\": spec in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "string"}),
            json!(null),
            "Invalid value: \"null\": spec in body must be of type string: \"null\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "Invalid value: \"number\": spec in body must be of type integer: \"number\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
        ),
        (
            string(json!({"enum": ["b", "c"]})),
            json!("a"),
            "Unsupported value: \"a\": supported values: \"b\", \"c\"",
        ),
        (
            string(json!({"pattern": "^a$"})),
            json!("b"),
            "Invalid value: \"b\": spec in body should match '^a$'",
        ),
        (
            string(json!({"minLength": 2})),
            json!("é"),
            "Invalid value: \"é\": spec in body should be at least 2 chars long",
        ),
        (string(json!({"maxLength": 1})), json!("ab"), "Too long: may not be more than 1 bytes"),
        (
            string(json!({"format": "date-time"})),
            json!("x"),
            "Invalid value: \"x\": spec in body must be of type date-time: \"x\"",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 1, "exclusiveMaximum": true}),
            json!(1),
            "Invalid value: 1: spec in body should be less than 1",
        ),
        (
            json!({"type": "number", "multipleOf": 0.5}),
            json!(0.7),
            "Invalid value: 0.7: spec in body should be a multiple of 0.5",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_u64),
            "Invalid value: 3000000000: spec in body must be of type int32: 3000000000",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "Invalid value: 0: spec in body should have at least 1 items",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}),
            json!({}),
            "Invalid value: 0: spec in body should have at least 1 properties",
        ),
        (
            string(json!({"oneOf": [{"enum": ["a"]}, {"enum": ["b"]}]})),
            json!("c"),
            "Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            string(json!({"anyOf": [{"minLength": 9}]})),
            json!("c"),
            "Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
        ),
        (
            string(json!({"not": {"enum": ["c"]}})),
            json!("c"),
            "Invalid value: \"\": \"spec\" must not validate the schema (not)",
        ),
    ] {
        assert_eq!(errors(rules.clone(), value.clone()), [format!("spec: {want}")], "{rules} {value}");
    }
}

#[test]
fn errors_say_where() {
    let rules = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": "string"},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "n": {"type": "integer"}}}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}});
    let value = json!({"list": [{"k": "x", "n": "y"}, {"k": "x"}], "set": ["a", "a"]});
    assert_eq!(
        errors(rules.clone(), value),
        [
            "spec.a: Required value",
            "spec.list[0].n: Invalid value: \"string\": spec.list[0].n in body must be of type integer: \"string\"",
            "spec.list[1]: Duplicate value: {\"k\":\"x\"}",
            "spec.set[1]: Duplicate value: \"a\"",
        ]
    );
    assert_eq!(errors(rules, json!({"a": "x", "list": [{"k": "x"}, {"k": "y"}]})), Vec::<String>::new());
    assert_eq!(errors(json!({"type": "string", "nullable": true}), Value::Null), Vec::<String>::new());
}

#[test]
fn formats_are_checked() {
    for (format, good, bad) in [
        ("date-time", "2026-01-02T03:04:05Z", "2026-01-02"),
        ("date", "2026-01-02", "2026-13-02"),
        ("duration", "1h2.5m", "1 fortnight"),
        ("email", "a@b.c", "a"),
        ("uri", "https://a/b", "a b"),
        ("hostname", "a.b-c", "-a"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("mac", "00:11:22:33:44:55", "00:11"),
        ("byte", "aGk=", "?"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e"),
    ] {
        assert!(formats::matches(format, good), "{format} {good}");
        assert!(!formats::matches(format, bad), "{format} {bad}");
    }
    assert!(formats::matches("password", "anything"));
}

#[test]
fn pruning_keeps_what_is_specified() {
    let rules = json!({"type": "object", "properties": {
        "a": {"type": "object", "properties": {"b": {"type": "string"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"inner": {"type": "object", "properties": {"x": {"type": "string"}}}}},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"y": {"type": "string"}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"z": {"type": "string"}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"l": {"type": "string"}}}}}});
    let mut object = json!({"apiVersion": "e/v1", "kind": "E", "metadata": {"name": "n"}, "other": 1, "spec": {
        "a": {"b": "1", "c": "2"}, "free": {"any": 1, "inner": {"x": "1", "q": 1}},
        "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}, "y": "1", "gone": 1},
        "map": {"k": {"z": "1", "q": 1}}, "list": [{"l": "1", "q": 1}], "gone": {}}});
    let mut dropped = prune(&mut object, &schema(rules));
    dropped.sort();
    assert_eq!(
        dropped,
        [
            "other",
            "spec.a.c",
            "spec.embedded.gone",
            "spec.free.inner.q",
            "spec.gone",
            "spec.list[0].q",
            "spec.map.k.q"
        ]
    );
    assert_eq!(object["spec"]["free"], json!({"any": 1, "inner": {"x": "1"}}));
    assert_eq!(object["metadata"]["name"], "n");
}

#[test]
fn defaults_fill_what_is_absent() {
    let rules = json!({"type": "object", "default": {}, "properties": {
        "a": {"type": "string", "default": "x"},
        "n": {"type": "string", "nullable": true, "default": "x"},
        "o": {"type": "object", "default": {"p": "set"}, "properties": {"p": {"type": "string"}, "q": {"type": "integer", "default": 1}}},
        "u": {"type": "string"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "string", "default": "y"}}}}}});
    for (spec, want) in [
        (None, json!({"a": "x", "n": "x", "o": {"p": "set", "q": 1}})),
        (
            Some(json!({"a": null, "n": null, "u": null, "o": {}})),
            json!({"a": "x", "n": null, "o": {"q": 1}}),
        ),
        (
            Some(json!({"a": "z", "list": [{}, {"d": "1"}]})),
            json!({"a": "z", "n": "x", "o": {"p": "set", "q": 1}, "list": [{"d": "y"}, {"d": "1"}]}),
        ),
    ] {
        let mut object = json!({"apiVersion": "e/v1", "kind": "E"});
        if let Some(spec) = spec {
            object["spec"] = spec;
        }
        apply_defaults(&mut object, &schema(rules.clone()));
        assert_eq!(object["spec"], want);
    }
}

#[test]
fn schemas_must_be_structural() {
    let field = |rules: Value| json!({"type": "object", "properties": {"f": rules}});
    for (schema, want) in [
        (json!({}), "s.type: Required value: must not be empty at the root"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            "s.type: Invalid value: \"array\": must be object at the root",
        ),
        (
            field(json!({})),
            "s.properties[f].type: Required value: must not be empty for specified object fields",
        ),
        (
            field(json!({"type": "array", "items": {}})),
            "s.properties[f].items.type: Required value: must not be empty for specified array items",
        ),
        (field(json!({"type": "array"})), "s.properties[f].items: Required value: must be specified"),
        (
            field(json!({"type": "str"})),
            "s.properties[f].type: Unsupported value: \"str\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            field(json!({"type": "string", "$ref": "x"})),
            "s.properties[f].$ref: Forbidden: $ref is not supported",
        ),
        (
            field(json!({"type": "object", "additionalProperties": false})),
            "s.properties[f].additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            field(json!({"type": "string", "allOf": [{"type": "string"}]})),
            "s.properties[f].allOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            field(json!({"type": "object", "not": {"properties": {"q": {}}}})),
            "s.properties[f].properties[q]: Required value: because it is defined in s.properties[f].not.properties[q]",
        ),
        (
            field(json!({"type": "integer", "default": "x"})),
            "s.properties[f].default: Invalid value: \"string\": default in body must be of type integer: \"string\"",
        ),
        (
            field(json!({"type": "string", "pattern": "("})),
            "s.properties[f].pattern: Invalid value: \"(\": must be a valid regular expression",
        ),
        (
            field(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false})),
            "s.properties[f].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            field(json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}})),
            "s.properties[f].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {}}}}}),
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
    ] {
        let found: Vec<String> = check_structural(&schema, "s").iter().map(ToString::to_string).collect();
        assert_eq!(found, [want], "{schema}");
    }
    let good =
        field(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
        "default": 1, "pattern": "^a$"}));
    assert_eq!(check_structural(&good, "s"), []);
}

fn json_value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("type"),
        Just("properties"),
        Just("items"),
        Just("allOf"),
        Just("default"),
        Just("pattern"),
        Just("object"),
        Just("array"),
        Just("spec"),
        Just("not"),
        Just("x-kubernetes-list-type"),
        Just("map"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..4).prop_map(|fields| fields
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics_and_pruning_is_done_once(raw in json_value(), mut object in json_value()) {
        let _ = check_structural(&raw, "s");
        if let Ok(schema) = Schema::from_openapi(&raw) {
            prune(&mut object, &schema);
            prop_assert!(prune(&mut object, &schema).is_empty());
            apply_defaults(&mut object, &schema);
            let _ = validate(&object, &schema);
        }
    }
}
