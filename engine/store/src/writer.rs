//! The one writer: checks, encodes, makes durable, publishes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use crate::history::History;
use crate::log::Log;
use crate::types::Encode;
use crate::{Event, EventKind, Expect, Mutation, Object, Revision, Snapshot, WriteError};

/// A batch ends at this many mutations or bytes, so that one fsync stays short.
const BATCH_MUTATIONS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 16 << 20;

pub(crate) type Reply = Result<Vec<Arc<Object>>, WriteError>;

pub(crate) enum Request {
    Commit { mutations: Vec<Mutation>, reply: oneshot::Sender<Reply> },
    Close,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) mutations: AtomicU64,
}

pub(crate) struct Writer {
    pub(crate) log: Box<dyn Log>,
    pub(crate) history: Arc<History>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) requests: mpsc::Receiver<Request>,
    /// The head including what is not durable yet.
    pub(crate) head: Snapshot,
    pub(crate) value_bytes_max: usize,
    /// Why writes are refused, after a failed append.
    pub(crate) failed: watch::Sender<Option<Arc<str>>>,
}

impl Writer {
    /// Runs until the store is closed or every handle is dropped.
    pub(crate) fn run(mut self) {
        while let Some(request) = self.requests.blocking_recv() {
            self.batch(request);
        }
        self.history.close();
    }

    fn batch(&mut self, first: Request) {
        let mut events = Vec::new();
        let mut replies = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                // Refuses new requests; those already queued are still served.
                Request::Close => self.requests.close(),
                Request::Commit { mutations, reply } => {
                    let before = events.len();
                    match self.stage(mutations, &mut events) {
                        Ok(objects) => replies.push((reply, Ok(objects))),
                        // A refusal rests on staged writes too: it is told after they are durable.
                        Err(error) => replies.push((reply, Err(error))),
                    }
                    bytes += events[before..].iter().map(|it| it.object.value.len()).sum::<usize>();
                }
            }
            next = (events.len() < BATCH_MUTATIONS_MAX && bytes < BATCH_BYTES_MAX)
                .then(|| self.requests.try_recv().ok())
                .flatten();
        }
        if !events.is_empty() {
            if let Err(reason) = append(self.log.as_mut(), &events) {
                tracing::error!(reason, "the store's log failed; writes are refused until restart");
                self.failed.send_replace(Some(reason.into()));
            } else {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                self.counters.mutations.fetch_add(events.len() as u64, Ordering::Relaxed);
                self.history.publish(self.head.clone(), &events);
            }
        }
        for (reply, result) in replies {
            let result = match self.failed.borrow().clone() {
                Some(reason) => Err(WriteError::Unavailable(reason)),
                None => result,
            };
            // The caller may have gone; the write stands.
            let _ = reply.send(result);
        }
    }

    /// Applies the mutations to the head, all or none.
    fn stage(&mut self, mutations: Vec<Mutation>, events: &mut Vec<Arc<Event>>) -> Reply {
        if let Some(reason) = self.failed.borrow().clone() {
            return Err(WriteError::Unavailable(reason));
        }
        let mut head = self.head.clone();
        let mut staged = Vec::with_capacity(mutations.len());
        for mutation in mutations {
            let event = Arc::new(plan(&head, mutation, self.value_bytes_max)?);
            head.apply(&event);
            staged.push(event);
        }
        self.head = head;
        let objects = staged.iter().map(|event| event.object.clone()).collect();
        events.append(&mut staged);
        Ok(objects)
    }
}

/// On a full disk the file's own code may panic where it means to fail: the same to us, and writers that wait
/// are told the reason.
fn append(log: &mut dyn Log, events: &[Arc<Event>]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| log.append(events))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("writing panicked: {}", text.unwrap_or("without a word")))
    })
}

fn plan(head: &Snapshot, mutation: Mutation, bytes_max: usize) -> Result<Event, WriteError> {
    let revision = head.revision() + 1;
    let (kind, key, expect, encode) = match mutation {
        Mutation::Put { key, expect, encode } => (EventKind::Put, key, expect, Some(encode)),
        Mutation::Delete { key, expect, encode } => (EventKind::Delete, key, expect, encode),
    };
    let previous = head.get(&key);
    match (&previous, expect) {
        (Some(_), Expect::Absent) => return Err(WriteError::Exists),
        (Some(current), Expect::Revision(wanted)) if current.revision != wanted => {
            return Err(WriteError::Conflict { current: current.revision });
        }
        (None, Expect::Revision(_)) => return Err(WriteError::NotFound),
        (None, _) if kind == EventKind::Delete => return Err(WriteError::NotFound),
        _ => {}
    }
    let value = match (encode, &previous) {
        (Some(encode), _) => run(encode, revision)?,
        (None, Some(previous)) => previous.value.clone(),
        (None, None) => return Err(WriteError::NotFound),
    };
    if kind == EventKind::Put && value.len() > bytes_max {
        return Err(WriteError::TooLarge { bytes: value.len(), bytes_max });
    }
    let object = Arc::new(Object { key, revision, value });
    Ok(Event { revision, kind, object, previous })
}

/// A panic of one caller's encoder must not end everybody's writes.
fn run(encode: Encode, revision: Revision) -> Result<bytes::Bytes, WriteError> {
    catch_unwind(AssertUnwindSafe(|| encode(revision)))
        .map_err(|_| WriteError::Unavailable("the object could not be encoded".into()))
}
