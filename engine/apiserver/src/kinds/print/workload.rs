//! Rows of workloads and of what scales and guards them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, columns, containers_and_images, human_duration, labels_text, selector_text, since};
use crate::kind::Column;
use crate::kinds::value::{at, integer, items, string, text, truth};

fn count(object: &Value, pointer: &str) -> i64 {
    integer(object, pointer).unwrap_or(0)
}

/// Containers, images and selector of a template, the wide columns of workloads.
fn wide(object: &Value) -> [Value; 3] {
    let (names, images) = containers_and_images(at(object, "/spec/template/spec"));
    [json!(names), json!(images), json!(selector_text(at(object, "/spec/selector")))]
}

const WIDE: &[&str] = &["Containers", "Images", "Selector"];

pub(crate) fn deployment_columns() -> Vec<Column> {
    columns(&["Ready", "Up-to-date", "Available", "Age"], WIDE)
}

pub(crate) fn deployment_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!("{}/{}", count(o, "/status/readyReplicas"), count(o, "/spec/replicas"));
    let mut row = vec![
        json!(ready),
        json!(count(o, "/status/updatedReplicas")),
        json!(count(o, "/status/availableReplicas")),
        age(o, now),
    ];
    row.extend(wide(o));
    row
}

pub(crate) fn replica_columns() -> Vec<Column> {
    columns(&["Desired#", "Current#", "Ready#", "Age"], WIDE)
}

pub(crate) fn replica_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut row = vec![
        json!(count(o, "/spec/replicas")),
        json!(count(o, "/status/replicas")),
        json!(count(o, "/status/readyReplicas")),
        age(o, now),
    ];
    row.extend(wide(o));
    if string(o, "kind") == "ReplicationController" {
        row[6] = json!(labels_text(o, "/spec/selector"));
    }
    row
}

pub(crate) fn stateful_columns() -> Vec<Column> {
    columns(&["Ready", "Age"], &["Containers", "Images"])
}

pub(crate) fn stateful_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images, _] = wide(o);
    let ready = format!("{}/{}", count(o, "/status/readyReplicas"), count(o, "/spec/replicas"));
    vec![json!(ready), age(o, now), names, images]
}

pub(crate) fn daemon_columns() -> Vec<Column> {
    columns(&["Desired#", "Current#", "Ready#", "Up-to-date#", "Available#", "Node Selector", "Age"], WIDE)
}

pub(crate) fn daemon_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut row: Vec<Value> = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ]
    .iter()
    .map(|key| json!(count(o, &format!("/status/{key}"))))
    .collect();
    row.push(json!(labels_text(o, "/spec/template/spec/nodeSelector")));
    row.push(age(o, now));
    row.extend(wide(o));
    row
}

pub(crate) fn revision_columns() -> Vec<Column> {
    columns(&["Controller", "Revision#", "Age"], &[])
}

pub(crate) fn revision_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let owner = items(o, "/metadata/ownerReferences").iter().find(|r| truth(r, "/controller"));
    let controller = owner.map_or("<none>".to_owned(), |r| {
        let group = string(r, "apiVersion").split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
        format!("{}{group}/{}", string(r, "kind").to_lowercase(), string(r, "name"))
    });
    vec![json!(controller), json!(count(o, "/revision")), age(o, now)]
}

pub(crate) fn job_columns() -> Vec<Column> {
    columns(&["Status", "Completions", "Duration", "Age"], WIDE)
}

pub(crate) fn job_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let holds = |kind: &str| {
        items(o, "/status/conditions")
            .iter()
            .any(|c| string(c, "type") == kind && string(c, "status") == "True")
    };
    let status = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if at(o, "/metadata/deletionTimestamp").is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let done = count(o, "/status/succeeded");
    let completions = match (integer(o, "/spec/completions"), count(o, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    };
    let start = text(o, "/status/startTime").parse::<Timestamp>().ok();
    let end = text(o, "/status/completionTime").parse::<Timestamp>().unwrap_or(now);
    let duration = start.map_or(String::new(), |s| human_duration(end.as_second() - s.as_second()));
    let mut row = vec![json!(status), json!(completions), json!(duration), age(o, now)];
    row.extend(wide(o));
    row
}

