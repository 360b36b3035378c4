//! What is wrong with a definition, in upstream's words.

use std::collections::BTreeSet;

use gantry_kube_logic::jsonpath::JsonPath;
use gantry_kube_logic::{names, structural};
use gantry_kube_types::FieldError;
use serde_json::Value;

use super::accept::has_condition;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];

/// Checks a definition, and its change where there is an `old` one.
pub(crate) fn check(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let mut errors = Vec::new();
    check_group(spec, &mut errors);
    check_names(&spec["names"], &mut errors);
    match text(&spec["scope"]) {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(FieldError::required("spec.scope", "")),
        other => {
            errors.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"]));
        }
    }
    if spec["preserveUnknownFields"] == true {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                   spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = text(&version["name"]);
        let problems = names::dns1035_label(name);
        errors.extend(problems.into_iter().map(|p| FieldError::invalid(format!("{path}.name"), name, p)));
        if !seen.insert(name) {
            errors.push(FieldError::invalid("spec.versions", name, "must contain unique version names"));
        }
        check_version(version, &path, &mut errors);
    }
    check_conversion(spec, versions.len(), &mut errors);
    if let Some(old) = old {
        check_change(definition, old, &seen, &mut errors);
    }
    errors
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn check_group(spec: &Value, errors: &mut Vec<FieldError>) {
    let group = text(&spec["group"]);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
        return;
    }
    let problems = names::dns1123_subdomain(group);
    errors.extend(problems.into_iter().map(|p| FieldError::invalid("spec.group", group, p)));
    if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
}

fn check_names(spec: &Value, errors: &mut Vec<FieldError>) {
    for field in ["plural", "kind"] {
        if text(&spec[field]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    let short = spec["shortNames"].as_array().into_iter().flatten();
    let lower = [("plural", &spec["plural"]), ("singular", &spec["singular"])].into_iter();
    let kinds = [("kind", &spec["kind"]), ("listKind", &spec["listKind"])].into_iter();
    for (field, name) in lower.chain(short.map(|name| ("shortNames", name))).chain(kinds) {
        let name = text(name);
        let checked =
            if matches!(field, "kind" | "listKind") { name.to_lowercase() } else { name.to_owned() };
        if !name.is_empty() {
            let problems = names::dns1035_label(&checked);
            let field = format!("spec.names.{field}");
            errors.extend(problems.into_iter().map(|p| FieldError::invalid(field.as_str(), name, p)));
        }
    }
    let kind = text(&spec["kind"]);
    if !kind.is_empty() && kind == text(&spec["listKind"]) {
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            kind,
            "kind and listKind may not be the same",
        ));
    }
}

fn check_version(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let schema = &version["schema"]["openAPIV3Schema"];
    if schema.is_object() {
        let at = format!("{path}.schema.openAPIV3Schema");
        if schema["type"] != "object" {
            let why = if schema["type"].is_null() {
                "must not be empty at the root"
            } else {
                "must be object at the root"
            };
            errors.push(if schema["type"].is_null() {
                FieldError::required(format!("{at}.type"), why)
            } else {
                FieldError::invalid(format!("{at}.type"), schema["type"].clone(), why)
            });
        }
        errors.extend(structural::check_structural(schema, &at));
    } else {
        errors.push(FieldError::required(format!("{path}.schema.openAPIV3Schema"), "schemas are required"));
    }
    for (index, column) in version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate() {
        check_column(column, &format!("{path}.additionalPrinterColumns[{index}]"), errors);
    }
    let scale = &version["subresources"]["scale"];
    if scale.is_null() {
        return;
    }
    let at = format!("{path}.subresources.scale");
    for (field, root, needed) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ] {
        let given = text(&scale[field]);
        let simple = given.split('.').skip(1).all(|p| !p.is_empty() && !p.contains(['[', '*', '@']));
        let rooted = given.starts_with(root)
            || (root.is_empty() && (given.starts_with(".spec.") || given.starts_with(".status.")));
        let field = format!("{at}.{field}");
        if given.is_empty() {
            if needed {
                errors.push(FieldError::required(field, ""));
            }
        } else if !simple || !given.starts_with('.') {
            errors.push(FieldError::invalid(
                field,
                given,
                "must be a simple json path without array notation",
            ));
        } else if !rooted {
            let root = if root.is_empty() { "either .spec or .status" } else { root.trim_end_matches('.') };
            errors.push(FieldError::invalid(field, given, format!("should be a json path under {root}")));
        }
    }
}

