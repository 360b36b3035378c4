//! The cluster's names and what they mean (Kubernetes DNS-Based Service Discovery, schema 1.1.0). Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::Ipv4Net;

use crate::config::NetConfig;
use crate::error::{NetError, Result};
use crate::service::{Key, Kind, ServiceView, SliceView, World};

/// Seconds an answer may be kept.
pub(super) const TTL_SECONDS: u32 = 5;
const SCHEMA_VERSION: &str = "1.1.0";

/// The names this server is the authority for.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// Fully qualified, lower case.
    pub domain: Name,
    /// Ranges whose reverse names are never asked for elsewhere.
    pub ranges: [Ipv4Net; 2],
}

impl Zone {
    pub fn of(config: &NetConfig) -> Result<Self> {
        let text = format!("{}.", config.cluster_domain.trim_end_matches('.').to_ascii_lowercase());
        let domain = Name::from_ascii(&text)
            .map_err(|e| NetError::Config(format!("cluster domain {}: {e}", config.cluster_domain)))?;
        Ok(Self { domain, ranges: [config.pod_cidr, config.service_cidr] })
    }

    pub fn soa(&self) -> Record {
        let name = |label: &str| child(&[label], &self.domain);
        let soa = SOA::new(name("ns.dns"), name("hostmaster"), 1, 7200, 1800, 86_400, TTL_SECONDS);
        Record::from_rdata(self.domain.clone(), TTL_SECONDS, RData::SOA(soa))
    }
}

/// What a name and type come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Records, and further ones that save the client a question.
    Found(Vec<Record>, Vec<Record>),
    /// The name is another name's alias: the record, and where to go on.
    Alias(Box<Record>, Name),
    /// The name exists, not with this type.
    NoData,
    NxDomain,
    /// Somebody else's name.
    NotOurs,
}

struct HeadlessEndpoint {
    /// The first label of its name: its host name, or its address with dashes.
    label: String,
    address: Ipv4Addr,
    ports: Vec<(String, &'static str, u16)>,
}

struct Entry {
    service: Arc<ServiceView>,
    /// Ready ones; of headless services only.
    endpoints: Vec<HeadlessEndpoint>,
}

/// All names of one world.
pub(crate) struct Index {
    zone: Zone,
    services: HashMap<Key, Entry>,
    namespaces: HashSet<String>,
    reverse: BTreeMap<Ipv4Addr, Vec<Name>>,
}

impl Index {
    pub fn new(zone: Zone, world: &World) -> Self {
        let slices = world.slices_by_service();
        let mut index =
            Self { zone, services: HashMap::new(), namespaces: HashSet::new(), reverse: BTreeMap::new() };
        for (key, service) in &world.services {
            let own = slices.get(&(key.0.as_str(), key.1.as_str())).map_or(&[][..], Vec::as_slice);
            let endpoints = if service.kind == Kind::Headless { ready(own) } else { Vec::new() };
            let name = index.service_name(key);
            if let Kind::ClusterIp(address) = service.kind {
                index.reverse.entry(address).or_default().push(name.clone());
            }
            for endpoint in &endpoints {
                let full = child(&[&endpoint.label], &name);
                index.reverse.entry(endpoint.address).or_default().push(full);
            }
            index.namespaces.insert(key.0.clone());
            index.services.insert(key.clone(), Entry { service: service.clone(), endpoints });
        }
        index
    }

    fn service_name(&self, key: &Key) -> Name {
        child(&[&key.1, &key.0, "svc"], &self.zone.domain)
    }

    /// Answers for `name` (any case; the records carry it as it was asked) and `kind`.
    pub fn lookup(&self, name: &Name, kind: RecordType) -> Answer {
        let lower = name.to_lowercase();
        if let Some(address) = reverse_address(&lower) {
            return self.lookup_reverse(name, address, kind);
        }
        if !self.zone.domain.zone_of(&lower) {
            return Answer::NotOurs;
        }
        let depth = usize::from(lower.num_labels()) - usize::from(self.zone.domain.num_labels());
        let labels: Vec<_> =
            lower.iter().take(depth).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.lookup_apex(name, kind),
            ["svc" | "pod" | "dns"] => Answer::NoData,
            ["dns-version"] => {
                let text = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
                only(kind, RecordType::TXT, vec![record(name, text)])
            }
            ["ns", "dns"] => Answer::NoData,
            [_, "pod"] => Answer::NoData,
            [dashed, _, "pod"] => match dashed.replace('-', ".").parse() {
                Ok(address) => only(kind, RecordType::A, vec![a(name, address)]),
                Err(_) => Answer::NxDomain,
            },
            [namespace, "svc"] if self.namespaces.contains(*namespace) => Answer::NoData,
            [inner @ .., service, namespace, "svc"] => {
                let key = ((*namespace).to_owned(), (*service).to_owned());
                match self.services.get(&key) {
                    Some(entry) => self.lookup_service(name, kind, &key, entry, inner),
                    None => Answer::NxDomain,
                }
            }
            _ => Answer::NxDomain,
        }
    }

