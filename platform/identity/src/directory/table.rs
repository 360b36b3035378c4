//! One kind in memory, by id and by name.
//!
//! Names and ids are read from the objects and are nowhere else: ten thousand users have each only once.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::by_id::{ById, Keyed};

/// What a name finds: the domain it is unique in (`None`: the platform), and the name itself.
pub type UniqueName<'a> = (Option<Cow<'a, str>>, &'a str);

/// What a table can hold.
pub trait Entry: Keyed {
    /// The id.
    fn id(&self) -> String {
        self.key().to_owned()
    }

    /// `None` where names find nothing.
    fn unique_name(&self) -> Option<UniqueName<'_>>;
}

/// Objects of one kind.
#[derive(Clone, Debug)]
pub struct Table<K> {
    objects: BTreeSet<ById<K>>,
    /// Every object that has a name: one of each, but where several claim it.
    named: HashTable<Arc<K>>,
    hasher: RandomState,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { objects: BTreeSet::new(), named: HashTable::new(), hasher: RandomState::default() }
    }
}

impl<K: Entry> Table<K> {
    pub fn get(&self, id: &str) -> Option<&Arc<K>> {
        self.objects.get(id).map(|found| &found.0)
    }

    /// By name; where several objects claim it, the one whose id comes first has it.
    pub fn by_name(&self, domain: Option<&str>, name: &str) -> Option<&Arc<K>> {
        let wanted: UniqueName<'_> = (domain.map(Cow::Borrowed), name);
        let claimed = self.named.iter_hash(self.hasher.hash_one(&wanted));
        let all = claimed.filter(|object| object.unique_name().as_ref() == Some(&wanted));
        all.min_by(|one, other| one.key().cmp(other.key()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.iter().map(|object| &object.0)
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn put(&mut self, object: Arc<K>) {
        self.remove(object.key());
        if let Some(name) = object.unique_name() {
            let hash = self.hasher.hash_one(&name);
            let again = |named: &Arc<K>| named.unique_name().map_or(0, |name| self.hasher.hash_one(&name));
            self.named.insert_unique(hash, object.clone(), again);
        }
        self.objects.insert(ById(object));
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(ById(old)) = self.objects.take(id) else { return };
        if let Some(name) = old.unique_name()
            && let Ok(entry) =
                self.named.find_entry(self.hasher.hash_one(&name), |object| Arc::ptr_eq(object, &old))
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_identity_api::{Group, GroupSpec};

    use super::*;

    fn group(id: &str, domain: &str, name: &str) -> Arc<Group> {
        let spec =
            GroupSpec { name: Some(name.to_owned()), domain: domain.to_owned(), ..GroupSpec::default() };
        Arc::new(Group::new(id, spec))
    }

    fn found(table: &Table<Group>, domain: &str, name: &str) -> Option<String> {
        table.by_name(Some(domain), name).map(|group| group.id())
    }

    #[test]
    fn a_name_finds_the_first_that_claims_it_and_the_next_when_that_is_gone() {
        let mut table = Table::default();
        for (id, domain, name) in
            [("2", "acme", "devs"), ("1", "acme", "devs"), ("3", "other", "devs"), ("4", "acme", "ops")]
        {
            table.put(group(id, domain, name));
        }
        assert_eq!(table.len(), 4);
        assert_eq!(table.iter().map(|group| group.id()).collect::<String>(), "1234");
        assert_eq!(found(&table, "acme", "devs").as_deref(), Some("1"));
        assert_eq!(found(&table, "other", "devs").as_deref(), Some("3"));
        assert!(table.by_name(None, "devs").is_none());
        table.remove("1");
        assert_eq!(found(&table, "acme", "devs").as_deref(), Some("2"));
        table.put(group("2", "acme", "developers"));
        assert!(found(&table, "acme", "devs").is_none());
        assert_eq!(found(&table, "acme", "developers").as_deref(), Some("2"));
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn names_are_found_among_many() {
        let mut table = Table::default();
        for number in 0..1000 {
            table.put(group(&format!("id{number}"), "acme", &format!("name{number}")));
        }
        for number in (0..1000).step_by(2) {
            table.remove(&format!("id{number}"));
        }
        for number in 0..1000 {
            let wanted = (number % 2 == 1).then(|| format!("id{number}"));
            assert_eq!(found(&table, "acme", &format!("name{number}")), wanted, "{number}");
        }
    }
}
