//! ReplicaSets: as many pods as asked for.

mod plan;

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use gantry_reconcile::{Again, Key, Queue, work};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{EventType, Recorder};
use kube::{Api, Resource, ResourceExt};

use crate::owned::{self, Claim, Expectations};
use crate::shared::{Shared, enqueue_changes, gone_is_fine, reference, tell};

const WORKERS: usize = 4;
/// At most this many pods are created or deleted for one set in one go.
const BURST_MAX: usize = 500;
const PARALLEL_WRITES: usize = 16;

struct ReplicaSets {
    shared: Arc<Shared>,
    expectations: Expectations,
    recorder: Recorder,
}

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<Key> = Queue::default();
    let this = Arc::new(ReplicaSets {
        shared: shared.clone(),
        expectations: Expectations::default(),
        recorder: shared.recorder("replicaset-controller"),
    });
    enqueue_changes(&shared.informers.replica_sets, &queue);
    let (observer, pods) = (this.clone(), queue.clone());
    shared.informers.pods.on_change(move |change| observer.pod_changed(change, &pods));
    work(&shared.tasks, "replicaset", queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.reconcile(key).await }
    });
}

impl ReplicaSets {
    fn pod_changed(&self, change: &gantry_reconcile::Change<Pod>, queue: &Queue<Key>) {
        for pod in [&change.old, &change.new].into_iter().flatten() {
            let namespace = pod.namespace().unwrap_or_default();
            if let Some(owner) = owned::controller_of(&**pod) {
                if owner.kind == "ReplicaSet" {
                    let key = Key::new(namespace, &owner.name);
                    let leaving = change.new.as_ref().is_none_or(|p| p.meta().deletion_timestamp.is_some());
                    self.expectations.seen(&key, &pod.name_any(), leaving);
                    queue.add(key);
                }
                continue;
            }
            // An orphan: every set of its namespace that it matches may want it.
            for set in self.shared.informers.replica_sets.list_namespace(&namespace) {
                if owned::matches(&owned::selector(&set.spec.selector), &**pod) {
                    queue.add(Key::of(&*set));
                }
            }
        }
    }

    async fn reconcile(&self, key: Key) -> kube::Result<Again> {
        let informers = &self.shared.informers;
        informers.pods.synced().await;
        informers.replica_sets.synced().await;
        let Some(set) = informers.replica_sets.get(&key.namespace, &key.name) else {
            self.expectations.forget(&key);
            return Ok(Again::OnChange);
        };
        let pods = self.claim_pods(&set).await?;
        let active: Vec<Arc<Pod>> = pods.iter().filter(|pod| plan::is_active(pod)).cloned().collect();
        let mut failure = None;
        if set.meta().deletion_timestamp.is_none() && self.expectations.are_met(&key) {
            failure = self.scale(&key, &set, &active).await;
        }
        let now = jiff::Timestamp::now();
        let status =
            plan::status(&set, &active, &pods, failure.as_ref().map(|f| (f.0, f.1.to_string())), now);
        self.write_status(&set, &status).await?;
        match failure {
            Some((_, error)) => Err(error),
            None => Ok(plan::next_availability(&set, &active, now).map_or(Again::OnChange, Again::After)),
        }
    }

