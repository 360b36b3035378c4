//! Revocation events, as Keystone's OS-REVOKE has them: a token is void when an event is about it.
//!
//! [`RevocationSet`] is the pure matcher: a few hash look-ups per token, however many events there are.
//! [`Revocations`] keeps it in memory and on disk and tells everybody who subscribed. An event counts from
//! the moment it is recorded, before it is on disk; it is acknowledged when it is.
//!
//! Rights need no events: which roles a token gives is asked of the bindings at every request. Events are
//! for what is gone although the token's user, project and domain are still there.
//!
//! An event about everything of a user (project, …) is about the tokens *issued* until then; since a token
//! is issued when its user began to prove who they are, no login that was under way escapes.

mod event;
mod file;
mod set;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use event::{Cause, Event, Facts, Target};
pub use set::{RevocationSet, SetLimits};
use writer::{Request, Writer};

use crate::token::Claims;

/// Events that wait for the disk; more make their callers wait.
const QUEUE_MAX: usize = 1024;
/// Events a slow subscriber may be behind; one further behind is told so and asks about all it holds.
const SUBSCRIBER_LAG_MAX: usize = 1024;

/// How long events matter and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationConfig {
    /// The longest lifetime of a token, and the time for which expired ones are still read. An event older
    /// than this is about no token that lives.
    pub keep: SignedDuration,
    pub limits: SetLimits,
}

impl RevocationConfig {
    /// The default bounds; `keep` as [`crate::keys::KeySchedule::keep`].
    pub fn new(keep: SignedDuration) -> Self {
        Self { keep, limits: SetLimits::default() }
    }
}

/// Why an event could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is in use by another process")]
    Locked { path: PathBuf },
    #[error("{path} has schema {found}; this version knows {known}: run the newer version, or restore")]
    Newer { path: PathBuf, found: u64, known: u64 },
    /// The event counts in this process; it may be forgotten at its end.
    #[error("revocations cannot be kept: {0}")]
    Database(String),
}

/// The revocations of one server. Cheap to clone; the writing thread ends with the last handle.
#[derive(Clone)]
pub struct Revocations(Arc<Shared>);

struct Shared {
    set: Arc<RwLock<RevocationSet>>,
    generation: AtomicU64,
    subscribers: broadcast::Sender<Arc<Event>>,
    writer: mpsc::Sender<Request>,
}

impl Revocations {
    /// Reads what is kept in `path` (made 0600), without what has expired. Blocks: call it at start.
    pub fn open(path: &Path, config: RevocationConfig, now: Timestamp) -> Result<Self, RevocationError> {
        let mut set = RevocationSet::new(config.keep, config.limits);
        let file = file::RevocationFile::open(path)?;
        for event in file.load()? {
            set.insert(event);
        }
        set.prune(now);
        let set = Arc::new(RwLock::new(set));
        let (writer, requests) = mpsc::channel(QUEUE_MAX);
        let thread = Writer { file, set: set.clone(), requests };
        std::thread::Builder::new()
            .name("revocations".to_owned())
            .spawn(move || thread.run())
            .map_err(|source| RevocationError::File { path: path.to_owned(), source })?;
        let (subscribers, _) = broadcast::channel(SUBSCRIBER_LAG_MAX);
        let revocations = Self(Arc::new(Shared { set, generation: AtomicU64::new(0), subscribers, writer }));
        revocations.0.writer.try_send(Request::Sweep { reply: None }).ok();
        Ok(revocations)
    }

    /// Records an event: it counts at once, and is on disk when this returns. An error means that it
    /// counts and may be forgotten at a restart.
    pub async fn record(&self, event: Event) -> Result<(), RevocationError> {
        self.apply(event.clone());
        self.ask(|reply| Request::Keep { event, reply }).await
    }

    /// An event that is kept elsewhere, by another server or by what the objects say: it counts here too, until this
    /// process ends.
    pub fn apply(&self, event: Event) {
        let event = Arc::new(event);
        self.0.set.write().unwrap_or_else(PoisonError::into_inner).insert((*event).clone());
        self.0.generation.fetch_add(1, Ordering::Release);
        // Nobody listens: no matter.
        let _ = self.0.subscribers.send(event);
    }

    /// Is there an event about this token?
    pub fn find(&self, token: &Facts<'_>) -> Option<Cause> {
        self.read(|set| set.find(token))
    }

    /// Is there an event about the token with these claims?
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        self.find(&Facts::from(claims)).is_some()
    }

    /// Goes up with every event: who has decided something about a token decides anew when it has changed.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Every event from now on, for sessions, watches and caches. After `Lagged`, ask about all of them.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.subscribers.subscribe()
    }

    /// The events recorded since then, oldest first (`GET /v3/OS-REVOKE/events`).
    pub fn events(&self, since: Option<Timestamp>) -> Vec<Event> {
        self.read(|set| set.events(since))
    }

    /// Forgets, in memory and on disk, what is about no living token any more. Says how many are left.
    pub async fn prune(&self, now: Timestamp) -> Result<usize, RevocationError> {
        let left = {
            let mut set = self.0.set.write().unwrap_or_else(PoisonError::into_inner);
            set.prune(now);
            set.len()
        };
        self.ask(|reply| Request::Sweep { reply: Some(reply) }).await?;
        Ok(left)
    }

    fn read<T>(&self, look: impl FnOnce(&RevocationSet) -> T) -> T {
        // A panic within a change of the set is not possible short of a lack of memory.
        look(&self.0.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Request,
    ) -> Result<(), RevocationError> {
        let stopped = || RevocationError::Database("the writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        self.0.writer.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?.map_err(RevocationError::Database)
    }
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revocations").field("generation", &self.generation()).finish_non_exhaustive()
    }
}
