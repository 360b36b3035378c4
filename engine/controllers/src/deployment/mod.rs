//! Deployments: roll from one ReplicaSet to the next without losing more than allowed.

mod plan;
mod status;

use std::sync::Arc;

use gantry_reconcile::{Again, Key, Queue, work};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{EventType, Recorder};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::owned::{self, Claim};
use crate::shared::{Shared, enqueue_changes, gone_is_fine, reference, tell};

const WORKERS: usize = 4;

struct Deployments {
    shared: Arc<Shared>,
    recorder: Recorder,
}

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<Key> = Queue::default();
    let this =
        Arc::new(Deployments { shared: shared.clone(), recorder: shared.recorder("deployment-controller") });
    enqueue_changes(&shared.informers.deployments, &queue);
    let (observer, sets) = (this.clone(), queue.clone());
    shared.informers.replica_sets.on_change(move |change| observer.set_changed(change, &sets));
    let (observer, pods) = (this.clone(), queue.clone());
    // Recreate waits for the last old pod to go.
    shared.informers.pods.on_change(move |change| {
        if let (Some(old), None) = (&change.old, &change.new) {
            observer.pod_gone(old, &pods);
        }
    });
    work(&shared.tasks, "deployment", queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.reconcile(key).await }
    });
}

impl Deployments {
    fn set_changed(&self, change: &gantry_reconcile::Change<ReplicaSet>, queue: &Queue<Key>) {
        for set in [&change.old, &change.new].into_iter().flatten() {
            let namespace = set.namespace().unwrap_or_default();
            match owned::controller_of(&**set) {
                Some(owner) if owner.kind == "Deployment" => queue.add(Key::new(namespace, &owner.name)),
                Some(_) => {}
                None => {
                    for deployment in self.shared.informers.deployments.list_namespace(&namespace) {
                        if owned::matches(&owned::selector(&deployment.spec.selector), &**set) {
                            queue.add(Key::of(&*deployment));
                        }
                    }
                }
            }
        }
    }

    fn pod_gone(&self, pod: &Pod, queue: &Queue<Key>) {
        let namespace = pod.namespace().unwrap_or_default();
        let set = owned::controller_of(pod)
            .and_then(|o| self.shared.informers.replica_sets.get(&namespace, &o.name));
        if let Some(owner) = set.as_deref().and_then(owned::controller_of) {
            queue.add(Key::new(namespace, &owner.name));
        }
    }

    async fn reconcile(&self, key: Key) -> kube::Result<Again> {
        let informers = &self.shared.informers;
        informers.deployments.synced().await;
        informers.replica_sets.synced().await;
        informers.pods.synced().await;
        let Some(deployment) = informers.deployments.get(&key.namespace, &key.name) else {
            return Ok(Again::OnChange);
        };
        let sets = self.claim_sets(&deployment).await?;
        let now = jiff::Timestamp::now();
        if deployment.meta().deletion_timestamp.is_some() {
            return self.finish(&deployment, &sets, now).await;
        }
        let old_pods_run = self.old_pods_run(&deployment, &sets);
        for action in plan::plan(&deployment, &sets, old_pods_run) {
            if !self.act(&deployment, &sets, action).await? {
                // The informer has yet to show what this wrote; its event brings us back.
                return Ok(Again::OnChange);
            }
        }
        self.finish(&deployment, &sets, now).await
    }

    async fn finish(
        &self,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        now: jiff::Timestamp,
    ) -> kube::Result<Again> {
        let status = status::status(deployment, sets, now);
        self.write_status(deployment, &status).await?;
        Ok(status::next_deadline(deployment, &status, now).map_or(Again::OnChange, Again::After))
    }

