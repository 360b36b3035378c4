//! Rows of nodes, events, storage, rights and the other small kinds.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, columns, or_none, since};
use crate::kind::Column;
use crate::kinds::value::{at, entries, field, integer, items, string, text, truth};

pub(crate) fn config_map_columns() -> Vec<Column> {
    columns(&["Data#", "Age"], &[])
}

pub(crate) fn config_map_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(entries(o, "/data").count() + entries(o, "/binaryData").count()), age(o, now)]
}

pub(crate) fn secret_columns() -> Vec<Column> {
    columns(&["Type", "Data#", "Age"], &[])
}

pub(crate) fn secret_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(string(o, "type")), json!(entries(o, "/data").count()), age(o, now)]
}

pub(crate) fn account_columns() -> Vec<Column> {
    columns(&["Secrets#", "Age"], &[])
}

pub(crate) fn account_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(items(o, "/secrets").len()), age(o, now)]
}

pub(crate) fn namespace_columns() -> Vec<Column> {
    columns(&["Status", "Age"], &[])
}

pub(crate) fn namespace_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(text(o, "/status/phase")), age(o, now)]
}

pub(crate) fn node_columns() -> Vec<Column> {
    columns(
        &["Status", "Roles", "Age", "Version"],
        &["Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"],
    )
}

pub(crate) fn node_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(o, "/status/conditions").iter().find(|c| string(c, "type") == "Ready");
    let mut status = match ready.map(|c| string(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if truth(o, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = entries(o, "/metadata/labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ => (key == "kubernetes.io/role").then(|| value.as_str().unwrap_or_default()),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        let found = items(o, "/status/addresses").iter().find(|a| string(a, "type") == kind);
        json!(or_none(found.map_or("", |a| string(a, "address"))))
    };
    let unknown = |key: &str| {
        let found = text(o, &format!("/status/nodeInfo/{key}"));
        json!(if found.is_empty() { "<unknown>" } else { found })
    };
    vec![
        json!(status),
        json!(or_none(&roles.join(","))),
        age(o, now),
        json!(text(o, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        unknown("osImage"),
        unknown("kernelVersion"),
        unknown("containerRuntimeVersion"),
    ]
}

pub(crate) fn event_columns() -> Vec<Column> {
    columns(
        &["Last Seen", "Type", "Reason", "Object", "Message"],
        &["Subobject", "Source", "First Seen", "Count#", "Name"],
    )
}

pub(crate) fn event_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let first = ["/firstTimestamp", "/eventTime"].iter().map(|p| text(o, p)).find(|t| !t.is_empty());
    let last =
        ["/series/lastObservedTime", "/lastTimestamp"].iter().map(|p| text(o, p)).find(|t| !t.is_empty());
    let first_seen = since(first.unwrap_or_default(), now);
    let last_seen = last.map_or(first_seen.clone(), |t| since(t, now));
    let target = |key: &str| text(o, &format!("/involvedObject/{key}"));
    let source = [text(o, "/source/component"), text(o, "/source/host")];
    let source = match source {
        ["", _] => string(o, "reportingComponent").to_owned(),
        [component, ""] => component.to_owned(),
        [component, host] => format!("{component}, {host}"),
    };
    let count = integer(o, "/series/count").or_else(|| integer(o, "/count")).unwrap_or(0).max(1);
    vec![
        last_seen,
        json!(string(o, "type")),
        json!(string(o, "reason")),
        json!(format!("{}/{}", target("kind").to_lowercase(), target("name"))),
        json!(string(o, "message").trim()),
        json!(target("fieldPath")),
        json!(source),
        first_seen,
        json!(count),
        json!(text(o, "/metadata/name")),
    ]
}

/// The same row for an event of `events.k8s.io`.
pub(crate) fn new_event_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut core = o.clone();
    crate::kinds::convert::event_to_core(&mut core);
    event_row(&core, now)
}

pub(crate) fn claim_columns() -> Vec<Column> {
    columns(
        &["Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass", "Age"],
        &["VolumeMode"],
    )
}

fn modes(o: &Value, pointer: &str) -> String {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        _ => "RWOP",
    };
    items(o, pointer).iter().filter_map(Value::as_str).map(short).collect::<Vec<_>>().join(",")
}

fn unset(text: &str) -> Value {
    json!(if text.is_empty() { "<unset>" } else { text })
}

pub(crate) fn claim_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let bound = !text(o, "/spec/volumeName").is_empty();
    let phase =
        if at(o, "/metadata/deletionTimestamp").is_some() { "Terminating" } else { text(o, "/status/phase") };
    vec![
        json!(phase),
        json!(text(o, "/spec/volumeName")),
        json!(if bound { text(o, "/status/capacity/storage") } else { "" }),
        json!(if bound { modes(o, "/status/accessModes") } else { String::new() }),
        json!(text(o, "/spec/storageClassName")),
        unset(text(o, "/spec/volumeAttributesClassName")),
        age(o, now),
        unset(text(o, "/spec/volumeMode")),
    ]
}

