//! Which pod has which address: a durable file, one entry per container and interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Context, NetError, Result};

const FILE_VERSION: u32 = 1;

/// One forwarded port of the host (CNI's `portMappings` capability).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    // containerd writes Go's names, and Go reads either.
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(alias = "Protocol", default = "tcp")]
    pub protocol: String,
    /// `None`: on every address of the host.
    #[serde(
        default,
        rename = "hostIP",
        alias = "HostIP",
        deserialize_with = "host_address",
        skip_serializing_if = "Option::is_none"
    )]
    pub host_ip: Option<Ipv4Addr>,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// Runtimes write "every address" as an absent, an empty or an unspecified one.
fn host_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Addr>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    match text.as_str() {
        "" | "0.0.0.0" | "::" => Ok(None),
        address => address.parse().map(Some).map_err(|_| {
            serde::de::Error::custom(format!("hostIP {address:?} is not an IPv4 address of this host"))
        }),
    }
}

/// What one container's interface holds, until its DEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub container_id: String,
    pub interface: String,
    pub address: Ipv4Addr,
    #[serde(default)]
    pub namespace: String,
    #[serde(default)]
    pub pod: String,
    #[serde(default)]
    pub pod_uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Bits per second, and bits at once, that the pod may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_limit: Option<(u64, u64)>,
}

impl Lease {
    /// Does the host's rule set say anything about this one?
    pub(crate) fn has_rules(&self) -> bool {
        !self.port_mappings.is_empty() || self.egress_limit.is_some()
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct LeaseFile {
    version: u32,
    /// The address given last; the next one is looked for behind it, so none is used again at once.
    last: Option<Ipv4Addr>,
    leases: Vec<Lease>,
}

/// The addresses of one pod range. Every change is on disk before it is answered.
#[derive(Debug)]
pub(crate) struct Ipam {
    path: PathBuf,
    range: Ipv4Net,
    reserved: BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
    leases: BTreeMap<(String, String), Lease>,
}

/// The next free address of `range` behind `last`, round and round: neither the network, the gateway
/// nor the broadcast address.
fn next_free(range: Ipv4Net, last: Option<Ipv4Addr>, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()) + 2;
    let end = u32::from(range.broadcast());
    let begin = last.map_or(first, |l| u32::from(l).saturating_add(1));
    let begin = if (first..end).contains(&begin) { begin } else { first };
    (begin..end).chain(first..begin).map(Ipv4Addr::from).find(|candidate| !used.contains(candidate))
}

impl Ipam {
    pub fn open(path: &Path, range: Ipv4Net, reserved: impl IntoIterator<Item = Ipv4Addr>) -> Result<Self> {
        let refuse = |detail: String| Err(NetError::AllocationFile { path: path.to_owned(), detail });
        let read = gantry_base::fs::read_optional(path).context(|| format!("reading {}", path.display()))?;
        let file: LeaseFile = match read {
            None => LeaseFile { version: FILE_VERSION, ..LeaseFile::default() },
            Some(bytes) => match serde_json::from_slice(&bytes) {
                Ok(file) => file,
                Err(error) => return refuse(error.to_string()),
            },
        };
        if file.version != FILE_VERSION {
            return refuse(format!("version {} is not known to this program", file.version));
        }
        let leases = file.leases.into_iter().map(|l| ((l.container_id.clone(), l.interface.clone()), l));
        let reserved = reserved.into_iter().collect();
        Ok(Self { path: path.to_owned(), range, reserved, last: file.last, leases: leases.collect() })
    }

    /// The container's lease; a repeated call gets the same address. `wanted.address` is ignored.
    pub fn allocate(&mut self, mut wanted: Lease) -> Result<Lease> {
        let key = (wanted.container_id.clone(), wanted.interface.clone());
        self.check_ports(&key, &wanted.port_mappings)?;
        let before = (self.last, self.leases.get(&key).cloned());
        wanted.address = match &before.1 {
            Some(lease) => lease.address,
            None => {
                let mut used: BTreeSet<_> = self.leases.values().map(|lease| lease.address).collect();
                used.extend(&self.reserved);
                next_free(self.range, self.last, &used).ok_or(NetError::AddressesExhausted(self.range))?
            }
        };
        if before.1.as_ref() == Some(&wanted) {
            return Ok(wanted);
        }
        if before.1.is_none() {
            self.last = Some(wanted.address);
        }
        self.leases.insert(key.clone(), wanted.clone());
        if let Err(error) = self.save() {
            self.last = before.0;
            match before.1 {
                Some(lease) => self.leases.insert(key, lease),
                None => self.leases.remove(&key),
            };
            return Err(error);
        }
        Ok(wanted)
    }

