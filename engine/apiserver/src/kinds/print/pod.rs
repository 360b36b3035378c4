//! The row of a pod: its STATUS word is what most people look at first.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, columns, human_duration, or_none};
use crate::kind::Column;
use crate::kinds::value::{at, field, integer, items, string, text, truth};

pub(crate) fn pod_columns() -> Vec<Column> {
    columns(&["Ready", "Status", "Restarts", "Age"], &["IP", "Node", "Nominated Node", "Readiness Gates"])
}

pub(crate) fn pod_row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart.filter(|_| summary.restarts > 0) {
        Some(at) => {
            format!("{} ({} ago)", summary.restarts, human_duration(now.as_second() - at.as_second()))
        }
        None => summary.restarts.to_string(),
    };
    let address = items(pod, "/status/podIPs").first().map_or("", |ip| string(ip, "ip"));
    let address = if address.is_empty() { text(pod, "/status/podIP") } else { address };
    vec![
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.status),
        json!(restarts),
        age(pod, now),
        json!(or_none(address)),
        json!(or_none(text(pod, "/spec/nodeName"))),
        json!(or_none(text(pod, "/status/nominatedNodeName"))),
        json!(readiness_gates(pod)),
    ]
}

struct Summary {
    status: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = text(pod, "/status/phase");
        let reason = text(pod, "/status/reason");
        let mut summary = Self {
            status: if reason.is_empty() { phase } else { reason }.to_owned(),
            ready: 0,
            total: items(pod, "/spec/containers").len(),
            restarts: 0,
            last_restart: None,
        };
        if condition(pod, "PodScheduled").is_some_and(|c| string(c, "reason") == "SchedulingGated") {
            summary.status = "SchedulingGated".to_owned();
        }
        let initializing = summary.read_init_containers(pod);
        if !initializing || initialized(pod) {
            summary.read_containers(pod);
        }
        if at(pod, "/metadata/deletionTimestamp").is_some() {
            if reason == "NodeLost" {
                summary.status = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    /// True while an init container stands in the way; the status then says which.
    fn read_init_containers(&mut self, pod: &Value) -> bool {
        let declared = items(pod, "/spec/initContainers");
        let sidecar = |name: &str| {
            declared.iter().any(|c| string(c, "name") == name && string(c, "restartPolicy") == "Always")
        };
        self.total += declared.iter().filter(|c| string(c, "restartPolicy") == "Always").count();
        let mut blocked = false;
        let mut sidecar_restarts = 0;
        for (index, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
            let restartable = sidecar(string(status, "name"));
            let restarts = integer(status, "/restartCount").unwrap_or(0);
            self.note_restart(status);
            if restartable {
                sidecar_restarts += restarts;
                self.ready += usize::from(!blocked && truth(status, "/started") && truth(status, "/ready"));
            }
            if blocked {
                continue;
            }
            self.restarts += restarts;
            let ended = status.pointer("/state/terminated");
            let passed = ended.is_some_and(|t| integer(t, "/exitCode") == Some(0))
                || restartable && truth(status, "/started");
            if passed {
                continue;
            }
            self.status = init_word(status, index, declared.len());
            blocked = true;
        }
        if !blocked || initialized(pod) {
            self.restarts = sidecar_restarts;
        }
        blocked
    }

    fn read_containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in items(pod, "/status/containerStatuses").iter().rev() {
            self.restarts += integer(status, "/restartCount").unwrap_or(0);
            self.note_restart(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if let Some(ended) = at(status, "/state/terminated") {
                self.status = ended_word(ended, "");
            } else if truth(status, "/ready") && at(status, "/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && running {
            let ready = condition(pod, "Ready").is_some_and(|c| string(c, "status") == "True");
            self.status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn note_restart(&mut self, status: &Value) {
        let ended = text(status, "/lastState/terminated/finishedAt").parse::<Timestamp>().ok();
        self.last_restart = self.last_restart.max(ended);
    }
}

fn init_word(status: &Value, index: usize, total: usize) -> String {
    if let Some(ended) = at(status, "/state/terminated") {
        return ended_word(ended, "Init:");
    }
    match text(status, "/state/waiting/reason") {
        "" | "PodInitializing" => format!("Init:{index}/{total}"),
        reason => format!("Init:{reason}"),
    }
}

/// The reason a container ended with, else `Signal:9` or `ExitCode:1`.
fn ended_word(ended: &Value, prefix: &str) -> String {
    let reason = string(ended, "reason");
    let signal = integer(ended, "/signal").unwrap_or(0);
    if !reason.is_empty() {
        format!("{prefix}{reason}")
    } else if signal != 0 {
        format!("{prefix}Signal:{signal}")
    } else {
        format!("{prefix}ExitCode:{}", integer(ended, "/exitCode").unwrap_or(0))
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    items(pod, "/status/conditions").iter().find(|c| string(c, "type") == kind)
}

fn initialized(pod: &Value) -> bool {
    condition(pod, "Initialized").is_some_and(|c| string(c, "status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates
        .iter()
        .filter(|gate| {
            let kind = string(gate, "conditionType");
            condition(pod, kind).and_then(|c| field(c, "status")).is_some_and(|s| s == "True")
        })
        .count();
    format!("{met}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words() {
        let running = json!({"name": "a", "ready": true, "restartCount": 1, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}});
        let table = [
            (json!({"phase": "Pending"}), "0/1", "Pending", "0"),
            (json!({"phase": "Running", "containerStatuses": [running]}), "1/1", "Running", "1 (5s ago)"),
            (
                json!({"phase": "Running", "containerStatuses": [{"restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "0/1",
                "CrashLoopBackOff",
                "3",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"restartCount": 0,
                    "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
                "0/1",
                "Completed",
                "0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                "0/1",
                "Init:0/1",
                "0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i",
                    "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                "0/1",
                "Init:ImagePullBackOff",
                "0",
            ),
        ];
        let now = "2026-01-01T00:00:05Z".parse().expect("a time");
        for (status, ready, word, restarts) in table {
            let pod = json!({"metadata": {"name": "p"}, "status": status,
                "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
            let row = pod_row(&pod, now);
            assert_eq!(row[0..3], [json!(ready), json!(word), json!(restarts)], "{pod}");
        }
    }
}
