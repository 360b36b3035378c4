//! The Container Network Interface (CNI specification 1.1.0): a thin plugin, and the node's side of it.
//!
//! The plugin process only carries: its environment and standard input go as one JSON line over the
//! node's socket, and the answer comes back as the result or the error object that the specification
//! asks for.

mod conflist;
mod loopback;
mod plugin;
mod server;

pub(crate) use conflist::install;
pub use plugin::cni_main;
pub(crate) use server::serve;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::NetError;
use crate::ipam::PortMapping;

/// The versions of the specification that the plugin speaks.
pub const SUPPORTED_VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The name under which the binary is the CNI plugin.
pub const PLUGIN_NAME: &str = "gantry-cni";

/// Is the program called as the CNI plugin? `program` is `argv[0]`.
pub fn is_cni_name(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    name == PLUGIN_NAME || name == loopback::NAME
}

/// Largest network configuration that is read, in bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// What the plugin was called with: the `CNI_*` variables and its standard input.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Request {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    pub args: String,
    pub config: Value,
}

/// The error object of the specification, section "Error".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CniError {
    pub code: u32,
    pub msg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Error codes of the specification that are used here.
pub(crate) mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO_FAILURE: u32 = 5;
    pub const DECODING_FAILURE: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const TRY_AGAIN_LATER: u32 = 11;
    pub const NOT_AVAILABLE: u32 = 50;
    /// 100 and above are the plugin's own.
    pub const NETWORK_FAILED: u32 = 100;
}

impl CniError {
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }
}

impl From<NetError> for CniError {
    fn from(error: NetError) -> Self {
        let code = match &error {
            NetError::Io { .. } => code::IO_FAILURE,
            NetError::NotANamespace(_) => code::INVALID_ENVIRONMENT,
            NetError::Config(_) => code::INVALID_CONFIG,
            NetError::AddressesExhausted(_) | NetError::NotReady(_) => code::TRY_AGAIN_LATER,
            _ => code::NETWORK_FAILED,
        };
        Self::new(code, error.to_string())
    }
}

/// The node's answer; `Ok(Null)` means success without output.
pub(crate) type Reply = Result<Value, CniError>;

/// What of the network configuration matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NetworkConfiguration {
    pub cni_version: String,
    pub runtime_config: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<Attachment>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RuntimeConfig {
    pub port_mappings: Vec<PortMapping>,
    pub bandwidth: Option<Bandwidth>,
}

/// The `bandwidth` capability: bits per second and bits; ingress is towards the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Bandwidth {
    // containerd writes Go's names here, too.
    #[serde(alias = "IngressRate")]
    pub ingress_rate: u64,
    #[serde(alias = "IngressBurst")]
    pub ingress_burst: u64,
    #[serde(alias = "EgressRate")]
    pub egress_rate: u64,
    #[serde(alias = "EgressBurst")]
    pub egress_burst: u64,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// The success object of ADD. Before 1.0.0 each address also names its family.
pub(crate) fn add_result(
    version: &str,
    ifname: &str,
    sandbox: &str,
    host: &str,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Value {
    let mac: Vec<_> = crate::config::mac_of(address).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut ip = json!({ "address": format!("{address}/32"), "gateway": gateway, "interface": 1 });
    if version.starts_with("0.") {
        ip["version"] = json!("4");
    }
    json!({
        "cniVersion": version,
        "interfaces": [{ "name": host }, { "name": ifname, "mac": mac.join(":"), "sandbox": sandbox }],
        "ips": [ip],
        "routes": [{ "dst": "0.0.0.0/0", "gw": gateway }],
        "dns": {},
    })
}

/// One value of `CNI_ARGS` (`K8S_POD_NAME=a;K8S_POD_NAMESPACE=b`).
pub(crate) fn argument<'a>(args: &'a str, key: &str) -> &'a str {
    args.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_follow_the_version() {
        let (address, gateway) = (Ipv4Addr::new(10, 1, 0, 7), Ipv4Addr::new(10, 1, 0, 1));
        let old = add_result("0.3.1", "eth0", "/ns", "v", address, gateway);
        assert_eq!(old["ips"][0]["version"], "4");
        let new = add_result("1.0.0", "eth0", "/ns", "v", address, gateway);
        assert_eq!(new["ips"][0].get("version"), None);
        assert_eq!(new["interfaces"][1]["mac"], "0a:58:0a:01:00:07");
        assert_eq!(new["ips"][0]["address"], "10.1.0.7/32");
    }

    #[test]
    fn the_program_knows_when_it_is_the_plugin() {
        for (program, expected) in [
            ("/run/gantry/cni/bin/gantry-cni", true),
            ("loopback", true),
            ("/usr/bin/gantry", false),
            ("/opt/gantry-cni/gantry", false),
        ] {
            assert_eq!(is_cni_name(program), expected, "{program}");
        }
    }

    #[test]
    fn arguments_are_found_by_their_whole_key() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0";
        assert_eq!(argument(args, "K8S_POD_NAME"), "web-0");
        assert_eq!(argument(args, "K8S_POD_NAMESPACE"), "ns");
        assert_eq!(argument(args, "K8S_POD_UID"), "");
    }

    #[test]
    fn port_mappings_are_read_as_container_runtimes_write_them() {
        let config: NetworkConfiguration = serde_json::from_value(json!({
            "cniVersion": "1.0.0",
            "runtimeConfig": {"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
                {"HostPort": 53, "ContainerPort": 53, "Protocol": "udp", "HostIP": "192.0.2.1"},
            ], "bandwidth": {"IngressRate": 1000, "IngressBurst": 5, "egressRate": 7, "egressBurst": 8}},
        }))
        .expect("a configuration");
        let [web, dns] = &config.runtime_config.port_mappings[..] else { panic!("two mappings") };
        assert_eq!((web.host_port, web.host_ip), (8080, None));
        assert_eq!((dns.host_ip, &*dns.protocol), (Some(Ipv4Addr::new(192, 0, 2, 1)), "udp"));
        let limits = config.runtime_config.bandwidth.expect("limits");
        assert_eq!((limits.ingress_rate, limits.egress_burst), (1000, 8));
    }
}
