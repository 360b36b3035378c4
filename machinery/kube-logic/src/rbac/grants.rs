//! What subjects are bound to. There may be a hundred thousand such facts, so each is three words and every name is
//! in memory once.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::role::Place;
use super::{RoleRef, Subject};

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

#[derive(Debug)]
pub(super) struct Binding {
    /// Empty: a ClusterRoleBinding.
    pub(super) namespace: Arc<str>,
    pub(super) name: String,
    pub(super) role: RoleRef,
    subjects: Box<[Who]>,
    /// Where its role stands; `None`: it may not name such a role.
    pub(super) place: Option<Place>,
}

impl Binding {
    /// The namespace of its role: empty for a ClusterRole.
    pub(super) fn role_namespace(&self) -> &str {
        if self.role.kind == "ClusterRole" { "" } else { &self.namespace }
    }
}

/// A subject under the name that callers have: service accounts, too, are users.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Who {
    is_group: bool,
    name: Arc<str>,
}

impl Who {
    /// `None` for kinds that nobody is.
    fn of(subject: &Subject, binding_namespace: &str) -> Option<Self> {
        let name = subject.name.as_str();
        match subject.kind.as_str() {
            "User" => Some(Self { is_group: false, name: name.into() }),
            "Group" => Some(Self { is_group: true, name: name.into() }),
            "ServiceAccount" => {
                let namespace =
                    subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
                let name = format!("{SERVICE_ACCOUNT}{namespace}:{name}").into();
                (!namespace.is_empty()).then_some(Self { is_group: false, name })
            }
            _ => None,
        }
    }

    /// As subjects have it.
    pub(super) fn kind(&self) -> &'static str {
        match self.is_group {
            true => "Group",
            false if self.name.starts_with(SERVICE_ACCOUNT) => "ServiceAccount",
            false => "User",
        }
    }
}

/// The name; of a service account `name/namespace`, as upstream has it.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = self.name.strip_prefix(SERVICE_ACCOUNT).filter(|_| !self.is_group);
        match account.and_then(|account| account.split_once(':')) {
            Some((namespace, name)) => write!(f, "{name}/{namespace}"),
            None => f.write_str(&self.name),
        }
    }
}

/// Number of a namespace that has bindings.
type NamespaceId = u32;
/// Of bindings without a namespace.
const EVERYWHERE: NamespaceId = 0;

/// One subject of one binding.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) binding: Arc<Binding>,
    namespace: NamespaceId,
    subject: u32,
    /// The binding's, here so that a decision need not follow the pointer.
    place: Option<u32>,
}

impl Grant {
    /// Where the role stands.
    pub(super) fn place(&self) -> Option<Place> {
        self.place.map(|place| place as Place)
    }

    pub(super) fn who(&self) -> &Who {
        &self.binding.subjects[self.subject as usize]
    }
}

/// Everything a subject is bound to, in the order of namespaces' numbers.
type Grants = Vec<Grant>;

fn of(grants: &Grants, namespace: NamespaceId) -> &[Grant] {
    let from = grants.partition_point(|grant| grant.namespace < namespace);
    let to = grants[from..].partition_point(|grant| grant.namespace == namespace);
    &grants[from..from + to]
}

/// All bindings, and the way from subjects to them.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    by_name: HashMap<(Arc<str>, String), Arc<Binding>>,
    users: HashMap<Arc<str>, Grants>,
    groups: HashMap<Arc<str>, Grants>,
    namespaces: Namespaces,
}

