//! Deployments, replica sets, stateful sets, daemon sets, replication controllers.

use serde_json::{Value, json};

use super::pod::check_pod_spec;
use super::{int_or_percent, is_zero, non_negative};
use crate::kinds::report::{Errors, Path};
use crate::kinds::selector::{check_labels, check_selector, selector_matches, selects_everything};
use crate::kinds::value::{at, entries, field, integer, is_set, remove, same, string, text};

/// What the kinds that own pods have in common. `kind` is upstream's word in the message on an empty
/// selector.
fn workload(object: &Value, kind: &str, errors: &mut Errors) {
    let path = Path::new("spec");
    let selector = at(object, "/spec/selector");
    match selector {
        None => errors.required(&path.child("selector"), ""),
        Some(selector) => {
            check_selector(selector, &path.child("selector"), errors);
            if selects_everything(selector) {
                let detail = format!("empty selector is invalid for {kind}");
                errors.invalid(&path.child("selector"), selector.clone(), detail);
            }
        }
    }
    for key in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        non_negative(&object["spec"], key, &path, errors);
    }
    check_template(object, selector, errors);
}

fn check_template(object: &Value, selector: Option<&Value>, errors: &mut Errors) {
    let path = Path::new("spec").child("template");
    let template = &object["spec"]["template"];
    if template.is_null() {
        errors.required(&path, "");
        return;
    }
    let labels_at = path.child("metadata").child("labels");
    let labels = at(template, "/metadata/labels");
    check_labels(template, "/metadata/labels", &labels_at, errors);
    if let Some(selector) = selector
        && !selects_everything(selector)
        && !selector_matches(selector, labels)
    {
        let value = labels.cloned().unwrap_or_else(|| json!({}));
        errors.invalid(&labels_at, value, "`selector` does not match template `labels`");
    }
    let spec = &template["spec"];
    let at = path.child("spec");
    check_pod_spec(spec, &at, errors);
    let policy = string(spec, "restartPolicy");
    if matches!(policy, "OnFailure" | "Never") {
        errors.one_of(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if is_set(spec, "activeDeadlineSeconds") {
        let kind = if string(object, "kind") == "DaemonSet" { "DaemonSet" } else { "ReplicaSet" };
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&at.child("activeDeadlineSeconds"), detail);
    }
    if !super::items(spec, "/ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.forbidden(&at.child("ephemeralContainers"), detail);
    }
}

pub(crate) fn selector_immutable(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec").child("selector");
    errors.immutable(&path, at(new, "/spec/selector"), at(old, "/spec/selector"));
}

pub(crate) fn replica_set(object: &Value, errors: &mut Errors) {
    // Upstream says "deployment" of replica sets too.
    workload(object, "deployment", errors);
}

/// Its selector is a plain map of labels.
pub(crate) fn replication_controller(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    if entries(object, "/spec/selector").next().is_none() {
        errors.required(&path.child("selector"), "");
    }
    check_labels(object, "/spec/selector", &path.child("selector"), errors);
    for key in ["replicas", "minReadySeconds"] {
        non_negative(&object["spec"], key, &path, errors);
    }
    let selector = json!({"matchLabels": object["spec"]["selector"]});
    check_template(object, Some(&selector), errors);
}

pub(crate) fn deployment(object: &Value, errors: &mut Errors) {
    workload(object, "deployment", errors);
    let spec = Path::new("spec");
    non_negative(&object["spec"], "progressDeadlineSeconds", &spec, errors);
    let ready = integer(object, "/spec/minReadySeconds").unwrap_or(0);
    if let Some(seconds) = integer(object, "/spec/progressDeadlineSeconds").filter(|s| *s <= ready) {
        errors.invalid(
            &spec.child("progressDeadlineSeconds"),
            seconds,
            "must be greater than minReadySeconds",
        );
    }
    let path = spec.child("strategy");
    let kind = text(object, "/spec/strategy/type");
    errors.one_of(&path.child("type"), kind, &["Recreate", "RollingUpdate"]);
    let Some(rolling) = at(object, "/spec/strategy/rollingUpdate") else { return };
    let path = path.child("rollingUpdate");
    if kind == "Recreate" {
        errors.forbidden(&path, "may not be specified when strategy `type` is 'Recreate'");
        return;
    }
    int_or_percent(rolling, "maxUnavailable", true, &path, errors);
    int_or_percent(rolling, "maxSurge", false, &path, errors);
    if is_zero(&rolling["maxUnavailable"]) && is_zero(&rolling["maxSurge"]) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.invalid(&path.child("maxUnavailable"), rolling["maxUnavailable"].clone(), detail);
    }
}

pub(crate) fn stateful_set(object: &Value, errors: &mut Errors) {
    workload(object, "statefulset", errors);
    let path = Path::new("spec");
    match text(object, "/spec/podManagementPolicy") {
        "OrderedReady" | "Parallel" => {}
        other => {
            let at = path.child("podManagementPolicy");
            errors.invalid(&at, other, "must be 'OrderedReady' or 'Parallel'");
        }
    }
    let at = path.child("updateStrategy");
    match text(object, "/spec/updateStrategy/type") {
        "OnDelete" if !object["spec"]["updateStrategy"]["rollingUpdate"].is_null() => {
            let value = object["spec"]["updateStrategy"]["rollingUpdate"].clone();
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&at.child("rollingUpdate"), value, detail);
        }
        "OnDelete" | "RollingUpdate" => {}
        other => errors.invalid(&at, other, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let rolling = &object["spec"]["updateStrategy"]["rollingUpdate"];
    non_negative(rolling, "partition", &at.child("rollingUpdate"), errors);
    if let Some(policy) = field(&object["spec"], "persistentVolumeClaimRetentionPolicy") {
        let at = path.child("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            errors.one_of(&at.child(key), string(policy, key), &["Delete", "Retain"]);
        }
    }
}

pub(crate) fn stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    let fixed = |object: &Value| {
        let mut spec = object["spec"].clone();
        for key in [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ] {
            remove(&mut spec, key);
        }
        spec
    };
    if !same(Some(&fixed(new)), Some(&fixed(old))) {
        errors.forbidden(
            &Path::new("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
             'minReadySeconds' are forbidden",
        );
    }
}

pub(crate) fn daemon_set(object: &Value, errors: &mut Errors) {
    workload(object, "daemonset", errors);
    let path = Path::new("spec").child("updateStrategy");
    let kind = text(object, "/spec/updateStrategy/type");
    errors.one_of(&path.child("type"), kind, &["OnDelete", "RollingUpdate"]);
    if kind != "RollingUpdate" {
        return;
    }
    let path = path.child("rollingUpdate");
    let Some(rolling) = at(object, "/spec/updateStrategy/rollingUpdate") else {
        errors.required(&path, "");
        return;
    };
    int_or_percent(rolling, "maxUnavailable", true, &path, errors);
    int_or_percent(rolling, "maxSurge", true, &path, errors);
    match (is_zero(&rolling["maxUnavailable"]), is_zero(&rolling["maxSurge"])) {
        (true, true) => errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.invalid(&path.child("maxSurge"), rolling["maxSurge"].clone(), detail);
        }
        _ => {}
    }
}
