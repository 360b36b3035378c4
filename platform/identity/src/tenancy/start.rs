//! Starting the reconcilers: informers, what wakes them, and the loop that turns changes of the directory into work.

use std::sync::Arc;
use std::time::Duration;

use gantry_host::Host;
use gantry_identity_api::labels;
use gantry_reconcile::{Informer, Kind, Queue, work};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Service};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use super::cascade::Secrets;
use super::diff::Seen;
use super::ledger::Item;
use super::managed::{Managed, Thin};
use super::namespaces::Known;
use super::reconcile::{Key, Reconcilers};
use super::usage::{Counts, Use};
use super::{Tenancy, World, account, names};
use crate::pull::PullCredentials;

/// Changes of the directory come in bursts: they are looked at together after this time. Rights end with their
/// assignment, whatever the bindings say meanwhile.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Reconcilers at work at one time.
const WORKERS: usize = 4;

/// What the rest of the component does for tenancy.
#[derive(Clone)]
pub struct Callbacks {
    pub secrets: Arc<dyn Secrets>,
    /// What is in image pull secrets.
    pub pull: Arc<PullCredentials>,
    pub now: fn() -> Timestamp,
}

impl Tenancy {
    /// Starts everything. `host.client` speaks as [`crate::rights::OWN_USER`]; the kinds are installed.
    pub fn start(&self, host: &Host, callbacks: Callbacks) {
        let reconcilers = Arc::new(reconcilers(self.0.clone(), host, callbacks));
        wake(&reconcilers);
        drop(count::<Pod>(&self.0, host, "pods"));
        drop(count::<PersistentVolumeClaim>(&self.0, host, "claims"));
        show_addresses(&reconcilers, &count::<Service>(&self.0, host, "services"));
        let queue = reconcilers.queue.clone();
        let this = reconcilers.clone();
        work(&host.tasks, "tenancy", queue, WORKERS, move |key| {
            let reconcilers = this.clone();
            async move { reconcilers.reconcile(key).await }
        });
        let shutdown = host.tasks.shutdown().clone();
        host.tasks.supervise("identity/tenancy", move || {
            let (reconcilers, shutdown) = (reconcilers.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = follow(&reconcilers) => Err("the directory ended".to_owned()),
                    () = shutdown.cancelled() => Ok(()),
                }
            }
        });
    }
}

pub(super) fn reconcilers(world: Arc<World>, host: &Host, callbacks: Callbacks) -> Reconcilers {
    let namespaces: Api<Namespace> = Api::all(host.client.clone());
    Reconcilers {
        world,
        client: host.client.clone(),
        queue: Queue::default(),
        secrets: callbacks.secrets,
        pull: callbacks.pull,
        now: callbacks.now,
        namespaces: Informer::start(&host.tasks, "identity/namespaces", namespaces),
        bindings: own(host, "rolebindings"),
        cluster_roles: own(host, "clusterroles"),
        cluster_bindings: own(host, "clusterrolebindings"),
        quotas: own(host, "resourcequotas"),
        limits: own(host, "limitranges"),
        pull_secrets: named(host, "pull secrets", names::PULL_SECRET),
        accounts: named(host, "default accounts", account::DEFAULT),
    }
}

/// Follows the objects of a kind that are the component's.
fn own<K: Managed>(host: &Host, part: &str) -> Informer<Thin<K>> {
    let label = format!("{}={}", labels::MANAGED_BY, labels::MANAGED_BY_VALUE);
    let api: Api<Thin<K>> = Api::all(host.client.clone());
    let config = watcher::Config::default().labels(&label);
    Informer::start_with(&host.tasks, &format!("identity/{part}"), api, config)
}

/// Follows the objects of a kind that are called so. The component may list and watch no others, and sees one whose
/// labels somebody took away.
fn named<K: Kind + kube::Resource<DynamicType = ()>>(host: &Host, part: &str, name: &str) -> Informer<K> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    Informer::start_with(&host.tasks, &format!("identity/{part}"), Api::all(host.client.clone()), config)
}

