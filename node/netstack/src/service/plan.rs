//! The planner: services and endpoints in, the wanted rules out. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Kind, Protocol, ServicePort, ServiceView, SliceView, World};
use crate::config::{NetConfig, digest};
use crate::ipam::Lease;
use crate::table::{LIMITS_CHAIN, Set, Table};

/// What the planner must know of this node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub name: String,
    pub dns_ip: Ipv4Addr,
    pub api_server: SocketAddrV4,
}

impl Node {
    pub fn of(config: &NetConfig) -> Self {
        let api = config.api_server;
        let ip = if api.ip().is_unspecified() { config.node_ip } else { *api.ip() };
        Self {
            name: config.node_name.clone(),
            dns_ip: config.dns_ip,
            api_server: SocketAddrV4::new(ip, api.port()),
        }
    }
}

/// A place that serves a port, with what decides whether it is used.
struct Candidate {
    to: SocketAddrV4,
    ready: bool,
    draining: bool,
    local: bool,
}

/// The rules that make `world`, the host ports and the limits of `leases` work on `node`.
pub(crate) fn plan(world: &World, leases: &[Lease], node: &Node) -> Table {
    let mut table = Table::default();
    let slices = world.slices_by_service();
    for ((namespace, name), service) in &world.services {
        let Kind::ClusterIp(cluster_ip) = service.kind else { continue };
        if cluster_ip == node.dns_ip {
            // Cluster DNS is served on this host itself.
            continue;
        }
        let own = slices.get(&(namespace.as_str(), name.as_str())).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            let candidates = if namespace == "default" && name == "kubernetes" {
                vec![Candidate { to: node.api_server, ready: true, draining: false, local: true }]
            } else {
                candidates(own, port, &node.name)
            };
            let id = digest(&format!("{namespace}/{name}/{}/{}", port.protocol.name(), port.port), 12);
            PortPlan { table: &mut table, service, port, id }.write(cluster_ip, &candidates);
        }
    }
    plan_host_ports(&mut table, leases);
    plan_limits(&mut table, leases);
    table
}

fn candidates(slices: &[&SliceView], port: &ServicePort, node: &str) -> Vec<Candidate> {
    let mut found = BTreeMap::new();
    for slice in slices {
        let Some((_, _, number)) =
            slice.ports.iter().find(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)
        else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let to = SocketAddrV4::new(endpoint.address, *number);
            let candidate = Candidate {
                to,
                ready: endpoint.ready,
                draining: endpoint.serving && endpoint.terminating,
                local: endpoint.node.as_deref() == Some(node),
            };
            // An endpoint may stand in two slices while it moves from one to the other.
            let known = found.entry(to).or_insert(candidate);
            known.ready |= endpoint.ready;
        }
    }
    found.into_values().collect()
}

/// The ready ones; where none is, those that still serve while they terminate.
fn usable(candidates: &[Candidate], local_only: bool) -> Vec<SocketAddrV4> {
    let eligible = || candidates.iter().filter(|c| !local_only || c.local);
    let ready: Vec<_> = eligible().filter(|c| c.ready).map(|c| c.to).collect();
    if !ready.is_empty() {
        return ready;
    }
    eligible().filter(|c| c.draining).map(|c| c.to).collect()
}

/// One port of one service on its way into the table.
struct PortPlan<'a> {
    table: &'a mut Table,
    service: &'a ServiceView,
    port: &'a ServicePort,
    id: String,
}

