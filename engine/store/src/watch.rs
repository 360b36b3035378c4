//! Watches: the events of one prefix from a revision on.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::history::History;
use crate::{Compacted, Event, Prefix, Revision};

/// Events taken per lock.
const BATCH_EVENTS_MAX: usize = 128;

/// What a watch gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// A change of a selected object.
    Event(Arc<Event>),
    /// The answer to [`Watch::request_progress`]: every selected event up to here has been given.
    Progress(Revision),
}

/// A stream of the events of a prefix. It holds no queue of its own beyond one small batch: a watcher
/// that is slower than the ring of recent events gets [`Compacted`].
pub struct Watch {
    history: Arc<History>,
    prefix: Prefix,
    position: Revision,
    batch: VecDeque<Arc<Event>>,
    wake: watch::Receiver<Revision>,
    progress: bool,
}

impl Watch {
    pub(crate) fn new(history: Arc<History>, prefix: Prefix, from: Revision) -> Result<Self, Compacted> {
        let wake = history.subscribe(&prefix, from)?;
        Ok(Self { history, prefix, position: from, batch: VecDeque::new(), wake, progress: false })
    }

    /// The next item; `None` when the store is closed. Cancel safe. After an error the watch is over.
    pub async fn next(&mut self) -> Option<Result<WatchItem, Compacted>> {
        loop {
            if let Some(event) = self.batch.pop_front() {
                return Some(Ok(WatchItem::Event(event)));
            }
            // Marked seen before reading, so that an event published in between still wakes.
            self.wake.borrow_and_update();
            let read = match self.history.read(&self.prefix, self.position, BATCH_EVENTS_MAX) {
                Ok(read) => read,
                Err(compacted) => return Some(Err(compacted)),
            };
            self.position = read.through;
            self.batch = read.events;
            if !self.batch.is_empty() {
                continue;
            }
            if std::mem::take(&mut self.progress) {
                return Some(Ok(WatchItem::Progress(self.position)));
            }
            if read.closed || self.wake.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Makes [`Watch::next`] give a [`WatchItem::Progress`] once it has given every event there is.
    pub fn request_progress(&mut self) {
        self.progress = true;
    }
}
