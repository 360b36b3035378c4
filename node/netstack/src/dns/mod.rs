//! Cluster DNS on the cluster's DNS address, UDP and TCP: the cluster's own names from memory by the
//! Kubernetes DNS specification 1.1.0, everything else from the host's resolvers.

mod forward;
mod handler;
mod index;

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use gantry_base::tasks::Tasks;

use crate::config::NetConfig;
use crate::error::{NetError, Result};
use crate::service::World;

use forward::Forwarder;
use handler::Handler;
use index::{Index, Zone};

const PORT: u16 = 53;
/// A TCP client that says nothing for this long is sent away.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Responses waiting for one slow TCP client.
const TCP_RESPONSES_MAX: usize = 16;

/// The running server; its answers change with [`Self::set_world`].
pub(crate) struct Dns {
    zone: Zone,
    index: SharedIndex,
}

/// `None` until the services are known: then failing is right, denying would be cached.
type SharedIndex = Arc<RwLock<Option<Arc<Index>>>>;

impl Dns {
    /// Listens on the DNS address, which must be on this host already, until the shutdown.
    pub async fn start(config: &NetConfig, tasks: &Tasks) -> Result<Arc<Self>> {
        let zone = Zone::of(config)?;
        let ip = config.dns_ip;
        // The first sockets are bound here, so that an address that is taken fails the start.
        let mut first = Some(bind(ip).await?);
        let index = SharedIndex::default();
        let shutdown = tasks.shutdown().clone();
        let (served_zone, served) = (zone.clone(), index.clone());
        tasks.supervise("network/dns", move || {
            let handler = Handler::new(served_zone.clone(), served.clone(), Forwarder::new(ip));
            let (sockets, shutdown) = (first.take(), shutdown.clone());
            async move {
                let sockets = match sockets {
                    Some(sockets) => sockets,
                    None => bind(ip).await?,
                };
                serve(handler, sockets, shutdown).await
            }
        });
        Ok(Arc::new(Self { zone, index }))
    }

    pub fn set_world(&self, world: Arc<World>) {
        let fresh = Arc::new(Index::new(self.zone.clone(), &world));
        // Nothing can panic while the lock is held.
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
    }
}

async fn bind(ip: Ipv4Addr) -> Result<(UdpSocket, TcpListener)> {
    let refuse = |source| NetError::DnsListen { address: ip, source };
    let udp = UdpSocket::bind((ip, PORT)).await.map_err(refuse)?;
    Ok((udp, TcpListener::bind((ip, PORT)).await.map_err(refuse)?))
}

/// Answers until the shutdown, or until one of the server's tasks fails.
async fn serve(
    handler: Handler,
    (udp, tcp): (UdpSocket, TcpListener),
    shutdown: CancellationToken,
) -> Result<()> {
    let mut server = Server::new(handler);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_RESPONSES_MAX);
    let failed = tokio::select! {
        ended = server.block_until_done() => ended.err(),
        () = shutdown.cancelled() => None,
    };
    if let Err(error) = server.shutdown_gracefully().await {
        tracing::warn!(%error, "stopping DNS");
    }
    failed.map_or(Ok(()), |error| Err(NetError::DnsServe(error.to_string())))
}