impl PortPlan<'_> {
    fn write(&mut self, cluster_ip: Ipv4Addr, candidates: &[Candidate]) {
        let everywhere = usable(candidates, false);
        let here = usable(candidates, true);
        let pick = |local: bool| if local { ("loc", &here) } else { ("svc", &everywhere) };
        let (kind, endpoints) = pick(self.service.internal_local);
        let inside = self.chain(kind, endpoints);
        self.frontend(cluster_ip, inside.as_deref());
        let is_reachable_outside = self.port.node_port.is_some()
            || !self.service.external_ips.is_empty()
            || !self.service.load_balancer_ips.is_empty();
        if !is_reachable_outside {
            return;
        }
        let (kind, endpoints) = pick(self.service.external_local);
        let outside = self.chain(kind, endpoints);
        for address in &self.service.external_ips {
            self.frontend(*address, outside.as_deref());
        }
        let balanced = self.fence(outside.clone());
        for address in &self.service.load_balancer_ips {
            self.frontend(*address, balanced.as_deref());
        }
        if let (Some(node_port), Some(chain)) = (self.port.node_port, outside) {
            let key = format!("{} . {node_port}", self.port.protocol.name());
            self.table.add(Set::NodePorts, key, format!("goto {chain}"));
        }
    }

    /// An address and port at which the service is reached; without a chain it is refused.
    fn frontend(&mut self, address: Ipv4Addr, chain: Option<&str>) {
        let key = format!("{address} . {} . {}", self.port.protocol.name(), self.port.port);
        match chain {
            Some(chain) => self.table.add(Set::Services, key, format!("goto {chain}")),
            None => self.table.add(Set::NoEndpoints, key, String::new()),
        }
    }

    /// The chain that lets only the load balancer's source ranges through.
    fn fence(&mut self, chain: Option<String>) -> Option<String> {
        let chain = chain?;
        if self.service.source_ranges.is_empty() {
            return Some(chain);
        }
        let name = format!("fw-{}", self.id);
        let ranges = self.service.source_ranges.iter().map(|range| format!("ip saddr {range} goto {chain}"));
        let rules = ranges.chain(["drop".to_owned()]).collect();
        self.table.chains.insert(name.clone(), rules);
        Some(name)
    }

    /// The chain that spreads over `endpoints`, or `None` where there are none.
    fn chain(&mut self, kind: &str, endpoints: &[SocketAddrV4]) -> Option<String> {
        if endpoints.is_empty() {
            return None;
        }
        let name = format!("{kind}-{}", self.id);
        let protocol = self.port.protocol;
        for to in endpoints {
            self.table.add(Set::Hairpin, format!("{0} . {0}", to.ip()), String::new());
            if protocol == Protocol::Udp {
                self.table.udp_endpoints.insert(*to);
            }
        }
        let rules = match self.service.affinity_seconds {
            None => vec![spread(protocol, endpoints)],
            Some(seconds) => self.sticky(endpoints, seconds),
        };
        self.table.chains.insert(name.clone(), rules);
        Some(name)
    }

    /// Client affinity: every endpoint has a set of the clients that are its own, refreshed by use.
    fn sticky(&mut self, endpoints: &[SocketAddrV4], seconds: u32) -> Vec<String> {
        let protocol = self.port.protocol.name();
        let ids: Vec<_> =
            endpoints.iter().map(|to| digest(&format!("{}/{to}/{seconds}", self.id), 12)).collect();
        for (to, id) in endpoints.iter().zip(&ids) {
            self.table.sets.insert(format!("aff-{id}"), seconds);
            let rule = format!("meta l4proto {protocol} update @aff-{id} {{ ip saddr }} dnat to {to}");
            self.table.chains.insert(format!("ep-{id}"), vec![rule]);
        }
        let known = ids.iter().map(|id| format!("ip saddr @aff-{id} goto ep-{id}"));
        let verdicts: Vec<_> = ids.iter().enumerate().map(|(i, id)| format!("{i} : goto ep-{id}")).collect();
        let draw = format!("numgen random mod {} vmap {{ {} }}", ids.len(), verdicts.join(", "));
        known.chain([draw]).collect()
    }
}

/// The rule that sends a new connection to one of `endpoints` by lot.
fn spread(protocol: Protocol, endpoints: &[SocketAddrV4]) -> String {
    let protocol = protocol.name();
    if let [only] = endpoints {
        return format!("meta l4proto {protocol} dnat to {only}");
    }
    let targets: Vec<_> =
        endpoints.iter().enumerate().map(|(i, to)| format!("{i} : {} . {}", to.ip(), to.port())).collect();
    let count = endpoints.len();
    format!("meta l4proto {protocol} dnat ip to numgen random mod {count} map {{ {} }}", targets.join(", "))
}

/// What pods send beyond their limit is dropped as it comes in.
fn plan_limits(table: &mut Table, leases: &[Lease]) {
    let limits = leases.iter().filter_map(|lease| Some((lease.address, lease.egress_limit?)));
    let rules = limits.map(|(pod, (rate, burst))| {
        let (rate, burst) = ((rate / 8).max(1), (burst / 8).clamp(1, u64::from(u32::MAX)));
        format!("ip saddr {pod} limit rate over {rate} bytes/second burst {burst} bytes drop")
    });
    // The fixed part jumps to it, so it is there even when it is empty.
    table.chains.insert(LIMITS_CHAIN.to_owned(), rules.collect());
}

fn plan_host_ports(table: &mut Table, leases: &[Lease]) {
    let mut pods = BTreeSet::new();
    for (pod, mapping) in leases.iter().flat_map(|l| l.port_mappings.iter().map(move |m| (&l.address, m))) {
        let Some(protocol) = Protocol::parse(&mapping.protocol) else { continue };
        let target = format!("{pod} . {}", mapping.container_port);
        let key = format!("{} . {}", protocol.name(), mapping.host_port);
        match mapping.host_ip {
            Some(address) => table.add(Set::HostPortsAt, format!("{address} . {key}"), target),
            None => table.add(Set::HostPorts, key, target),
        }
        if protocol == Protocol::Udp {
            table.udp_endpoints.insert(SocketAddrV4::new(*pod, mapping.container_port));
        }
        pods.insert(*pod);
    }
    for pod in pods {
        table.add(Set::Hairpin, format!("{pod} . {pod}"), String::new());
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
