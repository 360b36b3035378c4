//! Garbage collection: what belonged to something that is gone goes too; deletion in the foreground,
//! in the background, or leaving orphans.
//!
//! The metadata of every object that can be deleted is followed; new custom resources are noticed
//! through their definitions.

mod graph;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use gantry_reconcile::{Again, Informer, Queue, work};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Resource as _, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::resources::{self, Resource};
use crate::shared::{Shared, gone_is_fine};
use graph::{FOREGROUND, Graph, Node, ORPHAN, Place, Verdict};

const WORKERS: usize = 4;
/// The one key of the queue that re-reads discovery.
const DISCOVER: () = ();

struct Collector {
    shared: Arc<Shared>,
    graph: Mutex<Graph>,
    queue: Queue<String>,
    followed: Mutex<Followed>,
}

#[derive(Default)]
struct Followed {
    /// Never shrinks: nodes hold indices into it.
    resources: Vec<Resource>,
    running: HashMap<usize, CancellationToken>,
}

pub fn start(shared: &Arc<Shared>) {
    let collector = Arc::new(Collector {
        shared: shared.clone(),
        graph: Mutex::default(),
        queue: Queue::default(),
        followed: Mutex::default(),
    });
    let discovery: Queue<()> = Queue::default();
    discovery.add(DISCOVER);
    let definitions: Informer<CustomResourceDefinition> =
        Informer::start(&shared.tasks, "informer/customresourcedefinitions", Api::all(shared.client.clone()));
    let changed = discovery.clone();
    definitions.on_change(move |_| changed.add(DISCOVER));
    let this = collector.clone();
    work(&shared.tasks, "garbage-discovery", discovery, 1, move |()| {
        let this = this.clone();
        async move { this.rediscover().await }
    });
    let this = collector.clone();
    work(&shared.tasks, "garbage", collector.queue.clone(), WORKERS, move |uid| {
        let this = this.clone();
        async move { this.reconcile(&uid).await }
    });
}

