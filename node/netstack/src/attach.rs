//! Connects pods to the network and releases them: what CNI's commands do.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rtnetlink::Handle;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::bandwidth;
use crate::cni::{CniError, NetworkConfiguration, Reply, Request, add_result, argument, code};
use crate::config::NetConfig;
use crate::error::Result;
use crate::ipam::{Ipam, Lease};
use crate::link::{self, PodLink};
use crate::netns;
use crate::rules::Rules;

/// Attachments of one instance; shared by all plugin connections.
pub(crate) struct Attacher {
    pub config: NetConfig,
    pub handle: Handle,
    pub bridge: u32,
    pub mtu: u32,
    pub ipam: Mutex<Ipam>,
    pub rules: Arc<Rules>,
}

impl Attacher {
    fn pod_link(&self, lease: &Lease) -> PodLink {
        PodLink {
            host_interface: self.config.host_interface(&lease.container_id, &lease.interface),
            pod_interface: lease.interface.clone(),
            address: lease.address,
            gateway: self.config.gateway(),
            mtu: self.mtu,
        }
    }

    /// CNI ADD. A repeated call repairs what is missing and gives the same address.
    pub async fn add(&self, request: &Request, config: &NetworkConfiguration) -> Reply {
        if request.ifname.is_empty() || request.ifname.len() > 15 || request.ifname.contains('/') {
            let message = format!("CNI_IFNAME {:?} is no interface name", request.ifname);
            return Err(CniError::new(code::INVALID_ENVIRONMENT, message));
        }
        let namespace = netns::open(Path::new(&request.netns))?;
        let mut wanted = Lease {
            container_id: request.container_id.clone(),
            interface: request.ifname.clone(),
            address: std::net::Ipv4Addr::UNSPECIFIED,
            namespace: argument(&request.args, "K8S_POD_NAMESPACE").to_owned(),
            pod: argument(&request.args, "K8S_POD_NAME").to_owned(),
            pod_uid: argument(&request.args, "K8S_POD_UID").to_owned(),
            port_mappings: config.runtime_config.port_mappings.clone(),
            egress_limit: config.runtime_config.bandwidth.as_ref().and_then(bandwidth::egress),
        };
        wanted.port_mappings.retain(|mapping| mapping.host_port != 0);
        if wanted.has_rules() {
            self.rules.wait_synced().await?;
        }
        let lease = self.ipam.lock().await.allocate(wanted)?;
        let pod = self.pod_link(&lease);
        link::ensure_pair(&self.handle, self.bridge, &pod, &namespace).await?;
        let inside = pod.clone();
        netns::run_in(namespace, move |handle| async move { link::configure_pod(&handle, &inside).await })
            .await?;
        if let Some(bandwidth) = &config.runtime_config.bandwidth {
            bandwidth::limit_ingress(&pod.host_interface, bandwidth).await?;
        }
        if lease.has_rules() {
            self.publish().await?;
        }
        tracing::debug!(pod = lease.pod, namespace = lease.namespace, address = %lease.address, "attached");
        let version = &config.cni_version;
        let (host, gateway) = (&pod.host_interface, pod.gateway);
        Ok(add_result(version, &lease.interface, &request.netns, host, lease.address, gateway))
    }

    /// CNI DEL. What is gone already is no error, not even the namespace or the lease.
    pub async fn del(&self, request: &Request) -> Reply {
        let host = self.config.host_interface(&request.container_id, &request.ifname);
        link::remove(&self.handle, &host).await?;
        let is_other = |l: &Lease| l.container_id != request.container_id || l.interface != request.ifname;
        self.release(is_other).await?;
        Ok(Value::Null)
    }

    /// CNI CHECK: is everything as ADD left it?
    pub async fn check(&self, request: &Request) -> Reply {
        let lease = self.ipam.lock().await.find(&request.container_id, &request.ifname).cloned();
        let Some(lease) = lease else {
            let message = format!("container {} has no address here", request.container_id);
            return Err(CniError::new(code::UNKNOWN_CONTAINER, message));
        };
        let pod = self.pod_link(&lease);
        let on_host = link::index_of(&self.handle, &pod.host_interface).await?.is_some();
        let namespace = netns::open(Path::new(&request.netns))?;
        let address = pod.address;
        let inside =
            netns::run_in(namespace, move |h| async move { link::pod_is_configured(&h, &pod).await }).await?;
        if on_host && inside {
            return Ok(Value::Null);
        }
        let message = format!("the interface of {} with address {address} is damaged", lease.container_id);
        Err(CniError::new(code::NETWORK_FAILED, message))
    }

    /// CNI GC: releases what is not among the valid attachments. Without that list nothing is released.
    pub async fn gc(&self, config: &NetworkConfiguration) -> Reply {
        if let Some(valid) = &config.valid_attachments {
            self.reconcile(|lease| {
                valid.iter().any(|a| a.container_id == lease.container_id && a.ifname == lease.interface)
            })
            .await?;
        }
        Ok(Value::Null)
    }

    /// Releases every lease that `keep` refuses and removes every link of this instance without lease.
    pub async fn reconcile(&self, keep: impl Fn(&Lease) -> bool) -> Result<()> {
        self.release(keep).await?;
        // The lock is held so that no ADD can come between the look at the leases and the removals.
        let ipam = self.ipam.lock().await;
        let wanted: BTreeSet<_> = ipam
            .leases()
            .map(|lease| self.config.host_interface(&lease.container_id, &lease.interface))
            .collect();
        for name in link::names_with_prefix(&self.handle, &self.config.interface_prefix()).await? {
            if !wanted.contains(&name) {
                link::remove(&self.handle, &name).await?;
            }
        }
        drop(ipam);
        Ok(())
    }

    async fn release(&self, keep: impl Fn(&Lease) -> bool) -> Result<()> {
        let mut ipam = self.ipam.lock().await;
        let gone = ipam.release(keep)?;
        for lease in &gone {
            let host = self.config.host_interface(&lease.container_id, &lease.interface);
            link::remove(&self.handle, &host).await?;
            tracing::debug!(pod = lease.pod, namespace = lease.namespace, address = %lease.address, "released");
        }
        drop(ipam);
        if gone.iter().any(Lease::has_rules) {
            self.publish().await?;
        }
        Ok(())
    }

    /// Brings the rules of single pods (host ports, limits) up to date.
    async fn publish(&self) -> Result<()> {
        let ipam = self.ipam.lock().await;
        let leases = ipam.leases().filter(|lease| lease.has_rules()).cloned().collect();
        // Under the lock: the rules must see the newest set last.
        self.rules.set_leases(leases).await
    }
}
