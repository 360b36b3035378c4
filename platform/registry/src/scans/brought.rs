//! `/registry/v1/advisories`: what images are compared with, and another index in its place, for whoever keeps a server
//! up to date that they have no shell on.

use std::io::{self, Read};
use std::time::Duration;

use axum::Json;
use axum::body::BodyDataStream;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use gantry_kube_types::StatusError;
use gantry_oci::{Digest, Hasher};
use gantry_registry_api::GROUP;
use gantry_scanner::advisories::{
    AdvisoryError, Index, Installed, MANIFEST_MAX_BYTES, exported_manifest, install,
};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::Registry;
use crate::admin::{refused, require};
use crate::tokens::parse_form;

/// The virtual resource, with the verbs `get` and `update`.
const ADVISORIES: &str = "advisories";
/// One of 300,000 advisories has 30 MB.
const TABLE_MAX_BYTES: u64 = 4 << 30;
/// Pieces that wait for the disk.
const PIECES_MAX: usize = 4;
/// Of a client that is silent, which nobody else could bring advisories beside.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// `GET`: what there is. `PUT ?digest=DIGEST-OF-THE-TABLE`: the manifest of an index that was exported, on one line, then
/// its table.
pub(crate) async fn advisories(State(registry): State<Registry>, request: Request) -> Response {
    let put = *request.method() == Method::PUT;
    if let Err(error) = require(&registry, &request, ADVISORIES, if put { "update" } else { "get" }) {
        return refused(&error);
    }
    let answer = if put { bring(&registry, request).await } else { show(&registry).await };
    answer.map_or_else(|error| refused(&error), |said| Json(said).into_response())
}

async fn show(registry: &Registry) -> Result<Value, StatusError> {
    let index = registry.blocking(|registry| Ok(registry.inner.scans.data.current())).await;
    let Some(index) = index.map_err(|error| failed(&error))? else {
        let mut none = StatusError::not_found(GROUP, ADVISORIES, "");
        "the server has no advisories yet: `gantry advisories push` or `gantry bundle load` brings them"
            .clone_into(&mut none.message);
        return Err(none);
    };
    Ok(shown(&index))
}

/// As `gantry advisories status --output json` has it.
fn shown(index: &Index) -> Value {
    json!({
        "advisoryData": index.data(),
        "sizeBytes": index.size_bytes(),
        "generation": index.manifest().generation,
        "sources": index.manifest().sources,
    })
}

async fn bring(registry: &Registry, request: Request) -> Result<Value, StatusError> {
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let digest = query.iter().find(|(name, _)| name == "digest").map(|(_, digest)| digest.parse::<Digest>());
    let Some(Ok(digest)) = digest else {
        return Err(StatusError::bad_request("digest=ALGORITHM:HEX must be that of the table"));
    };
    let mut body = request.into_body().into_data_stream();
    let (manifest, rest) = first_line(&mut body).await?;
    let manifest = exported_manifest(&manifest).map_err(StatusError::bad_request)?;

    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    let hasher = Hasher::new(digest.algorithm());
    let mut table = Table { pieces: receiver, piece: rest, read_bytes: 0, check: Some((hasher, digest)) };
    let directory = registry.inner.scans.data.directory().to_owned();
    let installing = tokio::task::spawn_blocking(move || {
        let installed = install(&directory, manifest, &mut table);
        // One that is not wanted is taken all the same: a client that is still sending reads no answer.
        let _ = io::copy(&mut table, &mut io::sink());
        installed
    });
    feed(body, pieces).await;
    let installed = installing.await.map_err(|error| failed(&io::Error::other(error)))?;
    let is_new = matches!(installed.map_err(|error| explain(&error))?, Installed::New(_));
    registry.inner.scans.woken.notify_one();
    let mut said = show(registry).await?;
    said["installed"] = is_new.into();
    Ok(said)
}

/// What comes before the first line feed, and what came behind it already.
async fn first_line(body: &mut BodyDataStream) -> Result<(Vec<u8>, Bytes), StatusError> {
    let mut line = BytesMut::new();
    loop {
        let piece = tokio::time::timeout(SILENCE_MAX, body.next()).await;
        let Ok(Some(Ok(mut piece))) = piece else {
            return Err(StatusError::bad_request("the body ended within the manifest, its first line"));
        };
        let end = piece.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
        if line.len() as u64 > MANIFEST_MAX_BYTES {
            return Err(StatusError::too_large(
                "the first line of the body is the manifest, which is shorter",
            ));
        }
        if let Some(end) = end {
            piece.advance(end + 1);
            return Ok((line.into(), piece));
        }
    }
}

/// Passes on what comes, until it ends, breaks off, or nobody takes it any more.
async fn feed(mut body: BodyDataStream, pieces: Sender<io::Result<Bytes>>) {
    loop {
        let piece = match tokio::time::timeout(SILENCE_MAX, body.next()).await {
            Ok(None) => return,
            Ok(Some(piece)) => piece.map_err(io::Error::other),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// The table as it comes, which ends well only if it is the one that was said.
struct Table {
    pieces: Receiver<io::Result<Bytes>>,
    piece: Bytes,
    read_bytes: u64,
    check: Option<(Hasher, Digest)>,
}

impl Read for Table {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let Some(piece) = self.pieces.blocking_recv() else {
                let Some((hasher, digest)) = self.check.take() else { return Ok(0) };
                let found = hasher.finish();
                return match found == digest {
                    true => Ok(0),
                    false => Err(invalid(format!("the table has the digest {found}, not {digest}"))),
                };
            };
            self.piece = piece?;
        }
        let n = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        self.read_bytes += n as u64;
        if self.read_bytes > TABLE_MAX_BYTES {
            return Err(invalid(format!("the table has more than {TABLE_MAX_BYTES} bytes")));
        }
        if let Some((hasher, _)) = &mut self.check {
            hasher.update(&buffer[..n]);
        }
        Ok(n)
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn explain(error: &AdvisoryError) -> StatusError {
    match error {
        AdvisoryError::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
            StatusError::bad_request(source.to_string())
        }
        AdvisoryError::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
            StatusError::timeout("the table did not come to its end")
        }
        AdvisoryError::Damaged { message, .. } => {
            StatusError::bad_request(format!("this is no table of advisories: {message}"))
        }
        AdvisoryError::Busy { .. } => StatusError::conflict(
            GROUP,
            ADVISORIES,
            "",
            "somebody else is bringing advisories: try again when that is done",
        ),
        other => failed(&io::Error::other(other.to_string())),
    }
}

fn failed(error: &io::Error) -> StatusError {
    tracing::error!(%error, "advisories could not be read or written");
    StatusError::internal("the advisories of the server cannot be read or written")
}