    fn check_ports(&self, key: &(String, String), wanted: &[PortMapping]) -> Result<()> {
        for port in wanted {
            let holder = self.leases.iter().filter(|(other, _)| *other != key).find(|(_, lease)| {
                lease.port_mappings.iter().any(|held| {
                    held.host_port == port.host_port
                        && held.protocol.eq_ignore_ascii_case(&port.protocol)
                        && (held.host_ip.is_none() || port.host_ip.is_none() || held.host_ip == port.host_ip)
                })
            });
            if let Some((_, lease)) = holder {
                let protocol = crate::service::Protocol::parse(&port.protocol).map_or("?", |p| p.name());
                let holder = format!("pod {}/{}", lease.namespace, lease.pod);
                return Err(NetError::HostPortTaken { port: port.host_port, protocol, holder });
            }
        }
        Ok(())
    }

    pub fn find(&self, container_id: &str, interface: &str) -> Option<&Lease> {
        self.leases.get(&(container_id.to_owned(), interface.to_owned()))
    }

    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Forgets the leases that `keep` refuses, and returns them.
    pub fn release(&mut self, keep: impl Fn(&Lease) -> bool) -> Result<Vec<Lease>> {
        let gone: Vec<_> = self.leases.values().filter(|lease| !keep(lease)).cloned().collect();
        if gone.is_empty() {
            return Ok(gone);
        }
        for lease in &gone {
            self.leases.remove(&(lease.container_id.clone(), lease.interface.clone()));
        }
        if let Err(error) = self.save() {
            for lease in gone {
                self.leases.insert((lease.container_id.clone(), lease.interface.clone()), lease);
            }
            return Err(error);
        }
        Ok(gone)
    }

    fn save(&self) -> Result<()> {
        let file = LeaseFile {
            version: FILE_VERSION,
            last: self.last,
            leases: self.leases.values().cloned().collect(),
        };
        let bytes = serde_json::to_vec(&file)
            .map_err(std::io::Error::other)
            .context(|| "encoding the leases".to_owned())?;
        gantry_base::fs::write_atomic(&self.path, &bytes, 0o600)
            .context(|| format!("writing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(container: &str) -> Lease {
        Lease {
            container_id: container.to_owned(),
            interface: "eth0".to_owned(),
            address: Ipv4Addr::UNSPECIFIED,
            namespace: "default".to_owned(),
            pod: container.to_owned(),
            pod_uid: String::new(),
            port_mappings: Vec::new(),
            egress_limit: None,
        }
    }

    #[test]
    fn addresses_survive_and_are_not_used_again_at_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("leases.json");
        let range: Ipv4Net = "10.9.8.0/29".parse().expect("a range");
        let mut ipam = Ipam::open(&path, range, []).expect("open");
        let take = |ipam: &mut Ipam, id: &str| ipam.allocate(lease(id)).map(|l| l.address.octets()[3]);
        assert_eq!(take(&mut ipam, "a").expect("a"), 2);
        assert_eq!(take(&mut ipam, "b").expect("b"), 3);
        assert_eq!(take(&mut ipam, "a").expect("again"), 2);
        ipam.release(|l| l.container_id != "a").expect("release");
        let mut ipam = Ipam::open(&path, range, []).expect("open again");
        assert_eq!(ipam.find("b", "eth0").map(|l| l.address.octets()[3]), Some(3));
        assert_eq!([4, 5, 6], ["c", "d", "e"].map(|id| take(&mut ipam, id).expect(id)));
        assert_eq!(take(&mut ipam, "f").expect("the freed one comes last"), 2);
        assert!(matches!(take(&mut ipam, "g"), Err(NetError::AddressesExhausted(_))));
    }

    #[test]
    fn a_host_port_is_held_once_per_address_and_protocol() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("leases.json");
        let mut ipam = Ipam::open(&path, "10.9.8.0/24".parse().expect("a range"), []).expect("open");
        let with = |id: &str, protocol: &str, host_ip: Option<Ipv4Addr>| {
            let mut wanted = lease(id);
            let protocol = protocol.to_owned();
            wanted.port_mappings.push(PortMapping { host_port: 80, container_port: 8080, protocol, host_ip });
            wanted
        };
        ipam.allocate(with("a", "tcp", None)).expect("the first");
        ipam.allocate(with("b", "UDP", None)).expect("another protocol");
        let taken = ipam.allocate(with("c", "TCP", Some(Ipv4Addr::LOCALHOST)));
        assert!(matches!(taken, Err(NetError::HostPortTaken { port: 80, .. })), "{taken:?}");
        assert!(ipam.find("c", "eth0").is_none());
    }

    #[test]
    fn a_damaged_file_is_refused_and_kept() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("leases.json");
        gantry_base::fs::write_atomic(&path, b"{\"version\":1,", 0o600).expect("write");
        let opened = Ipam::open(&path, "10.9.8.0/24".parse().expect("a range"), []);
        assert!(matches!(opened, Err(NetError::AllocationFile { .. })));
        assert!(path.exists());
    }
}
