//! Who owns whom, and what follows from it: values in, verdicts out.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// One object as the collector sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Index of its resource in the collector's list.
    pub resource: usize,
    pub namespace: String,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
    pub finalizers: Vec<String>,
}

impl Node {
    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == FOREGROUND)
    }

    fn orphans_dependents(&self) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == ORPHAN)
    }

    /// Owned by nobody and staying: nothing is ever done about it, so nothing more of it is kept than its place.
    fn is_plain(&self) -> bool {
        self.owners.is_empty() && !self.deleting
    }
}

/// Where an object was.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// As [`Node::resource`].
    pub resource: usize,
    pub namespace: Arc<str>,
}

/// What is kept of every object, beside its uid: there may be hundreds of thousands.
#[derive(Clone, Copy)]
struct Kept {
    resource: u32,
    /// Its place in [`Graph::namespaces`].
    namespace: u32,
}

/// A uid in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Uid([u8; 16]);

#[derive(Default)]
struct Uids([RandomState; 2]);

impl Uids {
    fn of(&self, text: &str) -> Uid {
        let canonical = text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match uuid::Uuid::try_parse(text) {
            Ok(uuid) if canonical => Uid(uuid.into_bytes()),
            // What somebody wrote into a reference; with keys that nobody knows no two are made alike.
            _ => {
                let [high, low] = self.0.each_ref().map(|state| u128::from(state.hash_one(text)));
                Uid((high << 64 | low).to_be_bytes())
            }
        }
    }
}

/// What is to be done about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Nothing,
    /// These owners are not in memory: ask the server whether they exist, then judge again.
    CheckOwners(Vec<OwnerReference>),
    /// No owner is left.
    Delete {
        foreground: bool,
    },
    /// Some owners are left; these references lead nowhere.
    DropOwners(Vec<String>),
    /// It is being deleted with `orphan`: free its dependents, then drop the finalizer.
    Orphan {
        dependents: Vec<String>,
    },
    /// It is being deleted in the foreground and nothing blocks it any more.
    FinishForeground,
    /// It is being deleted in the foreground: these must go first.
    DeleteDependents(Vec<String>),
}

/// All objects by uid, with the way back from owner to dependents.
#[derive(Default)]
pub struct Graph {
    objects: HashMap<Uid, Kept>,
    uids: Uids,
    /// Every one there was.
    namespaces: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    /// Those that are more than plain.
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    /// Owners the server said do not exist.
    absent: HashSet<String>,
}

