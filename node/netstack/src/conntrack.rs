//! Forgets tracked connections, over ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`); the
//! `conntrack` program is not needed.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::AsRawFd;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
const HEADERS_LENGTH: usize = 20;
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const UDP: u8 = 17;
const AF_INET: u8 = 2;

/// Removes every tracked UDP flow that is translated to one of `endpoints`. Returns how many were.
/// Blocks for as long as the kernel's table takes to read.
pub(crate) fn forget_udp(endpoints: &BTreeSet<SocketAddrV4>) -> io::Result<usize> {
    let socket = Netlink::open()?;
    let mut stale = Vec::new();
    socket.request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, &[], |message| {
        if reply_source(message).is_some_and(|source| endpoints.contains(&source))
            && let Some(tuple) = attribute(message, CTA_TUPLE_ORIG)
        {
            stale.push(tuple.to_vec());
        }
    })?;
    let mut forgotten = 0;
    for tuple in stale {
        let mut payload = Vec::with_capacity(tuple.len() + 4);
        let length = u16::try_from(tuple.len() + 4).map_err(io::Error::other)?;
        payload.extend(length.to_ne_bytes());
        payload.extend((CTA_TUPLE_ORIG | 0x8000).to_ne_bytes());
        payload.extend(tuple);
        match socket.request(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, &payload, |_| {}) {
            Ok(()) => forgotten += 1,
            // It ended meanwhile.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// Where a UDP flow's replies come from: its endpoint.
fn reply_source(message: &[u8]) -> Option<SocketAddrV4> {
    let tuple = attribute(message, CTA_TUPLE_REPLY)?;
    let transport = attribute(tuple, CTA_TUPLE_PROTO)?;
    if attribute(transport, CTA_PROTO_NUM)? != [UDP] {
        return None;
    }
    let port: [u8; 2] = attribute(transport, CTA_PROTO_SRC_PORT)?.try_into().ok()?;
    let address: [u8; 4] = attribute(attribute(tuple, CTA_TUPLE_IP)?, CTA_IP_V4_SRC)?.try_into().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(address), u16::from_be_bytes(port)))
}

/// The value of the first attribute of a kind, in a run of netlink attributes.
fn attribute(mut run: &[u8], kind: u16) -> Option<&[u8]> {
    while run.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([run[0], run[1]]));
        let found = u16::from_ne_bytes([run[2], run[3]]) & ATTRIBUTE_TYPE_MASK;
        let value = run.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        run = run.get(length.next_multiple_of(4)..)?;
    }
    None
}

struct Netlink(std::os::fd::OwnedFd);

impl Netlink {
    fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let seconds = i64::try_from(ANSWER_TIMEOUT.as_secs()).map_err(io::Error::other)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        Ok(Self(fd))
    }

    /// Sends one message and hands the attributes of every answer to `each`, until the kernel is done.
    fn request(&self, kind: u16, flags: u16, payload: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let length = u32::try_from(HEADERS_LENGTH + payload.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADERS_LENGTH + payload.len());
        message.extend(length.to_ne_bytes());
        message.extend((NFNL_SUBSYS_CTNETLINK << 8 | kind).to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend([AF_INET, 0, 0, 0]);
        message.extend(payload);
        send(self.0.as_raw_fd(), &message, nix::sys::socket::MsgFlags::empty())?;
        let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
        loop {
            let received = recv(self.0.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty())?;
            let mut rest = &buffer[..received];
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let Some(message) = rest.get(..length).filter(|m| m.len() >= 16) else { break };
                match u16::from_ne_bytes([message[4], message[5]]) {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return outcome(message),
                    _ => each(message.get(HEADERS_LENGTH..).unwrap_or_default()),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// An error message with code 0 is an acknowledgement.
fn outcome(message: &[u8]) -> io::Result<()> {
    let code = message.get(16..20).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_short_ones_do_not_panic() {
        let run = [5, 0, 1, 0, 9, 0, 0, 0, 6, 0, 2, 0x80, 7, 8, 0, 0];
        assert_eq!(attribute(&run, 1), Some(&[9][..]));
        assert_eq!(attribute(&run, 2), Some(&[7, 8][..]));
        assert_eq!(attribute(&run, 3), None);
        assert_eq!(attribute(&[200, 0, 1, 0, 1], 1), None);
        assert_eq!(attribute(&[0, 0, 1, 0, 1], 1), None);
    }
}
