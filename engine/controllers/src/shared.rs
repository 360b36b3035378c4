//! What all controllers share: the client, one informer per kind, and the events they write.

use std::sync::Arc;
use std::time::Duration;

use gantry_base::tasks::Tasks;
use gantry_host::Host;
use gantry_reconcile::{Informer, Key, Queue};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, ObjectReference, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Resource};

use crate::tally::Tally;

/// What the controllers need to know besides the cluster itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM of the authority that signed the API server's certificate, published in every namespace.
    pub root_ca_pem: String,
    /// A node whose lease is older than this is `NotReady`.
    pub node_grace: Duration,
    /// Events older than this are removed.
    pub event_ttl: Duration,
    /// Finished pods beyond this number are removed, oldest first.
    pub terminated_pods_max: usize,
}

pub(crate) struct Informers {
    pub pods: Informer<Pod>,
    pub replica_sets: Informer<ReplicaSet>,
    pub deployments: Informer<Deployment>,
    pub services: Informer<Service>,
    pub endpoint_slices: Informer<EndpointSlice>,
    pub nodes: Informer<Node>,
    pub leases: Informer<Lease>,
    pub namespaces: Informer<Namespace>,
    pub service_accounts: Informer<ServiceAccount>,
    pub cluster_roles: Informer<ClusterRole>,
}

pub(crate) struct Shared {
    pub client: kube::Client,
    pub tasks: Tasks,
    pub config: Config,
    pub informers: Informers,
    /// Kept by the garbage collector, who follows everything.
    pub tally: Tally,
}

impl Shared {
    pub fn new(host: Host, config: Config) -> Arc<Self> {
        let (client, tasks) = (host.client, host.tasks);
        let informers = Informers {
            pods: informer(&tasks, &client, "pods"),
            replica_sets: informer(&tasks, &client, "replicasets"),
            deployments: informer(&tasks, &client, "deployments"),
            services: informer(&tasks, &client, "services"),
            endpoint_slices: informer(&tasks, &client, "endpointslices"),
            nodes: informer(&tasks, &client, "nodes"),
            leases: Informer::start(
                &tasks,
                "informer/leases",
                Api::namespaced(client.clone(), "kube-node-lease"),
            ),
            namespaces: informer(&tasks, &client, "namespaces"),
            service_accounts: informer(&tasks, &client, "serviceaccounts"),
            cluster_roles: informer(&tasks, &client, "clusterroles"),
        };
        Arc::new(Self { client, tasks, config, informers, tally: Tally::default() })
    }

    pub fn recorder(&self, controller: &str) -> Recorder {
        let reporter = Reporter { controller: controller.to_owned(), instance: None };
        Recorder::new(self.client.clone(), reporter)
    }
}

fn informer<K>(tasks: &Tasks, client: &kube::Client, resource: &str) -> Informer<K>
where
    K: gantry_reconcile::Kind,
    K::DynamicType: Default,
{
    Informer::start(tasks, &format!("informer/{resource}"), Api::all(client.clone()))
}

/// Every change of a kind puts the object's own key into `queue`.
pub(crate) fn enqueue_changes<K: gantry_reconcile::Kind>(informer: &Informer<K>, queue: &Queue<Key>) {
    let queue = queue.clone();
    informer.on_change(move |change| {
        if let Some(object) = change.object() {
            queue.add(Key::of(&**object));
        }
    });
}

/// The reference events and owner entries carry.
pub(crate) fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

/// Writes an event about `object`; that it could not be written stops nothing.
pub(crate) async fn tell(
    recorder: &Recorder,
    object: &ObjectReference,
    type_: EventType,
    reason: &str,
    action: &str,
    note: String,
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, object).await {
        tracing::debug!(%error, reason, "event not written");
    }
}

/// Is it the answer one expects when another did the same thing first?
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Turns "already gone" into success.
pub(crate) fn gone_is_fine<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}
