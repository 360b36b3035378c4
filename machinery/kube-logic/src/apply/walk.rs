//! Walking an object along its schema: which paths it has, and which differ from another object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{Element, Set, canonical_key};
use crate::schema::{Field, Merge, Schema};

/// Fields of `metadata` that nobody owns, because the server alone decides on them or they name the object.
const UNOWNED_METADATA: &[&str] = &[
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "selfLink",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Where a node stands, as far as ownership cares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    Metadata,
    Below,
}

impl Place {
    pub fn owns(self, name: &str) -> bool {
        match self {
            Self::Root => name != "apiVersion" && name != "kind",
            Self::Metadata => !UNOWNED_METADATA.contains(&name),
            Self::Below => true,
        }
    }

    pub fn enter(self, name: &str) -> Self {
        if self == Self::Root && name == "metadata" { Self::Metadata } else { Self::Below }
    }
}

/// How a value's parts are owned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As one.
    Leaf,
    Map,
    Set,
    Keyed(&'static [&'static str]),
}

pub(super) fn shape(value: &Value, schema: Option<&Schema>) -> Shape {
    // What no schema describes merges by field, its lists as one.
    let merge = schema.map_or(Merge::Granular, Schema::merge);
    match (value, merge) {
        (Value::Object(map), Merge::Granular) if !map.is_empty() => Shape::Map,
        (Value::Array(_), Merge::Set) => Shape::Set,
        (Value::Array(items), Merge::Keyed(keys)) if items.iter().all(Value::is_object) => Shape::Keyed(keys),
        _ => Shape::Leaf,
    }
}

/// The schema of a field, and whether the field is one the type names (rather than a key of a map).
pub(super) fn child<'s>(schema: Option<&'s Schema>, name: &str) -> (Option<&'s Schema>, bool) {
    let Some(schema) = schema else { return (None, false) };
    match schema.field(name) {
        Field::Known(known) => (Some(known), !schema.additional().is_some_and(|a| std::ptr::eq(a, known))),
        Field::Free | Field::Unknown => (None, false),
    }
}

/// Keys that published schemas give a default, and the default.
fn key_default(schema: Option<&Schema>, key: &str) -> Option<Value> {
    match child(schema, key).0.and_then(|s| s.target().default.clone()) {
        Some(default) => Some(default),
        None => (key == "protocol").then(|| Value::from("TCP")),
    }
}

/// The path element of a list item; `schema` is the item's.
pub(super) fn item_element(item: &Value, shape: Shape, schema: Option<&Schema>) -> Element {
    let Shape::Keyed(keys) = shape else { return Element::Value(item.to_string()) };
    let defaults: Vec<(&str, Value)> = keys
        .iter()
        .filter(|key| item.get(**key).is_none_or(Value::is_null))
        .filter_map(|key| Some((*key, key_default(schema, key)?)))
        .collect();
    let given = keys.iter().filter_map(|key| Some((*key, item.get(*key).filter(|v| !v.is_null())?)));
    Element::Key(canonical_key(given.chain(defaults.iter().map(|(k, v)| (*k, v))).collect()))
}

/// The items of a list by their elements, first come first kept.
pub(super) fn index<'v>(
    items: &'v [Value],
    shape: Shape,
    schema: Option<&Schema>,
) -> BTreeMap<Element, &'v Value> {
    let mut found = BTreeMap::new();
    for item in items {
        found.entry(item_element(item, shape, schema)).or_insert(item);
    }
    found
}

/// The paths an applied object asserts. `Err`: what is wrong and where.
pub(super) fn field_set(
    value: &Value,
    schema: Option<&Schema>,
    place: Place,
    path: &str,
) -> Result<Set, String> {
    let mut set = Set::default();
    match (shape(value, schema), value) {
        (Shape::Map, Value::Object(map)) => {
            for (name, value) in map.iter().filter(|(name, _)| place.owns(name)) {
                let (schema, named) = child(schema, name);
                let mut below = field_set(value, schema, place.enter(name), &format!("{path}.{name}"))?;
                below.member |= !named;
                set.put(Element::Field(name.clone()), below);
            }
        }
        (shape @ (Shape::Set | Shape::Keyed(_)), Value::Array(items)) => {
            let schema = schema.and_then(Schema::items);
            for item in items {
                let element = item_element(item, shape, schema);
                if matches!(&element, Element::Key(key) if key == "{}") {
                    return Err(format!(
                        "{path}: associative list with keys has an element that omits all key fields"
                    ));
                }
                if set.children.contains_key(&element) {
                    return Err(format!("{path}: duplicate entries for key {element}"));
                }
                let mut below = match shape {
                    Shape::Keyed(_) => field_set(item, schema, Place::Below, &format!("{path}{element}"))?,
                    _ => Set::default(),
                };
                below.member = true;
                set.put(element, below);
            }
        }
        _ => set.member = place == Place::Below,
    }
    Ok(set)
}

