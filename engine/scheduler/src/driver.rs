//! The loop around the library: what changed goes into the snapshot, pods without a node are decided on
//! one after the other, bindings are written in parallel.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_host::Host;
use gantry_reconcile::{Again, Change, Informer, Key, Queue, work};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::decide::{Decision, decide};
use crate::explanation;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Bindings on their way at one time.
const BINDINGS_MAX: usize = 64;
/// A pod that fits nowhere is tried again when something changes, but not more often than this.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Config {
    /// The `schedulerName`s this scheduler answers to.
    pub names: Vec<String>,
}

struct Scheduler {
    client: kube::Client,
    config: Config,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    namespaces: Informer<Namespace>,
    state: Mutex<State>,
    queue: Queue<Key>,
    recorder: Recorder,
    bindings: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    /// Placed by us; the informer has yet to show it. Uids.
    assumed: HashSet<String>,
    /// Fit nowhere, with the number of attempts and what was said last.
    waiting: HashMap<Key, (u32, String)>,
}

/// Starts the scheduler; it ends when the host's tasks drain.
pub fn start(host: Host, config: Config) {
    let (client, tasks) = (host.client, host.tasks);
    let scheduler = Arc::new(Scheduler {
        pods: Informer::start(&tasks, "scheduler/pods", Api::all(client.clone())),
        nodes: Informer::start(&tasks, "scheduler/nodes", Api::all(client.clone())),
        namespaces: Informer::start(&tasks, "scheduler/namespaces", Api::all(client.clone())),
        state: Mutex::default(),
        queue: Queue::default(),
        recorder: Recorder::new(
            client.clone(),
            Reporter { controller: "default-scheduler".to_owned(), instance: None },
        ),
        bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
        config,
        client,
    });
    let this = scheduler.clone();
    scheduler.nodes.on_change(move |change| this.node_changed(change));
    let this = scheduler.clone();
    scheduler.namespaces.on_change(move |change| this.namespace_changed(change));
    let this = scheduler.clone();
    scheduler.pods.on_change(move |change| this.pod_changed(change));
    let this = scheduler.clone();
    // One at a time: each decision stands on the one before.
    work(&tasks, "scheduler", scheduler.queue.clone(), 1, move |key| {
        let this = this.clone();
        async move { this.schedule(key).await }
    });
}

fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

impl Scheduler {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Changes of the snapshot are whole before the lock goes; a panic elsewhere harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_changed(&self, change: &Change<Node>) {
        {
            let mut state = self.lock();
            match (&change.new, &change.old) {
                (Some(node), _) => state.snapshot.put_node(node),
                (None, Some(old)) => state.snapshot.remove_node(&old.name_any()),
                (None, None) => {}
            }
        }
        if change.new.is_some() && !is_heartbeat(change) {
            self.wake_waiting();
        }
    }

