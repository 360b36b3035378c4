//! Sets of field paths, and their `FieldsV1` form.
//!
//! The form is that of structured-merge-diff: `f:name` for a field, `k:{…}` for a list element told
//! apart by keys, `v:…` for an element of a set, `i:n` for a position, and `.` for the node itself
//! where it has children too.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde_json::{Map, Value};

/// The deepest path that is kept; deeper ones come from nobody but an attacker.
const DEPTH_MAX: usize = 128;

/// One step of a path. Keys and values are JSON in canonical form, so that equal elements are equal
/// texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    Field(String),
    /// `{"containerPort":80,"protocol":"TCP"}`, sorted by name.
    Key(String),
    /// `"finalizer.example.org"`.
    Value(String),
    Index(i64),
}

impl Element {
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => format!("k:{key}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => {
                let Value::Object(keys) = serde_json::from_str(rest).ok()? else { return None };
                Some(Self::Key(canonical_key(keys.iter().map(|(k, v)| (k.as_str(), v)).collect())))
            }
            "v" => Some(Self::Value(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "i" => Some(Self::Index(rest.parse().ok()?)),
            _ => None,
        }
    }
}

/// As in messages: `.spec`, `[name="a"]`, `[="x"]`, `[3]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(key) => {
                let keys: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The text of a [`Element::Key`].
pub(super) fn canonical_key(mut keys: Vec<(&str, &Value)>) -> String {
    keys.sort_by(|a, b| a.0.cmp(b.0));
    let keys: Map<String, Value> = keys.into_iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    Value::Object(keys).to_string()
}

/// A set of paths below one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// Is the node itself in the set?
    pub member: bool,
    /// No child is empty.
    pub children: BTreeMap<Element, Set>,
}

impl Set {
    /// Only the node itself.
    pub fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub fn child(&self, element: &Element) -> Option<&Set> {
        self.children.get(element)
    }

    /// Adds what stands below `element`.
    pub fn put(&mut self, element: Element, below: Set) {
        if !below.is_empty() {
            self.children.entry(element).or_default().union(below);
        }
    }

    pub fn union(&mut self, other: Set) {
        self.member |= other.member;
        for (element, below) in other.children {
            match self.children.entry(element) {
                Entry::Vacant(free) => {
                    free.insert(below);
                }
                Entry::Occupied(mut taken) => taken.get_mut().union(below),
            }
        }
    }

    /// Takes out each path of `other`; with `whole`, also what stands below such a path.
    pub fn subtract(&mut self, other: &Set, whole: bool) {
        if other.member {
            self.member = false;
            if whole {
                self.children.clear();
                return;
            }
        }
        for (element, gone) in &other.children {
            if let Some(mine) = self.children.get_mut(element) {
                mine.subtract(gone, whole);
                if mine.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    pub fn intersection(&self, other: &Set) -> Set {
        let mut both = Set { member: self.member && other.member, children: BTreeMap::new() };
        for (element, mine) in &self.children {
            if let Some(theirs) = other.children.get(element) {
                both.put(element.clone(), mine.intersection(theirs));
            }
        }
        both
    }

    /// Every path as in messages, in order.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut Vec<String>) {
        if self.member {
            paths.push(path.to_owned());
        }
        for (element, below) in &self.children {
            below.collect_paths(&format!("{path}{element}"), paths);
        }
    }

    /// The `fieldsV1` value.
    pub fn encode(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, below) in &self.children {
            map.insert(element.encode(), below.encode());
        }
        Value::Object(map)
    }

    /// Reads a `fieldsV1` value; `None` where it is none.
    pub fn decode(fields: &Value) -> Option<Set> {
        let mut set = Self::decode_node(fields, 0)?;
        // An empty document is the empty set, not the object itself.
        set.member &= !set.children.is_empty();
        Some(set)
    }

    fn decode_node(fields: &Value, depth: usize) -> Option<Set> {
        let map = fields.as_object().filter(|_| depth <= DEPTH_MAX)?;
        let mut set = Set { member: map.is_empty(), children: BTreeMap::new() };
        for (text, below) in map {
            if text == "." {
                set.member = true;
            } else {
                set.put(Element::decode(text)?, Self::decode_node(below, depth + 1)?);
            }
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn documents_are_read_and_written() {
        let document = json!({"f:spec": {"f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
            ".": {}, "f:containerPort": {}}}, "f:finalizers": {"v:\"a\"": {}}, "f:list": {"i:3": {}}}});
        let set = Set::decode(&document).expect("well-formed");
        assert_eq!(set.encode(), document);
        assert_eq!(
            set.paths(),
            [
                ".spec.finalizers[=\"a\"]",
                ".spec.list[3]",
                ".spec.ports",
                ".spec.ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ]
        );
        for bad in [json!([]), json!({"x": {}}), json!({"k:[]": {}}), json!({"i:a": {}}), json!({"f:a": 1})] {
            assert_eq!(Set::decode(&bad), None, "{bad}");
        }
        assert_eq!(Set::decode(&json!({})).map(|s| s.is_empty()), Some(true));
    }

    fn element() -> impl Strategy<Value = Element> {
        prop_oneof![
            "[a-z:.]{0,4}".prop_map(Element::Field),
            "[a-z\"]{0,3}".prop_map(|v| Element::Key(canonical_key(vec![("name", &Value::from(v))]))),
            any::<i32>().prop_map(|v| Element::Value(v.to_string())),
            any::<i64>().prop_map(Element::Index),
        ]
    }

    prop_compose! {
        fn sets()(paths in prop::collection::vec(prop::collection::vec(element(), 1..5), 0..12)) -> Set {
            let mut set = Set::default();
            for path in paths {
                let path = path.into_iter().rev().fold(Set::leaf(), |below, element| {
                    let mut above = Set::default();
                    above.put(element, below);
                    above
                });
                set.union(path);
            }
            set
        }
    }

    proptest! {
        #[test]
        fn sets_survive_their_encoding(set in sets()) {
            prop_assert_eq!(Set::decode(&set.encode()), Some(set));
        }

        #[test]
        fn sets_obey_the_algebra(a in sets(), b in sets()) {
            let mut union = a.clone();
            union.union(b.clone());
            prop_assert_eq!(union.intersection(&a), a.clone());
            let mut rest = a.clone();
            rest.subtract(&b, false);
            prop_assert!(rest.intersection(&b).is_empty());
            rest.union(a.intersection(&b));
            prop_assert_eq!(rest, a);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = Element::decode(&text);
            let _ = Set::decode(&json!({ text: {} }));
        }
    }
}
