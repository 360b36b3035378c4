//! Blobs of upstreams. Whoever asks for one that is not here begins to fetch it, or joins who did, and is sent the
//! bytes as they come; the last of them only when the digest of all is known to be right.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::try_unfold;
use gantry_oci::{Digest, RepositoryName};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use tokio::sync::{Semaphore, watch};

use super::{FETCHES_MAX, FLIGHTS_MAX, Upstream, refused};
use crate::Registry;
use crate::blobs::build;
use crate::errors::{ApiError, ApiErrorParts, ErrorCode};
use crate::fetch::{FetchError, Piece, into_store};

/// One read from the disk.
const PIECE_BYTES: usize = 256 * 1024;

/// What is being fetched.
pub(super) struct Flights {
    all: Mutex<HashMap<(RepositoryName, Digest), watch::Receiver<Flight>>>,
    permits: Arc<Semaphore>,
}

impl Default for Flights {
    fn default() -> Self {
        Self { all: Mutex::default(), permits: Arc::new(Semaphore::new(FETCHES_MAX)) }
    }
}

/// How far it is.
#[derive(Clone, Debug)]
enum Flight {
    Waiting,
    Receiving(Piece),
    Done,
    Failed(ApiErrorParts),
}

/// Answers for a blob that is not here; `None`: it is, or came, or is none of an upstream's.
pub(crate) async fn blob(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    request: (&http::HeaderMap, bool),
) -> Result<Option<Response>, ApiError> {
    let (headers, head) = request;
    let Some(mut flight) = join(registry, repository, digest)? else { return Ok(None) };
    let at = begun(&mut flight).await?;
    let (Flight::Receiving(Piece { file, size_bytes: Some(size), .. }), false) =
        (at, head || headers.contains_key(http::header::RANGE))
    else {
        landed(&mut flight).await?;
        return Ok(None);
    };
    let response = Response::builder()
        .header("Docker-Content-Digest", digest.to_string())
        .header(ETAG, format!("\"{digest}\""))
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, size);
    Ok(Some(build(response, Body::from_stream(following(file, size, flight)))))
}

/// Waits until a blob is here.
pub(super) async fn whole(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), ApiError> {
    match join(registry, repository, digest)? {
        Some(mut flight) => landed(&mut flight).await,
        None => Ok(()),
    }
}