impl Graph {
    /// `None` also for what is plain.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn has(&self, uid: &str) -> bool {
        self.objects.contains_key(&self.uids.of(uid))
    }

    /// Takes out what is of a resource and not among these; returns where it was, and the uids to be judged.
    pub fn retain(&mut self, resource: usize, uids: &[String]) -> (Vec<Place>, Vec<String>) {
        let listed: HashSet<Uid> = uids.iter().map(|uid| self.uids.of(uid)).collect();
        let stays = |uid: &Uid, kept: &Kept| kept.resource as usize != resource || listed.contains(uid);
        let gone: Vec<(Uid, Kept)> = self.objects.extract_if(|uid, kept| !stays(uid, kept)).collect();
        let texts: HashMap<Uid, String> = match gone.is_empty() {
            true => HashMap::new(),
            false => {
                let texts = self.nodes.keys().chain(self.dependents.keys());
                texts.map(|text| (self.uids.of(text), text.clone())).collect()
            }
        };
        let mut affected = Vec::new();
        for uid in gone.iter().filter_map(|(uid, _)| texts.get(uid)) {
            affected.extend(self.forget(uid));
        }
        (gone.into_iter().map(|(_, kept)| self.place(kept)).collect(), affected)
    }

    /// Puts an object in; returns the uids that have to be judged because of it.
    pub fn put(&mut self, uid: &str, node: Node) -> Vec<String> {
        self.absent.remove(uid);
        let kept = Kept { resource: node.resource as u32, namespace: self.namespace(&node.namespace) };
        self.objects.insert(self.uids.of(uid), kept);
        let mut affected = Vec::new();
        let before = match node.is_plain() {
            true => self.nodes.remove(uid),
            false => self.nodes.insert(uid.to_owned(), node.clone()),
        };
        for owner in before.iter().flat_map(|b| &b.owners) {
            if !node.owners.iter().any(|o| o.uid == owner.uid) {
                self.unlink(&owner.uid, uid);
                // An owner that waits for its dependents may now be free to go.
                affected.push(owner.uid.clone());
            }
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
        let began = |of: fn(&Node) -> bool| of(&node) && before.as_ref().is_none_or(|b| !of(b));
        if began(Node::waits_for_dependents) {
            affected.extend(self.dependents_of(uid));
        }
        if node.deleting || !node.owners.is_empty() {
            affected.push(uid.to_owned());
        }
        affected
    }

    fn namespace(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let (number, name) = (self.namespaces.len() as u32, Arc::from(name));
        self.namespaces.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    fn place(&self, kept: Kept) -> Place {
        let namespace = self.namespaces.get(kept.namespace as usize).cloned().unwrap_or_default();
        Place { resource: kept.resource as usize, namespace }
    }

    /// Takes an object out; returns where it was, and the uids to be judged: what it owned and what waited for it.
    pub fn remove(&mut self, uid: &str) -> (Option<Place>, Vec<String>) {
        match self.objects.remove(&self.uids.of(uid)) {
            Some(kept) => (Some(self.place(kept)), self.forget(uid)),
            None => (None, Vec::new()),
        }
    }

    fn forget(&mut self, uid: &str) -> Vec<String> {
        let node = self.nodes.remove(uid).unwrap_or_default();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
        }
        // For its dependents' sake; about one that comes later the server is asked.
        if self.dependents.contains_key(uid) {
            self.absent.insert(uid.to_owned());
        }
        let mut affected = self.dependents_of(uid);
        affected.extend(node.owners.into_iter().map(|owner| owner.uid));
        affected
    }

    /// The server says that no object has this uid.
    pub fn mark_absent(&mut self, uid: &str) {
        if !self.has(uid) {
            self.absent.insert(uid.to_owned());
        }
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(of) = self.dependents.get_mut(owner) {
            of.remove(dependent);
            if of.is_empty() {
                self.dependents.remove(owner);
                // Remembered only for the dependents' sake.
                self.absent.remove(owner);
            }
        }
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        let mut all: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        all.sort();
        all
    }

    pub fn judge(&self, uid: &str) -> Verdict {
        let Some(node) = self.nodes.get(uid) else { return Verdict::Nothing };
        if node.orphans_dependents() {
            return Verdict::Orphan { dependents: self.dependents_of(uid) };
        }
        if node.waits_for_dependents() {
            return self.judge_foreground(uid);
        }
        if node.deleting || node.owners.is_empty() {
            return Verdict::Nothing;
        }
        let unknown = |owner: &&OwnerReference| !self.has(&owner.uid) && !self.absent.contains(&owner.uid);
        let unknown: Vec<OwnerReference> = node.owners.iter().filter(unknown).cloned().collect();
        if !unknown.is_empty() {
            return Verdict::CheckOwners(unknown);
        }
        let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                None if !self.has(&owner.uid) => gone.push(owner.uid.clone()),
                // An owner waits only for those that block it.
                Some(o) if o.waits_for_dependents() && owner.block_owner_deletion == Some(true) => {
                    waiting.push(owner.uid.clone());
                }
                Some(_) | None => solid += 1,
            }
        }
        if solid > 0 {
            gone.extend(waiting);
            return if gone.is_empty() { Verdict::Nothing } else { Verdict::DropOwners(gone) };
        }
        let foreground = !waiting.is_empty() && self.dependents.contains_key(uid);
        Verdict::Delete { foreground }
    }

    fn judge_foreground(&self, uid: &str) -> Verdict {
        let blocking: Vec<String> =
            self.dependents_of(uid).into_iter().filter(|d| self.blocks(d, uid)).collect();
        if blocking.is_empty() {
            return Verdict::FinishForeground;
        }
        let standing = |d: &String| self.nodes.get(d).is_some_and(|n| !n.deleting);
        let standing: Vec<String> = blocking.into_iter().filter(standing).collect();
        if standing.is_empty() { Verdict::Nothing } else { Verdict::DeleteDependents(standing) }
    }

    fn blocks(&self, dependent: &str, owner: &str) -> bool {
        let node = self.nodes.get(dependent);
        node.is_some_and(|n| n.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(owners: &[(&str, bool)]) -> Node {
        let owners = owners.iter().map(|(uid, blocks)| OwnerReference {
            uid: (*uid).to_owned(),
            block_owner_deletion: Some(*blocks),
            ..OwnerReference::default()
        });
        Node { owners: owners.collect(), ..Node::default() }
    }

    fn deleting(mut node: Node, finalizer: &str) -> Node {
        node.deleting = true;
        node.finalizers = vec![finalizer.to_owned()];
        node
    }

    #[test]
    fn what_nobody_owns_any_more_goes() {
        let mut graph = Graph::default();
        graph.put("owner", node(&[]));
        assert_eq!(graph.put("pod", node(&[("owner", true)])), ["pod"]);
        assert_eq!(graph.judge("pod"), Verdict::Nothing);
        assert_eq!(graph.remove("owner").1, ["pod"]);
        assert_eq!(graph.judge("pod"), Verdict::Delete { foreground: false });
    }

    #[test]
    fn an_unknown_owner_is_asked_for_before_anything_is_deleted() {
        let mut graph = Graph::default();
        graph.put("pod", node(&[("late", true)]));
        assert!(matches!(graph.judge("pod"), Verdict::CheckOwners(o) if o[0].uid == "late"));
        graph.mark_absent("late");
        assert_eq!(graph.judge("pod"), Verdict::Delete { foreground: false });
        graph.put("late", node(&[]));
        assert_eq!(graph.judge("pod"), Verdict::Nothing);
    }

    #[test]
    fn what_is_gone_with_its_dependents_is_forgotten() {
        let mut graph = Graph::default();
        graph.put("alone", node(&[]));
        graph.remove("alone");
        graph.put("owner", node(&[]));
        graph.put("pod", node(&[("owner", true)]));
        graph.remove("owner");
        assert_eq!(graph.judge("pod"), Verdict::Delete { foreground: false });
        graph.remove("pod");
        assert!(graph.absent.is_empty() && graph.dependents.is_empty());
        assert!(graph.nodes.is_empty() && graph.objects.is_empty());
    }

    #[test]
    fn what_a_list_does_not_show_any_more_is_gone() {
        let mut graph = Graph::default();
        let of = |resource: usize, node: Node| Node { resource, ..node };
        graph.put("owner", of(1, node(&[])));
        graph.put("plain", of(1, node(&[])));
        graph.put("other", of(2, node(&[])));
        graph.put("pod", of(2, node(&[("owner", true)])));
        let (gone, affected) = graph.retain(1, &["plain".to_owned()]);
        assert_eq!((gone.len(), affected), (1, vec!["pod".to_owned()]));
        assert_eq!(graph.judge("pod"), Verdict::Delete { foreground: false });
        assert!(graph.has("plain") && graph.has("other") && !graph.has("owner"));
        assert_eq!(graph.retain(2, &[]).0.len(), 2);
        assert!(graph.absent.is_empty() && graph.dependents.is_empty() && graph.nodes.is_empty());
    }

    #[test]
    fn uids_that_differ_are_different() {
        let uids = Uids::default();
        let uid = "0b4e6c9e-7f0b-4b0e-9a83-1d4f0a6b2c11";
        for other in ["", "late", "0b4e6c9e7f0b4b0e9a831d4f0a6b2c11", "0B4E6C9E-7F0B-4B0E-9A83-1D4F0A6B2C11"]
        {
            assert!(uids.of(uid) != uids.of(other), "{other}");
            assert!(uids.of(other) == uids.of(other), "{other}");
        }
    }

    #[test]
    fn one_living_owner_keeps_it_and_dead_references_go() {
        let mut graph = Graph::default();
        graph.put("a", node(&[]));
        graph.put("b", node(&[]));
        graph.put("x", node(&[("a", true), ("b", true)]));
        graph.remove("a");
        assert_eq!(graph.judge("x"), Verdict::DropOwners(vec!["a".to_owned()]));
    }

    #[test]
    fn foreground_deletion_waits_for_those_that_block() {
        let mut graph = Graph::default();
        graph.put("set", node(&[]));
        graph.put("pod", node(&[("set", true)]));
        graph.put("other", node(&[("set", false)]));
        let affected = graph.put("set", deleting(node(&[]), FOREGROUND));
        assert!(affected.contains(&"pod".to_owned()) && affected.contains(&"set".to_owned()));
        assert_eq!(graph.judge("set"), Verdict::DeleteDependents(vec!["pod".to_owned()]));
        assert_eq!(graph.judge("pod"), Verdict::Delete { foreground: false });
        assert_eq!(graph.judge("other"), Verdict::Nothing);
        let mut leaving = node(&[("set", true)]);
        leaving.deleting = true;
        graph.put("pod", leaving);
        assert_eq!(graph.judge("set"), Verdict::Nothing);
        assert!(graph.remove("pod").1.contains(&"set".to_owned()));
        assert_eq!(graph.judge("set"), Verdict::FinishForeground);
    }

    #[test]
    fn orphans_are_freed_first() {
        let mut graph = Graph::default();
        graph.put("set", deleting(node(&[]), ORPHAN));
        graph.put("pod", node(&[("set", true)]));
        assert_eq!(graph.judge("set"), Verdict::Orphan { dependents: vec!["pod".to_owned()] });
        assert_eq!(graph.put("pod", node(&[])), ["set"]);
    }
}
