//! Rows of quotas, limits, signing requests and CSI drivers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, columns, or_none};
use crate::kind::Column;
use crate::kinds::value::{entries, field, integer, items, string, text, truth};

pub(crate) fn quota_columns() -> Vec<Column> {
    columns(&["Request", "Limit", "Age"], &[])
}

/// `cpu: 1/4, pods: 3/10`: what is used of what is allowed.
pub(crate) fn quota_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let shown = |v: &Value| v.as_str().map_or(v.to_string(), str::to_owned);
    let mut all: Vec<(&String, String)> = entries(o, "/status/hard")
        .map(|(name, hard)| {
            let used = o["status"]["used"].get(name).map_or("0".to_owned(), shown);
            (name, format!("{name}: {used}/{}", shown(hard)))
        })
        .collect();
    all.sort();
    let join = |limits: bool| {
        let part = all.iter().filter(|(name, _)| name.starts_with("limits.") == limits);
        json!(part.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", "))
    };
    vec![join(false), join(true), age(o, now)]
}

pub(crate) fn limit_range_columns() -> Vec<Column> {
    columns(&["Created At"], &[])
}

pub(crate) fn limit_range_row(o: &Value, _now: Timestamp) -> Vec<Value> {
    vec![json!(text(o, "/metadata/creationTimestamp"))]
}

pub(crate) fn signing_columns() -> Vec<Column> {
    columns(&["Age", "SignerName", "Requestor", "RequestedDuration", "Condition"], &[])
}

pub(crate) fn signing_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let holds = |kind: &str| items(o, "/status/conditions").iter().any(|c| string(c, "type") == kind);
    let mut words = Vec::new();
    if holds("Denied") {
        words.push("Denied");
    } else if holds("Approved") {
        words.push("Approved");
    } else {
        words.push("Pending");
    }
    if holds("Failed") {
        words.push("Failed");
    }
    if !text(o, "/status/certificate").is_empty() {
        words.push("Issued");
    }
    let asked = integer(o, "/spec/expirationSeconds").map_or("<none>".to_owned(), super::human_duration);
    vec![
        age(o, now),
        json!(or_none(text(o, "/spec/signerName"))),
        json!(text(o, "/spec/username")),
        json!(asked),
        json!(words.join(",")),
    ]
}

pub(crate) fn csi_driver_columns() -> Vec<Column> {
    columns(
        &[
            "AttachRequired",
            "PodInfoOnMount",
            "StorageCapacity",
            "TokenRequests",
            "RequiresRepublish",
            "Modes",
            "Age",
        ],
        &[],
    )
}

pub(crate) fn csi_driver_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let tokens: Vec<&str> = items(o, "/spec/tokenRequests").iter().map(|t| string(t, "audience")).collect();
    let modes: Vec<&str> = items(o, "/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let modes = modes.join(",");
    let attach = field(&o["spec"], "attachRequired").and_then(Value::as_bool).unwrap_or(true);
    vec![
        json!(attach),
        json!(truth(o, "/spec/podInfoOnMount")),
        json!(truth(o, "/spec/storageCapacity")),
        json!(if tokens.is_empty() { "<unset>".to_owned() } else { tokens.join(",") }),
        json!(truth(o, "/spec/requiresRepublish")),
        json!(if modes.is_empty() { "<none>" } else { &modes }),
        age(o, now),
    ]
}

pub(crate) fn csi_node_columns() -> Vec<Column> {
    columns(&["Drivers#", "Age"], &[])
}

pub(crate) fn csi_node_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(items(o, "/spec/drivers").len()), age(o, now)]
}
