//! What the audit point keeps of a connection, which outlives the requests on it.

use std::sync::{Arc, Mutex, PoisonError};

use super::lately::Lately;
use super::trail::Open;

/// Of one connection: what it asked lately, and what is to be recorded when it ends.
#[derive(Clone, Default)]
pub(crate) struct ConnectionTrail(Arc<Kept>);

#[derive(Default)]
struct Kept {
    lately: Lately,
    /// Of the upgrade of a request.
    rest: Mutex<Option<Rest>>,
}

impl ConnectionTrail {
    pub(super) fn lately(&self) -> &Lately {
        &self.0.lately
    }

    /// Records this when the connection ends.
    pub(super) fn keep(&self, rest: Rest) {
        *self.0.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    /// The connection is gone.
    pub(crate) fn ended(&self) {
        let rest = self.0.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(rest);
    }
}

/// Records the end of what went on for long, when it is dropped.
pub(crate) struct Rest(pub(super) Option<Box<Open>>);

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.complete();
        }
    }
}
