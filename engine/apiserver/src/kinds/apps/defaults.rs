//! Defaults of the workload kinds (upstream `pkg/apis/apps/v1/defaults.go`).

use serde_json::{Value, json};

use crate::kinds::pod::default_template;
use crate::kinds::value::{child, child_if, default_string, default_to, items_mut, put, string};

pub(crate) fn default_deployment(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_to(spec, "replicas", 1);
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
    if let Some(strategy) = child(spec, "strategy") {
        default_string(strategy, "type", "RollingUpdate");
        if string(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default_to(rolling, "maxUnavailable", "25%");
            default_to(rolling, "maxSurge", "25%");
        }
    }
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
}

pub(crate) fn default_replica_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_to(spec, "replicas", 1);
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
}

pub(crate) fn default_replication_controller(object: &mut Value) {
    default_replica_set(object);
    // Selector and labels that are left out are the template's labels.
    let Some(labels) = object.pointer("/spec/template/metadata/labels").cloned() else { return };
    if labels.as_object().is_none_or(serde_json::Map::is_empty) {
        return;
    }
    if let Some(spec) = child(object, "spec") {
        default_to(spec, "selector", labels.clone());
    }
    if let Some(metadata) = child(object, "metadata") {
        default_to(metadata, "labels", labels);
    }
}

pub(crate) fn default_daemon_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
    if let Some(strategy) = child(spec, "updateStrategy") {
        default_string(strategy, "type", "RollingUpdate");
        if string(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default_to(rolling, "maxUnavailable", 1);
            default_to(rolling, "maxSurge", 0);
        }
    }
    default_to(spec, "revisionHistoryLimit", 10);
}

pub(crate) fn default_stateful_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
    default_string(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = child(spec, "updateStrategy")
        && string(strategy, "type").is_empty()
    {
        put(strategy, "type", "RollingUpdate");
        if let Some(rolling) = child(strategy, "rollingUpdate") {
            default_to(rolling, "partition", 0);
        }
    }
    if let Some(rolling) = spec.pointer_mut("/updateStrategy/rollingUpdate") {
        default_to(rolling, "partition", 0);
    }
    if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        default_string(policy, "whenDeleted", "Retain");
        default_string(policy, "whenScaled", "Retain");
    }
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    for claim in items_mut(spec, "/volumeClaimTemplates") {
        default_to(claim, "apiVersion", "v1");
        default_to(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = child(claim, "spec") {
            default_to(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = child(claim, "status") {
            default_string(status, "phase", "Pending");
        }
    }
}

pub(crate) fn default_job(object: &mut Value) {
    if let Some(spec) = child(object, "spec") {
        default_job_spec(spec, true);
    }
}

/// `created`: a Job itself rather than a CronJob's template, which gets only what its pods need.
pub(crate) fn default_job_spec(spec: &mut Value, created: bool) {
    if let Some(template) = child(spec, "template") {
        default_template(template);
    }
    let indexed = string(spec, "completionMode") == "Indexed";
    if spec.get("completions").is_none_or(Value::is_null)
        && spec.get("parallelism").is_none_or(Value::is_null)
    {
        put_if(spec, created, "completions", json!(1));
        put_if(spec, created, "parallelism", json!(1));
    }
    if !created {
        return;
    }
    default_to(spec, "parallelism", 1);
    if indexed && spec.get("backoffLimitPerIndex").is_some_and(|v| !v.is_null()) {
        default_to(spec, "backoffLimit", i32::MAX);
    } else {
        default_to(spec, "backoffLimit", 6);
    }
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let replacement = if spec.get("podFailurePolicy").is_some_and(|v| !v.is_null()) {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default_to(spec, "podReplacementPolicy", replacement);
    default_to(spec, "manualSelector", false);
    for rule in items_mut(spec, "/podFailurePolicy/rules") {
        for pattern in items_mut(rule, "/onPodConditions") {
            default_string(pattern, "status", "True");
        }
    }
}

fn put_if(spec: &mut Value, condition: bool, key: &str, value: Value) {
    if condition {
        put(spec, key, value);
    }
}

pub(crate) fn default_cron_job(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_string(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = child(spec, "jobTemplate") {
        child(template, "metadata");
        if let Some(job) = child(template, "spec") {
            default_job_spec(job, false);
        }
    }
}

/// ControllerRevisions and pod templates keep what they were given.
pub(crate) fn default_pod_template(object: &mut Value) {
    if let Some(template) = child_if(object, "template") {
        default_template(template);
    }
}

/// A job selects its pods by a label made of its own uid, unless the user manages the selector.
pub(crate) fn prepare_job(object: &mut Value) {
    if object.pointer("/spec/manualSelector") == Some(&json!(true)) {
        return;
    }
    let uid = crate::kinds::value::text(object, "/metadata/uid").to_owned();
    let name = crate::kinds::value::text(object, "/metadata/name").to_owned();
    let Some(spec) = child(object, "spec") else { return };
    let labels = child(spec, "template").and_then(|t| child(t, "metadata")).and_then(|m| child(m, "labels"));
    if let Some(labels) = labels {
        for prefix in ["", "batch.kubernetes.io/"] {
            default_to(labels, &format!("{prefix}controller-uid"), uid.clone());
            default_to(labels, &format!("{prefix}job-name"), name.clone());
        }
    }
    put(spec, "selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
}
