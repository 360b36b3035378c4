//! Volumes of pods.

use serde_json::Value;

use super::container::{check_field_ref, check_resource_ref};
use super::{check_quantity, relative_path, required};
use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{field, integer, items, string};

pub(super) fn check_volumes(volumes: &[Value], path: &Path, errors: &mut Errors) {
    let mut names = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index);
        let name = string(volume, "name");
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if names.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        } else {
            errors.all(&at.child("name"), name, format::dns1123_label(name));
        }
        names.push(name);
        let mut sources =
            volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
        match sources.next() {
            None => errors.required(&at, "must specify a volume type"),
            Some((kind, source)) => check_source(kind, source, &at.child(kind), errors),
        }
        for (kind, _) in sources {
            errors.forbidden(&at.child(kind), "may not specify more than 1 volume type");
        }
    }
}

fn check_source(kind: &str, source: &Value, path: &Path, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            if let Some(size) = field(source, "sizeLimit") {
                check_quantity(size, &path.child("sizeLimit"), errors);
            }
        }
        "hostPath" => check_host_path(source, path, errors),
        "secret" => {
            required(source, "secretName", path, errors);
            check_files(source, path, errors);
        }
        "configMap" => {
            required(source, "name", path, errors);
            check_files(source, path, errors);
        }
        "persistentVolumeClaim" => required(source, "claimName", path, errors),
        "nfs" => check_nfs(source, path, errors),
        "csi" => required(source, "driver", path, errors),
        "downwardAPI" => {
            check_mode(source, "defaultMode", path, errors);
            check_downward(source, path, errors);
        }
        "projected" => check_projected(source, path, errors),
        "ephemeral" => match field(source, "volumeClaimTemplate") {
            None => errors.required(&path.child("volumeClaimTemplate"), ""),
            Some(template) => {
                let at = path.child("volumeClaimTemplate").child("spec");
                super::storage::check_claim_spec(&template["spec"], &at, errors);
            }
        },
        _ => {}
    }
}

/// Shared with persistent volumes.
pub(super) fn check_host_path(source: &Value, path: &Path, errors: &mut Errors) {
    const KINDS: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    required(source, "path", path, errors);
    let host = string(source, "path");
    if host.split('/').any(|part| part == "..") {
        errors.invalid(&path.child("path"), host, "must not contain '..'");
    }
    errors.one_of(&path.child("type"), string(source, "type"), &KINDS);
}

pub(super) fn check_nfs(source: &Value, path: &Path, errors: &mut Errors) {
    required(source, "server", path, errors);
    required(source, "path", path, errors);
    let export = string(source, "path");
    if !export.is_empty() && !export.starts_with('/') {
        errors.invalid(&path.child("path"), export, "must be an absolute path");
    }
}

fn check_mode(source: &Value, key: &str, path: &Path, errors: &mut Errors) {
    if let Some(mode) = integer(source, &format!("/{key}")).filter(|m| !(0..=0o777).contains(m)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&path.child(key), mode, detail);
    }
}

/// `defaultMode` and `items` of secrets and config maps.
fn check_files(source: &Value, path: &Path, errors: &mut Errors) {
    check_mode(source, "defaultMode", path, errors);
    for (index, item) in items(source, "/items").iter().enumerate() {
        let at = path.child("items").index(index);
        required(item, "key", &at, errors);
        check_target(item, &at, errors);
        check_mode(item, "mode", &at, errors);
    }
}

/// `path`: inside the volume, and not one of the volume's own hidden files.
fn check_target(item: &Value, at: &Path, errors: &mut Errors) {
    required(item, "path", at, errors);
    let target = string(item, "path");
    relative_path(target, &at.child("path"), errors);
    if target.starts_with("..") && !target.split('/').any(|part| part == "..") {
        errors.invalid(&at.child("path"), target, "must not start with '..'");
    }
}

fn check_downward(source: &Value, path: &Path, errors: &mut Errors) {
    const FIELDS: [&str; 5] =
        ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    for (index, item) in items(source, "/items").iter().enumerate() {
        let at = path.child("items").index(index);
        check_target(item, &at, errors);
        check_mode(item, "mode", &at, errors);
        match (field(item, "fieldRef"), field(item, "resourceFieldRef")) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(&at, "resource", detail);
            }
            (Some(reference), None) => check_field_ref(reference, &FIELDS, &at.child("fieldRef"), errors),
            (None, Some(reference)) => {
                check_resource_ref(reference, true, &at.child("resourceFieldRef"), errors);
            }
            (None, None) => errors.required(&at, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

fn check_projected(source: &Value, path: &Path, errors: &mut Errors) {
    /// Upstream: tokens that live shorter are refused.
    const TOKEN_SECONDS_MIN: i64 = 600;
    check_mode(source, "defaultMode", path, errors);
    for (index, part) in items(source, "/sources").iter().enumerate() {
        let at = path.child("sources").index(index);
        let mut given = part.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null());
        let Some((kind, value)) = given.next() else {
            errors.required(&at, "must specify a volume type");
            continue;
        };
        for (more, _) in given {
            errors.forbidden(&at.child(more), "may not specify more than 1 volume type per source");
        }
        let at = at.child(kind);
        match kind.as_str() {
            "secret" | "configMap" => {
                required(value, "name", &at, errors);
                check_files(value, &at, errors);
            }
            "downwardAPI" => check_downward(value, &at, errors),
            "serviceAccountToken" => {
                required(value, "path", &at, errors);
                if let Some(seconds) = integer(value, "/expirationSeconds").filter(|s| *s < TOKEN_SECONDS_MIN)
                {
                    let detail = "may not specify a duration less than 10 minutes";
                    errors.invalid(&at.child("expirationSeconds"), seconds, detail);
                }
            }
            _ => {}
        }
    }
}
