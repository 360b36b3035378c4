//! Pulls through: what is below an upstream's prefix is fetched when somebody asks for it, checked, kept and served.
//!
//! A manifest that is kept is `partial`: what it names comes when it is asked for. A tag is believed for a time; then
//! the upstream is asked, and where it does not answer, what is kept is served with a `Warning`.

mod blobs;
mod evict;
mod manifests;
mod reconcile;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use axum::response::Response;
use gantry_base::pattern::matches;
use gantry_oci::client::{ClientError, RegistryClient};
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_reconcile::Queue;
use gantry_registry_api::Visibility;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::Registry;
use crate::errors::{ApiError, ErrorCode};
use crate::store::ManifestRecord;

pub(crate) use blobs::blob;
pub(crate) use manifests::{bring_signatures, manifest};

/// Docker Hub calls an image `debian` that is named `library/debian`.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// An upstream that did not answer is not waited for again within this time, where something can be served.
const AWAY: Duration = Duration::from_secs(5);
/// Tags, and pulls, that are remembered of one upstream; with more, it starts anew, and the upstream is asked again.
const REMEMBERED_MAX: usize = 100_000;
/// Blobs that are fetched at the same time, from all upstreams.
const FETCHES_MAX: usize = 16;
/// Blobs that are being fetched or wait for that.
const FLIGHTS_MAX: usize = 1000;

const WARNING: HeaderName = HeaderName::from_static("warning");

/// All upstreams there are.
#[derive(Default)]
pub(crate) struct Upstreams {
    by_prefix: RwLock<HashMap<String, Arc<Upstream>>>,
    flights: blobs::Flights,
    /// Those whose state is another than their objects say.
    changed: Queue<String>,
}

/// One registry that is pulled through.
pub(crate) struct Upstream {
    /// Of the object.
    name: String,
    prefix: String,
    client: RegistryClient,
    /// Patterns of what may be pulled; none: all.
    repositories: Vec<String>,
    fresh: Duration,
    size_limit_bytes: Option<u64>,
    visibility: Visibility,
    hub: bool,
    /// Of the object it was made from.
    generation: Option<i64>,
    made: Instant,
    /// It let us in no more: the Secret may have another password now.
    denied: AtomicBool,
    reachable: AtomicBool,
    memory: Mutex<Memory>,
    /// One look at what has to leave at a time.
    evicting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Memory {
    /// When the upstream last said what a tag points to.
    checked: HashMap<(RepositoryName, Tag), Instant>,
    /// One question at a time about one manifest.
    asking: HashMap<(RepositoryName, String), Arc<tokio::sync::Mutex<()>>>,
    /// Finer than what the store remembers.
    used: HashMap<(RepositoryName, Digest), SystemTime>,
    /// When it did not answer, and what was said.
    away: Option<(Instant, String)>,
}

/// How sure it is that something is what the upstream has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// The upstream said so, or there is none.
    Known,
    /// It was not reached.
    Stale(String),
}

impl Freshness {
    /// Tells the client.
    pub(crate) fn mark(&self, mut response: Response) -> Response {
        if let Self::Stale(why) = self {
            let text = format!("299 - \"{}\"", why.replace(['"', '\\'], "'"));
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(WARNING, value);
            }
        }
        response
    }
}

impl Registry {
    /// The upstream that a repository is pulled through from, and what it is called there.
    fn upstream(&self, repository: &RepositoryName) -> Option<(Arc<Upstream>, RepositoryName)> {
        let upstream = self.inner.upstreams.of(repository.as_str())?;
        let rest = &repository.as_str()[upstream.prefix.len() + 1..];
        let remote = match upstream.hub && !rest.contains('/') {
            true => format!("library/{rest}").parse(),
            false => rest.parse(),
        };
        let remote: RepositoryName = remote.ok()?;
        let allowed = upstream.repositories.is_empty()
            || upstream.repositories.iter().any(|pattern| matches(pattern, remote.as_str()));
        allowed.then_some((upstream, remote))
    }

