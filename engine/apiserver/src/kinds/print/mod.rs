//! What `kubectl get` prints of each kind (upstream `pkg/printers/internalversion`).

mod cluster;
mod more;
mod network;
mod pod;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kind::Column;
use crate::kinds::value::{entries, items, string, text};
pub(crate) use crate::table::human_duration;

pub(crate) use cluster::*;
pub(crate) use more::*;
pub(crate) use network::*;
pub(crate) use pod::{pod_columns, pod_row};
pub(crate) use workload::*;

/// String columns; those of `wide` only with `-o wide`. A name that ends in `#` holds integers.
fn columns(names: &[&str], wide: &[&str]) -> Vec<Column> {
    let make = |name: &str| {
        let (name, kind) = name.strip_suffix('#').map_or((name, "string"), |name| (name, "integer"));
        Column::new(name, kind, describe(name))
    };
    names.iter().map(|n| make(n)).chain(wide.iter().map(|n| make(n).wide())).collect()
}

/// What the column shows, where its name does not say it all.
fn describe(name: &str) -> &'static str {
    match name {
        "Age" => crate::kind::AGE,
        "Ready" => "How many of the parts that are wanted are ready to serve.",
        "Status" => "What the object does now, in a word.",
        "Restarts" => "How often the containers were started again, and when last.",
        "IP" => "The first address of the pod.",
        "Node" => "The node that runs the pod.",
        "Nominated Node" => "The node on which room is being made for the pod.",
        "Readiness Gates" => "Conditions of others that hold, of those the pod waits for.",
        "Up-to-date" => "Replicas that run the newest template.",
        "Available" => "Replicas that have been ready for long enough to count on.",
        "Desired" => "How many the controller keeps up.",
        "Current" => "How many there are.",
        "Containers" => "Names of the template's containers.",
        "Images" => "Images of the template's containers.",
        "Selector" => "Labels of the pods that belong to it.",
        "Completions" => "Pods that ended well, of those that have to.",
        "Duration" => "How long it ran, or has run so far.",
        "Type" => "Which of its kind it is.",
        "Cluster-IP" => "The address inside the cluster.",
        "External-IP" => "Addresses outside the cluster that lead to it.",
        "Port(s)" => "Ports, with the node's port behind a colon, and protocols.",
        "Roles" => "Roles the node's labels name.",
        "Version" => "The version of the node's agent.",
        "Internal-IP" => "The address other nodes reach it by.",
        "OS-Image" => "The operating system as it names itself.",
        "Kernel-Version" => "The kernel as it names itself.",
        "Container-Runtime" => "The runtime and its version.",
        "Last Seen" => "The time since it happened last.",
        "First Seen" => "The time since it happened first.",
        "Reason" => "Why, in one word for programs.",
        "Object" => "What it is about.",
        "Message" => "What happened, in a sentence.",
        "Source" => "Who reports it.",
        "Count" => "How often it happened.",
        "Endpoints" => "Addresses and ports behind it.",
        "Hosts" => "Host names it routes.",
        "Capacity" => "The storage there is.",
        "Access Modes" => "How many nodes may mount it, and for what.",
        "Reclaim Policy" => "What becomes of it when its claim goes.",
        "Volume" => "The volume that is bound to it.",
        "Claim" => "The claim that is bound to it.",
        "Data" => "How many keys it holds.",
        "Allowed Disruptions" => "Pods that may be evicted now.",
        "Reference" => "What it scales.",
        "Targets" => "What was measured, and what is aimed at.",
        "Schedule" => "When it runs, as a cron expression.",
        "Suspend" => "Does it wait?",
        "Holder" => "Who holds it.",
        _ => "",
    }
}

pub(crate) fn age_columns() -> Vec<Column> {
    columns(&["Age"], &[])
}

pub(crate) fn age_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![age(object, now)]
}

fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "/metadata/creationTimestamp"), now)
}

/// `5m`, `<unknown>` where there is no time.
fn since(time: &str, now: Timestamp) -> Value {
    let known = time.parse::<Timestamp>().ok();
    json!(known.map_or("<unknown>".to_owned(), |t| human_duration(now.as_second() - t.as_second())))
}

/// A `LabelSelector` as text: `app=web,tier in (a,b)`; `<none>` where empty.
fn selector_text(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return "<none>".to_owned() };
    let mut parts: Vec<String> = sorted_pairs(selector, "/matchLabels");
    for expression in items(selector, "/matchExpressions") {
        let key = string(expression, "key");
        let mut values: Vec<&str> = items(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match string(expression, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

/// A plain label map as text, `<none>` where empty.
fn labels_text(object: &Value, pointer: &str) -> String {
    let parts = sorted_pairs(object, pointer);
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

fn sorted_pairs(object: &Value, pointer: &str) -> Vec<String> {
    let mut pairs: Vec<String> =
        entries(object, pointer).map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort_unstable();
    pairs
}

/// Names and images of a pod template's containers, each joined by commas.
fn containers_and_images(spec: Option<&Value>) -> (String, String) {
    let list = spec.map(|s| items(s, "/containers")).unwrap_or_default();
    let join = |key: &str| list.iter().map(|c| string(c, key)).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

/// `text`, or `<none>`.
fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}
