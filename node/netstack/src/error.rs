//! What can go wrong in the node's network.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Errors of the pod network. Each names the operation and the object that it failed on.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{what}: {source}")]
    Netlink { what: String, source: rtnetlink::Error },
    #[error("nft refused the rules ({stderr}); is the nftables package installed?")]
    Nft { stderr: String },
    #[error("{0} is not the path of another network namespace")]
    NotANamespace(PathBuf),
    #[error("every address of the pod range {0} is in use")]
    AddressesExhausted(ipnet::Ipv4Net),
    #[error("{path} is not a readable allocation file: {detail}")]
    AllocationFile { path: PathBuf, detail: String },
    #[error("{0}")]
    Config(String),
    #[error("host port {port}/{protocol} is already used by {holder}")]
    HostPortTaken { port: u16, protocol: &'static str, holder: String },
    #[error("DNS cannot listen on {address}:53: {source}")]
    DnsListen { address: Ipv4Addr, source: std::io::Error },
    #[error("the DNS server failed: {0}")]
    DnsServe(String),
    #[error("{0}")]
    NotReady(String),
}

pub type Result<T, E = NetError> = std::result::Result<T, E>;

/// Adds the operation's name to a system or netlink error.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| NetError::Io { what: what(), source })
    }
}

impl<T> Context<T> for std::result::Result<T, rtnetlink::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| NetError::Netlink { what: what(), source })
    }
}

/// Is it the kernel's answer `errno` (positive)?
pub(crate) fn is_errno(error: &rtnetlink::Error, errno: nix::errno::Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if message.code.is_some_and(|code| code.get() == -(errno as i32)))
}
