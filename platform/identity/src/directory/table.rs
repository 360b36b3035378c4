//! One kind in memory, by id and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a table can hold.
pub trait Entry {
    /// The id.
    fn id(&self) -> String;
    /// The domain its name is unique in (`None`: the platform), and the name; `None` where names find nothing.
    fn unique_name(&self) -> Option<(Option<String>, String)>;
}

/// Objects of one kind.
#[derive(Clone, Debug)]
pub struct Table<K> {
    objects: BTreeMap<Arc<str>, Arc<K>>,
    /// Ids in order: one, but where two objects claim one name.
    names: HashMap<(Option<String>, String), Vec<Arc<str>>>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), names: HashMap::new() }
    }
}

impl<K: Entry> Table<K> {
    pub fn get(&self, id: &str) -> Option<&Arc<K>> {
        self.objects.get(id)
    }

    /// By name; where two objects claim one name, the one whose id comes first has it.
    pub fn by_name(&self, domain: Option<&str>, name: &str) -> Option<&Arc<K>> {
        let ids = self.names.get(&(domain.map(str::to_owned), name.to_owned()))?;
        self.objects.get(ids.first()?)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn put(&mut self, object: Arc<K>) {
        let id: Arc<str> = object.id().into();
        self.remove(&id);
        if let Some(name) = object.unique_name() {
            let ids = self.names.entry(name).or_insert_with(|| Vec::with_capacity(1));
            let at = ids.partition_point(|other| *other < id);
            ids.insert(at, id.clone());
        }
        self.objects.insert(id, object);
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(old) = self.objects.remove(id) else { return };
        if let Some(name) = old.unique_name()
            && let Some(ids) = self.names.get_mut(&name)
        {
            ids.retain(|other| **other != *id);
            if ids.is_empty() {
                self.names.remove(&name);
            }
        }
    }
}
