//! Objects that belong to a controller: matching, adoption, and what was asked for but is not yet seen.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_kube_logic::selector::LabelSelector as Selector;
use gantry_reconcile::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{Resource, ResourceExt};
use tokio::time::Instant;

/// The owner that controls `object`.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Does the object with this uid control `object`?
pub fn is_controlled_by<K: Resource>(object: &K, uid: &str) -> bool {
    controller_of(object).is_some_and(|owner| owner.uid == uid)
}

/// The selector as something to match with; one that cannot be read matches nothing.
pub fn selector(selector: &LabelSelector) -> Selector {
    let object = serde_json::to_value(selector).unwrap_or_default();
    Selector::from_object(&object).unwrap_or_else(|_| Selector::nothing())
}

/// Do the labels of `object` match?
pub fn matches<K: Resource>(selector: &Selector, object: &K) -> bool {
    selector.matches_with(|label| object.labels().get(label).map(String::as_str))
}

/// How `owner` stands to an object that it might control.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's.
    Owned,
    /// Nobody's, and it matches: to be adopted.
    Adopt,
    /// The owner's, and it matches no more: to be let go.
    Release,
    /// None of the owner's business.
    Foreign,
}

pub fn claim<K: Resource, O: Resource>(owner: &O, selector: &Selector, object: &K) -> Claim {
    let matching = matches(selector, object);
    let leaving = object.meta().deletion_timestamp.is_some();
    let owner_leaving = owner.meta().deletion_timestamp.is_some();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) == owner.meta().uid.as_ref() => {
            if matching || owner_leaving { Claim::Owned } else { Claim::Release }
        }
        Some(_) => Claim::Foreign,
        None if matching && !leaving && !owner_leaving => Claim::Adopt,
        None => Claim::Foreign,
    }
}

/// The patch that makes `owner` the controller of `object`, if it still is the same object.
pub fn adopt_patch<O: Resource<DynamicType = ()>, K: Resource>(owner: &O, object: &K) -> serde_json::Value {
    serde_json::json!({"metadata": {
        "uid": object.meta().uid,
        "ownerReferences": [owner.controller_owner_ref(&())],
    }})
}

/// The strategic merge patch that takes the owner with this uid away.
pub fn release_patch<K: Resource>(owner_uid: &str, object: &K) -> serde_json::Value {
    serde_json::json!({"metadata": {
        "uid": object.meta().uid,
        "ownerReferences": [{"$patch": "delete", "uid": owner_uid}],
    }})
}

const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(300);

/// What a controller created and deleted and has not yet seen back in its informer. Without it, a
/// reconcile between the write and the watch event would create or delete again.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<Key, Expected>>);

#[derive(Default)]
struct Expected {
    created: HashSet<String>,
    deleted: HashSet<String>,
    since: Option<Instant>,
}

impl Expectations {
    /// May `owner` be reconciled on what the informer shows? After the time-out it may in any case:
    /// an event that never came must not stop a controller for ever.
    pub fn are_met(&self, owner: &Key) -> bool {
        let expected = self.lock();
        expected.get(owner).is_none_or(|e| {
            let waiting = !e.created.is_empty() || !e.deleted.is_empty();
            !waiting || e.since.is_some_and(|since| since.elapsed() > EXPECTATION_TIMEOUT)
        })
    }

    pub fn expect_created(&self, owner: &Key, name: &str) {
        let mut all = self.lock();
        let expected = all.entry(owner.clone()).or_default();
        expected.created.insert(name.to_owned());
        expected.since = Some(Instant::now());
    }

    pub fn expect_deleted(&self, owner: &Key, name: &str) {
        let mut all = self.lock();
        let expected = all.entry(owner.clone()).or_default();
        expected.deleted.insert(name.to_owned());
        expected.since = Some(Instant::now());
    }

    /// The informer shows an object of this name, or shows it leaving.
    pub fn seen(&self, owner: &Key, name: &str, leaving: bool) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.created.remove(name);
            if leaving {
                expected.deleted.remove(name);
            }
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_object_is_waited_for_until_it_is_seen() {
        let expectations = Expectations::default();
        let owner = Key::new("ns", "rs");
        assert!(expectations.are_met(&owner));
        expectations.expect_created(&owner, "a");
        expectations.expect_deleted(&owner, "b");
        expectations.seen(&owner, "a", false);
        assert!(!expectations.are_met(&owner));
        expectations.seen(&owner, "b", false);
        assert!(!expectations.are_met(&owner), "seen, but not leaving yet");
        expectations.seen(&owner, "b", true);
        assert!(expectations.are_met(&owner));
    }
}
