//! A persistent ordered map, shared between snapshots.
//!
//! A B+ tree: beside a small object, the nodes of a binary tree are most of what it takes, and every comparison on the
//! way down waits for the memory of one. A change copies the nodes above it that another snapshot has, too.

use std::cmp::Ordering;
use std::slice;
use std::sync::Arc;

/// Of a node. A write copies some of these, a look-up goes through fewer nodes the more they are.
const CHILDREN_MAX: usize = 32;
/// A node with less takes from its neighbour or joins it.
const CHILDREN_MIN: usize = CHILDREN_MAX / 4;
/// How much a node grows at a time: most keep their size for long.
const GROWTH: usize = 4;

/// What finds its place by a key of its own.
pub(crate) trait Keyed: Clone {
    fn key(&self) -> &[u8];
}

#[derive(Clone)]
pub(crate) struct Tree<T> {
    root: Arc<Node<T>>,
    size: usize,
}

#[derive(Clone)]
enum Node<T> {
    Leaf(Vec<T>),
    /// Never empty.
    Branch(Vec<Child<T>>),
}

#[derive(Clone)]
struct Child<T> {
    /// No key in it is before this one, and every key of the child before it is. Not looked at in a first child.
    first: Arc<[u8]>,
    node: Arc<Node<T>>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), size: 0 }
    }
}

impl<T: Keyed> Tree<T> {
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => return Some(&entries[place(entries, key).ok()?]),
                Node::Branch(children) => node = &children[slot(children, key)].node,
            }
        }
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut T> {
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = place(entries, key).ok()?;
                    return Some(&mut entries[at]);
                }
                Node::Branch(children) => {
                    let at = slot(children, key);
                    node = Arc::make_mut(&mut children[at].node);
                }
            }
        }
    }

    /// Takes the place of the entry of the same key.
    pub(crate) fn insert(&mut self, entry: T) {
        let (new, split) = Arc::make_mut(&mut self.root).insert(entry);
        self.size += usize::from(new);
        if let Some(right) = split {
            let left = Child { first: Arc::default(), node: self.root.clone() };
            self.root = Arc::new(Node::Branch(vec![left, right]));
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        if self.get(key).is_none() {
            return;
        }
        Arc::make_mut(&mut self.root).remove(key);
        self.size -= 1;
        while let Node::Branch(children) = &*self.root
            && let [only] = children.as_slice()
        {
            self.root = only.node.clone();
        }
    }

    pub(crate) fn iter(&self) -> Range<'_, T> {
        self.from(b"")
    }

    /// The entries at `key` and behind it.
    pub(crate) fn from(&self, key: &[u8]) -> Range<'_, T> {
        let mut range = Range { above: Vec::new(), entries: [].iter() };
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let at = place(entries, key).unwrap_or_else(|at| at);
                    range.entries = entries[at..].iter();
                    return range;
                }
                Node::Branch(children) => {
                    let at = slot(children, key);
                    range.above.push(children[at + 1..].iter());
                    node = &children[at].node;
                }
            }
        }
    }
}

impl<T: Keyed> Node<T> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(children) => children.len(),
        }
    }

    /// Whether the key is new, and what does not fit any more.
    fn insert(&mut self, entry: T) -> (bool, Option<Child<T>>) {
        let new = match self {
            Self::Leaf(entries) => match place(entries, entry.key()) {
                Ok(at) => {
                    entries[at] = entry;
                    return (false, None);
                }
                Err(at) => {
                    insert_at(entries, at, entry);
                    true
                }
            },
            Self::Branch(children) => {
                let at = slot(children, entry.key());
                let (new, split) = Arc::make_mut(&mut children[at].node).insert(entry);
                if let Some(split) = split {
                    insert_at(children, at + 1, split);
                }
                new
            }
        };
        (new, (self.len() > CHILDREN_MAX).then(|| self.split()))
    }

    /// Takes out the second half.
    fn split(&mut self) -> Child<T> {
        match self {
            Self::Leaf(entries) => {
                let right = second_half(entries);
                Child { first: right[0].key().into(), node: Arc::new(Self::Leaf(right)) }
            }
            Self::Branch(children) => {
                let right = second_half(children);
                Child { first: right[0].first.clone(), node: Arc::new(Self::Branch(right)) }
            }
        }
    }

    /// The key is there.
    fn remove(&mut self, key: &[u8]) {
        match self {
            Self::Leaf(entries) => entries.retain(|entry| entry.key() != key),
            Self::Branch(children) => {
                let at = slot(children, key);
                Arc::make_mut(&mut children[at].node).remove(key);
                if children.len() > 1 && children[at].node.len() < CHILDREN_MIN {
                    join(children, at.saturating_sub(1));
                }
            }
        }
    }

    fn append(&mut self, right: Child<T>) {
        match (self, Arc::unwrap_or_clone(right.node)) {
            (Self::Leaf(entries), Self::Leaf(mut more)) => entries.append(&mut more),
            (Self::Branch(children), Self::Branch(mut more)) => {
                // It was a first child, of which nobody asked where it begins.
                more[0].first = right.first;
                children.append(&mut more);
            }
            _ => unreachable!("all leaves are equally deep"),
        }
    }
}

