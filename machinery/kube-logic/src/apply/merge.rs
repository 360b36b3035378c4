//! Merging an applied object into the live one, and taking out what its manager no longer applies.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{Element, Set};
use super::walk::{Place, Shape, child, index, item_element, shape};
use crate::schema::Schema;

/// Puts `applied` over `live`.
pub(super) fn merge(live: &mut Value, applied: &Value, schema: Option<&Schema>, place: Place) {
    let wanted = shape(applied, schema);
    match (wanted, &mut *live, applied) {
        (Shape::Map, Value::Object(live), Value::Object(applied)) => merge_map(live, applied, schema, place),
        (Shape::Leaf, Value::Object(_), Value::Object(applied))
            if applied.is_empty() && is_granular(schema) => {}
        (Shape::Set | Shape::Keyed(_), Value::Array(items), Value::Array(applied)) => {
            let merged = merge_list(items, applied, wanted, schema.and_then(Schema::items));
            *items = merged;
        }
        _ => *live = applied.clone(),
    }
}

/// `{}` says nothing of what a map that merges by field holds.
fn is_granular(schema: Option<&Schema>) -> bool {
    schema.is_none_or(|s| s.merge() == crate::schema::Merge::Granular)
}

fn merge_map(
    live: &mut Map<String, Value>,
    applied: &Map<String, Value>,
    schema: Option<&Schema>,
    place: Place,
) {
    for (name, value) in applied {
        let naming = matches!(name.as_str(), "name" | "namespace" | "uid") || place == Place::Root;
        if !place.owns(name) && !naming && live.contains_key(name) {
            continue;
        }
        match live.get_mut(name) {
            Some(live) => merge(live, value, child(schema, name).0, place.enter(name)),
            None => {
                live.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The applied order wins among what was applied; what was not keeps its place before what followed it.
fn merge_list(live: &[Value], applied: &[Value], shape: Shape, schema: Option<&Schema>) -> Vec<Value> {
    let before = index(live, shape, schema);
    let ranks: BTreeMap<Element, usize> =
        applied.iter().enumerate().map(|(at, item)| (item_element(item, shape, schema), at)).collect();
    let rank = |item: &Value| ranks.get(&item_element(item, shape, schema)).copied();
    let mut rest = live.iter().peekable();
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    for (at, item) in applied.iter().enumerate() {
        while let Some(kept) = rest.next_if(|l| rank(l).is_none_or(|r| r < at)) {
            if rank(kept).is_none() {
                merged.push(kept.clone());
            }
        }
        let mut value = before.get(&item_element(item, shape, schema)).map_or(Value::Null, |v| (*v).clone());
        if value.is_null() || shape == Shape::Set {
            value = item.clone();
        } else {
            merge(&mut value, item, schema, Place::Below);
        }
        merged.push(value);
    }
    merged.extend(rest.filter(|l| rank(l).is_none()).cloned());
    merged
}

/// Takes out what stands in `last` and nobody in `owned` has.
pub(super) fn prune(value: &mut Value, last: &Set, owned: &Set, schema: Option<&Schema>, place: Place) {
    match (shape(value, schema), value) {
        (Shape::Map, Value::Object(map)) => prune_map(map, last, owned, schema, place),
        (shape @ (Shape::Set | Shape::Keyed(_)), Value::Array(items)) => {
            let schema = schema.and_then(Schema::items);
            items.retain_mut(|item| {
                let element = item_element(item, shape, schema);
                let Some(last) = last.child(&element) else { return true };
                let none = Set::default();
                let owned = owned.child(&element).unwrap_or(&none);
                if last.member && !owned.member {
                    return false;
                }
                if matches!(shape, Shape::Keyed(_)) {
                    prune(item, last, owned, schema, Place::Below);
                }
                true
            });
        }
        _ => {}
    }
}

fn prune_map(map: &mut Map<String, Value>, last: &Set, owned: &Set, schema: Option<&Schema>, place: Place) {
    let none = Set::default();
    for (element, last) in &last.children {
        let Element::Field(name) = element else { continue };
        let Some(value) = map.get_mut(name).filter(|_| place.owns(name)) else { continue };
        let (schema, named) = child(schema, name);
        let owned = owned.child(element).unwrap_or(&none);
        let metadata = place == Place::Root && name == "metadata";
        // Whoever owns a field of a struct owns the struct; a key of a map must be owned itself.
        let held = owned.member || (named && !owned.is_empty());
        let gone = if (last.member || named) && !held && !metadata {
            true
        } else {
            let was_empty = is_empty(value);
            prune(value, last, owned, schema, place.enter(name));
            is_empty(value) && !was_empty && !owned.member
        };
        if gone {
            map.shift_remove(name);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
