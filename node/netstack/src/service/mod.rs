//! Services and their endpoints as the network needs them: small values made of the API's objects, so
//! that a cluster's worth of them is cheap to keep and every decision over them is a pure function.

pub(crate) mod plan;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Seconds a client stays with its endpoint where the service does not say (the API's default).
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;
/// The label that binds a slice to its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub(crate) type Key = (String, String);

/// The transports a service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Reads `TCP`, `udp`, …; an absent one is TCP at the callers.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|p| p.name().eq_ignore_ascii_case(text))
    }

    /// The name that nftables, CNI and DNS (with `_` before it) use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty where a service's only port has no name.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Also NodePort and LoadBalancer services: they have a cluster address too.
    ClusterIp(Ipv4Addr),
    Headless,
    ExternalName(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceView {
    pub kind: Kind,
    pub ports: Vec<ServicePort>,
    pub external_ips: Vec<Ipv4Addr>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// Checked CIDR texts; empty: everybody.
    pub source_ranges: Vec<String>,
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
}

impl ServiceView {
    /// `None` for what has no IPv4 address and no name of its own (IPv6-only services).
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let kind = match (spec.type_.as_deref(), cluster_ip) {
            (Some("ExternalName"), _) => Kind::ExternalName(spec.external_name.clone()?),
            (_, "None") => Kind::Headless,
            (_, first) => {
                let others = spec.cluster_ips.iter().flatten().map(String::as_str);
                Kind::ClusterIp(std::iter::once(first).chain(others).find_map(|ip| ip.parse().ok())?)
            }
        };
        let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
        let timeout =
            spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
        let timeout = timeout.and_then(|t| u32::try_from(t).ok()).filter(|t| *t > 0);
        let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
                port: u16::try_from(port.port).ok()?,
                node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0),
            })
        });
        Some(Self {
            kind,
            ports: ports.collect(),
            external_ips: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            load_balancer_ips: ingress
                .into_iter()
                .flatten()
                .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
                .filter_map(|i| i.ip.as_deref()?.parse().ok())
                .collect(),
            // Only what parses reaches the rules' text.
            source_ranges: spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|r| Some(r.trim().parse::<ipnet::Ipv4Net>().ok()?.trunc().to_string()))
                .collect(),
            affinity_seconds: affinity.then(|| timeout.unwrap_or(AFFINITY_SECONDS_DEFAULT)),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        })
    }
}

/// One address of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub address: Ipv4Addr,
    pub hostname: Option<String>,
    pub node: Option<String>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceView {
    /// Name of the service, in the slice's namespace.
    pub service: String,
    pub endpoints: Vec<Endpoint>,
    /// Name, protocol and number.
    pub ports: Vec<(String, Protocol, u16)>,
}

impl SliceView {
    /// `None` for slices of another address family or of no service.
    pub fn of(slice: &EndpointSlice) -> Option<Self> {
        if slice.address_type != "IPv4" {
            return None;
        }
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?.clone();
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            Some(Endpoint {
                // All addresses of one endpoint are the same place: the first one is used.
                address: endpoint.addresses.first()?.parse().ok()?,
                hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
                node: endpoint.node_name.clone(),
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
            })
        });
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?;
            Some((port.name.clone().unwrap_or_default(), protocol, u16::try_from(port.port?).ok()?))
        });
        Some(Self { service, endpoints: endpoints.collect(), ports: ports.collect() })
    }
}

/// All services and slices of the cluster, as last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub services: BTreeMap<Key, Arc<ServiceView>>,
    pub slices: BTreeMap<Key, Arc<SliceView>>,
}

impl World {
    /// The slices by service.
    pub fn slices_by_service(&self) -> BTreeMap<(&str, &str), Vec<&SliceView>> {
        let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((namespace, _), slice) in &self.slices {
            by_service.entry((namespace.as_str(), slice.service.as_str())).or_default().push(&**slice);
        }
        by_service
    }
}
