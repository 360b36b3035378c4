//! Connections from the network: accept, TLS, HTTP/1.1 and HTTP/2, time limits, drain.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use gantry_kube_types::ConnectionInfo;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::{FrontDoor, Shared};
use crate::congestion::Congestion;
use crate::connection::Connection;
use crate::io::{Held, Watched};
use crate::limits::Limits;
use crate::pipeline::Origin;

/// Between failed accepts (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is encrypted before a socket takes it: a piece of a download. TLS's own limit is half of it.
const WRITE_BYTES: usize = 128 << 10;
const HTTP2_KEEP_ALIVE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the listener is not usable: {0}")]
    Listener(#[source] std::io::Error),
}

/// In every request's extensions: cancelled when the server begins to drain, so that watches and
/// other endless answers can end themselves.
#[derive(Clone, Debug)]
pub struct Draining(pub CancellationToken);

/// The TLS settings, which may be exchanged while serving; connections made later use the new ones.
#[derive(Clone, Debug)]
pub struct TlsSource(Arc<ArcSwap<ServerConfig>>);

impl TlsSource {
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }

    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }
}

impl From<Arc<ServerConfig>> for TlsSource {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self::new(config)
    }
}

impl FrontDoor {
    /// Serves until `shutdown`, then lets requests end for [`Limits::drain_timeout`] and returns. One
    /// front door drains once: watches served through it, also in-process ones, are told to end.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: impl Into<TlsSource>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        listener.local_addr().map_err(ServeError::Listener)?;
        let Shared { streams, standing, authorizer, .. } = &*self.0;
        tokio::select! {
            () = self.accept(listener, tls.into(), shutdown) => Ok(()),
            never = streams.look_after(standing.as_deref(), authorizer.as_ref()) => never,
        }
    }

    async fn accept(&self, listener: TcpListener, tls: TlsSource, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits().connections_max));
        let connections = TaskTracker::new();
        let end = CancellationToken::new();
        let congestion = Congestion::of(&listener);
        loop {
            let place = tokio::select! {
                // The semaphore is never closed.
                place = places.clone().acquire_owned() => match place { Ok(place) => place, Err(_) => break },
                () = shutdown.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    congestion.accepted(&stream, peer);
                    let connection =
                        self.clone().connection(stream, peer, tls.0.load_full(), place, shutdown.clone());
                    let end = end.clone();
                    connections.spawn(async move {
                        tokio::select! { () = connection => {}, () = end.cancelled() => {} }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.0.draining.cancel();
        connections.close();
        if tokio::time::timeout(self.limits().drain_timeout, connections.wait()).await.is_err() {
            tracing::info!(open = connections.len(), "closing connections that did not drain in time");
            end.cancel();
            connections.wait().await;
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Arc<ServerConfig>,
        place: OwnedSemaphorePermit,
        shutdown: CancellationToken,
    ) {
        let _ = stream.set_nodelay(true);
        let handshake = TlsAcceptor::from(tls).accept(stream);
        let mut stream = match tokio::time::timeout(self.limits().tls_handshake_timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        };
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
        let session = stream.get_ref().1;
        let certificates = session.peer_certificates().unwrap_or_default();
        let client_certificates = certificates.iter().map(|c| c.to_vec()).collect();
        let http2 = session.alpn_protocol() == Some(b"h2");
        let origin = Arc::new(Origin::Network(ConnectionInfo {
            peer: Some(peer),
            client_certificates,
            ..ConnectionInfo::default()
        }));
        let activity = Arc::new(Activity::new(http2));
        let kept = Connection::default();
        let io = TokioIo::new(Watched::new(Held::new(stream, place, kept.clone()), activity.clone()));
        let (door, counted) = (self.clone(), activity.clone());
        let service = service_fn(move |request| {
            let (door, origin, kept) = (door.clone(), origin.clone(), kept.clone());
            let in_use = counted.enter();
            async move {
                Ok::<_, std::convert::Infallible>(door.handle(request, &origin, Some(in_use), &kept).await)
            }
        });
        let builder = protocol(self.limits(), http2);
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut told = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::trace!(%peer, error, "connection ended");
                    }
                    return;
                }
                () = activity.overdue(self.limits()) => return tracing::debug!(%peer, "slow or idle connection closed"),
                () = shutdown.cancelled(), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// The protocol is what ALPN agreed on; without ALPN it is HTTP/1.1. Guessing it from the first bytes
/// would let a client that sends none wait for ever.
fn protocol(limits: &Limits, http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` tells a slow head from an idle connection, which hyper's own limit does not.
        .header_read_timeout(None)
        .max_headers(limits.header_count_max)
        .max_buf_size(limits.header_bytes_max.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_KEEP_ALIVE)
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX));
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

/// What one connection is doing, so that slow and idle ones can be told from busy ones. Times are
/// milliseconds since the connection began.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    http2: bool,
    requests: AtomicUsize,
    had_request: AtomicU64,
    ended_ms: AtomicU64,
    /// When the first byte of an unfinished head came; 0 = none.
    head_began_ms: AtomicU64,
}

/// One request in progress on a connection.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Activity>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.ended_ms.store(self.0.now_ms(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    fn new(http2: bool) -> Self {
        Self {
            began: Instant::now(),
            http2,
            requests: AtomicUsize::new(0),
            had_request: AtomicU64::new(0),
            ended_ms: AtomicU64::new(0),
            head_began_ms: AtomicU64::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn enter(self: &Arc<Self>) -> InUse {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.had_request.store(1, Ordering::Relaxed);
        self.head_began_ms.store(0, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Bytes came. On HTTP/2 they may be a ping and say nothing of a head.
    pub(crate) fn received(&self) {
        if !self.http2 && self.requests.load(Ordering::Relaxed) == 0 {
            let _ =
                self.head_began_ms.compare_exchange(0, self.now_ms(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Ends when the connection has waited too long for a request, or for the rest of one's head.
    async fn overdue(&self, limits: &Limits) {
        let ms = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let (header_ms, idle_ms) = (ms(limits.header_timeout), ms(limits.idle_timeout));
        loop {
            let now = self.now_ms();
            let due = if self.requests.load(Ordering::Relaxed) > 0 {
                now + header_ms.min(idle_ms)
            } else {
                let head_began = self.head_began_ms.load(Ordering::Relaxed);
                let waiting_since = self.ended_ms.load(Ordering::Relaxed);
                let due = if head_began > 0 {
                    head_began + header_ms
                } else if self.had_request.load(Ordering::Relaxed) == 0 {
                    header_ms
                } else {
                    waiting_since + idle_ms
                };
                if due <= now {
                    return;
                }
                // A head may begin at any moment, so look again within its limit.
                due.min(now + header_ms)
            };
            tokio::time::sleep_until(self.began + Duration::from_millis(due)).await;
        }
    }
}
