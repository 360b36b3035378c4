//! Security contexts of pods and containers.

use serde_json::Value;

use super::range;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{field, is_set, items, string, truth};

const ID_MAX: i64 = i32::MAX as i64;

pub(super) fn check_container(container: &Value, path: &Path, errors: &mut Errors) {
    let Some(context) = field(container, "securityContext") else { return };
    check_common(context, path, errors);
    if let Some(mount) = field(context, "procMount").and_then(Value::as_str) {
        errors.one_of(&path.child("procMount"), mount, &["Default", "Unmasked"]);
    }
    if context.get("allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        return;
    }
    if truth(context, "/privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(path, context.clone(), detail);
    }
    if items(context, "/capabilities/add").iter().any(|c| c == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(path, context.clone(), detail);
    }
}

pub(super) fn check_pod(spec: &Value, path: &Path, errors: &mut Errors) {
    let at = path.child("securityContext");
    if truth(spec, "/shareProcessNamespace") && truth(spec, "/hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, detail);
    }
    let Some(context) = field(spec, "securityContext") else { return };
    check_common(context, &at, errors);
    range(context, "fsGroup", 0, ID_MAX, &at, errors);
    for (index, group) in items(context, "/supplementalGroups").iter().enumerate() {
        if group.as_i64().is_none_or(|g| !(0..=ID_MAX).contains(&g)) {
            let detail = format!("must be between 0 and {ID_MAX}, inclusive");
            errors.invalid(&at.child("supplementalGroups").index(index), group.clone(), detail);
        }
    }
    if let Some(policy) = field(context, "fsGroupChangePolicy").and_then(Value::as_str) {
        errors.one_of(&at.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    check_sysctls(context, &at.child("sysctls"), errors);
}

fn check_sysctls(context: &Value, path: &Path, errors: &mut Errors) {
    let mut names = Vec::new();
    for (index, sysctl) in items(context, "/sysctls").iter().enumerate() {
        let at = path.index(index).child("name");
        let name = string(sysctl, "name");
        let part = |p: &str| {
            let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
            let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            let bytes = p.as_bytes();
            edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|c| inside(*c))
        };
        if name.is_empty() {
            errors.required(&at, "");
        } else if name.len() > 253 || !name.split(['.', '/']).all(part) {
            let detail = "must have at most 253 characters and match regex \
                          ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(&at, name, detail);
        } else if names.contains(&name) {
            errors.duplicate(&at, name);
        }
        names.push(name);
    }
}

/// What both contexts have.
fn check_common(context: &Value, path: &Path, errors: &mut Errors) {
    for key in ["runAsUser", "runAsGroup"] {
        range(context, key, 0, ID_MAX, path, errors);
    }
    for (key, word) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile) = field(context, key) else { continue };
        let at = path.child(key);
        let kind = string(profile, "type");
        if kind.is_empty() {
            errors.required(&at.child("type"), "type is required");
        } else {
            errors.one_of(&at.child("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
        let local = at.child("localhostProfile");
        if kind == "Localhost" && !is_set(profile, "localhostProfile") {
            errors.required(&local, &format!("must be set when {word} type is Localhost"));
        } else if kind != "Localhost" && is_set(profile, "localhostProfile") {
            let value = profile["localhostProfile"].clone();
            errors.invalid(&local, value, format!("can only be set when {word} type is Localhost"));
        }
    }
}
