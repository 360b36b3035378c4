//! The one that writes: many waiting events, one fsync.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::event::Event;
use super::file::RevocationFile;
use super::set::RevocationSet;

const BATCH_MAX: usize = 512;
/// Rows beyond twice the events that matter at which the file is written anew without being asked.
const STALE_ROWS_MAX: u64 = 16_384;

type Reply = oneshot::Sender<Result<(), String>>;

pub(super) enum Request {
    /// Add an event.
    Keep { event: Event, reply: Reply },
    /// Have in the file what is in memory.
    Sweep { reply: Option<Reply> },
}

pub(super) struct Writer {
    pub(super) file: RevocationFile,
    pub(super) set: Arc<RwLock<RevocationSet>>,
    pub(super) requests: mpsc::Receiver<Request>,
}

impl Writer {
    /// Runs until every handle is dropped.
    pub(super) fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            self.batch(first);
        }
    }

    fn batch(&mut self, first: Request) {
        let (mut events, mut replies, mut sweep) = (Vec::new(), Vec::new(), false);
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Keep { event, reply } => {
                    events.push(event);
                    replies.push(reply);
                }
                Request::Sweep { reply } => {
                    sweep = true;
                    replies.extend(reply);
                }
            }
            next = (replies.len() < BATCH_MAX).then(|| self.requests.try_recv().ok()).flatten();
        }
        let done = self.write(&events, sweep);
        if let Err(error) = &done {
            tracing::error!(error, "revocations could not be written; they count until this process ends");
        }
        for reply in replies {
            // The caller may have gone; the event stands.
            let _ = reply.send(done.clone());
        }
    }

    fn write(&self, events: &[Event], sweep: bool) -> Result<(), String> {
        // What was asked to be kept is in memory already: a sweep writes it too.
        let rows =
            if sweep { self.sweep() } else { self.file.add(events).map_err(|error| error.to_string()) }?;
        let matter = self.set.read().unwrap_or_else(PoisonError::into_inner).len() as u64;
        if rows > 2 * matter + STALE_ROWS_MAX {
            self.sweep()?;
        }
        Ok(())
    }

    fn sweep(&self) -> Result<u64, String> {
        let events = self.set.read().unwrap_or_else(PoisonError::into_inner).events(None);
        self.file.replace(&events).map_err(|error| error.to_string())
    }
}
