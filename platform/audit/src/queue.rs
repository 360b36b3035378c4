//! What waits to be written: many who put in, one thread that takes out.
//!
//! Putting in must cost a request next to nothing. So the writer is woken only by the first event of a
//! batch, then lingers a moment and takes all that came meanwhile at once. Of a record that is like one before no more is
//! queued than what is its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_audit_api::chain::Hash;
use gantry_audit_api::like::Own;
use gantry_kube_types::{AuditClosed, AuditEvent};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::alike::Kept;

/// How long the writer waits for more after the first event of a batch. Records are durable by the second; what is
/// written in large batches costs half of what it costs in small ones.
const LINGER: Duration = Duration::from_millis(50);

/// What the writer is given.
pub(crate) enum Item {
    Event(Box<AuditEvent>),
    /// A record that is like one before.
    Like(Like),
    /// A record of the trail's own, without a place: there are few, and the thread that makes room may be
    /// the one that asks.
    Own(Box<AuditEvent>),
    /// Everything before it is to be on disk.
    Sync(oneshot::Sender<()>),
    /// Segments are about to be removed: to be on disk before they are.
    Tombstone(RemovedThrough, oneshot::Sender<()>),
}

/// What a record has of its own, but for its id, which is among those that wait; and what it is like.
pub(crate) struct Like {
    pub(crate) kept: Arc<Kept>,
    pub(crate) id_bytes: usize,
    pub(crate) received_us: i64,
    pub(crate) completed_us: i64,
    pub(crate) latency_us: u64,
}

/// The end of what expired.
pub(crate) struct RemovedThrough {
    pub(crate) segment: u64,
    pub(crate) sequence: u64,
    pub(crate) hash: Hash,
    pub(crate) reason: String,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    places: Semaphore,
    places_max: usize,
    body_bytes: AtomicUsize,
    body_bytes_max: usize,
    /// Told when body bytes are given back.
    room: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    items: Vec<Item>,
    /// The id of each [`Item::Like`], one behind the other.
    ids: String,
    /// Somebody waits for what is queued to be written, or soon will.
    urgent: bool,
    closed: bool,
    /// The writer has gone.
    ended: bool,
}

impl Queue {
    pub(crate) fn new(places_max: usize, body_bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            places: Semaphore::new(places_max),
            places_max,
            body_bytes: AtomicUsize::new(0),
            body_bytes_max,
            room: tokio::sync::Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain pushes: a panic leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self) -> bool {
        self.body_bytes.load(Ordering::Relaxed) < self.body_bytes_max
    }

    pub(crate) fn try_reserve(&self) -> bool {
        self.has_room() && self.places.try_acquire().map(SemaphorePermit::forget).is_ok()
    }

    pub(crate) async fn reserve(&self) -> Result<(), AuditClosed> {
        loop {
            // Before the look, so that room made in between is not missed.
            let room = self.room.notified();
            if self.has_room() {
                break;
            }
            if self.places.is_closed() {
                return Err(AuditClosed);
            }
            room.await;
        }
        self.places.acquire().await.map(SemaphorePermit::forget).map_err(|_| AuditClosed)
    }

    /// Gives places back, reserved ones or written ones.
    pub(crate) fn release(&self, places: usize, body_bytes: usize) {
        self.places.add_permits(places);
        if body_bytes > 0 {
            self.body_bytes.fetch_sub(body_bytes, Ordering::Relaxed);
            self.room.notify_waiters();
        }
    }

    /// An event into its reserved place.
    pub(crate) fn commit(&self, event: Box<AuditEvent>) {
        let bytes = event.body_bytes();
        let held = match bytes {
            0 => 0,
            _ => self.body_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes,
        };
        self.push(Item::Event(event), held >= self.body_bytes_max / 2 && bytes > 0);
    }

    /// An event into its reserved place, as what it has in common with a kept one, and its own.
    pub(crate) fn commit_like(&self, kept: Arc<Kept>, own: Own<'_>) {
        let Own { id, received_us, completed_us, latency_us } = own;
        let mut state = self.lock();
        if !state.ended {
            state.ids.push_str(id);
        }
        let like = Like { kept, id_bytes: id.len(), received_us, completed_us, latency_us };
        self.push_locked(state, Item::Like(like), false);
    }

