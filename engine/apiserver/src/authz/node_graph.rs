//! Which objects the pods of a node refer to.

use std::collections::HashMap;

use gantry_store::Key;
use serde_json::Value;

use super::derived::Derive;

/// What a pod may refer to in its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Referent {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
}

/// `(node, what, namespace, name)`.
type Edge = (String, Referent, String, String);

/// The references of every pod that is bound to a node.
#[derive(Default)]
pub(crate) struct NodeGraph {
    pods: HashMap<Key, Vec<Edge>>,
    edges: HashMap<Edge, usize>,
}

impl NodeGraph {
    pub(crate) fn refers(&self, node: &str, what: Referent, namespace: &str, name: &str) -> bool {
        self.edges.contains_key(&(node.to_owned(), what, namespace.to_owned(), name.to_owned()))
    }

    fn remove(&mut self, key: &Key) {
        for edge in self.pods.remove(key).unwrap_or_default() {
            if let Some(count) = self.edges.get_mut(&edge) {
                *count -= 1;
                if *count == 0 {
                    self.edges.remove(&edge);
                }
            }
        }
    }
}

impl Derive for NodeGraph {
    fn apply(&mut self, key: &Key, value: Option<&[u8]>) {
        self.remove(key);
        let Some(pod) = value.and_then(|json| serde_json::from_slice::<Value>(json).ok()) else { return };
        let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else { return };
        // A pod that has ended needs nothing any more.
        if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            return;
        }
        let edges: Vec<Edge> = references(&pod)
            .into_iter()
            .map(|(what, name)| (node.to_owned(), what, key.namespace().to_owned(), name))
            .collect();
        for edge in &edges {
            *self.edges.entry(edge.clone()).or_default() += 1;
        }
        self.pods.insert(key.clone(), edges);
    }
}

/// Everything a pod names in its namespace.
pub(crate) fn references(pod: &Value) -> Vec<(Referent, String)> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    let mut add = |what: Referent, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            found.push((what, name.to_owned()));
        }
    };
    add(Referent::ServiceAccount, &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add(Referent::Secret, &secret["name"]);
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(&spec[field]) {
            for from in items(&container["envFrom"]) {
                add(Referent::Secret, &from["secretRef"]["name"]);
                add(Referent::ConfigMap, &from["configMapRef"]["name"]);
            }
            for variable in items(&container["env"]) {
                add(Referent::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
                add(Referent::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        volume_references(pod, volume, &mut add);
    }
    found
}

fn volume_references(pod: &Value, volume: &Value, add: &mut impl FnMut(Referent, &Value)) {
    add(Referent::Secret, &volume["secret"]["secretName"]);
    add(Referent::ConfigMap, &volume["configMap"]["name"]);
    add(Referent::Claim, &volume["persistentVolumeClaim"]["claimName"]);
    if volume["ephemeral"].is_object()
        && let (Some(pod), Some(volume)) = (pod["metadata"]["name"].as_str(), volume["name"].as_str())
    {
        add(Referent::Claim, &Value::String(format!("{pod}-{volume}")));
    }
    for source in items(&volume["projected"]["sources"]) {
        add(Referent::Secret, &source["secret"]["name"]);
        add(Referent::ConfigMap, &source["configMap"]["name"]);
    }
    // Volume drivers in the tree name their secret in one of these fields.
    for driver in ["azureFile", "cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        add(Referent::Secret, &volume[driver]["secretRef"]["name"]);
        add(Referent::Secret, &volume[driver]["secretName"]);
    }
    add(Referent::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
