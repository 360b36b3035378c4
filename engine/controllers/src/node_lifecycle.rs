//! Nodes that stopped reporting are shown so, tainted, and their pods taken off them in time.

use std::sync::Arc;
use std::time::Duration;

use gantry_kube_logic::taints;
use gantry_reconcile::{Again, Key, Queue, work};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::events::{EventType, Recorder};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::shared::{Shared, enqueue_changes, gone_is_fine, reference, tell};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status that is a pressure, and the taint it brings.
const PRESSURES: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<Key> = Queue::default();
    enqueue_changes(&shared.informers.nodes, &queue);
    let leases = queue.clone();
    shared.informers.leases.on_change(move |change| {
        if let Some(lease) = change.object() {
            leases.add(Key::new("", lease.name_any()));
        }
    });
    let (this, recorder) = (shared.clone(), shared.recorder("node-controller"));
    work(&shared.tasks, "node-lifecycle", queue, 2, move |key| {
        let (shared, recorder) = (this.clone(), recorder.clone());
        async move { reconcile(&shared, &recorder, &key.name).await }
    });
}

async fn reconcile(shared: &Shared, recorder: &Recorder, name: &str) -> kube::Result<Again> {
    let informers = &shared.informers;
    informers.nodes.synced().await;
    informers.leases.synced().await;
    informers.pods.synced().await;
    let Some(node) = informers.nodes.get("", name) else { return Ok(Again::OnChange) };
    let now = Timestamp::now();
    let renewed = informers
        .leases
        .get("kube-node-lease", name)
        .and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
    let last = renewed.or_else(|| node.creation_timestamp().map(|t| t.0)).unwrap_or(now);
    let silent = now.duration_since(last).as_secs();
    let grace = i64::try_from(shared.config.node_grace.as_secs()).unwrap_or(i64::MAX);
    let api: Api<Node> = Api::all(shared.client.clone());
    if silent > grace && !is_unknown(&node) {
        let conditions = unknown_conditions(&node, now);
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        gone_is_fine(api.patch_status(name, &PatchParams::default(), &patch).await)?;
        let note = format!("Node {name} status is now: NodeNotReady");
        tell(recorder, &reference(&*node), EventType::Normal, "NodeNotReady", "NodeNotReady", note).await;
    }
    if let Some(taints) = taints(&node, silent > grace, now) {
        let metadata = json!({"resourceVersion": node.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"taints": taints}}));
        gone_is_fine(api.patch(name, &PatchParams::default(), &patch).await)?;
    }
    let evict_in = evict(shared, &node, now).await?;
    let next_look = Duration::from_secs((grace - silent + 1).clamp(1, grace + 1).unsigned_abs());
    Ok(Again::After(evict_in.map_or(next_look, |e| e.min(next_look))))
}

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    conditions(node).iter().find(|c| c.type_ == "Ready")
}

fn is_unknown(node: &Node) -> bool {
    ready(node).is_some_and(|c| c.status == "Unknown")
}

fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
        .iter()
        .map(|type_| {
            let known = conditions(node).iter().find(|c| c.type_ == *type_);
            NodeCondition {
                type_: (*type_).to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(
                    if known.is_some() { "NodeStatusUnknown" } else { "NodeStatusNeverUpdated" }.to_owned(),
                ),
                message: Some("Kubelet stopped posting node status.".to_owned()),
                last_heartbeat_time: known.and_then(|c| c.last_heartbeat_time.clone()),
                last_transition_time: Some(Time(now)),
            }
        })
        .collect()
}

/// The node's taints as they should be; `None` when they are so already.
fn taints(node: &Node, silent: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let has = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let state = ready(node).map_or("Unknown", |c| c.status.as_str());
    let unready = match (silent, state) {
        (true, _) | (_, "Unknown") => Some(UNREACHABLE),
        (_, "True") => None,
        _ => Some(NOT_READY),
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    if let Some(key) = unready {
        wanted.extend([(key, "NoSchedule"), (key, "NoExecute")]);
    }
    for (type_, taint) in PRESSURES {
        if conditions(node).iter().any(|c| c.type_ == *type_ && c.status == "True") {
            wanted.push((taint, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
            || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    let mut next: Vec<Taint> = has
        .iter()
        .filter(|t| !ours(&t.key) || wanted.contains(&(t.key.as_str(), t.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !next.iter().any(|t| t.key == key && t.effect == effect) {
            let time_added = (effect == "NoExecute").then_some(Time(now));
            next.push(Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added });
        }
    }
    (next != has).then_some(next)
}

/// Deletes the pods that do not tolerate a `NoExecute` taint any longer; when the next one is due.
async fn evict(shared: &Shared, node: &Node, now: Timestamp) -> kube::Result<Option<Duration>> {
    let taints: Vec<Taint> = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let executing: Vec<Taint> = taints.into_iter().filter(|t| t.effect == "NoExecute").collect();
    if executing.is_empty() {
        return Ok(None);
    }
    let mut next: Option<Duration> = None;
    for pod in shared.informers.pods.list() {
        let here = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&node.name_any());
        if !here || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match evicted_in(&pod, &executing, now) {
            None => {}
            Some(left) if left.is_zero() => {
                let api: Api<Pod> =
                    Api::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
                gone_is_fine(api.delete(&pod.name_any(), &DeleteParams::default()).await)?;
            }
            Some(left) => next = Some(next.map_or(left, |n| n.min(left))),
        }
    }
    Ok(next)
}

/// How long `pod` may stay under these taints; `None` is for ever.
fn evicted_in(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Duration> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone()).unwrap_or_default();
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let tolerating = tolerations.iter().filter(|toleration| taints::tolerates(toleration, taint));
        let limits: Vec<Option<i64>> = tolerating.map(|t| t.toleration_seconds).collect();
        if limits.is_empty() {
            return Some(Duration::ZERO);
        }
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        if let Some(seconds) = limits.into_iter().flatten().min() {
            let left = seconds - now.duration_since(since).as_secs();
            shortest = Some(shortest.map_or(left, |s| s.min(left)));
        }
    }
    shortest.map(|left| Duration::from_secs(left.max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().expect("a time")
    }

    #[test]
    fn taints_follow_the_conditions_and_leave_others_alone() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]},
        }))
        .expect("a node");
        let keys: Vec<String> =
            taints(&node, false, now()).expect("a change").into_iter().map(|t| t.key).collect();
        assert_eq!(keys, ["mine", "node.kubernetes.io/disk-pressure"]);
        let silent = taints(&node, true, now()).expect("a change");
        assert!(silent.iter().any(|t| t.key == UNREACHABLE && t.effect == "NoSchedule"));
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let taint: Taint = serde_json::from_value(
            json!({"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:09:00Z"}),
        )
        .expect("a taint");
        for (tolerations, want) in [
            (json!([]), Some(0)),
            (json!([{"operator": "Exists"}]), None),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 300}]), Some(240)),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 30}]), Some(0)),
        ] {
            let pod: Pod = serde_json::from_value(
                json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}}),
            )
            .expect("a pod");
            let left = evicted_in(&pod, std::slice::from_ref(&taint), now());
            assert_eq!(left.map(|d| d.as_secs()), want, "{tolerations}");
        }
    }
}
