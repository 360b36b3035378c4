//! Server-side apply and `metadata.managedFields`.
//!
//! The rules are those of structured-merge-diff: a manager that applies owns what it applied, a manager
//! that updates owns what it changed, two may own a field of one value, and applying another value to
//! somebody else's field is a conflict unless forced.

mod entries;
mod merge;
mod set;
#[cfg(test)]
mod tests;
mod walk;

use gantry_kube_types::{GroupVersionKind, StatusCause, StatusDetails, StatusError};
use serde_json::Value;

use crate::meta;
use crate::schema::{Schema, catalog};
use entries::{Entry, Operation};
use set::Set;
use walk::{Changes, Place};

/// Stands for whoever wrote an object before anybody's fields were tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Where client-side `kubectl apply` keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    pub name: String,
    /// `apps/v1`.
    pub api_version: String,
    /// Empty for the main resource.
    pub subresource: String,
    /// RFC 3339 with seconds, UTC: `2026-01-02T03:04:05Z`.
    pub time: String,
}

/// Applies `applied` onto `live`; the result carries the new managedFields. Applying again what was
/// applied gives back `live` as it is.
///
/// # Errors
/// 400 where `applied` is not a possible configuration, 409 with one cause for each field where another
/// manager owns a field with another value and `force` is false.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    schema: &Schema,
    manager: &Manager,
    force: bool,
) -> Result<Value, StatusError> {
    if applied["metadata"]["managedFields"].as_array().is_some_and(|fields| !fields.is_empty()) {
        return Err(StatusError::bad_request("metadata.managedFields must be nil"));
    }
    let config = without_reset_fields(applied, manager);
    let set =
        walk::field_set(&config, Some(schema), Place::Root, "").map_err(|why| unreadable(applied, &why))?;
    let mut entries = live.map(|live| owners(live, schema, manager)).unwrap_or_default();
    let own = match entries.iter().position(|e| e.is(Operation::Apply, manager)) {
        Some(at) => at,
        None => {
            entries.push(Entry::new(Operation::Apply, manager.clone()));
            entries.len() - 1
        }
    };
    let last = entries[own].set.clone();
    if entries[own].change(|mine| *mine = set) {
        entries[own].stamp(manager);
    }
    let result = combine(live, config, &last, &entries, schema);
    let changes = walk::diff(live, Some(&result), Some(schema), Place::Root);
    let conflicts = conflicts(&entries, own, &changes);
    if !force {
        refuse_conflicts(live, &conflicts, schema, manager)?;
    }
    hand_over(&mut entries, own, &changes);
    Ok(with_managed_fields(result, entries))
}

/// Sets `new`'s managedFields after a create, update or patch by `manager`.
///
/// # Errors
/// None at present; the form is that of the other writers' logic.
pub fn track_update(
    old: Option<&Value>,
    new: &mut Value,
    schema: &Schema,
    manager: &Manager,
) -> Result<(), StatusError> {
    let given = new.get("metadata").and_then(|m| m.get("managedFields")).filter(|m| !m.is_null());
    let same = given == old.and_then(|old| old.get("metadata")?.get("managedFields"));
    let changes = walk::diff(old, Some(new), Some(schema), Place::Root);
    let untouched = changes == Changes::default();
    if untouched && same {
        return Ok(());
    }
    let mut entries = match given {
        Some(given) if entries::is_reset(given) => Vec::new(),
        // Only the main resource lets a writer set them.
        Some(given) if manager.subresource.is_empty() => {
            entries::decode(given).filter(|e| !e.is_empty()).unwrap_or_else(|| read(old))
        }
        _ => read(old),
    };
    if !untouched {
        let own = match entries.iter().position(|e| e.is(Operation::Update, manager)) {
            Some(at) => at,
            None => {
                entries.push(Entry::new(Operation::Update, manager.clone()));
                entries.len() - 1
            }
        };
        let changed = entries[own].change(|mine| {
            mine.subtract(&changes.removed, true);
            mine.union(changes.written.clone());
        });
        if changed {
            entries[own].stamp(manager);
        }
        hand_over(&mut entries, own, &changes);
    }
    set_managed_fields(new, entries);
    Ok(())
}

fn read(object: Option<&Value>) -> Vec<Entry> {
    object.and_then(|object| entries::decode(&object["metadata"]["managedFields"])).unwrap_or_default()
}

/// The live object's entries; where there are none, one for whoever wrote it.
fn owners(live: &Value, schema: &Schema, manager: &Manager) -> Vec<Entry> {
    let found = read(Some(live));
    if !found.is_empty() {
        return found;
    }
    let api_version = live["apiVersion"].as_str().unwrap_or(&manager.api_version).to_owned();
    let unknown = Manager {
        name: BEFORE_FIRST_APPLY.to_owned(),
        api_version,
        subresource: String::new(),
        time: manager.time.clone(),
    };
    let mut entry = Entry::new(Operation::Update, unknown);
    entry.set = walk::diff(None, Some(live), Some(schema), Place::Root).written;
    vec![entry]
}