    async fn claim_sets(&self, deployment: &Deployment) -> kube::Result<Vec<Arc<ReplicaSet>>> {
        let namespace = deployment.namespace().unwrap_or_default();
        let selector = owned::selector(&deployment.spec.selector);
        let api: Api<ReplicaSet> = Api::namespaced(self.shared.client.clone(), &namespace);
        let uid = deployment.uid().unwrap_or_default();
        let mut mine = Vec::new();
        for set in self.shared.informers.replica_sets.list_namespace(&namespace) {
            let patch = match owned::claim(deployment, &selector, &*set) {
                Claim::Owned => {
                    mine.push(set);
                    continue;
                }
                Claim::Foreign => continue,
                Claim::Adopt => owned::adopt_patch(deployment, &*set),
                Claim::Release => owned::release_patch(&uid, &*set),
            };
            gone_is_fine(
                api.patch(&set.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await,
            )?;
        }
        Ok(mine)
    }

    /// Do pods of other revisions still exist, leaving ones included?
    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let current = plan::new_set(deployment, sets).and_then(|s| s.uid());
        let old: Vec<String> =
            sets.iter().filter_map(|s| s.uid()).filter(|uid| Some(uid) != current.as_ref()).collect();
        let pods = self.shared.informers.pods.list_namespace(&deployment.namespace().unwrap_or_default());
        pods.iter().any(|pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
            !matches!(phase, "Succeeded" | "Failed")
                && owned::controller_of(&**pod).is_some_and(|owner| old.contains(&owner.uid))
        })
    }

    /// Does one step; false when the rest of the plan must wait until it is seen.
    async fn act(
        &self,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        action: plan::Action,
    ) -> kube::Result<bool> {
        let api: Api<ReplicaSet> =
            Api::namespaced(self.shared.client.clone(), &deployment.namespace().unwrap_or_default());
        match action {
            plan::Action::Create(set) => {
                self.create(&api, deployment, *set).await?;
                Ok(false)
            }
            plan::Action::Scale { name, from, to, annotations } => {
                let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": to}});
                gone_is_fine(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
                if from != to {
                    let direction = if to > from { "up" } else { "down" };
                    let note = format!("Scaled {direction} replica set {name} from {from} to {to}");
                    let object = reference(deployment);
                    tell(
                        &self.recorder,
                        &object,
                        EventType::Normal,
                        "ScalingReplicaSet",
                        "ScalingReplicaSet",
                        note,
                    )
                    .await;
                }
                Ok(true)
            }
            plan::Action::Annotate { name, annotations } => {
                let patch = json!({"metadata": {"annotations": annotations}});
                gone_is_fine(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
                Ok(true)
            }
            plan::Action::SetRevision(revision) => {
                let deployments: Api<Deployment> =
                    Api::namespaced(self.shared.client.clone(), &deployment.namespace().unwrap_or_default());
                let patch = json!({"metadata": {"annotations": {plan::REVISION: revision.to_string()}}});
                let (name, patch) = (deployment.name_any(), Patch::Merge(patch));
                gone_is_fine(deployments.patch(&name, &PatchParams::default(), &patch).await)?;
                Ok(true)
            }
            plan::Action::Delete { name } => {
                let uid = sets.iter().find(|s| s.name_any() == name).and_then(|s| s.uid());
                let preconditions = Some(Preconditions { uid, resource_version: None });
                let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
                gone_is_fine(api.delete(&name, &parameters).await)?;
                Ok(true)
            }
        }
    }

    async fn create(
        &self,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        set: ReplicaSet,
    ) -> kube::Result<()> {
        let (name, replicas) = (set.name_any(), set.spec.replicas.unwrap_or(0));
        match api.create(&PostParams::default(), &set).await {
            Ok(_) => {
                let note = format!("Scaled up replica set {name} from 0 to {replicas}");
                let object = reference(deployment);
                if replicas > 0 {
                    tell(
                        &self.recorder,
                        &object,
                        EventType::Normal,
                        "ScalingReplicaSet",
                        "ScalingReplicaSet",
                        note,
                    )
                    .await;
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.resolve_collision(api, deployment, &set).await
            }
            Err(error) => {
                let note = format!("Failed to create new replica set \"{name}\": {error}");
                let object = reference(deployment);
                tell(&self.recorder, &object, EventType::Warning, "ReplicaSetCreateError", "Create", note)
                    .await;
                Err(error)
            }
        }
    }

    /// A set of this name exists. If it is ours with this very template the informer is late; if not,
    /// two templates have one hash, and the collision count gives the next try another.
    async fn resolve_collision(
        &self,
        api: &Api<ReplicaSet>,
        deployment: &Deployment,
        wanted: &ReplicaSet,
    ) -> kube::Result<()> {
        let Some(existing) = api.get_opt(&wanted.name_any()).await? else { return Ok(()) };
        let ours = owned::is_controlled_by(&existing, &deployment.uid().unwrap_or_default());
        if ours && plan::same_template(deployment, &existing) {
            return Ok(());
        }
        let count = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0) + 1;
        let deployments: Api<Deployment> =
            Api::namespaced(self.shared.client.clone(), &deployment.namespace().unwrap_or_default());
        let patch = json!({"status": {"collisionCount": count}});
        gone_is_fine(
            deployments
                .patch_status(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await,
        )
    }

    async fn write_status(&self, deployment: &Deployment, status: &DeploymentStatus) -> kube::Result<()> {
        if deployment.status.as_ref() == Some(status) {
            return Ok(());
        }
        let api: Api<Deployment> =
            Api::namespaced(self.shared.client.clone(), &deployment.namespace().unwrap_or_default());
        let patch = json!({"metadata": {"uid": deployment.uid()}, "status": status::patch(status)});
        gone_is_fine(
            api.patch_status(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await,
        )
    }
}