impl Bindings {
    /// Puts a binding in whose name is not there. An empty `namespace` means a ClusterRoleBinding.
    pub(super) fn put(
        &mut self,
        namespace: &str,
        name: &str,
        role: RoleRef,
        subjects: &[Subject],
        place: Option<Place>,
    ) {
        let (id, namespace) = self.namespaces.enter(namespace);
        let known = |who: Who| {
            let subjects = if who.is_group { &self.groups } else { &self.users };
            let name = subjects.get_key_value(&who.name).map_or(who.name, |(name, _)| name.clone());
            Who { name, ..who }
        };
        let subjects =
            subjects.iter().filter_map(|subject| Who::of(subject, &namespace)).map(known).collect();
        let binding =
            Arc::new(Binding { namespace: namespace.clone(), name: name.to_owned(), role, subjects, place });
        for (subject, who) in binding.subjects.iter().enumerate() {
            let subjects = if who.is_group { &mut self.groups } else { &mut self.users };
            let grants = subjects.entry(who.name.clone()).or_default();
            let at = grants.partition_point(|grant| grant.namespace <= id);
            // Neither are there four billion subjects in an object, nor as many roles.
            let (subject, place) = (subject as u32, place.map(|place| place as u32));
            grants.insert(at, Grant { binding: binding.clone(), namespace: id, subject, place });
        }
        self.by_name.insert((namespace, name.to_owned()), binding);
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Binding>> {
        let binding = self.by_name.remove(&(namespace.into(), name.to_owned()))?;
        let each: HashSet<&Who> = binding.subjects.iter().collect();
        for who in each {
            let subjects = if who.is_group { &mut self.groups } else { &mut self.users };
            let Some(grants) = subjects.get_mut(&who.name) else { continue };
            grants.retain(|grant| !Arc::ptr_eq(&grant.binding, &binding));
            if grants.is_empty() {
                subjects.remove(&who.name);
            }
        }
        self.namespaces.leave(namespace);
        Some(binding)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.by_name.values()
    }

    /// What is bound to the caller everywhere, then what is in `namespace`.
    pub(super) fn grants<'a>(
        &'a self,
        user: &str,
        groups: &[String],
        namespace: &str,
    ) -> impl Iterator<Item = &'a Grant> + use<'a> {
        // Looked up once: the hashes of a dozen group names are most of what a decision costs.
        let mut subjects: Vec<&Grants> = Vec::with_capacity(groups.len() + 1);
        self.each(user, groups, |grants| subjects.push(grants));
        let id = (!namespace.is_empty()).then(|| self.namespaces.id(namespace)).flatten();
        let local = if id.is_some() { subjects.clone() } else { Vec::new() };
        let wide = subjects.into_iter().flat_map(|grants| of(grants, EVERYWHERE));
        wide.chain(local.into_iter().zip(id.into_iter().cycle()).flat_map(|(grants, id)| of(grants, id)))
    }

    /// What is bound to the caller anywhere.
    pub(super) fn all_grants<'a>(&'a self, user: &str, groups: &[String]) -> impl Iterator<Item = &'a Grant> {
        let mut all = Vec::new();
        self.each(user, groups, |grants| all.extend(grants));
        all.into_iter()
    }

    /// Is the caller a subject of a binding in this namespace?
    pub(super) fn is_bound(&self, user: &str, groups: &[String], namespace: &str) -> bool {
        let Some(id) = self.namespaces.id(namespace).filter(|id| *id != EVERYWHERE) else { return false };
        let mut bound = false;
        self.each(user, groups, |grants| bound |= !of(grants, id).is_empty());
        bound
    }

    fn each<'a>(&'a self, user: &str, groups: &[String], mut visit: impl FnMut(&'a Grants)) {
        let of_groups = groups.iter().filter_map(|group| self.groups.get(group.as_str()));
        self.users.get(user).into_iter().chain(of_groups).for_each(&mut visit);
    }
}

/// Numbers of namespaces; those that are free again are given again.
#[derive(Debug, Default)]
struct Namespaces {
    numbers: HashMap<Arc<str>, Number>,
    free: Vec<NamespaceId>,
}

#[derive(Debug)]
struct Number {
    id: NamespaceId,
    bindings: usize,
}

impl Namespaces {
    fn id(&self, namespace: &str) -> Option<NamespaceId> {
        self.numbers.get(namespace).map(|number| number.id)
    }

    /// One more binding is there.
    fn enter(&mut self, namespace: &str) -> (NamespaceId, Arc<str>) {
        if namespace.is_empty() {
            return (EVERYWHERE, Arc::from(""));
        }
        if let Some((known, _)) = self.numbers.get_key_value(namespace) {
            let known = known.clone();
            let number = self.numbers.get_mut(namespace).map(|number| {
                number.bindings += 1;
                number.id
            });
            return (number.unwrap_or(EVERYWHERE), known);
        }
        // None is free: those in use are 1 to their count.
        let id = self.free.pop().unwrap_or(self.numbers.len() as NamespaceId + 1);
        let name: Arc<str> = namespace.into();
        self.numbers.insert(name.clone(), Number { id, bindings: 1 });
        (id, name)
    }

    fn leave(&mut self, namespace: &str) {
        let Some(number) = self.numbers.get_mut(namespace) else { return };
        number.bindings -= 1;
        if number.bindings == 0 {
            self.free.push(number.id);
            self.numbers.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_namespaces_are_given_again_and_never_to_two() {
        let mut namespaces = Namespaces::default();
        let ids = |namespaces: &Namespaces, names: &[&str]| -> Vec<Option<u32>> {
            names.iter().map(|name| namespaces.id(name)).collect()
        };
        for name in ["a", "b", "a", "c"] {
            namespaces.enter(name);
        }
        assert_eq!(ids(&namespaces, &["a", "b", "c", "d", ""]), [Some(1), Some(2), Some(3), None, None]);
        namespaces.leave("b");
        namespaces.leave("a");
        assert_eq!(ids(&namespaces, &["a", "b"]), [Some(1), None], "one binding of `a` is left");
        namespaces.enter("d");
        namespaces.enter("e");
        assert_eq!(ids(&namespaces, &["a", "c", "d", "e"]), [Some(1), Some(3), Some(2), Some(4)]);
    }
}