/// What a write did.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Added or modified.
    pub written: Set,
    /// Gone; what stood below such a path is gone too.
    pub removed: Set,
}

impl Changes {
    fn put(&mut self, element: Element, below: Changes) {
        if !below.removed.is_empty() {
            self.removed.put(element.clone(), below.removed);
        }
        self.written.put(element, below.written);
    }
}

/// Compares two objects (or one with nothing) along the schema.
pub(super) fn diff(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: Option<&Schema>,
    place: Place,
) -> Changes {
    let mut changes = Changes::default();
    if old == new {
        return changes;
    }
    let Some(new) = new else {
        changes.removed.member = true;
        return changes;
    };
    let new_shape = shape(new, schema);
    let comparable = old.filter(|old| shape(old, schema) == new_shape);
    match (new_shape, new) {
        (Shape::Map, Value::Object(new)) => {
            diff_map(comparable.and_then(Value::as_object), new, schema, place, &mut changes);
            // Maps of free keys are values of their own; structs exist with their fields.
            let is_struct = schema.is_some_and(|s| s.properties().next().is_some());
            changes.written.member = old.is_none() && !is_struct && place == Place::Below;
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(new)) => {
            let old_items = comparable.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            diff_list(old_items, new, new_shape, schema.and_then(Schema::items), &mut changes);
            changes.written.member = old.is_none();
        }
        _ => changes.written.member = place == Place::Below,
    }
    if let (Some(old), None) = (old, comparable) {
        changes.removed.union(parts(old, schema));
    }
    changes
}

/// What a value that becomes another kind of value loses: each of its parts.
fn parts(value: &Value, schema: Option<&Schema>) -> Set {
    let mut set = Set::default();
    match (shape(value, schema), value) {
        (Shape::Map, Value::Object(map)) => {
            map.keys().for_each(|name| set.put(Element::Field(name.clone()), Set::leaf()));
        }
        (shape @ (Shape::Set | Shape::Keyed(_)), Value::Array(items)) => {
            let schema = schema.and_then(Schema::items);
            items.iter().for_each(|item| set.put(item_element(item, shape, schema), Set::leaf()));
        }
        _ => {}
    }
    set
}

fn diff_map(
    old: Option<&Map<String, Value>>,
    new: &Map<String, Value>,
    schema: Option<&Schema>,
    place: Place,
    changes: &mut Changes,
) {
    for (name, new) in new.iter().filter(|(name, _)| place.owns(name)) {
        let old = old.and_then(|old| old.get(name));
        if old == Some(new) {
            continue;
        }
        let (schema, named) = child(schema, name);
        let mut below = diff(old, Some(new), schema, place.enter(name));
        below.written.member |= old.is_none() && !named;
        changes.put(Element::Field(name.clone()), below);
    }
    for name in old.into_iter().flat_map(Map::keys) {
        if !new.contains_key(name) && place.owns(name) {
            changes.removed.put(Element::Field(name.clone()), Set::leaf());
        }
    }
}

fn diff_list(old: &[Value], new: &[Value], shape: Shape, schema: Option<&Schema>, changes: &mut Changes) {
    let old = index(old, shape, schema);
    let new = index(new, shape, schema);
    for (element, item) in &new {
        match old.get(element) {
            Some(old) if old == item => {}
            before => {
                let keyed = matches!(shape, Shape::Keyed(_));
                let mut below = Changes::default();
                if keyed {
                    below = diff(before.copied(), Some(item), schema, Place::Below);
                }
                below.written.member |= before.is_none();
                changes.put(element.clone(), below);
            }
        }
    }
    for element in old.into_keys().filter(|element| !new.contains_key(element)) {
        changes.removed.put(element, Set::leaf());
    }
}