/// Makes one of the child at this place and the one behind it, or two alike if they are too many for one.
fn join<T: Keyed>(children: &mut Vec<Child<T>>, at: usize) {
    let right = children.remove(at + 1);
    let left = Arc::make_mut(&mut children[at].node);
    left.append(right);
    if left.len() > CHILDREN_MAX {
        let split = left.split();
        insert_at(children, at + 1, split);
    }
}

fn place<T: Keyed>(entries: &[T], key: &[u8]) -> Result<usize, usize> {
    entries.binary_search_by(|entry| entry.key().cmp(key))
}

/// The child in which the key is, if it is anywhere.
fn slot<T>(children: &[Child<T>], key: &[u8]) -> usize {
    children[1..].partition_point(|child| child.first.as_ref().cmp(key) != Ordering::Greater)
}

fn insert_at<E>(list: &mut Vec<E>, at: usize, element: E) {
    if list.len() == list.capacity() {
        list.reserve_exact(GROWTH);
    }
    list.insert(at, element);
}

fn second_half<E>(list: &mut Vec<E>) -> Vec<E> {
    let right = list.split_off(list.len() / 2);
    list.shrink_to(list.len() + GROWTH);
    right
}

/// Entries in the order of their keys.
pub(crate) struct Range<'a, T> {
    /// What comes after, the nearest last.
    above: Vec<slice::Iter<'a, Child<T>>>,
    entries: slice::Iter<'a, T>,
}

impl<'a, T> Range<'a, T> {
    fn enter(&mut self, node: &'a Node<T>) {
        match node {
            Node::Leaf(entries) => self.entries = entries.iter(),
            Node::Branch(children) => self.above.push(children.iter()),
        }
    }
}

impl<'a, T> Iterator for Range<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(entry);
            }
            match self.above.last_mut()?.next() {
                Some(child) => self.enter(&child.node),
                None => _ = self.above.pop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Entry(String, u32);

    impl Keyed for Entry {
        fn key(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }

    /// Every node but the root is neither too large nor empty, keys are in order and between what is said of them.
    fn check(node: &Node<Entry>, depth: usize, from: &[u8], below: Option<&[u8]>) -> usize {
        match node {
            Node::Leaf(entries) => {
                assert!(entries.len() <= CHILDREN_MAX && (depth == 0 || !entries.is_empty()));
                assert!(entries.iter().all(|e| e.key() >= from && below.is_none_or(|below| e.key() < below)));
                0
            }
            Node::Branch(children) => {
                assert!(children.len() <= CHILDREN_MAX && !children.is_empty());
                let depths: Vec<usize> = (0..children.len())
                    .map(|at| {
                        let from = if at == 0 { from } else { &children[at].first };
                        let below = children.get(at + 1).map(|next| &*next.first).or(below);
                        check(&children[at].node, depth + 1, from, below)
                    })
                    .collect();
                assert!(depths.iter().all(|depth| *depth == depths[0]), "all leaves are equally deep");
                depths[0] + 1
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16),
        Remove(u16),
        /// All from the one to the other, as a namespace goes.
        RemoveAll(u16, u16),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = || 0..600_u16;
        prop_oneof![
            60 => number().prop_map(Step::Insert),
            25 => number().prop_map(Step::Remove),
            2 => (number(), 0..200_u16).prop_map(|(from, many)| Step::RemoveAll(from, from + many)),
            1 => Just(Step::Keep),
        ]
    }

    fn name(number: u16) -> String {
        format!("n{number}")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_map_that_it_says_and_so_are_its_older_selves(
            steps in proptest::collection::vec(step(), 1..3000)
        ) {
            let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
            let mut kept = Vec::new();
            for (turn, step) in steps.iter().enumerate() {
                match *step {
                    Step::Insert(number) => {
                        tree.insert(Entry(name(number), turn as u32));
                        model.insert(name(number), turn as u32);
                    }
                    Step::Remove(number) => {
                        tree.remove(name(number).as_bytes());
                        model.remove(&name(number));
                    }
                    Step::RemoveAll(from, to) => for number in from..to {
                        tree.remove(name(number).as_bytes());
                        model.remove(&name(number));
                    },
                    Step::Keep => kept.push((tree.clone(), model.clone())),
                }
            }
            kept.push((tree, model));
            for (tree, model) in kept {
                check(&tree.root, 0, b"", None);
                prop_assert_eq!(tree.size(), model.len());
                let own = |e: &Entry| (e.0.clone(), e.1);
                let all: Vec<_> = tree.iter().map(own).collect();
                prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
                for number in (0..620).step_by(7) {
                    let key = name(number);
                    prop_assert_eq!(tree.get(key.as_bytes()).map(|e| e.1), model.get(&key).copied());
                    let behind: Vec<_> = tree.from(key.as_bytes()).take(40).map(own).collect();
                    let expected = model.range(key..).take(40).map(|(k, v)| (k.clone(), *v));
                    prop_assert_eq!(behind, expected.collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn what_is_changed_in_place_is_not_changed_in_a_copy() {
        let mut tree = Tree::default();
        for number in 0..500 {
            tree.insert(Entry(name(number), 0));
        }
        let before = tree.clone();
        tree.get_mut(b"n77").unwrap().1 = 5;
        assert_eq!((tree.get(b"n77").unwrap().1, before.get(b"n77").unwrap().1), (5, 0));
        assert!(tree.get_mut(b"nowhere").is_none());
    }
}
