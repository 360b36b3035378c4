//! The node's network for one Gantry instance: pod addresses over CNI, services by nftables, cluster
//! DNS. See [`NetStack`].
//!
//! Invariants:
//! - Everything made on the host carries the instance's name: one bridge, links with its prefix, one
//!   table `ip gantry-<instance>`, one socket, one directory each in state and run. Nothing else is
//!   changed but `net.ipv4.ip_forward`, which is set to 1 and stays. Where another program's `FORWARD`
//!   chain has the policy DROP (Docker's legacy iptables, say), the operator must let the bridge
//!   through there: in nftables no chain can overrule another's drop.
//! - Pods are routed, never bridged, to one another: each has a /32 and the bridge as its gateway.
//! - The rules go on serving when this process is dead; a start replaces them in one transaction.
//! - What the rules should be is decided by pure functions (`service::plan`, `table`).

mod attach;
mod bandwidth;
mod cni;
mod config;
mod conntrack;
mod dns;
mod error;
mod ipam;
mod link;
mod netns;
mod rules;
mod service;
mod stack;
mod sysctl;
mod table;
mod watch;

pub use cni::{PLUGIN_NAME, SUPPORTED_VERSIONS, cni_main, is_cni_name};
pub use config::{NetConfig, bridge_name};
pub use error::NetError;
pub use ipam::{Lease, PortMapping};
pub use stack::NetStack;
