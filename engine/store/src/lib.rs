//! The embedded engine's store: durable, revisioned objects with consistent snapshots and watches.
//!
//! [`Store`] is a cheap handle. Writes go through one writer thread that checks conflicts in
//! submission order, commits many waiting writes with one fsync, and only then publishes them.
//! Reads take an immutable map and never wait for a write.

mod history;
mod key;
mod log;
mod packed;
mod seal;
mod snapshot;
mod store;
mod tree;
mod types;
mod watch;
mod writer;

pub use key::{Key, Prefix};
pub use packed::Packed;
pub use seal::Sealing;
pub use snapshot::Snapshot;
pub use store::{Options, Stats, Store};
pub use types::{
    Compacted, Encode, Event, EventKind, Expect, Mutation, Object, OpenError, Revision, WriteError,
};
pub use watch::{Watch, WatchItem};
