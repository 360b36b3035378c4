//! What counts as one source of attempts.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, an IPv6 /64, or a connection inside the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    V4([u8; 4]),
    /// The network's 64 bits.
    V6([u8; 8]),
    Unknown,
}

impl Source {
    /// The source's turn in the password queue ([`crate::password::PasswordHasher`]).
    pub fn lane(&self) -> u64 {
        let bytes = self.bytes();
        let tail: [u8; 8] = [bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7], bytes[8]];
        // An IPv4 address and the network of the same bits may share a turn: no harm.
        u64::from_be_bytes(tail) ^ u64::from(bytes[0]) << 63
    }

    pub(super) fn bytes(&self) -> [u8; 9] {
        let mut bytes = [0; 9];
        match self {
            Self::V4(address) => {
                bytes[0] = 4;
                bytes[1..5].copy_from_slice(address);
            }
            Self::V6(network) => {
                bytes[0] = 6;
                bytes[1..].copy_from_slice(network);
            }
            Self::Unknown => {}
        }
        bytes
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let octets = address.octets();
        let mut network = [0; 8];
        network.copy_from_slice(&octets[..8]);
        Self::V6(network)
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }
}
