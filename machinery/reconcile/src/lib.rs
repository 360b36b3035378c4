//! How controllers are driven: [`Informer`] keeps one kind in memory and says what changed, [`Queue`]
//! holds the keys that need work (each once, with delays and back-off), [`work`] runs reconcilers.
//!
//! A reconciler takes a key and nothing else, reads the world from informers, plans, then acts.
//! Running it twice changes nothing; nothing polls.

mod informer;
mod queue;
mod work;

pub use informer::{Change, Informer, Key, Kind};
pub use queue::Queue;
pub use work::{Again, work};
