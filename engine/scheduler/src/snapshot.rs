//! What the nodes have and hold, kept by increments.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt;

use crate::labels::Labels;
use crate::pod::PodInfo;
use crate::resources::Resources;

/// One node with the pods on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub requested: Resources,
    /// Milli-CPU and bytes with defaults for pods that ask for nothing.
    pub requested_for_scoring: (i64, i64),
    /// Image name → bytes.
    pub images: HashMap<String, i64>,
    pub pods: BTreeMap<String, Arc<PodInfo>>,
    /// Pods were seen on it before (or after) the node itself.
    pub known: bool,
}

/// The cluster as the scheduler believes it to be; includes pods it has just placed.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Pod uid → node.
    placed: HashMap<String, String>,
    /// Namespace → labels.
    namespaces: HashMap<String, Labels>,
}

impl Snapshot {
    /// The nodes that exist, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|node| node.known)
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|node| node.known)
    }

    pub fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }

    pub fn put_namespace(&mut self, name: &str, labels: Labels) {
        self.namespaces.insert(name.to_owned(), labels);
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    pub fn put_node(&mut self, node: &Node) {
        let info = self.nodes.entry(node.name_any()).or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        info.known = true;
        info.name = node.name_any();
        info.labels = node.labels().clone();
        info.taints = spec.taints.unwrap_or_default();
        info.unschedulable = spec.unschedulable.unwrap_or(false);
        info.allocatable = Resources::of(status.allocatable.as_ref().or(status.capacity.as_ref()));
        let images = status.images.into_iter().flatten();
        info.images = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.into_iter().flatten().map(move |name| (name, size))
            })
            .collect();
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            // Its pods are still in the API; should the node come back, they count.
            info.known = false;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Puts a placed pod where it is, replacing what was known of it.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        let Some(name) = pod.node.clone() else { return };
        self.placed.insert(pod.uid.clone(), name.clone());
        let node = self.nodes.entry(name).or_default();
        node.requested.add(&pod.requests);
        let (cpu, memory) = pod.requests.for_scoring();
        node.requested_for_scoring.0 += cpu;
        node.requested_for_scoring.1 += memory;
        node.pods.insert(pod.uid.clone(), pod);
    }

    pub fn remove_pod(&mut self, uid: &str) {
        let Some(name) = self.placed.remove(uid) else { return };
        let Some(node) = self.nodes.get_mut(&name) else { return };
        if let Some(pod) = node.pods.remove(uid) {
            node.requested.subtract(&pod.requests);
            let (cpu, memory) = pod.requests.for_scoring();
            node.requested_for_scoring.0 -= cpu;
            node.requested_for_scoring.1 -= memory;
        }
        if !node.known && node.pods.is_empty() {
            self.nodes.remove(&name);
        }
    }
}
