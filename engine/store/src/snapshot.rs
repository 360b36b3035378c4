//! An immutable view of every object at one revision.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::packed::{Dictionary, Kept, WORTH_IT};
use crate::{Event, EventKind, Key, Object, Packed, Prefix, Revision};

/// The objects of one kind.
#[derive(Clone, Default)]
struct Objects {
    map: RedBlackTreeMapSync<Key, Kept>,
    dictionary: Option<Arc<Dictionary>>,
}

impl Objects {
    fn insert(&mut self, object: Arc<Object>, packs: bool) {
        if packs && self.dictionary.is_none() && self.map.size() >= WORTH_IT {
            let whole = self.map.values().filter_map(|kept| match kept {
                Kept::Whole(object) => Some(object),
                Kept::Packed { .. } => None,
            });
            self.dictionary = Some(Arc::new(Dictionary::of(whole)));
        }
        self.map.insert_mut(object.key.clone(), Kept::new(object, self.dictionary.as_ref()));
    }
}

/// Every object at one revision. Cloning shares everything; holding one keeps its objects in memory.
#[derive(Clone)]
pub struct Snapshot {
    revision: Revision,
    kinds: RedBlackTreeMapSync<Arc<str>, Objects>,
    packed: Packed,
}

impl Snapshot {
    pub(crate) fn empty(revision: Revision, packed: Packed) -> Self {
        Self { revision, kinds: RedBlackTreeMapSync::new_sync(), packed }
    }

    /// The revision this is the state of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The object of this key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        Some(self.kinds.get(key.kind())?.map.get(key.as_str())?.object(key))
    }

    /// The selected objects in key order, beginning behind `after` = (namespace, name).
    pub fn scan<'a>(
        &'a self,
        prefix: &Prefix,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = Arc<Object>> + use<'a> {
        let start = prefix.start();
        let mut end = start.clone();
        end.pop();
        end.push('\u{1}');
        let after = after.map(|(namespace, name)| Key::new(&prefix.group, &prefix.resource, namespace, name));
        let span = match after {
            Some(key) if key.as_str() >= end.as_str() => None,
            Some(key) if key.as_str() >= start.as_str() => {
                Some(Span { start: Bound::Excluded(key.as_str().to_owned()), end })
            }
            _ => Some(Span { start: Bound::Included(start), end }),
        };
        let name = prefix.name.clone();
        self.kinds
            .get(prefix.kind().as_str())
            .zip(span)
            .into_iter()
            .flat_map(|(objects, span)| objects.map.range::<str, _>(span))
            .filter(move |(key, _)| name.as_deref().is_none_or(|name| key.name() == name))
            .map(|(key, kept)| kept.object(key))
    }

    /// How many objects are selected. Constant time for a whole resource.
    pub fn count(&self, prefix: &Prefix) -> usize {
        if prefix.namespace.is_none() && prefix.name.is_none() {
            return self.kinds.get(prefix.kind().as_str()).map_or(0, |objects| objects.map.size());
        }
        self.scan(prefix, None).count()
    }

    pub(crate) fn objects(&self) -> usize {
        self.kinds.values().map(|objects| objects.map.size()).sum()
    }

    pub(crate) fn insert(&mut self, object: Arc<Object>) {
        let kind = object.key.kind();
        let packs = self.packed.has(kind);
        if let Some(objects) = self.kinds.get_mut(kind) {
            objects.insert(object, packs);
        } else {
            let mut objects = Objects::default();
            let kind = kind.into();
            objects.insert(object, packs);
            self.kinds.insert_mut(kind, objects);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(objects) = self.kinds.get_mut(key.kind()) {
            objects.map.remove_mut(key.as_str());
        }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        self.revision = event.revision;
        match event.kind {
            EventKind::Put => self.insert(event.object.clone()),
            EventKind::Delete => self.remove(&event.object.key),
        }
    }

    pub(crate) fn undo(&mut self, event: &Event) {
        self.revision = event.revision - 1;
        match &event.previous {
            Some(previous) => self.insert(previous.clone()),
            None => self.remove(&event.object.key),
        }
    }
}

/// Key bounds that own their text, so that an iterator can outlive the call that made it.
struct Span {
    start: Bound<String>,
    end: String,
}

impl RangeBounds<str> for Span {
    fn start_bound(&self) -> Bound<&str> {
        self.start.as_ref().map(String::as_str)
    }

    fn end_bound(&self) -> Bound<&str> {
        Bound::Excluded(&self.end)
    }
}
