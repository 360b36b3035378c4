//! What outlives the requests on a connection.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::audit::{Lately, Rest};
use crate::streams::Stream;

/// Of one connection: what it asked lately, what became of it when a request upgraded it, and what is to be
/// recorded when it ends.
#[derive(Clone, Default)]
pub(crate) struct Connection(Arc<Kept>);

#[derive(Default)]
struct Kept {
    lately: Lately,
    /// The stream that a request made of it.
    stream: OnceLock<Arc<Stream>>,
    rest: Mutex<Option<Rest>>,
}

impl Connection {
    pub(crate) fn lately(&self) -> &Lately {
        &self.0.lately
    }

    /// From now on it is this stream, and ends with it.
    pub(crate) fn becomes(&self, stream: Arc<Stream>) {
        // A connection is upgraded once.
        let _ = self.0.stream.set(stream);
    }

    pub(crate) fn stream(&self) -> Option<&Arc<Stream>> {
        self.0.stream.get()
    }

    /// Records this when the connection ends.
    pub(crate) fn keep(&self, rest: Rest) {
        *self.0.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    /// The connection is gone.
    pub(crate) fn ended(&self) {
        let rest = self.0.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(rest);
    }
}