pub(crate) fn cron_columns() -> Vec<Column> {
    columns(&["Schedule", "Timezone", "Suspend", "Active#", "Last Schedule", "Age"], WIDE)
}

pub(crate) fn cron_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let zone = text(o, "/spec/timeZone");
    let last = text(o, "/status/lastScheduleTime");
    let last = if last.is_empty() { json!("<none>") } else { since(last, now) };
    let (names, images) = containers_and_images(at(o, "/spec/jobTemplate/spec/template/spec"));
    vec![
        json!(text(o, "/spec/schedule")),
        json!(super::or_none(zone)),
        json!(if truth(o, "/spec/suspend") { "True" } else { "False" }),
        json!(items(o, "/status/active").len()),
        last,
        age(o, now),
        json!(names),
        json!(images),
        json!(selector_text(at(o, "/spec/jobTemplate/spec/selector"))),
    ]
}

pub(crate) fn autoscaler_columns() -> Vec<Column> {
    columns(&["Reference", "Targets", "MinPods", "MaxPods#", "Replicas#", "Age"], &[])
}

pub(crate) fn autoscaler_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let target = |key: &str| text(o, &format!("/spec/scaleTargetRef/{key}")).to_owned();
    let current = items(o, "/status/currentMetrics");
    let shown: Vec<String> = items(o, "/spec/metrics")
        .iter()
        .enumerate()
        .take(2)
        .map(|(i, metric)| metric_text(metric, current.get(i)))
        .collect();
    let more = items(o, "/spec/metrics").len().saturating_sub(2);
    let mut targets = if shown.is_empty() { "<none>".to_owned() } else { shown.join(", ") };
    if more > 0 {
        targets.push_str(&format!(" + {more} more..."));
    }
    vec![
        json!(format!("{}/{}", target("kind"), target("name"))),
        json!(targets),
        json!(integer(o, "/spec/minReplicas").map_or("<unset>".to_owned(), |n| n.to_string())),
        json!(count(o, "/spec/maxReplicas")),
        json!(count(o, "/status/currentReplicas")),
        age(o, now),
    ]
}

/// `cpu: 12%/80%`, `<unknown>` while nothing was measured.
fn metric_text(metric: &Value, current: Option<&Value>) -> String {
    let (key, prefix) = match string(metric, "type") {
        "Resource" => ("resource", format!("{}: ", text(metric, "/resource/name"))),
        "ContainerResource" => {
            ("containerResource", format!("{}: ", text(metric, "/containerResource/name")))
        }
        "Pods" => ("pods", String::new()),
        "Object" => ("object", String::new()),
        _ => ("external", String::new()),
    };
    let target = metric.pointer(&format!("/{key}/target"));
    let now = current.and_then(|c| c.pointer(&format!("/{key}/current")));
    let read = |from: Option<&Value>| {
        let from = from?;
        if let Some(percent) = integer(from, "/averageUtilization") {
            return Some(format!("{percent}%"));
        }
        ["/averageValue", "/value"].iter().map(|p| text(from, p)).find(|t| !t.is_empty()).map(str::to_owned)
    };
    let wanted = read(target).unwrap_or("<auto>".to_owned());
    format!("{prefix}{}/{wanted}", read(now).unwrap_or("<unknown>".to_owned()))
}

pub(crate) fn budget_columns() -> Vec<Column> {
    columns(&["Min Available", "Max Unavailable", "Allowed Disruptions#", "Age"], &[])
}

pub(crate) fn budget_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |pointer: &str| match at(o, pointer) {
        Some(Value::String(s)) => json!(s),
        Some(n) => json!(n.to_string()),
        None => json!("N/A"),
    };
    vec![
        bound("/spec/minAvailable"),
        bound("/spec/maxUnavailable"),
        json!(count(o, "/status/disruptionsAllowed")),
        age(o, now),
    ]
}
