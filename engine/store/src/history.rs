//! The head and the recent events: what watches read and what older snapshots are made from.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::packed::PackedEvent;
use crate::{Compacted, Event, Options, Prefix, Revision, Snapshot};

/// How many asked-for older snapshots stay cached for the next page of their list.
const CACHED_SNAPSHOTS_MAX: usize = 8;
/// Newer events are given as they are, for every watcher that keeps up wants them; older ones are packed where their kind
/// is, and unpacked for who is late.
const WHOLE_EVENTS_MAX: usize = 1024;

/// Published state. Readers take `head` without a lock; everything else is behind one short lock.
pub(crate) struct History {
    head: ArcSwap<Snapshot>,
    recent: Mutex<Recent>,
}

struct Recent {
    head: Snapshot,
    /// Contiguous revisions, the last one being the head's.
    events: VecDeque<Remembered>,
    /// Of their values before they were packed.
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// The revision the store was opened at: nothing before it is known.
    opened: Revision,
    kinds: HashMap<String, Kind>,
    cached: VecDeque<Snapshot>,
    closed: bool,
}

#[derive(Clone)]
enum Remembered {
    Whole(Arc<Event>),
    Packed(PackedEvent),
}

impl Remembered {
    fn revision(&self) -> Revision {
        match self {
            Self::Whole(event) => event.revision,
            Self::Packed(event) => event.revision,
        }
    }

    fn kind(&self) -> &str {
        match self {
            Self::Whole(event) => event.object.key.kind(),
            Self::Packed(event) => event.name(),
        }
    }

    fn is_selected(&self, prefix: &Prefix) -> bool {
        match self {
            Self::Whole(event) => prefix.matches(&event.object.key),
            Self::Packed(event) => event.is_selected(prefix),
        }
    }

    /// What keeping it would hold in memory if it were not packed: its own value and the one it replaced.
    fn cost(&self) -> usize {
        const OVERHEAD_BYTES: usize = 256;
        let values = match self {
            Self::Whole(event) => {
                event.object.value.len() + event.previous.as_ref().map_or(0, |it| it.value.len())
            }
            Self::Packed(event) => event.values_bytes(),
        };
        OVERHEAD_BYTES + values
    }

    fn event(&self) -> Arc<Event> {
        match self {
            Self::Whole(event) => event.clone(),
            Self::Packed(event) => event.unpack(),
        }
    }
}

struct Kind {
    /// Which of the recent events are of it.
    revisions: VecDeque<Revision>,
    /// Events of this resource up to here are gone.
    compacted: Revision,
    wake: watch::Sender<Revision>,
}

impl Recent {
    fn kind(&mut self, name: &str) -> &mut Kind {
        let opened = self.opened;
        if !self.kinds.contains_key(name) {
            let wake = watch::Sender::new(opened);
            let kind = Kind { revisions: VecDeque::new(), compacted: opened, wake };
            self.kinds.insert(name.to_owned(), kind);
        }
        self.kinds.get_mut(name).expect("inserted above when it was absent")
    }

    fn evict(&mut self) {
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(event) = self.events.pop_front() else { return };
            self.bytes -= event.cost();
            if let Some(kind) = self.kinds.get_mut(event.kind()) {
                kind.revisions.pop_front();
                kind.compacted = event.revision();
            }
        }
    }

    /// Packs what `newer` events have made old.
    fn pack(&mut self, newer: usize) {
        let old = self.events.len().saturating_sub(WHOLE_EVENTS_MAX);
        for event in self.events.range_mut(old.saturating_sub(newer)..old) {
            if let Remembered::Whole(whole) = event
                && let Some(packed) = self.head.pack(whole)
            {
                *event = Remembered::Packed(packed);
            }
        }
    }

    /// The remembered event of a revision that is one's.
    fn event(&self, revision: Revision) -> Option<&Remembered> {
        let first = self.events.front()?.revision();
        self.events.get(usize::try_from(revision.checked_sub(first)?).ok()?)
    }
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
            let remembered = Remembered::Whole(event.clone());
            recent.bytes += remembered.cost();
            recent.events.push_back(remembered);
            recent.kind(event.object.key.kind()).revisions.push_back(event.revision);
        }
        recent.evict();
        recent.pack(events.len());
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
        undo.iter().rev().for_each(|event| snapshot.undo(&event.event()));
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
        let name = prefix.kind();
        let compacted = recent.kind(&name).compacted;
        if position < compacted {
            return Err(Compacted { compacted });
        }
        let revisions = recent.kinds.get(&name).map(|kind| &kind.revisions);
        let newer = revisions.into_iter().flat_map(|revisions| {
            revisions.range(revisions.partition_point(|revision| *revision <= position)..)
        });
        let selected =
            newer.filter_map(|revision| recent.event(*revision)).filter(|it| it.is_selected(prefix));
        let selected: Vec<Remembered> = selected.take(max).cloned().collect();
        // Others do not wait while what is old is unpacked.
        drop(recent);
        let through = match selected.last() {
            Some(last) if selected.len() == max => last.revision(),
            _ => head.max(position),
        };
        Ok(Batch { events: selected.iter().map(Remembered::event).collect(), through, closed })
    }

    /// Kept events and their bytes.
    pub(crate) fn kept(&self) -> (usize, usize) {
        let recent = self.lock();
        (recent.events.len(), recent.bytes)
    }
}