    /// Fetches what a manifest of an upstream names and is not here, for who reads all of an image.
    pub(crate) async fn bring_blobs(
        &self,
        repository: &RepositoryName,
        record: &ManifestRecord,
    ) -> Result<(), ApiError> {
        for blob in record.blobs.iter().filter(|_| record.partial) {
            blobs::whole(self, repository, blob).await?;
        }
        Ok(())
    }

    /// Whether it is kept of another registry, perhaps in parts.
    pub(crate) fn is_mirror(&self, repository: &RepositoryName) -> bool {
        self.inner.upstreams.of(repository.as_str()).is_some()
    }

    /// Something was pushed that shares a quota with these: their upstreams see how much they may keep.
    pub(crate) fn crowd(&self, mirrors: &HashSet<RepositoryName>) {
        for name in mirrors {
            if let Some(upstream) = self.inner.upstreams.of(name.as_str()) {
                self.inner.upstreams.changed.add(upstream.name.clone());
            }
        }
    }

    /// Nobody pushes to what is another registry's.
    pub(crate) fn refuse_pushes_to_mirrors(&self, repository: &RepositoryName) -> Result<(), ApiError> {
        let Some(upstream) = self.inner.upstreams.of(repository.as_str()) else { return Ok(()) };
        Err(ApiError::new(ErrorCode::Denied).message(format!(
            "{repository} is a mirror of the upstream registry {}: push under another name",
            upstream.name
        )))
    }
}

impl Upstreams {
    fn of(&self, repository: &str) -> Option<Arc<Upstream>> {
        let all = self.by_prefix.read().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return None;
        }
        // The longest prefix wins.
        let ends = repository.rmatch_indices('/').map(|(at, _)| at);
        ends.into_iter().find_map(|end| all.get(&repository[..end]).cloned())
    }

    /// What is new below the prefix is seen by whom the upstream says.
    pub(crate) fn visibility(&self, repository: &str) -> Option<Visibility> {
        self.of(repository).map(|upstream| upstream.visibility)
    }
}

impl Upstream {
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, repository: &RepositoryName, digest: &Digest) {
        let mut memory = self.memory();
        if memory.used.len() >= REMEMBERED_MAX {
            memory.used.clear();
        }
        memory.used.insert((repository.clone(), digest.clone()), SystemTime::now());
    }

    /// Notes whether it answered; true if that is news.
    fn answered(&self, error: Option<&ClientError>) -> bool {
        let away = error.map(|error| (Instant::now(), error.to_string()));
        let reachable = away.is_none();
        self.memory().away = away;
        self.reachable.swap(reachable, Ordering::SeqCst) != reachable
    }

    /// What it said when it did not answer a moment ago.
    fn is_away(&self) -> Option<String> {
        let memory = self.memory();
        memory.away.as_ref().filter(|(at, _)| at.elapsed() < AWAY).map(|(_, why)| why.clone())
    }
}

/// The answer to who asks for something that only an upstream has, which does not give it.
fn refused(upstream: &str, error: &ClientError) -> ApiError {
    let said = format!("the upstream registry {upstream}: {error}");
    match error {
        ClientError::Refused(refusal) if refusal.status == StatusCode::TOO_MANY_REQUESTS => {
            ApiError::new(ErrorCode::TooManyRequests).message(said)
        }
        _ => ApiError::new(ErrorCode::Unknown).status(StatusCode::BAD_GATEWAY).message(said),
    }
}

impl Registry {
    /// Notes whether an upstream answered, and tells its object when that is news.
    fn note_answer(&self, upstream: &Upstream, error: Option<&ClientError>) {
        // What is not there, or not for us, is an answer; credentials may be others now.
        let denied = error.is_some_and(ClientError::is_denied);
        upstream.denied.fetch_or(denied, Ordering::SeqCst);
        if upstream.answered(error.filter(|error| error.is_outage())) || denied {
            self.inner.upstreams.changed.add(upstream.name.clone());
        }
    }
}
