//! What identity knows, in memory: read by every request, kept true by watches.

pub mod assignments;
pub mod by_id;
mod follow;
pub mod resolve;
pub mod state;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use gantry_base::tasks::Tasks;
use tokio::sync::watch;

pub use follow::Stored;
pub use state::State;

use crate::errors::IdentityError;

/// How long a writer waits to see its own write.
const OWN_WRITE_WAIT: Duration = Duration::from_secs(5);

/// A cheap handle on what identity knows. Reading never waits for the API server.
#[derive(Clone, Default)]
pub struct Directory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: RwLock<State>,
    /// Grows with every change.
    version: AtomicU64,
    /// Per kind, the revision up to which the state is true; absent before the first complete list.
    seen: watch::Sender<BTreeMap<&'static str, u64>>,
}

impl Directory {
    /// Follows every kind of the component until the process drains. Until then the directory is empty.
    pub fn follow(&self, tasks: &Tasks, client: &kube::Client) {
        follow::start(self, tasks, client);
    }

    /// The state, for as long as the guard is held: read, copy what is needed, let go.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // Writers keep no invariant across a panic that the next list would not mend.
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with every change: what was computed from the state is good while it stays.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first complete list of every kind.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so waiting can only end with the value.
        let _ = self.0.seen.subscribe().wait_for(|seen| seen.len() == follow::KINDS).await;
    }

    /// Tells of every later change of any kind; the value is how far each kind is known.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<&'static str, u64>> {
        self.0.seen.subscribe()
    }

    /// Waits until the state shows what `shown` looks for: a writer sees its own write.
    pub(crate) async fn until(&self, shown: impl Fn(&State) -> bool) -> Result<(), IdentityError> {
        let mut changes = self.0.seen.subscribe();
        let seen = async {
            loop {
                if shown(&self.read()) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(OWN_WRITE_WAIT, seen).await.map_err(|_| {
            IdentityError::Unavailable("the directory does not follow its own writes".to_owned())
        })
    }

    /// After every change, once it can be read.
    fn mark(&self, kind: &'static str, revision: u64) {
        self.0.version.fetch_add(1, Ordering::AcqRel);
        self.0.seen.send_modify(|seen| {
            let at = seen.entry(kind).or_default();
            *at = revision.max(*at);
        });
    }
}