pub(crate) fn volume_columns() -> Vec<Column> {
    columns(
        &[
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
        ],
        &["VolumeMode"],
    )
}

pub(crate) fn volume_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let claim = at(o, "/spec/claimRef")
        .map_or(String::new(), |c| format!("{}/{}", string(c, "namespace"), string(c, "name")));
    let phase =
        if at(o, "/metadata/deletionTimestamp").is_some() { "Terminating" } else { text(o, "/status/phase") };
    vec![
        json!(text(o, "/spec/capacity/storage")),
        json!(modes(o, "/spec/accessModes")),
        json!(text(o, "/spec/persistentVolumeReclaimPolicy")),
        json!(phase),
        json!(claim),
        json!(text(o, "/spec/storageClassName")),
        unset(text(o, "/spec/volumeAttributesClassName")),
        json!(text(o, "/status/reason")),
        age(o, now),
        unset(text(o, "/spec/volumeMode")),
    ]
}

pub(crate) fn role_columns() -> Vec<Column> {
    columns(&["Created At"], &[])
}

pub(crate) fn role_row(o: &Value, _now: Timestamp) -> Vec<Value> {
    vec![json!(text(o, "/metadata/creationTimestamp"))]
}

pub(crate) fn binding_columns() -> Vec<Column> {
    columns(&["Role", "Age"], &["Users", "Groups", "ServiceAccounts"])
}

pub(crate) fn binding_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name"));
    let subjects = |kind: &str| {
        let named: Vec<String> = items(o, "/subjects")
            .iter()
            .filter(|s| string(s, "kind") == kind)
            .map(|s| match (kind, string(s, "namespace")) {
                ("ServiceAccount", namespace) => format!("{namespace}/{}", string(s, "name")),
                _ => string(s, "name").to_owned(),
            })
            .collect();
        json!(named.join(", "))
    };
    vec![json!(role), age(o, now), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

pub(crate) fn storage_class_columns() -> Vec<Column> {
    columns(&["Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"], &[])
}

pub(crate) fn storage_class_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(string(o, "provisioner")),
        json!(string(o, "reclaimPolicy")),
        json!(string(o, "volumeBindingMode")),
        json!(truth(o, "/allowVolumeExpansion")),
        age(o, now),
    ]
}

pub(crate) fn lease_columns() -> Vec<Column> {
    columns(&["Holder", "Age"], &[])
}

pub(crate) fn lease_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(text(o, "/spec/holderIdentity")), age(o, now)]
}

pub(crate) fn priority_columns() -> Vec<Column> {
    columns(&["Value#", "Global-Default", "Age", "PreemptionPolicy"], &[])
}

pub(crate) fn priority_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let policy = json!(string(o, "preemptionPolicy"));
    vec![json!(integer(o, "/value").unwrap_or(0)), json!(truth(o, "/globalDefault")), age(o, now), policy]
}

pub(crate) fn runtime_columns() -> Vec<Column> {
    columns(&["Handler", "Age"], &[])
}

pub(crate) fn runtime_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(string(o, "handler")), age(o, now)]
}

pub(crate) fn webhook_columns() -> Vec<Column> {
    columns(&["Webhooks#", "Age"], &[])
}

pub(crate) fn webhook_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(items(o, "/webhooks").len()), age(o, now)]
}

pub(crate) fn crd_columns() -> Vec<Column> {
    columns(&["Created At"], &[])
}

pub(crate) fn crd_row(o: &Value, now: Timestamp) -> Vec<Value> {
    role_row(o, now)
}

pub(crate) fn api_service_columns() -> Vec<Column> {
    columns(&["Service", "Available", "Age"], &[])
}

pub(crate) fn api_service_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let service = field(&o["spec"], "service")
        .map_or("Local".to_owned(), |s| format!("{}/{}", string(s, "namespace"), string(s, "name")));
    let available = items(o, "/status/conditions").iter().find(|c| string(c, "type") == "Available");
    let word = available.map_or("Unknown".to_owned(), |c| match (string(c, "status"), string(c, "reason")) {
        ("True", _) => "True".to_owned(),
        (status, reason) => format!("{status} ({reason})"),
    });
    vec![json!(service), json!(word), age(o, now)]
}
