//! What `restricted` forbids beyond `baseline`: pods must ask for little.

use std::collections::BTreeSet;

use serde_json::Value;

use super::baseline::{added_beyond, unconfined};
use super::{Check, Subject, Violation, named, plural, quoted, setters};

/// In the order their violations are told.
pub(super) const CHECKS: &[Check] =
    &[allow_privilege_escalation, capabilities, volumes, run_as_non_root, run_as_user, seccomp];

const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn allow_privilege_escalation(pod: &Subject<'_>) -> Option<Violation> {
    if pod.minor < 8 || (pod.minor >= 25 && pod.is_windows()) {
        return None;
    }
    let allowed =
        |c: &Value| c.pointer("/securityContext/allowPrivilegeEscalation") != Some(&Value::Bool(false));
    let bad = pod.containers_that(allowed);
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    (!bad.is_empty()).then(|| Violation::new("allowPrivilegeEscalation != false", detail()))
}

fn capabilities(pod: &Subject<'_>) -> Option<Violation> {
    if pod.minor < 22 || (pod.minor >= 25 && pod.is_windows()) {
        return None;
    }
    let keeps = |container: &Value| {
        let dropped = container.pointer("/securityContext/capabilities/drop").and_then(Value::as_array);
        !dropped.into_iter().flatten().any(|capability| capability == "ALL")
    };
    let mut parts = Vec::new();
    let keeping = pod.containers_that(keeps);
    if !keeping.is_empty() {
        parts.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    parts.extend(added_beyond(pod, &["NET_BIND_SERVICE"]));
    (!parts.is_empty()).then(|| Violation::new("unrestricted capabilities", parts.join("; ")))
}

fn volumes(pod: &Subject<'_>) -> Option<Violation> {
    // The first field beside the name says what a volume is; one without any is an emptyDir.
    let kind = |volume: &Value| -> String {
        let fields = volume.as_object().into_iter().flatten();
        let mut kinds = fields.filter(|(key, value)| *key != "name" && !value.is_null()).map(|(key, _)| key);
        kinds.find(|key| !VOLUMES.contains(&key.as_str())).cloned().unwrap_or_default()
    };
    let all = || pod.spec["volumes"].as_array().into_iter().flatten();
    let bad: Vec<&str> = all()
        .filter(|volume| !kind(volume).is_empty())
        .map(|volume| volume["name"].as_str().unwrap_or_default())
        .collect();
    let kinds: BTreeSet<String> = all().map(kind).filter(|kind| !kind.is_empty()).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    (!bad.is_empty()).then(|| {
        let word = plural("volume", "volumes", bad.len());
        let verb = plural("uses", "use", bad.len());
        let what = plural("restricted volume type", "restricted volume types", kinds.len());
        let detail = format!("{word} {} {verb} {what} {}", quoted(&bad), quoted(&kinds));
        Violation::new("restricted volume types", detail)
    })
}

fn run_as_non_root(pod: &Subject<'_>) -> Option<Violation> {
    let said = |holder: &Value| holder.pointer("/securityContext/runAsNonRoot").and_then(Value::as_bool);
    let of_pod = said(pod.spec);
    let explicit = pod.containers_that(|container| said(container) == Some(false));
    let implicit = pod.containers_that(|container| said(container).is_none());
    // A pod's `false` is overruled where every container says `true`.
    let pod_counts = of_pod == Some(false) && !implicit.is_empty();
    if let Some(who) = setters(pod_counts, &explicit) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(Violation::new("runAsNonRoot != true", detail));
    }
    (!implicit.is_empty() && of_pod != Some(true)).then(|| {
        let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", named(&implicit));
        Violation::new("runAsNonRoot != true", detail)
    })
}

fn run_as_user(pod: &Subject<'_>) -> Option<Violation> {
    if pod.minor < 23 {
        return None;
    }
    let root =
        |holder: &Value| holder.pointer("/securityContext/runAsUser").and_then(Value::as_i64) == Some(0);
    let who = setters(root(pod.spec), &pod.containers_that(root))?;
    Some(Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
}

fn seccomp(pod: &Subject<'_>) -> Option<Violation> {
    if pod.minor < 19 {
        return unconfined(pod).map(|detail| Violation::new("seccompProfile", detail));
    }
    if pod.minor >= 25 && pod.is_windows() {
        return None;
    }
    if let Some(detail) = unconfined(pod) {
        return Some(Violation::new("seccompProfile", detail));
    }
    let set =
        |holder: &Value| holder.pointer("/securityContext/seccompProfile/type").is_some_and(|t| !t.is_null());
    let without = pod.containers_that(|container| !set(container));
    (!set(pod.spec) && !without.is_empty()).then(|| {
        let who = named(&without);
        let wanted = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
        Violation::new("seccompProfile", format!("pod or {who} {wanted}"))
    })
}
