//! The handle.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot, watch};

use crate::history::History;
use crate::log::{DiskLog, Log, MemoryLog};
use crate::writer::{Counters, Reply, Request, Writer};
use crate::{Compacted, Mutation, Object, OpenError, Packed, Prefix, Revision, Snapshot, Watch, WriteError};

/// Bounds of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest value of one object.
    pub value_bytes_max: usize,
    /// Most recent events kept for watches and older snapshots.
    pub events_max: usize,
    /// Most bytes those events hold, replaced values included, as they were before old ones of packed kinds were packed.
    pub event_bytes_max: usize,
    /// Writes that may wait; more wait for a place.
    pub queued_writes_max: usize,
    /// What is encrypted in the file.
    pub sealing: Option<Arc<crate::Sealing>>,
    /// What is kept small in memory, for a microsecond more at every read.
    pub packed: Packed,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            value_bytes_max: 3 << 20,
            events_max: 16_384,
            event_bytes_max: 16 << 20,
            queued_writes_max: 1024,
            sealing: None,
            packed: Packed::default(),
        }
    }
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// The head.
    pub revision: Revision,
    /// Objects at the head.
    pub objects: usize,
    /// Durable commits since open, each one group of writes.
    pub commits: u64,
    /// Mutations since open.
    pub mutations: u64,
    /// Kept events.
    pub events: usize,
    /// Bytes kept by them.
    pub event_bytes: usize,
}

/// A cheap-clone handle. See the crate's documentation.
#[derive(Clone)]
pub struct Store {
    history: Arc<History>,
    requests: mpsc::Sender<Request>,
    counters: Arc<Counters>,
    failed: watch::Receiver<Option<Arc<str>>>,
    done: watch::Receiver<()>,
}

impl Store {
    /// Opens or creates the store in this file, which it locks until closed. Blocks while it loads.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let (log, head) = DiskLog::open(path, &options)?;
        Self::start(Box::new(log), head, &options)
            .map_err(|error| OpenError::Failed { path: path.into(), reason: error.to_string() })
    }

    /// A store that forgets everything when closed.
    pub fn memory(options: Options) -> std::io::Result<Self> {
        let head = Snapshot::empty(0, options.packed.clone());
        Self::start(Box::new(MemoryLog), head, &options)
    }

    pub(crate) fn start(log: Box<dyn Log>, head: Snapshot, options: &Options) -> std::io::Result<Self> {
        let history = Arc::new(History::new(head.clone(), options));
        let counters = Arc::new(Counters::default());
        let (requests, receiver) = mpsc::channel(options.queued_writes_max);
        let (finished, done) = watch::channel(());
        let (failure, failed) = watch::channel(None);
        let writer = Writer {
            log,
            history: history.clone(),
            counters: counters.clone(),
            requests: receiver,
            head,
            value_bytes_max: options.value_bytes_max,
            failed: failure,
        };
        std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            writer.run();
            // Only now: the log is closed and its lock released.
            drop(finished);
        })?;
        Ok(Self { history, requests, counters, failed, done })
    }

    /// Makes one change. Returns once it is durable. Dropping the future does not undo a queued write.
    pub async fn write(&self, mutation: Mutation) -> Result<Arc<Object>, WriteError> {
        let mut objects = self.commit(vec![mutation]).await?;
        objects.pop().ok_or_else(|| WriteError::Unavailable("no object was written".into()))
    }

    /// Makes the changes, all or none, each with its own revision in the order given.
    pub async fn commit(&self, mutations: Vec<Mutation>) -> Reply {
        let closed = || WriteError::Unavailable("it is closed".into());
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Commit { mutations, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// The newest visible state.
    pub fn snapshot(&self) -> Snapshot {
        self.history.head().as_ref().clone()
    }

    /// The state at an older revision, while the events since then are kept ([`Options::events_max`]).
    pub fn snapshot_at(&self, revision: Revision) -> Option<Snapshot> {
        self.history.at(revision)
    }

    /// The newest visible revision.
    pub fn revision(&self) -> Revision {
        self.history.head().revision()
    }

    /// The events after `from`, none missing and none twice. A `from` in the future waits for it.
    pub fn watch(&self, prefix: Prefix, from: Revision) -> Result<Watch, Compacted> {
        Watch::new(self.history.clone(), prefix, from)
    }

    /// Waits until the log cannot be written any more, and says why: from then on every write is refused,
    /// until the store is opened again. Does not come back while all is well, nor after a close.
    pub async fn failure(&self) -> Arc<str> {
        let mut failed = self.failed.clone();
        if let Ok(reason) = failed.wait_for(Option::is_some).await
            && let Some(reason) = reason.clone()
        {
            return reason;
        }
        std::future::pending().await
    }

    /// Serves the queued writes, refuses new ones, ends watches and releases the file.
    pub async fn close(&self) {
        // An error means that the writer has ended already.
        let _ = self.requests.send(Request::Close).await;
        let mut done = self.done.clone();
        while done.changed().await.is_ok() {}
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        let head = self.history.head();
        let (events, event_bytes) = self.history.kept();
        Stats {
            revision: head.revision(),
            objects: head.objects(),
            commits: self.counters.commits.load(Ordering::Relaxed),
            mutations: self.counters.mutations.load(Ordering::Relaxed),
            events,
            event_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Event, Expect, Key};

    /// Works once, then fails as a full disk does.
    struct FailingLog(usize);

    impl Log for FailingLog {
        fn append(&mut self, _: &[Arc<Event>]) -> Result<(), String> {
            self.0 = self.0.checked_sub(1).ok_or("No space left on device")?;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_failed_log_write_is_not_shown_and_ends_writing() {
        let log = Box::new(FailingLog(1));
        let store = Store::start(log, Snapshot::empty(0, Packed::default()), &Options::default()).unwrap();
        let put = || Mutation::Put {
            key: Key::new("", "pods", "a", "b"),
            expect: Expect::Any,
            encode: Box::new(|_| Bytes::new()),
        };
        assert_eq!(store.write(put()).await.unwrap().revision, 1);
        for _ in 0..2 {
            let error = store.write(put()).await.unwrap_err();
            assert_eq!(error, WriteError::Unavailable("No space left on device".into()));
        }
        assert_eq!(&*store.failure().await, "No space left on device", "whoever watches is told");
        assert_eq!((store.revision(), store.stats().events), (1, 1), "what is not durable is not visible");
    }

    /// Panics as the file's own code does when it cannot even take back a failed write.
    struct PanickingLog;

    impl Log for PanickingLog {
        fn append(&mut self, _: &[Arc<Event>]) -> Result<(), String> {
            panic!("on purpose")
        }
    }

    #[tokio::test]
    async fn a_panicking_log_is_a_failed_one() {
        let store =
            Store::start(Box::new(PanickingLog), Snapshot::empty(0, Packed::default()), &Options::default())
                .unwrap();
        let key = Key::new("", "pods", "a", "b");
        let put = Mutation::Put { key, expect: Expect::Any, encode: Box::new(|_| Bytes::new()) };
        let said = WriteError::Unavailable("writing panicked: on purpose".into());
        assert_eq!(store.write(put).await.unwrap_err(), said);
        assert_eq!(&*store.failure().await, "writing panicked: on purpose");
        store.close().await;
    }
}
