//! What the streaming and stats endpoints see of the agent: the table of pods and the runtime's client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use gantry_cri::Runtime;
use k8s_openapi::api::core::v1::Pod;

use crate::config::Dirs;

/// Shared, cheap to clone: for request handlers of the node.
#[derive(Clone)]
pub struct AgentApi {
    /// Pods of this node as their workers last saw them.
    pub pods: PodTable,
    /// The container runtime.
    pub runtime: Runtime,
    /// Directories of the agent.
    pub dirs: Dirs,
    /// Name of the Node object.
    pub node_name: String,
    /// Cgroup of this instance without a leading slash: `gantry-INSTANCE`.
    pub cgroup_root: String,
}

/// One container of a pod, newest run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Name in the pod's spec.
    pub name: String,
    /// CRI container id.
    pub id: String,
    /// How often the container was restarted before this run.
    pub attempt: u32,
    /// It runs now.
    pub running: bool,
    /// Log file of this run.
    pub log_path: PathBuf,
    /// Id and log file of the run before, while it is kept (`kubectl logs --previous`).
    pub previous: Option<(String, PathBuf)>,
    /// Unix nanoseconds of this run's start, 0 when it has not started.
    pub started_at_ns: i64,
}

/// One pod of this node.
#[derive(Clone, Debug)]
pub struct PodRecord {
    /// The object as last read from the API server.
    pub pod: Arc<Pod>,
    /// The pod's uid.
    pub uid: String,
    /// CRI sandbox id, once there is a ready one.
    pub sandbox_id: Option<String>,
    /// Addresses of the pod, empty before it has any; the host's for host-network pods.
    pub ips: Vec<IpAddr>,
    /// Init, sidecar, normal and ephemeral containers that were created so far.
    pub containers: Vec<ContainerRecord>,
    /// Cgroup of the pod, relative to a controller's root, with a leading slash.
    pub cgroup: String,
}

impl PodRecord {
    /// The newest run of the named container.
    pub fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|c| c.name == name)
    }
}

/// Namespace and name.
type PodKey = (String, String);

/// Pods by namespace and name. Readers get a consistent record; workers replace it whole.
#[derive(Clone, Default)]
pub struct PodTable {
    // A lock is enough: records are small, replaced a few times per pod, and never held across an await.
    inner: Arc<RwLock<HashMap<PodKey, Arc<PodRecord>>>>,
}

impl PodTable {
    /// The pod of that namespace and name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<PodRecord>> {
        let map = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All pods, in no order.
    pub fn list(&self) -> Vec<Arc<PodRecord>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn put(&self, record: PodRecord) {
        let key = (
            record.pod.metadata.namespace.clone().unwrap_or_default(),
            record.pod.metadata.name.clone().unwrap_or_default(),
        );
        self.inner.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::new(record));
    }

    /// Forgets the pod, unless a newer one of the same name took its place.
    pub(crate) fn remove(&self, namespace: &str, name: &str, uid: &str) {
        let mut map = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if map.get(&key).is_some_and(|record| record.uid == uid) {
            map.remove(&key);
        }
    }
}
