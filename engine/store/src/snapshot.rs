//! An immutable view of every object at one revision.

use std::sync::Arc;

use crate::packed::{Dictionary, Kept, PackedEvent, WORTH_IT};
use crate::tree::{Keyed, Tree};
use crate::{Event, EventKind, Key, Object, Packed, Prefix, Revision};

/// The objects of one kind, by namespace and name.
#[derive(Clone)]
struct Kind {
    name: Arc<str>,
    objects: Tree<Kept>,
    dictionary: Option<Arc<Dictionary>>,
}

impl Keyed for Kind {
    fn key(&self) -> &[u8] {
        self.name.as_bytes()
    }
}

impl Kind {
    fn insert(&mut self, object: Arc<Object>, packs: bool) {
        if packs && self.dictionary.is_none() && self.objects.size() >= WORTH_IT {
            let whole = self.objects.iter().filter_map(|kept| match kept {
                Kept::Whole(object, _) => Some(object),
                Kept::Packed(_) => None,
            });
            self.dictionary = Some(Arc::new(Dictionary::of(whole)));
        }
        self.objects.insert(Kept::new(object, self.dictionary.as_deref()));
    }

    fn object(&self, kept: &Kept) -> Arc<Object> {
        kept.object(&self.name, self.dictionary.as_deref())
    }
}

/// Every object at one revision. Cloning shares everything; holding one keeps its objects in memory.
#[derive(Clone)]
pub struct Snapshot {
    revision: Revision,
    kinds: Tree<Kind>,
    packed: Packed,
}

impl Snapshot {
    pub(crate) fn empty(revision: Revision, packed: Packed) -> Self {
        Self { revision, kinds: Tree::default(), packed }
    }

    /// The revision this is the state of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    fn kind(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name.as_bytes())
    }

    /// The object of this key.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        let kind = self.kind(key.kind())?;
        Some(kind.object(kind.objects.get(key.within_kind().as_bytes())?))
    }

    /// The selected objects in key order, beginning behind `after` = (namespace, name).
    pub fn scan<'a>(
        &'a self,
        prefix: &Prefix,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = Arc<Object>> + use<'a> {
        let within = prefix.within_kind();
        let after = after.map(|(namespace, name)| Key::new("", "", namespace, name));
        // No key is empty.
        let after = after.as_ref().map_or("", Key::within_kind);
        let start = after.max(&within);
        let mut found = self.kind(&prefix.kind()).map(|kind| (kind, kind.objects.from(start.as_bytes())));
        let (after, name) = (after.to_owned(), prefix.name.clone());
        std::iter::from_fn(move || {
            let (kind, objects) = found.as_mut()?;
            let kept = objects
                .by_ref()
                .take_while(|kept| kept.key().starts_with(within.as_bytes()))
                .filter(|kept| kept.key() != after.as_bytes())
                .find(|kept| name.as_deref().is_none_or(|name| kept.is_named(name)))?;
            Some(kind.object(kept))
        })
    }

    /// How many objects are selected. Constant time for a whole resource.
    pub fn count(&self, prefix: &Prefix) -> usize {
        if prefix.namespace.is_none() && prefix.name.is_none() {
            return self.kind(&prefix.kind()).map_or(0, |kind| kind.objects.size());
        }
        self.scan(prefix, None).count()
    }

    pub(crate) fn objects(&self) -> usize {
        self.kinds.iter().map(|kind| kind.objects.size()).sum()
    }

    pub(crate) fn insert(&mut self, object: Arc<Object>) {
        let name = object.key.kind();
        let packs = self.packed.has(name);
        if let Some(kind) = self.kinds.get_mut(name.as_bytes()) {
            kind.insert(object, packs);
        } else {
            let mut kind = Kind { name: name.into(), objects: Tree::default(), dictionary: None };
            kind.insert(object, packs);
            self.kinds.insert(kind);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kind) = self.kinds.get_mut(key.kind().as_bytes()) {
            kind.objects.remove(key.within_kind().as_bytes());
        }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        self.revision = event.revision;
        match event.kind {
            EventKind::Put => self.insert(event.object.clone()),
            EventKind::Delete => self.remove(&event.object.key),
        }
    }

    /// An event that is old, if its kind is packed. What it did may be undone by now.
    pub(crate) fn pack(&self, event: &Event) -> Option<PackedEvent> {
        let kind = self.kind(event.object.key.kind())?;
        let dictionary = kind.dictionary.clone()?;
        let kept = kind.objects.get(event.object.key.within_kind().as_bytes());
        let kept = kept.filter(|kept| kept.revision() == event.object.revision).cloned();
        Some(PackedEvent::new(event, kind.name.clone(), kept, dictionary))
    }

    pub(crate) fn undo(&mut self, event: &Event) {
        self.revision = event.revision - 1;
        match &event.previous {
            Some(previous) => self.insert(previous.clone()),
            None => self.remove(&event.object.key),
        }
    }
}
