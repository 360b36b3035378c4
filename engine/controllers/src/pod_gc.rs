//! Pods that nobody will clean up: on nodes that no longer exist, finished ones beyond a bound, and
//! deleted ones that were never placed.

use std::sync::Arc;
use std::time::Duration;

use gantry_reconcile::{Again, Queue, work};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};

use crate::shared::{Shared, gone_is_fine};

/// A node that just vanished may be on its way back under the same name.
const NODE_ABSENT_FOR: Duration = Duration::from_secs(40);

/// The queue holds one key: the whole is looked at.
const ALL: () = ();

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<()> = Queue::default();
    let (nodes, pods) = (queue.clone(), queue.clone());
    shared.informers.nodes.on_change(move |change| {
        if change.new.is_none() {
            nodes.add_after(ALL, NODE_ABSENT_FOR);
        }
    });
    shared.informers.pods.on_change(move |change| {
        if let Some(pod) = &change.new
            && (is_finished(pod) || is_deleted_unplaced(pod) || change.old.is_none())
        {
            pods.add_after(ALL, Duration::from_secs(1));
        }
    });
    let this = shared.clone();
    work(&shared.tasks, "pod-gc", queue, 1, move |()| {
        let shared = this.clone();
        async move { reconcile(&shared).await }
    });
}

fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())
}

fn is_deleted_unplaced(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_none()
}

async fn reconcile(shared: &Shared) -> kube::Result<Again> {
    let informers = &shared.informers;
    informers.pods.synced().await;
    informers.nodes.synced().await;
    let pods = informers.pods.list();
    let absent = |name: &str| informers.nodes.get("", name).is_none();
    let mut homeless = false;
    for pod in &pods {
        let lost = node_of(pod).is_some_and(absent);
        let age =
            pod.creation_timestamp().map_or(0, |t| jiff::Timestamp::now().duration_since(t.0).as_secs());
        let settled = age > i64::try_from(NODE_ABSENT_FOR.as_secs()).unwrap_or(i64::MAX);
        if is_deleted_unplaced(pod) || (lost && settled) {
            force_delete(shared, pod).await?;
        } else if lost {
            homeless = true;
        }
    }
    for pod in surplus(&pods, shared.config.terminated_pods_max) {
        force_delete(shared, &pod).await?;
    }
    Ok(if homeless { Again::After(NODE_ABSENT_FOR) } else { Again::OnChange })
}

/// The oldest finished pods beyond `max`.
fn surplus(pods: &[Arc<Pod>], max: usize) -> Vec<Arc<Pod>> {
    let mut finished: Vec<Arc<Pod>> = pods.iter().filter(|p| is_finished(p)).cloned().collect();
    finished.sort_by_key(|pod| (pod.creation_timestamp().map(|t| t.0), pod.name_any()));
    let too_many = finished.len().saturating_sub(max);
    finished.truncate(too_many);
    finished
}

async fn force_delete(shared: &Shared, pod: &Pod) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&pod.name_any(), &parameters).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => gone_is_fine(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_finished_pods_go_first() {
        let pod = |name: &str, minute: u32, phase: &str| -> Arc<Pod> {
            let json = serde_json::json!({
                "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:0{minute}:00Z")},
                "status": {"phase": phase},
            });
            Arc::new(serde_json::from_value(json).expect("a pod"))
        };
        let pods = [
            pod("new", 9, "Failed"),
            pod("runs", 1, "Running"),
            pod("old", 2, "Succeeded"),
            pod("mid", 5, "Failed"),
        ];
        let gone: Vec<String> = surplus(&pods, 1).iter().map(|p| p.name_any()).collect();
        assert_eq!(gone, ["old", "mid"]);
    }
}
