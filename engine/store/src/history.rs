//! The head and the recent events: what watches read and what older snapshots are made from.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{Compacted, Event, Options, Prefix, Revision, Snapshot};

/// How many asked-for older snapshots stay cached for the next page of their list.
const CACHED_SNAPSHOTS_MAX: usize = 8;

/// Published state. Readers take `head` without a lock; everything else is behind one short lock.
pub(crate) struct History {
    head: ArcSwap<Snapshot>,
    recent: Mutex<Recent>,
}

struct Recent {
    head: Snapshot,
    /// Contiguous revisions, the last one being the head's.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// The revision the store was opened at: nothing before it is known.
    opened: Revision,
    kinds: HashMap<String, Kind>,
    cached: VecDeque<Snapshot>,
    closed: bool,
}

struct Kind {
    events: VecDeque<Arc<Event>>,
    /// Events of this resource up to here are gone.
    compacted: Revision,
    wake: watch::Sender<Revision>,
}

impl Recent {
    fn kind(&mut self, name: &str) -> &mut Kind {
        let opened = self.opened;
        if !self.kinds.contains_key(name) {
            let wake = watch::Sender::new(opened);
            let kind = Kind { events: VecDeque::new(), compacted: opened, wake };
            self.kinds.insert(name.to_owned(), kind);
        }
        self.kinds.get_mut(name).expect("inserted above when it was absent")
    }

    fn evict(&mut self) {
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(event) = self.events.pop_front() else { return };
            self.bytes -= cost(&event);
            if let Some(kind) = self.kinds.get_mut(event.object.key.kind()) {
                kind.events.pop_front();
                kind.compacted = event.revision;
            }
        }
    }
}

/// What keeping an event holds in memory: its own value and the one it replaced.
fn cost(event: &Event) -> usize {
    const OVERHEAD_BYTES: usize = 256;
    OVERHEAD_BYTES + event.object.value.len() + event.previous.as_ref().map_or(0, |it| it.value.len())
}

/// What a watch finds behind its position.
pub(crate) struct Batch {
    pub(crate) events: VecDeque<Arc<Event>>,
    /// Everything selected up to here is in `events` or before.
    pub(crate) through: Revision,
    pub(crate) closed: bool,
}

impl History {
    pub(crate) fn new(head: Snapshot, options: &Options) -> Self {
        let opened = head.revision();
        Self {
            head: ArcSwap::from_pointee(head.clone()),
            recent: Mutex::new(Recent {
                head,
                events: VecDeque::new(),
                bytes: 0,
                events_max: options.events_max,
                bytes_max: options.event_bytes_max,
                opened,
                kinds: HashMap::new(),
                cached: VecDeque::new(),
                closed: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        // Nothing behind the lock runs foreign code, so a poisoned lock still holds a whole state.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn head(&self) -> Arc<Snapshot> {
        self.head.load_full()
    }

    /// Makes durable events visible: the head first, so that whoever sees an event also reads it.
    pub(crate) fn publish(&self, head: Snapshot, events: &[Arc<Event>]) {
        let mut recent = self.lock();
        self.head.store(Arc::new(head.clone()));
        recent.head = head;
        for event in events {
            recent.bytes += cost(event);
            recent.events.push_back(event.clone());
            recent.kind(event.object.key.kind()).events.push_back(event.clone());
        }
        recent.evict();
        for event in events {
            recent.kind(event.object.key.kind()).wake.send_replace(event.revision);
        }
    }

    /// Ends every watch once it has read what there is.
    pub(crate) fn close(&self) {
        let mut recent = self.lock();
        recent.closed = true;
        for kind in recent.kinds.values() {
            kind.wake.send_replace(Revision::MAX);
        }
    }

    /// The state at an older revision: the head with the events since then undone.
    pub(crate) fn at(&self, revision: Revision) -> Option<Snapshot> {
        let (mut snapshot, undo) = {
            let recent = self.lock();
            let head = recent.head.revision();
            if revision == head {
                return Some(recent.head.clone());
            }
            if let Some(cached) = recent.cached.iter().find(|it| it.revision() == revision) {
                return Some(cached.clone());
            }
            let newer = usize::try_from(head.checked_sub(revision)?).ok()?;
            let keep = recent.events.len().checked_sub(newer)?;
            (recent.head.clone(), recent.events.range(keep..).cloned().collect::<Vec<_>>())
        };
        undo.iter().rev().for_each(|event| snapshot.undo(event));
        let mut recent = self.lock();
        recent.cached.push_back(snapshot.clone());
        while recent.cached.len() > CACHED_SNAPSHOTS_MAX {
            recent.cached.pop_front();
        }
        Some(snapshot)
    }

    pub(crate) fn subscribe(
        &self,
        prefix: &Prefix,
        from: Revision,
    ) -> Result<watch::Receiver<Revision>, Compacted> {
        let mut recent = self.lock();
        let kind = recent.kind(&prefix.kind());
        if from < kind.compacted {
            return Err(Compacted { compacted: kind.compacted });
        }
        Ok(kind.wake.subscribe())
    }

    /// Up to `max` selected events behind `position`.
    pub(crate) fn read(&self, prefix: &Prefix, position: Revision, max: usize) -> Result<Batch, Compacted> {
        let mut recent = self.lock();
        let head = recent.head.revision();
        let closed = recent.closed;
        let kind = recent.kind(&prefix.kind());
        if position < kind.compacted {
            return Err(Compacted { compacted: kind.compacted });
        }
        let first = kind.events.partition_point(|event| event.revision <= position);
        let selected = kind.events.range(first..).filter(|event| prefix.matches(&event.object.key));
        let events: VecDeque<_> = selected.take(max).cloned().collect();
        let through = match events.back() {
            Some(last) if events.len() == max => last.revision,
            _ => head.max(position),
        };
        Ok(Batch { events, through, closed })
    }

    /// Kept events and their bytes.
    pub(crate) fn kept(&self) -> (usize, usize) {
        let recent = self.lock();
        (recent.events.len(), recent.bytes)
    }
}
