//! A watch by somebody who sees only a part of the resource: objects appear and go with the rights.

use std::collections::HashSet;

use bytes::Bytes;
use gantry_store::{Compacted, Event, EventKind, Object, Prefix, Revision, Store};
use tokio::sync::watch;
use tokio::time::Instant;

use super::View;
use crate::views::{self, RECHECK_PERIOD};

/// What the watcher may see, and what it has been shown.
pub(super) struct Part {
    visible: views::View,
    /// Names of the objects the watcher knows. Empty while everything is visible: that is what it knows then, and
    /// there may be a hundred thousand.
    shown: HashSet<String>,
    changes: watch::Receiver<u64>,
    /// Rights have changed and nobody has looked yet.
    stale: bool,
    /// The look is asked for: it is taken when every earlier event has been sent.
    due: bool,
    next_look: Instant,
}

impl Part {
    pub(super) fn new(visible: views::View) -> Self {
        // Listens before anything is decided: no change falls between.
        let changes = visible.changes();
        let mut part = Self {
            visible,
            shown: HashSet::new(),
            changes,
            stale: false,
            due: false,
            next_look: Instant::now(),
        };
        part.visible.refresh();
        part
    }

    /// Goes on from a list the watcher has made: it knows what was visible there.
    pub(super) fn resume(
        &mut self,
        store: &Store,
        prefix: &Prefix,
        view: &View,
        from: Revision,
    ) -> Result<(), Compacted> {
        let since = self.visible.since();
        if from < since {
            return Err(Compacted { compacted: since });
        }
        if from > store.revision() {
            return Ok(());
        }
        let snapshot = store.snapshot_at(from).ok_or(Compacted { compacted: store.revision() })?;
        if self.visible.is_full() {
            return Ok(());
        }
        for object in snapshot.scan(prefix, None).filter(|object| view.selects(object)) {
            self.shows(&object);
        }
        Ok(())
    }

    /// Is the object to be shown? It counts as known then.
    pub(super) fn shows(&mut self, object: &Object) -> bool {
        let name = object.key.name();
        let sees = self.visible.sees(name);
        if sees && !self.visible.is_full() {
            self.shown.insert(name.to_owned());
        }
        sees
    }

    /// The line for one event, if the watcher is to know of it.
    pub(super) fn change(&mut self, view: &mut View, event: &Event) -> Option<Bytes> {
        if self.visible.is_full() {
            return view.change(event);
        }
        let name = event.object.key.name();
        let now = event.kind == EventKind::Put && view.selects(&event.object) && self.visible.sees(name);
        let before = if now { !self.shown.insert(name.to_owned()) } else { self.shown.remove(name) };
        let (kind, object) = match (before, now) {
            (false, false) => return None,
            (false, true) => ("ADDED", &event.object),
            (true, true) => ("MODIFIED", &event.object),
            (true, false) if event.kind == EventKind::Delete => ("DELETED", &event.object),
            (true, false) => ("DELETED", event.previous.as_ref().unwrap_or(&event.object)),
        };
        Some(view.event(kind, object, event.revision))
    }

    /// Waits until rights have changed and it is time to look. Cancel safe.
    pub(super) async fn rights_changed(&mut self) {
        while !self.stale {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            self.stale = true;
        }
        tokio::time::sleep_until(self.next_look).await;
        (self.stale, self.due) = (false, true);
        self.next_look = Instant::now() + RECHECK_PERIOD;
    }

    /// What appears and goes by changed rights, at a revision up to which every event has been sent.
    pub(super) fn recheck(
        &mut self,
        store: &Store,
        prefix: &Prefix,
        view: &mut View,
        revision: Revision,
    ) -> Result<Vec<Bytes>, Compacted> {
        let was_full = self.visible.is_full();
        if !std::mem::take(&mut self.due) {
            return Ok(Vec::new());
        }
        self.visible.refresh();
        if was_full && self.visible.is_full() {
            return Ok(Vec::new());
        }
        let snapshot = store.snapshot_at(revision).ok_or(Compacted { compacted: revision })?;
        let mut lines = Vec::new();
        for object in snapshot.scan(prefix, None) {
            if !view.selects(&object) {
                continue;
            }
            let name = object.key.name();
            let shown = was_full || self.shown.contains(name);
            match (shown, self.shows(&object)) {
                (false, true) => lines.push(view.event("ADDED", &object, object.revision)),
                (true, false) => {
                    self.shown.remove(name);
                    lines.push(view.event("DELETED", &object, revision));
                }
                _ => {}
            }
        }
        if self.visible.is_full() {
            self.shown = HashSet::new();
        }
        Ok(lines)
    }
}