    pub(crate) fn put(&self, item: Item) {
        let ordered = matches!(item, Item::Sync(_) | Item::Tombstone(..));
        self.push(item, ordered);
    }

    fn push(&self, item: Item, urgent: bool) {
        self.push_locked(self.lock(), item, urgent);
    }

    fn push_locked(&self, mut state: MutexGuard<'_, State>, item: Item, urgent: bool) {
        if state.ended {
            // Dropping an order's sender tells who waits for it; an event comes after the last request
            // was drained, from a task nobody waited for.
            return tracing::warn!("a record came after the audit trail was closed");
        }
        state.items.push(item);
        let waiting = state.items.len();
        let hurry = urgent && !state.urgent;
        state.urgent |= urgent;
        drop(state);
        // The first one wakes the writer; a half-full queue and who waits end its lingering.
        if waiting == 1 || waiting == self.places_max / 2 || hurry {
            self.arrived.notify_one();
        }
    }

    /// Waits for items, at most until `patience` is over, and takes all there are, with the ids of those that are like
    /// others. `None`: closed and empty.
    pub(crate) fn take(&self, patience: Duration, into: &mut Vec<Item>, ids: &mut String) -> Option<()> {
        let mut state = self.lock();
        if state.items.is_empty() && !state.closed {
            let (woken, _) = self
                .arrived
                .wait_timeout_while(state, patience, |s| s.items.is_empty() && !s.closed)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            let half = self.places_max / 2;
            if !state.items.is_empty() && !state.closed {
                let (lingered, _) = self
                    .arrived
                    .wait_timeout_while(state, LINGER, |s| s.items.len() < half && !s.closed && !s.urgent)
                    .unwrap_or_else(PoisonError::into_inner);
                state = lingered;
            }
        }
        if state.items.is_empty() && state.closed {
            state.ended = true;
            return None;
        }
        std::mem::swap(&mut state.items, into);
        std::mem::swap(&mut state.ids, ids);
        state.urgent = false;
        Some(())
    }

    /// Nothing more is reserved; what is queued is still written.
    pub(crate) fn close(&self) {
        self.places.close();
        self.lock().closed = true;
        self.arrived.notify_all();
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let queue = Queue::new(1, 1 << 20);
        assert!(queue.try_reserve());
        assert!(!queue.try_reserve());
        let waiting = queue.reserve();
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        queue.commit(Box::default());
        let mut taken = Vec::new();
        assert!(queue.take(Duration::ZERO, &mut taken, &mut String::new()).is_some());
        assert!(futures::poll!(&mut waiting).is_pending(), "taken is not written");
        queue.release(1, 0);
        waiting.await.expect("a place");
        queue.close();
        assert!(queue.reserve().await.is_err());
        assert!(queue.take(Duration::ZERO, &mut Vec::new(), &mut String::new()).is_none());
    }

    #[test]
    fn who_waits_ends_the_lingering() {
        let queue = std::sync::Arc::new(Queue::new(1000, 1 << 20));
        let hurries = queue.clone();
        let began = std::time::Instant::now();
        let thread = std::thread::spawn(move || {
            hurries.put(Item::Own(Box::default()));
            hurries.put(Item::Sync(oneshot::channel().0));
        });
        let mut taken = Vec::new();
        while taken.len() < 2 {
            let mut some = Vec::new();
            assert!(queue.take(Duration::from_secs(60), &mut some, &mut String::new()).is_some());
            taken.append(&mut some);
        }
        thread.join().expect("no panic");
        assert!(began.elapsed() < Duration::from_secs(30));
        assert!(!queue.lock().urgent);
    }

    #[tokio::test]
    async fn bodies_that_wait_have_a_bound_in_bytes() {
        let queue = Queue::new(10, 4);
        assert!(queue.try_reserve());
        let request = gantry_kube_types::AuditBody::Whole("12345".into());
        queue.commit(Box::new(AuditEvent { request, ..AuditEvent::default() }));
        assert!(!queue.try_reserve(), "there are places, and no bytes");
        let waiting = queue.reserve();
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        queue.release(1, 5);
        waiting.await.expect("room");
    }
}
