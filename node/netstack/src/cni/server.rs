//! The node's side of the plugin: one request per connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{CniError, NetworkConfiguration, REQUEST_BYTES_MAX, Reply, Request, code};
use crate::attach::Attacher;

/// Requests served at once; more wait in the socket's backlog.
const REQUESTS_AT_ONCE_MAX: usize = 64;
/// The runtime's side must come to its end: reading and writing one message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the plugin until the shutdown.
pub(crate) async fn serve(listener: Arc<UnixListener>, attacher: Arc<Attacher>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(REQUESTS_AT_ONCE_MAX));
    loop {
        // The semaphore is never closed, so there is always a slot to wait for.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let attacher = attacher.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &attacher).await {
                        tracing::warn!(%error, "a CNI plugin went away");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a CNI plugin");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, attacher: &Attacher) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let limit = REQUEST_BYTES_MAX as u64;
    tokio::time::timeout(MESSAGE_TIMEOUT, (&mut stream).take(limit).read_to_end(&mut bytes)).await??;
    let reply = match serde_json::from_slice::<Request>(&bytes) {
        Ok(request) => answer(&request, attacher).await,
        Err(error) => Err(CniError::new(code::DECODING_FAILURE, error.to_string())),
    };
    let bytes = serde_json::to_vec(&reply)?;
    tokio::time::timeout(MESSAGE_TIMEOUT, stream.write_all(&bytes)).await?
}

async fn answer(request: &Request, attacher: &Attacher) -> Reply {
    let config: NetworkConfiguration = serde_json::from_value(request.config.clone())
        .map_err(|e| CniError::new(code::INVALID_CONFIG, format!("network configuration: {e}")))?;
    match request.command.as_str() {
        "ADD" => attacher.add(request, &config).await,
        "DEL" => attacher.del(request).await,
        "CHECK" => attacher.check(request).await,
        "GC" => attacher.gc(&config).await,
        "STATUS" => Ok(serde_json::Value::Null),
        other => Err(CniError::new(code::INVALID_ENVIRONMENT, format!("CNI_COMMAND {other:?} is unknown"))),
    }
}