/// What somebody changes by hand is looked at at once.
fn wake(reconcilers: &Arc<Reconcilers>) {
    let (world, queue) = (reconcilers.world.clone(), reconcilers.queue.clone());
    reconcilers.namespaces.on_change(move |change| {
        let Some(object) = change.object() else { return };
        let name = object.name_any();
        let before = world.namespaces.project_of(&name);
        world.namespaces.put(&name, change.new.as_deref().map(Known::of));
        let after = world.namespaces.project_of(&name);
        for project in [before, after].into_iter().flatten() {
            queue.add(Key::Project(project.to_string()));
        }
        queue.add(Key::Namespace(name.clone()));
        if change.new.is_none() {
            // Projects that wait for the name, because it was somebody else's.
            let state = world.directory.read();
            let waiting = state.projects.iter().filter(|p| super::project::environment(p, &name).is_some());
            waiting.for_each(|p| queue.add(Key::Project(p.name_any())));
        }
    });
    in_namespace(&reconcilers.bindings, &reconcilers.queue);
    in_namespace(&reconcilers.quotas, &reconcilers.queue);
    in_namespace(&reconcilers.limits, &reconcilers.queue);
    in_namespace(&reconcilers.pull_secrets, &reconcilers.queue);
    in_namespace(&reconcilers.accounts, &reconcilers.queue);
    let queue = reconcilers.queue.clone();
    reconcilers.cluster_roles.on_change(move |change| {
        let name = change.object().map(|o| o.name_any()).unwrap_or_default();
        if let Some(role) = name.strip_prefix(names::PREFIX) {
            queue.add(Key::Role(role.strip_prefix("system:").unwrap_or(role).to_owned()));
        }
    });
    let queue = reconcilers.queue.clone();
    reconcilers.cluster_bindings.on_change(move |_| queue.add(Key::System));
}

fn in_namespace<K: Kind>(informer: &Informer<K>, queue: &Queue<Key>) {
    let queue = queue.clone();
    informer.on_change(move |change| {
        let namespace = change.object().and_then(|o| o.namespace());
        queue.add(Key::Namespace(namespace.unwrap_or_default()));
    });
}

/// Projects whose services take other addresses than before show that.
fn show_addresses(reconcilers: &Arc<Reconcilers>, services: &Informer<Use<Service>>) {
    let (world, queue) = (reconcilers.world.clone(), reconcilers.queue.clone());
    services.on_change(move |change| {
        let amounts =
            |seen: &Option<Arc<Use<Service>>>| seen.as_ref().map(|seen| seen.amounts).unwrap_or_default();
        let namespace = change.object().and_then(|o| o.namespace()).unwrap_or_default();
        if amounts(&change.old) != amounts(&change.new)
            && let Some(project) = world.namespaces.project_of(&namespace)
        {
            queue.add(Key::Project(project.to_string()));
        }
    });
}

/// Keeps the ledger true for one kind.
fn count<K: Counts>(world: &Arc<World>, host: &Host, part: &str) -> Informer<Use<K>>
where
    Use<K>: gantry_reconcile::Kind + kube::Resource<DynamicType = ()>,
{
    let api: Api<Use<K>> = Api::all(host.client.clone());
    let informer = Informer::start(&host.tasks, &format!("identity/usage of {part}"), api);
    let world = world.clone();
    informer.on_change(move |change| {
        let Some(object) = change.object() else { return };
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let item = Item { kind: K::KIND, namespace, name };
        world.ledger.see(&item, change.new.as_ref().map(|new| new.amounts));
    });
    informer
}

async fn follow(reconcilers: &Reconcilers) {
    let world = &reconcilers.world;
    let mut changes = world.directory.changes();
    reconcilers.synced().await;
    let mut seen = Seen::default();
    reconcilers.queue.add(Key::System);
    loop {
        changes.mark_unchanged();
        let keys = seen.advance(&world.directory.read(), &world.namespaces);
        keys.into_iter().for_each(|key| reconcilers.queue.add(key));
        // The sender lives as long as the directory, so waiting can only end with a change.
        let _ = changes.changed().await;
        tokio::time::sleep(DEBOUNCE).await;
    }
}
