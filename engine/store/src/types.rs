//! Objects, mutations, events and errors.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::Key;

/// The store-wide write counter: an object's `resourceVersion`. The first write is 1.
pub type Revision = u64;

/// One stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// The revision of the write that made this value.
    pub revision: Revision,
    /// Complete JSON whose `metadata.resourceVersion` is already `revision`.
    pub value: Bytes,
}

/// Encodes a value once its revision is known. Runs on the writer thread: keep it short.
pub type Encode = Box<dyn FnOnce(Revision) -> Bytes + Send>;

/// What a write requires of the current object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing (a delete still requires the object to exist).
    Any,
    /// That it does not exist.
    Absent,
    /// That it exists at this revision.
    Revision(Revision),
}

/// One change to one object.
pub enum Mutation {
    /// Creates or replaces.
    Put {
        /// What to write.
        key: Key,
        /// The condition.
        expect: Expect,
        /// Gives the value.
        encode: Encode,
    },
    /// Removes.
    Delete {
        /// What to remove.
        key: Key,
        /// The condition.
        expect: Expect,
        /// Gives the final state shown to watchers; the last stored value when `None`.
        encode: Option<Encode>,
    },
}

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// [`Expect::Absent`], but it exists.
    #[error("the object already exists")]
    Exists,
    /// An update of a revision, or a delete, of an object that does not exist.
    #[error("the object does not exist")]
    NotFound,
    /// The object is at another revision than expected.
    #[error("the object is at revision {current}")]
    Conflict {
        /// The revision it is at, possibly not yet visible to readers.
        current: Revision,
    },
    /// The value is larger than the store accepts.
    #[error("the object is {bytes} bytes, more than the {bytes_max} that are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        bytes_max: usize,
    },
    /// The store is closed or has failed. After a failed disk write the outcome is unknown until restart.
    #[error("the store does not accept writes: {0}")]
    Unavailable(Arc<str>),
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Created (no previous object) or replaced.
    Put,
    /// Removed.
    Delete,
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The change's revision.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The new state; for a delete the final state, at the delete's revision.
    pub object: Arc<Object>,
    /// The state before.
    pub previous: Option<Arc<Object>>,
}

/// The wanted revision is older than the events that are kept: list again (HTTP 410 Gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("events up to revision {compacted} are no longer kept")]
pub struct Compacted {
    /// The last revision of this resource whose event is gone.
    pub compacted: Revision,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "{path} is in use by another process: stop the Gantry that runs on this data directory, or choose another one"
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A newer Gantry wrote it.
    #[error("{path} has schema {found}, but this Gantry knows {known} at most: run a newer Gantry")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema this build reads.
        known: u64,
    },
    /// Disk or format failure.
    #[error("cannot open {path}: {reason}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}
