//! Cluster DNS on the cluster's DNS address, UDP and TCP: the cluster's own names from memory by the
//! Kubernetes DNS specification 1.1.0, everything else from the host's resolvers.

mod forward;
mod handler;
mod index;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    pub async fn start(
        config: &NetConfig,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>> {
        let zone = Zone::of(config)?;
        let address = (config.dns_ip, PORT);
        let refuse = |source| NetError::DnsListen { address: config.dns_ip, source };
        let udp = UdpSocket::bind(address).await.map_err(refuse)?;
        let tcp = TcpListener::bind(address).await.map_err(refuse)?;
        let index = SharedIndex::default();
        let forwarder = Forwarder::new(config.dns_ip);
        let mut server = Server::new(Handler::new(zone.clone(), index.clone(), forwarder));
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_RESPONSES_MAX);
        tasks.spawn(async move {
            shutdown.cancelled().await;
            if let Err(error) = server.shutdown_gracefully().await {
                tracing::warn!(%error, "stopping DNS");
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