impl Collector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn rediscover(self: &Arc<Self>) -> kube::Result<Again> {
        let found = resources::discover(&self.shared.client).await?;
        let mut followed = self.followed();
        let wanted: Vec<Resource> = found.into_iter().filter(|r| r.collectable).collect();
        let running = std::mem::take(&mut followed.running);
        for (index, token) in running {
            if wanted.contains(&followed.resources[index]) {
                followed.running.insert(index, token);
            } else {
                token.cancel();
            }
        }
        for resource in wanted {
            let known = followed.resources.iter().position(|r| *r == resource);
            let index = known.unwrap_or_else(|| {
                followed.resources.push(resource.clone());
                followed.resources.len() - 1
            });
            if let Entry::Vacant(place) = followed.running.entry(index) {
                let token = self.shared.tasks.shutdown().child_token();
                self.follow(index, resource.api, token.clone());
                place.insert(token);
            }
        }
        Ok(Again::OnChange)
    }

    fn follow(self: &Arc<Self>, index: usize, resource: ApiResource, stop: CancellationToken) {
        let this = self.clone();
        let counted = (resource.group.clone(), resource.plural.clone());
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.shared.client.clone(), &resource);
        tokio::spawn(async move {
            let mut events =
                std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
            let mut listed: Vec<String> = Vec::new();
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = stop.cancelled() => return,
                };
                match event {
                    Some(Ok(Event::Init)) => listed = Vec::new(),
                    Some(Ok(Event::InitApply(object))) => listed.extend(this.put(index, &object)),
                    Some(Ok(Event::InitDone)) => {
                        this.shared.tally.complete(&counted);
                        this.retain(index, &std::mem::take(&mut listed));
                    }
                    Some(Ok(Event::Apply(object))) => drop(this.put(index, &object)),
                    Some(Ok(Event::Delete(object))) => {
                        if let Some(uid) = object.uid() {
                            this.remove(&uid);
                        }
                    }
                    Some(Err(error)) => tracing::debug!(%error, "watch interrupted"),
                    None => return,
                }
            }
        });
    }

    fn put(&self, resource: usize, object: &PartialObjectMeta<DynamicObject>) -> Option<String> {
        let uid = object.uid()?;
        let node = Node {
            resource,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            owners: object.owner_references().to_vec(),
            deleting: object.meta().deletion_timestamp.is_some(),
            finalizers: object.finalizers().to_vec(),
        };
        let namespace = node.namespace.clone();
        let (fresh, affected) = {
            let mut graph = self.graph();
            (!graph.has(&uid), graph.put(&uid, node))
        };
        if fresh {
            self.shared.tally.add(&self.counted(resource), &namespace, 1);
        }
        affected.into_iter().for_each(|uid| self.queue.add(uid));
        Some(uid)
    }

    /// Under which name quotas count the objects of a resource.
    fn counted(&self, resource: usize) -> (String, String) {
        let api = &self.followed().resources[resource].api;
        (api.group.clone(), api.plural.clone())
    }

    fn remove(&self, uid: &str) {
        let (gone, affected) = self.graph().remove(uid);
        self.taken_out(gone, affected);
    }

    /// After a list of a resource: what is not in it has gone while nobody watched.
    fn retain(&self, resource: usize, listed: &[String]) {
        let (gone, affected) = self.graph().retain(resource, listed);
        self.taken_out(gone, affected);
    }

    fn taken_out(&self, places: impl IntoIterator<Item = Place>, affected: Vec<String>) {
        for place in places {
            self.shared.tally.add(&self.counted(place.resource), &place.namespace, -1);
        }
        affected.into_iter().for_each(|uid| self.queue.add(uid));
    }

    async fn reconcile(&self, uid: &str) -> kube::Result<Again> {
        let (verdict, node) = {
            let graph = self.graph();
            (graph.judge(uid), graph.get(uid).cloned())
        };
        let Some(node) = node else { return Ok(Again::OnChange) };
        match verdict {
            Verdict::Nothing => {}
            Verdict::CheckOwners(owners) => {
                for owner in owners {
                    if !self.exists(&node, &owner).await? {
                        self.graph().mark_absent(&owner.uid);
                    }
                }
                // Judged again with what was learned; an owner that exists will appear in the graph.
                if !matches!(self.graph().judge(uid), Verdict::CheckOwners(_)) {
                    self.queue.add(uid.to_owned());
                }
            }
            Verdict::Delete { foreground } => self.delete(uid, &node, foreground).await?,
            Verdict::DropOwners(owners) => self.drop_owners(uid, &node, &owners).await?,
            Verdict::Orphan { dependents } => {
                for dependent in dependents {
                    let found = self.graph().get(&dependent).cloned();
                    if let Some(found) = found {
                        self.drop_owners(&dependent, &found, &[uid.to_owned()]).await?;
                    }
                }
                self.drop_finalizer(uid, &node, ORPHAN).await?;
            }
            Verdict::FinishForeground => self.drop_finalizer(uid, &node, FOREGROUND).await?,
            Verdict::DeleteDependents(dependents) => {
                dependents.into_iter().for_each(|dependent| self.queue.add(dependent));
            }
        }
        Ok(Again::OnChange)
    }

    fn api(&self, node: &Node) -> Api<DynamicObject> {
        let resource = self.followed().resources[node.resource].clone();
        let client = self.shared.client.clone();
        if resource.namespaced {
            Api::namespaced_with(client, &node.namespace, &resource.api)
        } else {
            Api::all_with(client, &resource.api)
        }
    }

    /// Asks the server for an owner. One of an unknown kind is taken as existing: deleting on ignorance
    /// cannot be undone.
    async fn exists(&self, dependent: &Node, owner: &OwnerReference) -> kube::Result<bool> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let known = self
            .followed()
            .resources
            .iter()
            .find(|r| r.api.group == group && r.api.kind == owner.kind)
            .cloned();
        let Some(resource) = known else {
            tracing::debug!(?kind, "owner of a kind that is not served");
            return Ok(true);
        };
        let client = self.shared.client.clone();
        let api: Api<DynamicObject> = if resource.namespaced {
            // An owner is in the namespace of what it owns; a cluster-scoped object cannot name one.
            if dependent.namespace.is_empty() {
                return Ok(true);
            }
            Api::namespaced_with(client, &dependent.namespace, &resource.api)
        } else {
            Api::all_with(client, &resource.api)
        };
        let found = api.get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|object| object.uid().as_deref() == Some(&owner.uid)))
    }

    async fn delete(&self, uid: &str, node: &Node, foreground: bool) -> kube::Result<()> {
        let has = |finalizer: &str| node.finalizers.iter().any(|f| f == finalizer);
        let policy = if has(ORPHAN) {
            PropagationPolicy::Orphan
        } else if foreground || has(FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api(node).delete(&node.name, &parameters).await {
            // Another object has this name now: ours is gone.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => gone_is_fine(other),
        }
    }

    async fn drop_owners(&self, uid: &str, node: &Node, owners: &[String]) -> kube::Result<()> {
        let left: Vec<&OwnerReference> = node.owners.iter().filter(|o| !owners.contains(&o.uid)).collect();
        self.patch(uid, node, json!({"ownerReferences": left})).await
    }

    async fn drop_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> kube::Result<()> {
        let left: Vec<&String> = node.finalizers.iter().filter(|f| *f != finalizer).collect();
        self.patch(uid, node, json!({"finalizers": left})).await
    }

    /// A merge patch replaces lists whole, so it is bound to the version it was made from: a conflict
    /// is tried again on what is there then.
    async fn patch(&self, uid: &str, node: &Node, mut metadata: serde_json::Value) -> kube::Result<()> {
        let api = self.api(node);
        let Some(now) = api.get_metadata_opt(&node.name).await? else { return Ok(()) };
        if now.uid().as_deref() != Some(uid) {
            return Ok(());
        }
        let seen = now.owner_references() == node.owners && now.finalizers() == node.finalizers;
        if !seen {
            // The watch is behind; its event will bring this object back.
            return Ok(());
        }
        metadata["uid"] = json!(uid);
        metadata["resourceVersion"] = json!(now.resource_version());
        let patch = Patch::Merge(json!({"metadata": metadata}));
        gone_is_fine(api.patch_metadata(&node.name, &PatchParams::default(), &patch).await)
    }
}
