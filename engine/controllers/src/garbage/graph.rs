//! Who owns whom, and what follows from it: values in, verdicts out.

use std::collections::{HashMap, HashSet};

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
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    /// Owners the server said do not exist.
    absent: HashSet<String>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Puts an object in; returns the uids that have to be judged because of it.
    pub fn put(&mut self, uid: &str, node: Node) -> Vec<String> {
        self.absent.remove(uid);
        let mut affected = Vec::new();
        let before = self.nodes.insert(uid.to_owned(), node.clone());
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

    /// Takes an object out; returns the uids to be judged: what it owned and what waited for it.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
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
        if !self.nodes.contains_key(uid) {
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
        let unknown = |owner: &&OwnerReference| {
            !self.nodes.contains_key(&owner.uid) && !self.absent.contains(&owner.uid)
        };
        let unknown: Vec<OwnerReference> = node.owners.iter().filter(unknown).cloned().collect();
        if !unknown.is_empty() {
            return Verdict::CheckOwners(unknown);
        }
        let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                None => gone.push(owner.uid.clone()),
                // An owner waits only for those that block it.
                Some(o) if o.waits_for_dependents() && owner.block_owner_deletion == Some(true) => {
                    waiting.push(owner.uid.clone());
                }
                Some(_) => solid += 1,
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
        assert_eq!(graph.remove("owner"), ["pod"]);
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
        assert!(graph.absent.is_empty() && graph.dependents.is_empty() && graph.nodes.is_empty());
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
        assert!(graph.remove("pod").contains(&"set".to_owned()));
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