/// The configuration without what this writer cannot set: of built-in kinds, `status` is written through
/// its subresource only, and that writes nothing of `spec`.
fn without_reset_fields(applied: &Value, manager: &Manager) -> Value {
    let mut config = applied.clone();
    if let Some(map) = config.as_object_mut() {
        let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
        let kind = GroupVersionKind::from_api_version(&manager.api_version, kind);
        match manager.subresource.as_str() {
            "" if map.contains_key("status") && catalog().for_kind(&kind).is_some() => {
                map.shift_remove("status");
            }
            "status" => {
                map.shift_remove("spec");
            }
            _ => {}
        }
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.shift_remove("managedFields");
        }
    }
    config
}

fn combine(live: Option<&Value>, config: Value, last: &Set, entries: &[Entry], schema: &Schema) -> Value {
    let Some(live) = live else { return config };
    let mut result = live.clone();
    merge::merge(&mut result, &config, Some(schema), Place::Root);
    if !last.is_empty() {
        let mut owned = Set::default();
        for entry in entries {
            owned.union(entry.set.clone());
        }
        merge::prune(&mut result, last, &owned, Some(schema), Place::Root);
    }
    result
}

/// What others own and this write changed, each with the owner's words.
fn conflicts(entries: &[Entry], own: usize, changes: &Changes) -> Vec<(String, Set)> {
    let others = entries.iter().enumerate().filter(|(at, _)| *at != own);
    let mut found: Vec<(String, Set)> = others
        .map(|(_, entry)| (entry.words(), entry.set.intersection(&changes.written)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn refuse_conflicts(
    live: Option<&Value>,
    conflicts: &[(String, Set)],
    schema: &Schema,
    manager: &Manager,
) -> Result<(), StatusError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    let allowed = if manager.name == "kubectl" { live.and_then(|l| last_applied(l, schema)) } else { None };
    let allowed = allowed.unwrap_or_default();
    let mut listed: Vec<(&str, Vec<String>)> = Vec::new();
    for (owner, set) in conflicts {
        let mut set = set.clone();
        set.subtract(&allowed, false);
        if !set.is_empty() {
            listed.push((owner, set.paths()));
        }
    }
    if listed.is_empty() { Ok(()) } else { Err(conflict_error(&listed)) }
}

/// What client-side apply wrote: kubectl may take that over when it goes over to the server's.
fn last_applied(live: &Value, schema: &Schema) -> Option<Set> {
    let config: Value = serde_json::from_str(meta::annotation(live, LAST_APPLIED)?).ok()?;
    walk::field_set(&config, Some(schema), Place::Root, "").ok()
}

fn conflict_error(conflicts: &[(&str, Vec<String>)]) -> StatusError {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let message = match conflicts {
        [(owner, paths)] if count == 1 => {
            format!("Apply failed with 1 conflict: conflict with {owner}: {}", paths[0])
        }
        many => {
            let mut lines = Vec::with_capacity(count + many.len());
            for (owner, paths) in many {
                lines.push(format!("conflicts with {owner}:"));
                lines.extend(paths.iter().map(|path| format!("- {path}")));
            }
            format!("Apply failed with {count} conflicts: {}", lines.join("\n"))
        }
    };
    let cause = |owner: &str, path: &String| StatusCause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {owner}"),
        field: path.clone(),
    };
    let causes =
        conflicts.iter().flat_map(|(owner, paths)| paths.iter().map(move |p| cause(owner, p))).collect();
    let mut error = StatusError::new(409, "Conflict", message);
    error.details = Some(Box::new(StatusDetails { causes, ..StatusDetails::default() }));
    error
}

/// What was written belongs to the writer alone, what is gone to nobody.
fn hand_over(entries: &mut [Entry], own: usize, changes: &Changes) {
    for (_, entry) in entries.iter_mut().enumerate().filter(|(at, _)| *at != own) {
        entry.change(|set| {
            set.subtract(&changes.written, false);
            set.subtract(&changes.removed, true);
        });
    }
}

fn with_managed_fields(mut object: Value, entries: Vec<Entry>) -> Value {
    set_managed_fields(&mut object, entries);
    object
}

fn set_managed_fields(object: &mut Value, entries: Vec<Entry>) {
    let metadata = meta::metadata_mut(object);
    match entries::encode(entries) {
        Some(entries) => {
            metadata.insert("managedFields".to_owned(), entries);
        }
        None => {
            metadata.shift_remove("managedFields");
        }
    }
}

fn unreadable(applied: &Value, why: &str) -> StatusError {
    let kind = GroupVersionKind::from_api_version(
        applied["apiVersion"].as_str().unwrap_or_default(),
        applied["kind"].as_str().unwrap_or_default(),
    );
    let (namespace, name) = (meta::namespace(applied), meta::name(applied));
    StatusError::bad_request(format!(
        "failed to create typed patch object ({namespace}/{name}; {kind}): {why}"
    ))
}