    fn lookup_apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => Answer::Found(vec![self.zone.soa()], Vec::new()),
            RecordType::NS => {
                let server = RData::NS(NS(child(&["ns", "dns"], &self.zone.domain)));
                Answer::Found(vec![record(name, server)], Vec::new())
            }
            _ => Answer::NoData,
        }
    }

    fn lookup_service(
        &self,
        name: &Name,
        kind: RecordType,
        key: &Key,
        entry: &Entry,
        inner: &[&str],
    ) -> Answer {
        match (&entry.service.kind, inner) {
            (Kind::ExternalName(target), []) => {
                let target = target.trim_end_matches('.');
                match Name::from_ascii(format!("{target}.")) {
                    Ok(target) => {
                        let alias = record(name, RData::CNAME(CNAME(target.clone())));
                        Answer::Alias(Box::new(alias), target)
                    }
                    Err(_) => Answer::NoData,
                }
            }
            (Kind::ClusterIp(address), []) => only(kind, RecordType::A, vec![a(name, *address)]),
            (Kind::Headless, []) => {
                let addresses: BTreeSet<_> = entry.endpoints.iter().map(|e| e.address).collect();
                addresses_answer(name, kind, addresses)
            }
            (Kind::Headless, [label]) if !label.starts_with('_') => {
                let named = entry.endpoints.iter().filter(|e| e.label.eq_ignore_ascii_case(label));
                addresses_answer(name, kind, named.map(|e| e.address).collect())
            }
            (_, [protocol]) if protocol.starts_with('_') => {
                let used = entry.service.ports.iter().any(|p| protocol[1..] == *p.protocol.name());
                if used { Answer::NoData } else { Answer::NxDomain }
            }
            (_, [port, protocol]) if port.starts_with('_') && protocol.starts_with('_') => {
                self.lookup_port(name, kind, key, entry, &port[1..], &protocol[1..])
            }
            _ => Answer::NxDomain,
        }
    }

    fn lookup_port(
        &self,
        name: &Name,
        kind: RecordType,
        key: &Key,
        entry: &Entry,
        port: &str,
        protocol: &str,
    ) -> Answer {
        let service_name = self.service_name(key);
        let mut targets = Vec::new();
        match entry.service.kind {
            Kind::ClusterIp(address) => {
                let ports = entry.service.ports.iter();
                let ports = ports.filter(|p| p.name == port && p.protocol.name() == protocol);
                targets.extend(ports.map(|p| (p.port, service_name.clone(), address)));
            }
            Kind::Headless => {
                for endpoint in &entry.endpoints {
                    let target = child(&[&endpoint.label], &service_name);
                    let ports = endpoint.ports.iter().filter(|(n, p, _)| n == port && *p == protocol);
                    targets.extend(ports.map(|(_, _, number)| (*number, target.clone(), endpoint.address)));
                }
            }
            Kind::ExternalName(_) => {}
        }
        if targets.is_empty() {
            return Answer::NxDomain;
        }
        if kind != RecordType::SRV {
            return Answer::NoData;
        }
        let weight = (100 / u16::try_from(targets.len()).unwrap_or(u16::MAX)).max(1);
        let services = targets.iter().map(|(number, target, _)| {
            record(name, RData::SRV(SRV::new(0, weight, *number, target.clone())))
        });
        let services = services.collect();
        let addresses: BTreeMap<_, _> = targets.into_iter().map(|(_, target, ip)| (target, ip)).collect();
        Answer::Found(services, addresses.into_iter().map(|(target, ip)| a(&target, ip)).collect())
    }

    fn lookup_reverse(&self, name: &Name, address: Ipv4Addr, kind: RecordType) -> Answer {
        match self.reverse.get(&address) {
            Some(names) => {
                let records = names.iter().map(|n| record(name, RData::PTR(PTR(n.clone()))));
                only(kind, RecordType::PTR, records.collect())
            }
            None if self.zone.ranges.iter().any(|range| range.contains(&address)) => Answer::NxDomain,
            None => Answer::NotOurs,
        }
    }
}

/// The ready endpoints of a headless service, each address and name once.
fn ready(slices: &[&SliceView]) -> Vec<HeadlessEndpoint> {
    let mut found: BTreeMap<(String, Ipv4Addr), HeadlessEndpoint> = BTreeMap::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
            let address = endpoint.address;
            let label = endpoint.hostname.clone().unwrap_or_else(|| address.to_string().replace('.', "-"));
            let entry = found.entry((label.clone(), address)).or_insert_with(|| HeadlessEndpoint {
                label,
                address,
                ports: Vec::new(),
            });
            for (name, protocol, number) in &slice.ports {
                let port = (name.clone(), protocol.name(), *number);
                if !entry.ports.contains(&port) {
                    entry.ports.push(port);
                }
            }
        }
    }
    found.into_values().collect()
}

/// Addresses of a headless name; without any ready one the name does not exist (section 2.4.1).
fn addresses_answer(name: &Name, kind: RecordType, addresses: BTreeSet<Ipv4Addr>) -> Answer {
    if addresses.is_empty() {
        return Answer::NxDomain;
    }
    only(kind, RecordType::A, addresses.into_iter().map(|address| a(name, address)).collect())
}

fn only(asked: RecordType, kind: RecordType, records: Vec<Record>) -> Answer {
    if asked == kind || asked == RecordType::ANY {
        Answer::Found(records, Vec::new())
    } else {
        Answer::NoData
    }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECONDS, data)
}

fn a(name: &Name, address: Ipv4Addr) -> Record {
    record(name, RData::A(A(address)))
}

/// `labels` in front of `parent`. Labels that DNS does not allow give the parent: the API admits none.
fn child(labels: &[&str], parent: &Name) -> Name {
    let front = Name::from_ascii(labels.join(".")).unwrap_or_default();
    front.append_domain(parent).unwrap_or_else(|_| parent.clone())
}

/// The address of `4.3.2.1.in-addr.arpa.`
fn reverse_address(name: &Name) -> Option<Ipv4Addr> {
    let labels: Vec<_> = name.iter().map(|l| std::str::from_utf8(l).unwrap_or_default()).collect();
    let [d, c, b, a, "in-addr", "arpa"] = labels.as_slice() else { return None };
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
