//! Volumes and claims.

use serde_json::Value;

use super::{check_quantity, placement, volume};
use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{at, entries, field, is_set, items, put, remove, same, string, text};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn check_modes(spec: &Value, path: &Path, errors: &mut Errors) {
    let modes = items(spec, "/accessModes");
    let at = path.child("accessModes");
    for mode in modes {
        errors.one_of(&at, mode.as_str().unwrap_or_default(), &MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
    if let Some(mode) = field(spec, "volumeMode").and_then(Value::as_str) {
        errors.one_of(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    let class = string(spec, "storageClassName");
    if !class.is_empty() {
        errors.all(&path.child("storageClassName"), class, format::dns1123_subdomain(class));
    }
}

pub(crate) fn claim(object: &Value, errors: &mut Errors) {
    check_claim_spec(&object["spec"], &Path::new("spec"), errors);
}

/// The spec of a claim, or of a pod's ephemeral claim.
pub(super) fn check_claim_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    if items(spec, "/accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    check_modes(spec, path, errors);
    if let Some(selector) = field(spec, "selector") {
        crate::kinds::selector::check_selector(selector, &path.child("selector"), errors);
    }
    let at = path.child("resources");
    match spec["resources"]["requests"].get("storage") {
        None => errors.required(&at.key("storage"), ""),
        Some(size) => {
            let at = at.key("storage");
            if check_quantity(size, &at, errors) == Some(0) {
                errors.invalid(&at, size.clone(), "must be greater than zero");
            }
        }
    }
    for key in ["dataSource", "dataSourceRef"] {
        if let Some(source) = field(spec, key) {
            for part in ["kind", "name"] {
                super::required(source, part, &path.child(key), errors);
            }
        }
    }
}

pub(crate) fn claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let mut allowed = old["spec"].clone();
    for key in ["volumeName", "storageClassName"] {
        // A binder names the volume, a default class is filled in later.
        if !is_set(&allowed, key)
            && let Some(value) = field(&new["spec"], key)
        {
            put(&mut allowed, key, value.clone());
        }
    }
    let mut wanted = new["spec"].clone();
    for spec in [&mut allowed, &mut wanted] {
        remove(spec, "volumeAttributesClassName");
        if let Some(resources) = spec.get_mut("resources") {
            remove(resources, "requests");
        }
    }
    if !same(Some(&wanted), Some(&allowed)) {
        let detail = "spec is immutable after creation except resources.requests and \
                      volumeAttributesClassName for bound claims";
        errors.forbidden(&path, detail);
        return;
    }
    let size = |o: &Value| at(o, "/spec/resources/requests/storage").and_then(format::quantity_of);
    let (before, after) = (size(old), size(new));
    if before == after {
        return;
    }
    let at_size = path.child("resources").child("requests").child("storage");
    let capacity = at(old, "/status/capacity/storage").and_then(format::quantity_of);
    if text(old, "/status/phase") != "Bound" {
        let detail = "spec is immutable after creation except resources.requests and \
                      volumeAttributesClassName for bound claims";
        errors.forbidden(&path, detail);
    } else if after < before && after <= capacity {
        errors.forbidden(&at_size, "field can not be less than status.capacity");
    }
}

/// Fields of a volume's spec that are no source.
const NOT_SOURCES: [&str; 8] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeMode",
];

fn sources(spec: &Value) -> impl Iterator<Item = (&String, &Value)> {
    entries(spec, "").filter(|(key, value)| {
        !value.is_null() && *key != "volumeAttributesClassName" && !NOT_SOURCES.contains(&key.as_str())
    })
}

pub(crate) fn volume(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    if items(spec, "/accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    check_modes(spec, &path, errors);
    match spec["capacity"].get("storage") {
        None => errors.required(&path.child("capacity"), ""),
        Some(size) => {
            check_quantity(size, &path.child("capacity").key("storage"), errors);
        }
    }
    let policy = string(spec, "persistentVolumeReclaimPolicy");
    errors.one_of(&path.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    if let Some(required) = at(spec, "/nodeAffinity/required") {
        let at = path.child("nodeAffinity").child("required");
        placement::check_node_selector(required, &at, errors);
    }
    let mut given = sources(spec);
    match given.next() {
        None => errors.required(&path, "must specify a volume type"),
        Some((kind, source)) => {
            let at = path.child(kind);
            match kind.as_str() {
                "hostPath" => volume::check_host_path(source, &at, errors),
                "nfs" => volume::check_nfs(source, &at, errors),
                "csi" => {
                    super::required(source, "driver", &at, errors);
                    super::required(source, "volumeHandle", &at, errors);
                }
                "local" => {
                    super::required(source, "path", &at, errors);
                    if field(spec, "nodeAffinity").is_none() {
                        errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
                    }
                }
                _ => {}
            }
        }
    }
    for (kind, _) in given {
        errors.forbidden(&path.child(kind), "may not specify more than 1 volume type");
    }
}

pub(crate) fn volume_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let list = |object: &Value| -> Vec<(String, Value)> {
        sources(&object["spec"]).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let (now, before) = (list(new), list(old));
    let unchanged = now.len() == before.len()
        && now.iter().zip(&before).all(|(a, b)| a.0 == b.0 && same(Some(&a.1), Some(&b.1)));
    if !unchanged {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.forbidden(&path.child("persistentvolumesource"), detail);
    }
    let mode = |o: &Value| field(&o["spec"], "volumeMode").cloned();
    errors.immutable(&path.child("volumeMode"), mode(new).as_ref(), mode(old).as_ref());
    let affinity = |o: &Value| field(&o["spec"], "nodeAffinity").cloned();
    if let Some(before) = affinity(old) {
        errors.immutable(&path.child("nodeAffinity"), affinity(new).as_ref(), Some(&before));
    }
}

pub(crate) fn storage_class(object: &Value, errors: &mut Errors) {
    super::required(object, "provisioner", &Path::default(), errors);
    let policies = ["Delete", "Recycle", "Retain"];
    errors.one_of(&Path::new("reclaimPolicy"), string(object, "reclaimPolicy"), &policies);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    errors.one_of(&Path::new("volumeBindingMode"), string(object, "volumeBindingMode"), &modes);
}

pub(crate) fn storage_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["provisioner", "parameters"] {
        if !same(field(new, key), field(old, key)) {
            errors.forbidden(&Path::new(key), format!("updates to {key} are forbidden."));
        }
    }
    for key in ["reclaimPolicy", "volumeBindingMode"] {
        errors.immutable(&Path::new(key), field(new, key), field(old, key));
    }
}
