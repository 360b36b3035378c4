//! The admission plugins of the built-in kinds.

mod account;
mod addresses;
mod limits;
mod namespace;
mod pod_security;
mod pods;
mod quota;
#[cfg(test)]
mod quota_tests;
mod scheduling;
mod taken;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use gantry_store::Store;
use ipnet::IpNet;

use crate::admission::AdmissionPlugin;

/// What the plugins need to know of the cluster.
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    /// Cluster addresses of services; the first belongs to the service `kubernetes`.
    pub service_range: IpNet,
    /// Ports of `NodePort` services, 30000–32767 upstream.
    pub node_ports: RangeInclusive<u16>,
    pub pod_security: PodSecurity,
}

pub use pod_security::PodSecurity;

/// Every plugin but [`quota_plugin`], in the order they run. `store` is the one the server writes to:
/// service addresses are kept apart by its events.
pub fn plugins(config: AdmissionConfig, store: Store) -> Vec<Arc<dyn AdmissionPlugin>> {
    vec![
        Arc::new(namespace::NamespaceLifecycle),
        Arc::new(pods::EphemeralContainers),
        Arc::new(account::ServiceAccount),
        Arc::new(scheduling::Priority),
        Arc::new(scheduling::DefaultTolerationSeconds),
        Arc::new(scheduling::TaintNodes),
        Arc::new(limits::LimitRanger),
        Arc::new(config.pod_security.clone()),
        Arc::new(addresses::Addresses::new(config, store)),
    ]
}

/// Resource quotas. Runs after every other plugin: what another refuses must not count.
pub fn quota_plugin(store: Store) -> Arc<dyn AdmissionPlugin> {
    Arc::new(quota::ResourceQuota::new(store))
}
