//! The built-in kinds: which there are, and what each does beyond being stored.

mod admission;
mod apps;
mod behaviour;
mod check;
mod convert;
mod core;
mod format;
mod pod;
mod print;
mod report;
mod rules;
mod selector;
mod service;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod warn;

use std::sync::Arc;

use crate::kind::{Kind, StorageKey};

pub use admission::{AdmissionConfig, PodSecurity, plugins, quota_plugin};
pub use pod::PodBinding;

/// Every built-in kind, without the actions of reviews: the caller adds those with
/// [`Kind::with_action`]. `pods/binding` and `bindings` are wired here.
pub fn builtin() -> Vec<Kind> {
    table::entries().iter().map(kind).collect()
}

fn kind(entry: &table::Entry) -> Kind {
    let mut kind = Kind::new(entry.info(), Arc::new(entry.rules)).named_by(entry.rules.name);
    if entry.create_only {
        kind.verbs = &["create"];
    }
    match (entry.group, entry.version, entry.resource) {
        ("", _, "pods") => kind.with_action("binding", pod::binding_action()),
        ("", _, "bindings") => kind.with_action("", pod::binding_action()),
        ("events.k8s.io", ..) => kind.stored_as("", "events", "v1"),
        ("autoscaling", "v1", resource) => kind.stored_as("autoscaling", resource, "autoscaling/v2"),
        _ => kind,
    }
}

/// Where the objects of a built-in kind lie, for callers that read the store.
pub fn storage_of(group: &str, resource: &str) -> Option<StorageKey> {
    builtin().into_iter().find(|k| k.info.group == group && k.info.resource == resource).map(|k| k.storage)
}
