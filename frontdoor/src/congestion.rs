//! Congestion control of connections that do not leave the host.
//!
//! Between two programs of one machine no link can be overrun: both are held back by the receiver's window alone. What
//! estimates a link (BBR, CUBIC's slow start) finds limits there that do not exist, and BBR has a timer for what it
//! holds back: an image took a quarter longer than with Reno, which goes faster until something is lost.

use std::ffi::OsString;
use std::net::SocketAddr;

use nix::sys::socket::sockopt::TcpCongestion;
use nix::sys::socket::{getsockopt, setsockopt};
use tokio::net::{TcpListener, TcpStream};

/// In every kernel, and allowed to everybody.
const ON_THE_HOST: &str = "reno";

/// Gives each connection of a listener what fits where it comes from.
pub(crate) struct Congestion {
    /// What the host's administrator has chosen; nothing where it cannot be told, and then it stays.
    usual: Option<OsString>,
}

impl Congestion {
    /// A connection takes its listener's, so that one from this host has never had another: BBR's timer would stay.
    pub(crate) fn of(listener: &TcpListener) -> Self {
        let usual = getsockopt(listener, TcpCongestion).ok();
        let is_set = usual.is_some() && setsockopt(listener, TcpCongestion, &ON_THE_HOST.into()).is_ok();
        Self { usual: usual.filter(|_| is_set) }
    }

    /// To be told of every connection, before anything is sent.
    pub(crate) fn accepted(&self, stream: &TcpStream, peer: SocketAddr) {
        if let Some(usual) = &self.usual
            && !is_on_this_host(stream, peer)
            && let Err(error) = setsockopt(stream, TcpCongestion, usual)
        {
            tracing::debug!(%peer, %error, "the usual congestion control was refused");
        }
    }
}

fn is_on_this_host(stream: &TcpStream, peer: SocketAddr) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_of_the_host_have_another_than_those_from_elsewhere() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let usual = getsockopt(&listener, TcpCongestion).expect("told");
        let congestion = Congestion::of(&listener);
        let address = listener.local_addr().expect("bound");
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, peer) = accepted.expect("accepted");
        congestion.accepted(&stream, peer);
        assert_eq!(named(&stream), ON_THE_HOST);
        // An address for documentation: nobody's.
        congestion.accepted(&stream, "192.0.2.1:1234".parse().expect("an address"));
        assert_eq!(named(&stream), usual.to_string_lossy().trim_end_matches('\0'));
    }

    fn named(stream: &TcpStream) -> String {
        let name = getsockopt(stream, TcpCongestion).expect("told");
        name.to_string_lossy().trim_end_matches('\0').to_owned()
    }
}
