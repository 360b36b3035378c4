//! What every pod worker shares.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::{DnsConfig, Runtime};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::sync::watch;

use crate::api::PodTable;
use crate::cgroups::Cgroups;
use crate::config::AgentConfig;
use crate::events::Recorder;
use crate::images::Images;
use crate::node::host::HostFacts;
use crate::pods::sink::PodSink;
use crate::pods::spec;
use crate::volumes::sources::Sources;

/// Shared state of the agent; workers hold it in an `Arc`.
pub(crate) struct Shared {
    pub(crate) config: AgentConfig,
    pub(crate) runtime: Runtime,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) sources: Sources,
    pub(crate) services: Services,
    pub(crate) recorder: Recorder,
    pub(crate) table: PodTable,
    pub(crate) sink: Arc<dyn PodSink>,
    pub(crate) host: HostFacts,
    pub(crate) host_dns: DnsConfig,
}

impl Shared {
    /// Thousandths of cores and bytes of memory that pods may use.
    pub(crate) fn allocatable(&self) -> (i64, i64) {
        let reserved = self.config.reserved;
        (
            (self.host.cpu_millis - reserved.cpu_millis).max(0),
            (self.host.memory_bytes - reserved.memory_bytes).max(0),
        )
    }

    /// Addresses of the host as text.
    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(IpAddr::to_string).collect()
    }

    /// Other pods that hold resources of this node.
    pub(crate) fn other_pods(&self, uid: &str) -> Vec<Arc<Pod>> {
        let pods = self.table.list().into_iter().filter(|r| r.uid != uid && !spec::is_terminal(&r.pod));
        pods.map(|r| r.pod.clone()).collect()
    }
}

/// How long a container waits for the first list of services before it starts without.
const SERVICES_WAIT: Duration = Duration::from_secs(10);

/// The cluster's services, for environment variables. `None` until they were listed once.
#[derive(Clone)]
pub(crate) struct Services(watch::Sender<Option<Arc<Vec<Service>>>>);

impl Default for Services {
    fn default() -> Self {
        Self(watch::channel(None).0)
    }
}

impl Services {
    pub(crate) fn set(&self, services: Vec<Service>) {
        self.0.send_replace(Some(Arc::new(services)));
    }

    /// The services; waits for the first list, so that a pod that starts with the node knows the API server.
    pub(crate) async fn get(&self) -> Arc<Vec<Service>> {
        let mut list = self.0.subscribe();
        let first = list.wait_for(Option::is_some);
        match tokio::time::timeout(SERVICES_WAIT, first).await {
            Ok(Ok(list)) => list.clone().unwrap_or_default(),
            _ => Arc::default(),
        }
    }
}
