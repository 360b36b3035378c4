//! A blob of another registry into the store: written as it comes, and seen only when its digest is right.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use gantry_oci::client::{ClientError, Incoming, RegistryClient};
use gantry_oci::{Digest, RepositoryName};
use tokio::sync::OwnedMutexGuard;

use crate::Registry;
use crate::store::Upload;

/// One write to the disk.
const PIECE_BYTES: usize = 256 * 1024;

/// Why it did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Client(#[from] ClientError),
    /// It is not what was asked for.
    #[error("{0}")]
    Invalid(String),
    #[error("too many uploads are under way")]
    Busy,
    #[error("it cannot be stored")]
    Storage(#[from] io::Error),
}

/// What has come so far.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Everything that has come can be read here, also after it has become a blob.
    pub(crate) file: Arc<File>,
    /// The size of the whole as the other registry says.
    pub(crate) size_bytes: Option<u64>,
    pub(crate) received_bytes: u64,
}

/// Fetches `digest` of `remote` and links it into `repository`; returns its size. `watch` is told of every piece.
pub(crate) async fn into_store(
    registry: &Registry,
    (client, remote): (&RegistryClient, &RepositoryName),
    (repository, digest): (&RepositoryName, &Digest),
    watch: &(dyn Fn(Piece) + Send + Sync),
) -> Result<u64, FetchError> {
    let incoming = client.incoming(remote, digest).await?;
    let size_max = registry.config().limits.blob_size_max_bytes;
    if incoming.size_bytes().is_some_and(|size| size > size_max) {
        return Err(FetchError::Invalid(format!("the blob {digest} is larger than {size_max} bytes")));
    }
    let name = repository.clone();
    let upload = registry.blocking(move |r| r.store().begin_upload(&name, false)).await?;
    let upload = upload.ok_or(FetchError::Busy)?.lock_owned().await;
    let file = Arc::new(upload.reader()?);
    let (mut upload, received) = receive(incoming, upload, &file, size_max, watch).await?;
    let size = upload.received_bytes;
    let (name, expected) = (repository.clone(), digest.clone());
    let finished = registry.blocking(move |registry| match received {
        Ok(()) => registry.store().finish_upload(&name, &mut upload, &expected).map(Ok),
        Err(error) => registry.store().cancel_upload(&mut upload).map(|()| Err(error)),
    });
    match finished.await?? {
        Ok(()) => Ok(size),
        Err(found) => Err(FetchError::Invalid(format!("the blob {digest} has the digest {found}"))),
    }
}

type Locked = OwnedMutexGuard<Upload>;

/// Writes what comes; the upload comes back also where that failed, to be forgotten.
async fn receive(
    mut incoming: Incoming,
    mut upload: Locked,
    file: &Arc<File>,
    size_max: u64,
    watch: &(dyn Fn(Piece) + Send + Sync),
) -> io::Result<(Locked, Result<(), FetchError>)> {
    let size_bytes = incoming.size_bytes();
    let max = size_bytes.unwrap_or(size_max).min(size_max);
    let mut waiting = BytesMut::new();
    loop {
        let chunk = match incoming.chunk().await {
            Ok(chunk) => chunk,
            Err(error) => return Ok((upload, Err(error.into()))),
        };
        let last = chunk.is_none();
        waiting.extend_from_slice(&chunk.unwrap_or_default());
        if waiting.len() >= PIECE_BYTES || (last && !waiting.is_empty()) {
            if upload.received_bytes + waiting.len() as u64 > max {
                let why = format!("it is larger than the {max} bytes that were said");
                return Ok((upload, Err(FetchError::Invalid(why))));
            }
            let piece = waiting.split();
            let written = tokio::task::spawn_blocking(move || {
                let written = upload.append(&piece);
                (upload, written)
            });
            let (back, written) = written.await.map_err(io::Error::other)?;
            upload = back;
            if let Err(error) = written {
                return Ok((upload, Err(error.into())));
            }
            watch(Piece { file: file.clone(), size_bytes, received_bytes: upload.received_bytes });
        }
        if last {
            return Ok((upload, Ok(())));
        }
    }
}
