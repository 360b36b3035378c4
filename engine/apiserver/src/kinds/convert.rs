//! Resources that are served in two versions and stored in one.

use serde_json::{Value, json};

use crate::kinds::value::{child, items, put, remove, text};

/// Field names of a core event and of an `events.k8s.io` event.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

pub(crate) fn event_from_core(object: &mut Value) {
    for (core, new) in EVENT_FIELDS {
        rename(object, core, new);
    }
    rename(object, "count", "deprecatedCount");
}

pub(crate) fn event_to_core(object: &mut Value) {
    for (core, new) in EVENT_FIELDS {
        rename(object, new, core);
    }
    rename(object, "deprecatedCount", "count");
    crate::kinds::core::default_event(object);
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(value) = remove(object, from) {
        put(object, to, value);
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// v1 knows one CPU target; everything else travels in annotations.
pub(crate) fn autoscaler_from_v2(object: &mut Value) {
    let metrics = items(object, "/spec/metrics").to_vec();
    let is_cpu = |m: &Value| {
        text(m, "/resource/name") == "cpu" && m.pointer("/resource/target/averageUtilization").is_some()
    };
    let target =
        metrics.iter().find(|m| is_cpu(m)).map(|m| m["resource"]["target"]["averageUtilization"].clone());
    let mut others = metrics;
    if let Some(index) = others.iter().position(is_cpu) {
        others.remove(index);
    }
    let behavior = child(object, "spec").and_then(|spec| {
        remove(spec, "metrics");
        if let Some(target) = target {
            put(spec, "targetCPUUtilizationPercentage", target);
        }
        remove(spec, "behavior")
    });
    if let Some(status) = child(object, "status") {
        let current = items(status, "/currentMetrics").iter().find(|m| text(m, "/resource/name") == "cpu");
        let current = current.and_then(|m| m.pointer("/resource/current/averageUtilization")).cloned();
        remove(status, "currentMetrics");
        remove(status, "conditions");
        if let Some(current) = current {
            put(status, "currentCPUUtilizationPercentage", current);
        }
    }
    if others.is_empty() && behavior.is_none() {
        return;
    }
    let Some(annotations) = child(object, "metadata").and_then(|m| child(m, "annotations")) else { return };
    if !others.is_empty() {
        put(annotations, METRICS, Value::from(others).to_string());
    }
    if let Some(behavior) = behavior {
        put(annotations, BEHAVIOR, behavior.to_string());
    }
}

pub(crate) fn autoscaler_to_v2(object: &mut Value) {
    let carried = |object: &mut Value, key: &str| {
        let annotations = object.pointer_mut("/metadata/annotations")?;
        let raw = remove(annotations, key)?;
        serde_json::from_str::<Value>(raw.as_str()?).ok()
    };
    let metrics = carried(object, METRICS);
    let behavior = carried(object, BEHAVIOR);
    if let Some(spec) = child(object, "spec") {
        let mut all = Vec::new();
        if let Some(percent) = remove(spec, "targetCPUUtilizationPercentage").filter(|v| !v.is_null()) {
            all.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}}));
        }
        if let Some(Value::Array(more)) = metrics {
            all.extend(more);
        }
        if !all.is_empty() {
            put(spec, "metrics", all);
        }
        if let Some(behavior) = behavior {
            put(spec, "behavior", behavior);
        }
    }
    if let Some(status) = crate::kinds::value::child_if(object, "status")
        && let Some(percent) = remove(status, "currentCPUUtilizationPercentage").filter(|v| !v.is_null())
    {
        let current = json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": percent}}}]);
        put(status, "currentMetrics", current);
    }
    crate::kinds::core::default_autoscaler(object);
}
