//! What a component is given to live on. It never asks which cluster is behind the client: the
//! differences between the embedded engine and upstream Kubernetes are data, in [`Capabilities`].

use std::collections::BTreeMap;

use gantry_base::tasks::Tasks;

/// Everything a component or a controller needs from where it runs.
#[derive(Clone)]
pub struct Host {
    /// Speaks as this component: its requests pass authentication, RBAC, admission and audit.
    pub client: kube::Client,
    pub tasks: Tasks,
    pub capabilities: Capabilities,
}

/// What this cluster and this machine can do, as `gantry doctor` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub BTreeMap<String, Capability>);

/// One feature of the host, probed and not assumed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capability {
    pub available: bool,
    /// What was found, or what is missing and how to get it.
    pub detail: String,
}

impl Capabilities {
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|c| c.available)
    }
}