    /// The set's pods, after adopting orphans and releasing those that match no more.
    async fn claim_pods(&self, set: &ReplicaSet) -> kube::Result<Vec<Arc<Pod>>> {
        let namespace = set.namespace().unwrap_or_default();
        let selector = owned::selector(&set.spec.selector);
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &namespace);
        let uid = set.uid().unwrap_or_default();
        let mut mine = Vec::new();
        for pod in self.shared.informers.pods.list_namespace(&namespace) {
            match owned::claim(set, &selector, &*pod) {
                Claim::Owned => mine.push(pod),
                Claim::Foreign => {}
                Claim::Adopt if !plan::is_active(&pod) => {}
                Claim::Adopt => {
                    let patch = Patch::Strategic(owned::adopt_patch(set, &*pod));
                    let adopted = api.patch(&pod.name_any(), &PatchParams::default(), &patch).await;
                    match adopted {
                        Ok(adopted) => mine.push(Arc::new(adopted)),
                        Err(error) => gone_is_fine::<()>(Err(error))?,
                    }
                }
                Claim::Release => {
                    let patch = Patch::Strategic(owned::release_patch(&uid, &*pod));
                    gone_is_fine(api.patch(&pod.name_any(), &PatchParams::default(), &patch).await)?;
                }
            }
        }
        Ok(mine)
    }

    /// Creates or deletes pods; `Some` says what could not be done.
    async fn scale(
        &self,
        key: &Key,
        set: &ReplicaSet,
        active: &[Arc<Pod>],
    ) -> Option<(&'static str, kube::Error)> {
        let wanted = set.spec.replicas.unwrap_or(1).max(0) as usize;
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST_MAX);
            self.create(key, set, missing).await.err().map(|error| ("FailedCreate", error))
        } else if active.len() > wanted {
            let surplus = (active.len() - wanted).min(BURST_MAX);
            let related = self.pods_per_node(set);
            let chosen = plan::choose_for_deletion(active, &related, surplus, jiff::Timestamp::now());
            self.delete(key, set, &chosen).await.err().map(|error| ("FailedDelete", error))
        } else {
            None
        }
    }

    /// How many active pods of sets with the same owner each node has: scaling down evens them out.
    fn pods_per_node(&self, set: &ReplicaSet) -> std::collections::HashMap<String, usize> {
        let namespace = set.namespace().unwrap_or_default();
        let owner = owned::controller_of(set).map(|o| o.uid.clone());
        let siblings = self.shared.informers.replica_sets.list_namespace(&namespace);
        let uids: Vec<String> = siblings
            .iter()
            .filter(|s| {
                s.uid() == set.uid()
                    || (owner.is_some() && owned::controller_of(&***s).map(|o| o.uid.clone()) == owner)
            })
            .filter_map(|s| s.uid())
            .collect();
        let mut counts = std::collections::HashMap::new();
        for pod in self.shared.informers.pods.list_namespace(&namespace) {
            let related = owned::controller_of(&*pod).is_some_and(|o| uids.contains(&o.uid));
            if let (true, true, Some(node)) =
                (related, plan::is_active(&pod), pod.spec.as_ref().and_then(|s| s.node_name.clone()))
            {
                *counts.entry(node).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Creates in batches that double, so that a set whose pods are all refused asks once, not 500 times.
    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        let pod = plan::pod_of(set);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let size = batch.min(left);
            let results: Vec<kube::Result<Pod>> = stream::iter(0..size)
                .map(|_| {
                    let (api, pod) = (api.clone(), pod.clone());
                    async move { api.create(&PostParams::default(), &pod).await }
                })
                .buffer_unordered(PARALLEL_WRITES)
                .collect()
                .await;
            for result in results {
                match result {
                    Ok(made) => {
                        // Seen already? Then the informer was faster than this answer.
                        if self.shared.informers.pods.get(&key.namespace, &made.name_any()).is_none() {
                            self.expectations.expect_created(key, &made.name_any());
                            if self.shared.informers.pods.get(&key.namespace, &made.name_any()).is_some() {
                                self.expectations.seen(key, &made.name_any(), false);
                            }
                        }
                        let note = format!("Created pod: {}", made.name_any());
                        tell(
                            &self.recorder,
                            &reference(set),
                            EventType::Normal,
                            "SuccessfulCreate",
                            "Create",
                            note,
                        )
                        .await;
                    }
                    Err(error) => {
                        let note = format!("Error creating: {error}");
                        tell(
                            &self.recorder,
                            &reference(set),
                            EventType::Warning,
                            "FailedCreate",
                            "Create",
                            note,
                        )
                        .await;
                        return Err(error);
                    }
                }
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&self, key: &Key, set: &ReplicaSet, pods: &[Arc<Pod>]) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        for pod in pods {
            let name = pod.name_any();
            self.expectations.expect_deleted(key, &name);
            let precondition = Preconditions { uid: pod.uid(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(precondition), ..DeleteParams::default() };
            if let Err(error) = gone_is_fine(api.delete(&name, &parameters).await) {
                self.expectations.seen(key, &name, true);
                let note = format!("Error deleting: {error}");
                tell(&self.recorder, &reference(set), EventType::Warning, "FailedDelete", "Delete", note)
                    .await;
                return Err(error);
            }
            if self.shared.informers.pods.get(&key.namespace, &name).is_none_or(|p| p.uid() != pod.uid()) {
                self.expectations.seen(key, &name, true);
            }
            let note = format!("Deleted pod: {name}");
            tell(&self.recorder, &reference(set), EventType::Normal, "SuccessfulDelete", "Delete", note)
                .await;
        }
        Ok(())
    }

    async fn write_status(&self, set: &ReplicaSet, status: &ReplicaSetStatus) -> kube::Result<()> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        let api: Api<ReplicaSet> =
            Api::namespaced(self.shared.client.clone(), &set.namespace().unwrap_or_default());
        let patch = serde_json::json!({"metadata": {"uid": set.uid()}, "status": plan::status_patch(status)});
        gone_is_fine(api.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)
    }
}
