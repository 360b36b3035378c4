//! What one instance's network is made of, and the names derived from it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use gantry_base::settings::{DEFAULT_INSTANCE, InstanceDirs};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

use crate::error::{NetError, Result};

/// Longest interface name of Linux, without the trailing NUL (`IFNAMSIZ - 1`).
const INTERFACE_NAME_LENGTH_MAX: usize = 15;

/// The network of one Gantry instance on this host. Instances are told apart by name, bridge and
/// ranges; none touches what another made.
#[derive(Clone, Debug)]
pub struct NetConfig {
    pub instance: String,
    pub dirs: InstanceDirs,
    /// At most 15 characters; [`bridge_name`] derives one.
    pub bridge: String,
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    /// The cluster DNS address, inside `service_cidr`.
    pub dns_ip: Ipv4Addr,
    /// Without a trailing dot, e.g. `cluster.local`.
    pub cluster_domain: String,
    /// Name of the Node object, which decides what "local" means for traffic policies.
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// Where this host reaches the API server; the `kubernetes` service leads here. It may be a
    /// loopback address: pods reach it through the service address only.
    pub api_server: SocketAddrV4,
}

impl NetConfig {
    /// The bridge's own address: the first of the pod range, and every pod's gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()) + 1)
    }

    /// The one nftables table (family `ip`) of this instance.
    pub fn table(&self) -> String {
        format!("gantry-{}", self.instance)
    }

    /// containerd's `conf_dir`: holds this instance's network configuration list.
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.dirs.run.join("cni/net.d")
    }

    /// containerd's `bin_dir`: holds `gantry-cni`, a link to the running binary.
    pub fn cni_bin_dir(&self) -> PathBuf {
        self.dirs.run.join("cni/bin")
    }

    /// The socket on which the CNI plugin finds the node.
    pub fn cni_socket(&self) -> PathBuf {
        self.dirs.run.join("cni.sock")
    }

    pub(crate) fn lease_file(&self) -> PathBuf {
        self.dirs.data.join("network/leases.json")
    }

    /// The host's end of a container's veth pair: a prefix of this instance, so that what a dead
    /// sandbox left behind is recognised, and a digest of the container and interface.
    pub(crate) fn host_interface(&self, container_id: &str, ifname: &str) -> String {
        format!("{}{}", self.interface_prefix(), digest(&format!("{container_id}/{ifname}"), 8))
    }

    pub(crate) fn interface_prefix(&self) -> String {
        format!("g{}", digest(&self.instance, 6))
    }

    /// Refuses what cannot work, before anything is made.
    pub fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(NetError::Config(message));
        if self.bridge.is_empty() || self.bridge.len() > INTERFACE_NAME_LENGTH_MAX {
            return refuse(format!("bridge name {:?} is not 1 to 15 characters long", self.bridge));
        }
        if self.pod_cidr.prefix_len() > 29 {
            return refuse(format!("pod range {} is too small: /29 or larger is needed", self.pod_cidr));
        }
        let overlap =
            self.pod_cidr.contains(&self.service_cidr) || self.service_cidr.contains(&self.pod_cidr);
        if overlap {
            return refuse(format!(
                "pod range {} and service range {} overlap",
                self.pod_cidr, self.service_cidr
            ));
        }
        if !self.service_cidr.contains(&self.dns_ip) {
            return refuse(format!("DNS address {} is not in {}", self.dns_ip, self.service_cidr));
        }
        Ok(())
    }
}

/// The bridge of an instance: `gantry0` for the default one, a readable name where it fits into an
/// interface name, a digest otherwise.
pub fn bridge_name(instance: &str) -> String {
    match instance {
        DEFAULT_INSTANCE => "gantry0".to_owned(),
        name if name.len() + 3 <= INTERFACE_NAME_LENGTH_MAX => format!("gt-{name}"),
        name => format!("gt-{}", digest(name, 10)),
    }
}

/// The first `length` hexadecimal digits of a name's SHA-256.
pub(crate) fn digest(name: &str, length: usize) -> String {
    let mut text = hex::encode(Sha256::digest(name.as_bytes()));
    text.truncate(length);
    text
}

/// A locally administered MAC made of the address, so that an address that is used again has the same
/// neighbour entry everywhere.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_names_fit_and_differ() {
        assert_eq!(bridge_name("default"), "gantry0");
        assert_eq!(bridge_name("e2e-12"), "gt-e2e-12");
        let long = bridge_name("a-very-long-instance-name-1");
        assert!(long.len() <= INTERFACE_NAME_LENGTH_MAX);
        assert_ne!(long, bridge_name("a-very-long-instance-name-2"));
    }
}
