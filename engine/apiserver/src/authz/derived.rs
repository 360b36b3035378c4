//! What is derived from stored objects, brought up to date when it is asked.
//!
//! Without a background task there is no moment at which a write is acknowledged and its effect on
//! rights is not: whoever asks after the acknowledgement sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use futures::FutureExt;
use futures::future::select_all;
use gantry_store::{EventKind, Key, Prefix, Store, Watch, WatchItem};

/// Something computed from the objects of some resources.
pub(crate) trait Derive: Default + Send + Sync {
    /// Takes in the new state of one object; `None`: it is gone.
    fn apply(&mut self, key: &Key, value: Option<&[u8]>);
}

pub(crate) struct Derived<T> {
    store: Store,
    prefixes: Vec<Prefix>,
    /// Every change up to this revision is in `state`.
    applied: AtomicU64,
    /// Empty until the first question and after a watch fell behind: rebuild from a snapshot.
    watches: Mutex<Vec<Watch>>,
    state: RwLock<T>,
    /// Grows whenever `state` may have become another.
    changes: AtomicU64,
}

impl<T: Derive> Derived<T> {
    pub(crate) fn new(store: Store, prefixes: Vec<Prefix>) -> Self {
        Self {
            store,
            prefixes,
            applied: AtomicU64::new(0),
            watches: Mutex::default(),
            state: RwLock::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// Another number means that the state may be another.
    pub(crate) fn generation(&self) -> u64 {
        drop(self.read());
        self.changes.load(Ordering::Acquire)
    }

    /// Returns once [`Derived::generation`] is not `seen`; never after the store has closed.
    pub(crate) async fn changed(&self, seen: u64) {
        loop {
            let from = self.store.revision();
            let watches: Result<Vec<Watch>, _> =
                self.prefixes.iter().map(|prefix| self.store.watch(prefix.clone(), from)).collect();
            // Asked after the watches have begun: no change falls between.
            if self.generation() != seen {
                return;
            }
            let Ok(mut watches) = watches else { continue };
            let (next, _, _) = select_all(watches.iter_mut().map(|watch| Box::pin(watch.next()))).await;
            if next.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The state at the newest visible revision, or a later one.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let revision = self.store.revision();
        if self.applied.load(Ordering::Acquire) < revision {
            self.catch_up(revision);
        }
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn catch_up(&self, revision: u64) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if self.applied.load(Ordering::Acquire) >= revision {
            return;
        }
        let drained = !watches.is_empty() && watches.iter_mut().all(|watch| self.drain(watch));
        let through = if drained { revision } else { self.rebuild(&mut watches) };
        self.applied.fetch_max(through, Ordering::Release);
    }

    /// Takes in what a watch has now; false: it lost events.
    fn drain(&self, watch: &mut Watch) -> bool {
        // The future never waits for I/O: ready while there are events, pending when there are none.
        while let Some(item) = watch.next().now_or_never() {
            match item {
                Some(Ok(WatchItem::Event(event))) => {
                    let value = (event.kind == EventKind::Put).then_some(&event.object.value[..]);
                    let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                    state.apply(&event.object.key, value);
                    self.changes.fetch_add(1, Ordering::Release);
                }
                Some(Ok(WatchItem::Progress(_))) => {}
                Some(Err(_)) => return false,
                // The store is closed: nothing changes any more.
                None => break,
            }
        }
        true
    }

    fn rebuild(&self, watches: &mut Vec<Watch>) -> u64 {
        let snapshot = self.store.snapshot();
        let mut fresh = T::default();
        for prefix in &self.prefixes {
            for object in snapshot.scan(prefix, None) {
                fresh.apply(&object.key, Some(&object.value));
            }
        }
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.changes.fetch_add(1, Ordering::Release);
        // A watch that cannot begin here has lost events already: the next question rebuilds again.
        let begun: Result<Vec<Watch>, _> =
            self.prefixes.iter().map(|p| self.store.watch(p.clone(), snapshot.revision())).collect();
        *watches = begun.unwrap_or_default();
        snapshot.revision()
    }
}
