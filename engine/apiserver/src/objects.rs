//! The rules of `metadata` that every kind obeys.

use std::collections::BTreeMap;

use gantry_kube_logic::{meta, names};
use gantry_kube_types::{FieldError, StatusError};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};

use crate::kind::{Kind, NameRule};

/// No vowels and no look-alikes, so that no words appear (upstream `rand.SafeEncodeString`).
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARS: usize = 5;
const NAME_CHARS_MAX: usize = 63;
/// Upstream's bound on all annotations together.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

/// RFC 3339 with seconds, UTC.
pub(crate) fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `generateName` with a random end.
pub(crate) fn generate_name(base: &str) -> String {
    let mut rng = rand::rng();
    let mut name: String = base.chars().take(NAME_CHARS_MAX - SUFFIX_CHARS).collect();
    name.extend(
        (0..SUFFIX_CHARS).map(|_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())])),
    );
    name
}

/// Brings `metadata.namespace` in line with the request's.
pub(crate) fn settle_namespace(kind: &Kind, object: &mut Value, namespace: &str) -> Result<(), StatusError> {
    let metadata = meta::metadata_mut(object);
    if !kind.info.is_namespaced() {
        metadata.shift_remove("namespace");
        return Ok(());
    }
    match metadata.get("namespace").and_then(Value::as_str).unwrap_or("") {
        "" => {
            metadata.insert("namespace".to_owned(), namespace.into());
            Ok(())
        }
        same if same == namespace => Ok(()),
        other => Err(StatusError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({other} != {namespace})"
        ))),
    }
}

/// The name in the body must be the one in the path.
pub(crate) fn settle_name(object: &mut Value, name: &str) -> Result<(), StatusError> {
    let metadata = meta::metadata_mut(object);
    match metadata.get("name").and_then(Value::as_str).unwrap_or("") {
        "" => {
            metadata.insert("name".to_owned(), name.into());
            Ok(())
        }
        same if same == name => Ok(()),
        other => Err(StatusError::bad_request(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        ))),
    }
}

/// Gives a new object what only the server gives.
pub(crate) fn initialise(kind: &Kind, object: &mut Value, now: Timestamp) {
    let counted = counts_generations(kind, object);
    if kind.has_subresource("status")
        && let Some(fields) = object.as_object_mut()
    {
        fields.shift_remove("status");
    }
    let metadata = meta::metadata_mut(object);
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), timestamp(now).into());
    if counted {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Kinds whose `spec` is a wish that a controller observes; in the core group only these are.
fn counts_generations(kind: &Kind, object: &Value) -> bool {
    let core = matches!(kind.info.resource.as_ref(), "pods" | "replicationcontrollers");
    kind.open_api.is_some() || (object.get("spec").is_some() && (!kind.info.group.is_empty() || core))
}

/// Carries over what an update of the main resource may not change.
pub(crate) fn carry_over(kind: &Kind, new: &mut Value, old: &Value) {
    if kind.has_subresource("status") {
        set_or_remove(new, "status", old.get("status").cloned());
    }
    let metadata = meta::metadata_mut(new);
    for field in
        ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"]
    {
        if !metadata.contains_key(field)
            && let Some(value) = old["metadata"].get(field)
        {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    metadata.shift_remove("selfLink");
    match old["metadata"].get("generation") {
        Some(generation) => metadata.insert("generation".to_owned(), generation.clone()),
        None => metadata.shift_remove("generation"),
    };
}

/// Carries over everything but `status` and the metadata that a status writer may set: labels,
/// annotations and finalizers, as upstream's strategies have it.
pub(crate) fn carry_over_for_status(new: &mut Value, old: &Value) {
    let status = new.get_mut("status").map(Value::take);
    let metadata = new["metadata"].take();
    let mut kept = old.clone();
    set_or_remove(&mut kept, "status", status);
    for field in ["labels", "annotations", "managedFields", "finalizers"] {
        set_or_remove(&mut kept["metadata"], field, metadata.get(field).cloned());
    }
    *new = kept;
}

/// Raises `metadata.generation` where anything but metadata and status differs.
pub(crate) fn count_generation(kind: &Kind, new: &mut Value, old: &Value) {
    let status_apart = kind.has_subresource("status");
    let is_wish = |name: &str| match name {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => !status_apart,
        _ => true,
    };
    // By reference: objects are large, and most writes change one field.
    let wish = |object| -> BTreeMap<&str, &Value> {
        let fields = Value::as_object(object).into_iter().flatten();
        fields.map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| is_wish(name)).collect()
    };
    if counts_generations(kind, new) && wish(new) != wish(old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        new["metadata"]["generation"] = generation.into();
    }
}

fn set_or_remove(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.shift_remove(field),
        };
    }
}

/// What is wrong with the metadata of a new object.
pub(crate) fn validate(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = meta::name(object);
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        let problems = match kind.name_rule {
            NameRule::Subdomain => names::dns1123_subdomain(name),
            NameRule::Label => names::dns1123_label(name),
            NameRule::Dns1035 => names::dns1035_label(name),
            NameRule::PathSegment => names::path_segment_name(name),
        };
        errors.extend(problems.into_iter().map(|p| FieldError::invalid("metadata.name", name, p)));
    }
    errors.extend(validate_maps(object));
    for (index, owner) in meta::owner_references(object).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or("").is_empty() {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(FieldError::required(path, "must not be empty"));
            }
        }
    }
    let controllers = meta::owner_references(object).iter().filter(|o| o["controller"] == true).count();
    if controllers > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            json!(meta::owner_references(object)),
            "Only one reference can have Controller set to true",
        ));
    }
    for finalizer in meta::finalizers(object) {
        let problems = names::qualified_name(finalizer);
        errors.extend(problems.into_iter().map(|p| FieldError::invalid("metadata.finalizers", finalizer, p)));
    }
    errors
}

fn validate_maps(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in meta::labels(object).into_iter().flatten() {
        let problems = names::qualified_name(key);
        errors.extend(problems.into_iter().map(|p| FieldError::invalid("metadata.labels", key.as_str(), p)));
        let value = value.as_str().unwrap_or("");
        let problems = names::label_value(value);
        errors.extend(problems.into_iter().map(|p| FieldError::invalid("metadata.labels", value, p)));
    }
    let mut bytes = 0;
    for (key, value) in meta::annotations(object).into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let problems = names::qualified_name(&key.to_lowercase());
        errors.extend(
            problems.into_iter().map(|p| FieldError::invalid("metadata.annotations", key.as_str(), p)),
        );
    }
    if bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::new(
            gantry_kube_types::FieldErrorKind::TooLong,
            "metadata.annotations",
            None,
            format!("may not be more than {ANNOTATION_BYTES_MAX} bytes"),
        ));
    }
    errors
}

/// What is wrong with the change of metadata.
pub(crate) fn validate_update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(kind, new);
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        if new["metadata"][field] != old["metadata"][field] {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                new["metadata"][field].clone(),
                "field is immutable",
            ));
        }
    }
    if meta::is_being_deleted(old) {
        let known: Vec<&str> = meta::finalizers(old).collect();
        let added: Vec<String> =
            meta::finalizers(new).filter(|f| !known.contains(f)).map(|f| format!("{f:?}")).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            ));
        }
    }
    errors
}

/// Does anything keep the object although it is deleted?
pub(crate) fn has_finalizers(kind: &Kind, object: &Value) -> bool {
    let namespace = kind.info.group.is_empty() && kind.info.resource == "namespaces";
    meta::finalizers(object).next().is_some()
        || (namespace && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()))
}
