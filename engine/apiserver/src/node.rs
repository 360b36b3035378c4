//! The seam to the nodes: streams to containers, logs and statistics.

use gantry_kube_types::StatusError;
use tokio::io::{AsyncRead, AsyncWrite};

/// Both directions of one connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection of any kind.
pub type BoxedIo = Box<dyn Io>;

/// Reaches the kubelet-style HTTP/1.1 API of a node: `/containerLogs/{ns}/{pod}/{container}`,
/// `/exec/…`, `/attach/…`, `/portForward/{ns}/{pod}`, `/stats/summary`, …
#[async_trait::async_trait]
pub trait NodeConnector: Send + Sync {
    /// A fresh connection, authenticated as this server, to speak HTTP/1.1 over.
    async fn connect(&self, node: &str) -> Result<BoxedIo, StatusError>;
}
