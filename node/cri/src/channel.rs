//! Channels over a unix socket. They connect on first use and again after the server went away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// How long one attempt to connect to the socket may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A lazy channel to the gRPC server that listens on `socket`.
pub(crate) fn unix(socket: &Path) -> Channel {
    let path: PathBuf = socket.to_owned();
    // The URI only names the authority; the connector decides where the bytes go.
    Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT).connect_with_connector_lazy(
        tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        }),
    )
}