    fn namespace_changed(&self, change: &Change<Namespace>) {
        let mut state = self.lock();
        match (&change.new, &change.old) {
            (Some(namespace), _) => {
                state.snapshot.put_namespace(&namespace.name_any(), namespace.labels().clone())
            }
            (None, Some(old)) => state.snapshot.remove_namespace(&old.name_any()),
            (None, None) => {}
        }
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let Some(pod) = change.object() else { return };
        let key = Key::of(&**pod);
        let uid = pod.uid().unwrap_or_default();
        let present = change.new.as_ref().filter(|pod| !is_finished(pod));
        let mut freed = false;
        {
            let mut state = self.lock();
            match present {
                Some(pod) => {
                    let info = PodInfo::of(pod);
                    if info.node.is_some() {
                        state.assumed.remove(&uid);
                        state.waiting.remove(&key);
                        state.snapshot.put_pod(Arc::new(info));
                    } else if self.is_ours(pod) && !state.assumed.contains(&uid) {
                        drop(state);
                        self.queue.add(key);
                    }
                }
                None => {
                    state.assumed.remove(&uid);
                    state.waiting.remove(&key);
                    state.snapshot.remove_pod(&uid);
                    freed = true;
                }
            }
        }
        let placed =
            change.old.as_ref().is_none_or(|old| old.spec.as_ref().is_none_or(|s| s.node_name.is_none()))
                && present.is_some_and(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some()));
        // Room was made, or somebody to be near to came.
        if freed || placed {
            self.wake_waiting();
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        let name = spec.and_then(|s| s.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        self.config.names.iter().any(|n| n == name) && pod.metadata.deletion_timestamp.is_none()
    }

    /// Something changed that may help those that fitted nowhere.
    fn wake_waiting(&self) {
        for (key, (attempts, _)) in &self.lock().waiting {
            let delay = RETRY_MIN.saturating_mul(1 << (*attempts).min(10)).min(RETRY_MAX);
            self.queue.add_after(key.clone(), delay);
        }
    }

    async fn schedule(self: &Arc<Self>, key: Key) -> kube::Result<Again> {
        self.nodes.synced().await;
        self.namespaces.synced().await;
        self.pods.synced().await;
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Again::OnChange) };
        let info = PodInfo::of(&pod);
        if info.node.is_some() || is_finished(&pod) || !self.is_ours(&pod) {
            return Ok(Again::OnChange);
        }
        if pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
        {
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            self.write_condition(&pod, "SchedulingGated", message).await?;
            return Ok(Again::OnChange);
        }
        let (decision, attempt) = {
            let mut state = self.lock();
            if state.assumed.contains(&info.uid) {
                return Ok(Again::OnChange);
            }
            let decision = decide(&info, &state.snapshot);
            let attempt = state.waiting.get(&key).map_or(1, |(attempts, _)| attempts + 1);
            if let Some(node) = &decision.node {
                let mut placed = info.clone();
                placed.node = Some(node.clone());
                state.assumed.insert(info.uid.clone());
                state.waiting.remove(&key);
                state.snapshot.put_pod(Arc::new(placed));
            }
            (decision, attempt)
        };
        match decision.node.clone() {
            Some(node) => self.bind_in_background(pod, node, decision, attempt).await,
            None => self.report_unschedulable(&key, &pod, &decision, attempt).await?,
        }
        Ok(Again::OnChange)
    }

    async fn bind_in_background(
        self: &Arc<Self>,
        pod: Arc<Pod>,
        node: String,
        decision: Decision,
        attempt: u32,
    ) {
        // The semaphore is never closed.
        let Ok(permit) = self.bindings.clone().acquire_owned().await else { return };
        let this = self.clone();
        tokio::spawn(async move {
            let bound = this.bind(&pod, &node).await;
            drop(permit);
            match bound {
                Ok(()) => {
                    let note = format!(
                        "Successfully assigned {}/{} to {node}",
                        pod.namespace().unwrap_or_default(),
                        pod.name_any()
                    );
                    this.tell(&pod, EventType::Normal, "Scheduled", note).await;
                    this.explain(&pod, &decision, attempt).await;
                }
                Err(error) => {
                    tracing::warn!(pod = %Key::of(&*pod), %error, "binding failed");
                    let uid = pod.uid().unwrap_or_default();
                    {
                        let mut state = this.lock();
                        if state.assumed.remove(&uid) {
                            state.snapshot.remove_pod(&uid);
                        }
                    }
                    this.queue.retry(Key::of(&*pod));
                }
            }
        });
    }

    async fn bind(&self, pod: &Pod, node: &str) -> kube::Result<()> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?)
            .map_err(kube::Error::HttpError)?;
        match self.client.request::<serde_json::Value>(request).await {
            // Deleted meanwhile: there is nothing to place.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    async fn report_unschedulable(
        &self,
        key: &Key,
        pod: &Pod,
        decision: &Decision,
        attempt: u32,
    ) -> kube::Result<()> {
        let message = decision.message();
        let known = self.lock().waiting.insert(key.clone(), (attempt, message.clone()));
        self.write_condition(pod, "Unschedulable", &message).await?;
        if known.is_none_or(|(_, said)| said != message) {
            self.tell(pod, EventType::Warning, "FailedScheduling", message).await;
            self.explain(pod, decision, attempt).await;
        }
        Ok(())
    }

    async fn write_condition(&self, pod: &Pod, reason: &str, message: &str) -> kube::Result<()> {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        let known = conditions.into_iter().find(|c| c.type_ == "PodScheduled");
        let same = known.is_some_and(|c| {
            c.status == "False"
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(message)
        });
        if same {
            return Ok(());
        }
        let since = known
            .filter(|c| c.status == "False")
            .and_then(|c| c.last_transition_time.as_ref())
            .map_or_else(jiff::Timestamp::now, |t| t.0);
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    async fn tell(&self, pod: &Pod, type_: EventType, reason: &str, note: String) {
        let action = if reason == "Scheduled" { "Binding" } else { "Scheduling" }.to_owned();
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: None };
        if let Err(error) = self.recorder.publish(&event, &pod.object_ref(&())).await {
            tracing::debug!(%error, reason, "event not written");
        }
    }

    /// Keeps the explanation beside the pod. That it cannot be kept stops no pod.
    async fn explain(&self, pod: &Pod, decision: &Decision, attempt: u32) {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let namespace = pod.namespace().unwrap_or_default();
        let now = jiff::Timestamp::now();
        let object = explanation::object(&namespace, &owner, decision, u64::from(attempt), now);
        if let Err(error) = self.put_explanation(&namespace, &owner.name, object).await {
            tracing::debug!(%error, pod = owner.name, "explanation not kept");
        }
    }

    async fn put_explanation(
        &self,
        namespace: &str,
        name: &str,
        object: serde_json::Value,
    ) -> kube::Result<()> {
        let kind = GroupVersionKind::gvk(explanation::GROUP, explanation::VERSION, explanation::KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, explanation::PLURAL);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let new: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &new).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // `node` and `message` exclude each other; a merge alone would leave the old one.
                let mut status = object["status"].clone();
                for field in ["node", "message"] {
                    if status.get(field).is_none() {
                        status[field] = serde_json::Value::Null;
                    }
                }
                let owners = &object["metadata"]["ownerReferences"];
                let patch = Patch::Merge(json!({"metadata": {"ownerReferences": owners}, "status": status}));
                api.patch(name, &PatchParams::default(), &patch).await.map(drop)
            }
            // The pod's namespace is on its way out.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Did only the time of a condition or the list of images change?
fn is_heartbeat(change: &Change<Node>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return false };
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    old.spec == new.spec && old.labels() == new.labels() && allocatable(old) == allocatable(new)
}