fn check_column(column: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if text(&column["name"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    match text(&column["type"]) {
        "" => {
            let why = format!("must be one of {}", COLUMN_TYPES.join(","));
            errors.push(FieldError::required(format!("{path}.type"), why));
        }
        kind if COLUMN_TYPES.contains(&kind) => {}
        kind => {
            let why = format!("must be one of {}", COLUMN_TYPES.join(","));
            errors.push(FieldError::invalid(format!("{path}.type"), kind, why));
        }
    }
    let at = format!("{path}.jsonPath");
    match text(&column["jsonPath"]) {
        "" => errors.push(FieldError::required(at, "")),
        given if !given.starts_with('.') => {
            errors.push(FieldError::invalid(at, given, "must be a simple json path starting with ."));
        }
        given => {
            if let Err(error) = JsonPath::parse(given) {
                errors.push(FieldError::invalid(at, given, error.to_string()));
            }
        }
    }
}

fn check_conversion(spec: &Value, versions: usize, errors: &mut Vec<FieldError>) {
    match text(&spec["conversion"]["strategy"]) {
        "" | "None" => {}
        // Stored objects would be shown under a version they are not in.
        "Webhook" if versions > 1 => {
            let why = "conversion webhooks are not served here: use one version, or versions of one schema";
            errors.push(FieldError::forbidden("spec.conversion.strategy", why));
        }
        "Webhook" => {}
        other => {
            let known = ["None", "Webhook"];
            errors.push(FieldError::not_supported("spec.conversion.strategy", other, &known));
        }
    }
}

/// Names and scope stand once they are accepted; a version with stored objects stays.
fn check_change(new: &Value, old: &Value, versions: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    if has_condition(old, "Established") {
        for pointer in ["/spec/group", "/spec/scope", "/spec/names/kind", "/spec/names/plural"] {
            if new.pointer(pointer) != old.pointer(pointer) {
                let field = pointer.trim_start_matches('/').replace('/', ".");
                let value = new.pointer(pointer).cloned().unwrap_or_default();
                errors.push(FieldError::invalid(field, value, "field is immutable"));
            }
        }
    }
    for (index, stored) in old["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        if !versions.contains(text(stored)) {
            let field = format!("status.storedVersions[{index}]");
            errors.push(FieldError::invalid(field, stored.clone(), "must appear in spec.versions"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": { "name": "widgets.example.com" },
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": { "plural": "widgets", "kind": "Widget", "listKind": "WidgetList" },
                "versions": [{ "name": "v1", "served": true, "storage": true,
                    "additionalPrinterColumns": [{ "name": "Size", "type": "integer", "jsonPath": ".spec.size" }],
                    "subresources": { "scale": { "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n" } },
                    "schema": { "openAPIV3Schema": { "type": "object" } } }],
            },
            "status": { "storedVersions": ["v1"], "conditions": [{ "type": "Established", "status": "True" }] },
        })
    }

    #[test]
    fn definitions_are_refused_with_the_field_at_fault() {
        assert_eq!(check(&definition(), Some(&definition())).len(), 0);
        for (pointer, value, want) in [
            ("/spec/group", json!("example"), "spec.group"),
            ("/spec/scope", json!("World"), "spec.scope"),
            ("/spec/names/plural", json!("Widgets"), "spec.names.plural"),
            ("/spec/names/listKind", json!("Widget"), "spec.names.listKind"),
            ("/spec/versions/0/name", json!("V 1"), "spec.versions[0].name"),
            ("/spec/versions/0/schema", json!(null), "spec.versions[0].schema.openAPIV3Schema"),
            (
                "/spec/versions/0/additionalPrinterColumns/0/jsonPath",
                json!(".spec[?("),
                "spec.versions[0].additionalPrinterColumns[0].jsonPath",
            ),
            (
                "/spec/versions/0/additionalPrinterColumns/0/type",
                json!("text"),
                "spec.versions[0].additionalPrinterColumns[0].type",
            ),
            (
                "/spec/versions/0/subresources/scale/specReplicasPath",
                json!(".status.n"),
                "spec.versions[0].subresources.scale.specReplicasPath",
            ),
            ("/spec/conversion", json!({ "strategy": "Magic" }), "spec.conversion.strategy"),
        ] {
            let mut bad = definition();
            if pointer == "/spec/conversion" {
                bad["spec"]["conversion"] = value;
            } else {
                *bad.pointer_mut(pointer).expect("a field of the definition") = value;
            }
            let errors = check(&bad, None);
            assert!(errors.iter().any(|e| e.field == want), "{want}: {errors:?}");
        }
    }

    #[test]
    fn accepted_names_and_stored_versions_stay() {
        for (pointer, value, want) in [
            ("/spec/scope", json!("Cluster"), "spec.scope"),
            ("/spec/names/kind", json!("Gadget"), "spec.names.kind"),
            ("/spec/versions/0/name", json!("v2"), "status.storedVersions[0]"),
        ] {
            let mut new = definition();
            *new.pointer_mut(pointer).expect("a field of the definition") = value;
            let errors = check(&new, Some(&definition()));
            assert!(errors.iter().any(|e| e.field == want), "{want}: {errors:?}");
        }
    }
}