/// Joins who fetches it, or begins.
fn join(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<watch::Receiver<Flight>>, ApiError> {
    let Some((upstream, remote)) = registry.upstream(repository) else { return Ok(None) };
    let key = (repository.clone(), digest.clone());
    let flights = &registry.inner.upstreams.flights;
    let mut all = flights.all.lock().unwrap_or_else(PoisonError::into_inner);
    // Under the lock: who fetched it puts it into the store before it leaves the table.
    if registry.store().blob(repository, digest).is_some() {
        return Ok(None);
    }
    // One that nobody is at the other end of failed without a word.
    if let Some(flight) = all.get(&key).filter(|flight| flight.has_changed().is_ok()) {
        return Ok(Some(flight.clone()));
    }
    if all.len() >= FLIGHTS_MAX {
        return Err(ApiError::new(ErrorCode::TooManyRequests).message("too many blobs are being fetched"));
    }
    let (sender, flight) = watch::channel(Flight::Waiting);
    all.insert(key.clone(), flight.clone());
    drop(all);
    let fetch = Fetch { registry: registry.clone(), upstream, remote, key, sender };
    // Goes on when who asked hangs up: the next one will want it.
    tokio::spawn(fetch.run());
    Ok(Some(flight))
}

/// Waits for the first bytes.
async fn begun(flight: &mut watch::Receiver<Flight>) -> Result<Flight, ApiError> {
    let at = flight.wait_for(|at| !matches!(at, Flight::Waiting)).await.map(|at| at.clone());
    match at.unwrap_or(Flight::Failed(broken_off())) {
        Flight::Failed(failure) => Err(failure.into()),
        at => Ok(at),
    }
}

async fn landed(flight: &mut watch::Receiver<Flight>) -> Result<(), ApiError> {
    let at = flight.wait_for(|at| matches!(at, Flight::Done | Flight::Failed(_))).await.map(|at| at.clone());
    match at.unwrap_or(Flight::Failed(broken_off())) {
        Flight::Failed(failure) => Err(failure.into()),
        _ => Ok(()),
    }
}

fn broken_off() -> ApiErrorParts {
    let message = "the fetch of the blob broke off".to_owned();
    ApiErrorParts { code: ErrorCode::Unknown, status: StatusCode::BAD_GATEWAY, message }
}

/// The bytes as they come, the last one when all were checked.
fn following(
    file: Arc<File>,
    size: u64,
    flight: watch::Receiver<Flight>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    try_unfold((file, flight, 0_u64), move |(file, mut flight, at)| async move {
        if at >= size {
            return Ok(None);
        }
        let beyond = |flight: &Flight| match flight {
            Flight::Waiting => 0,
            Flight::Receiving(piece) => piece.received_bytes.min(size - 1),
            Flight::Done => size,
            Flight::Failed(_) => u64::MAX,
        };
        let now = flight.wait_for(|flight| beyond(flight) > at).await.map(|now| now.clone());
        let end = match now {
            Ok(Flight::Failed(failure)) => return Err(io::Error::other(failure.message)),
            Ok(now) => beyond(&now),
            Err(_) => return Err(io::Error::other("the fetch broke off")),
        };
        let reading = file.clone();
        let piece = tokio::task::spawn_blocking(move || {
            // At most a piece, which fits.
            let mut piece = vec![0; (end - at).min(PIECE_BYTES as u64) as usize];
            reading.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
        });
        let piece = piece.await.map_err(io::Error::other)??;
        let next = at + piece.len() as u64;
        Ok(Some((piece, (file, flight, next))))
    })
}

/// One blob on its way from one upstream.
struct Fetch {
    registry: Registry,
    upstream: Arc<Upstream>,
    remote: RepositoryName,
    key: (RepositoryName, Digest),
    sender: watch::Sender<Flight>,
}

impl Fetch {
    async fn run(self) {
        let permits = self.registry.inner.upstreams.flights.permits.clone();
        let end = match permits.acquire_owned().await {
            Ok(_permit) => self.fetch().await,
            Err(_) => Err(broken_off()),
        };
        let done = end.is_ok();
        let flights = &self.registry.inner.upstreams.flights;
        flights.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.sender.send_replace(end.map_or_else(Flight::Failed, |()| Flight::Done));
        if done {
            self.registry.note(&self.key.0);
            super::evict::make_room(&self.registry, &self.upstream).await;
        }
    }

    async fn fetch(&self) -> Result<(), ApiErrorParts> {
        let (repository, digest) = &self.key;
        let watch = |piece: Piece| drop(self.sender.send_replace(Flight::Receiving(piece)));
        let (from, to) = ((&self.upstream.client, &self.remote), (repository, digest));
        let fetched = into_store(&self.registry, from, to, &watch).await;
        self.registry.note_answer(
            &self.upstream,
            match &fetched {
                Err(FetchError::Client(error)) => Some(error),
                _ => None,
            },
        );
        fetched.map(drop).map_err(|error| self.failure(error))
    }

    fn failure(&self, error: FetchError) -> ApiErrorParts {
        let upstream = &self.upstream.name;
        match error {
            FetchError::Client(error) if error.is_not_found() => {
                let message = format!("blob unknown to the upstream registry {upstream}");
                ApiErrorParts { code: ErrorCode::BlobUnknown, status: StatusCode::NOT_FOUND, message }
            }
            FetchError::Client(error) => refused(upstream, &error).into_parts(),
            FetchError::Storage(error) => ApiError::from(error).into_parts(),
            FetchError::Busy => {
                ApiError::new(ErrorCode::TooManyRequests).message(error.to_string()).into_parts()
            }
            FetchError::Invalid(why) => {
                tracing::error!(upstream, repository = %self.key.0, why, "not kept");
                let message = format!("the upstream registry {upstream}: {why}");
                ApiErrorParts { code: ErrorCode::Unknown, status: StatusCode::BAD_GATEWAY, message }
            }
        }
    }
}
