//! Resource quotas: no write is admitted that would use more of a namespace than its quotas allow.
//!
//! What is used is counted from the stored objects, not read from a quota's status: every decision is
//! made under one lock, on the newest state plus the writes under way. A reservation is the object as
//! it will be; it counts once with the stored one, however the two overlap, so a write is neither
//! forgotten nor counted twice while it becomes visible.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use gantry_kube_logic::quota::{ObjectUsage, Quota, growth, missing_for_containers, usage};
use gantry_kube_types::StatusError;
use gantry_store::{EventKind, Key, Object, Prefix, Snapshot, Store, Watch, WatchItem};
use serde_json::Value;

use crate::admission::{AdmissionPlugin, AdmissionRequest, Effects, Operation};

/// Core resources whose objects differ in what they use; of all others the number counts.
const MEASURED: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];

pub(super) struct ResourceQuota {
    store: Store,
    state: Arc<Mutex<State>>,
}

/// What the stored objects of [`MEASURED`] use, and the writes under way.
#[derive(Default)]
struct State {
    /// Empty before the first look and after the store's ring of events has passed us by.
    watches: Vec<Watch>,
    /// By resource and namespace.
    stored: HashMap<(String, String), BTreeMap<Key, ObjectUsage>>,
    reserved: HashMap<Key, Vec<(u64, ObjectUsage)>>,
    reservations: u64,
}

impl ResourceQuota {
    pub(super) fn new(store: Store) -> Self {
        Self { store, state: Arc::default() }
    }

    /// The quotas that the object falls under.
    fn quotas(&self, request: &AdmissionRequest<'_>, used: &ObjectUsage) -> Vec<Quota> {
        let prefix = Prefix::resource("", "resourcequotas").in_namespace(request.namespace);
        let all = self.store.snapshot().scan(&prefix, None).collect::<Vec<_>>();
        let parsed = all.iter().filter_map(|object| serde_json::from_slice::<Value>(&object.value).ok());
        parsed.map(|object| Quota::of(&object)).filter(|quota| quota.tracks(used)).collect()
    }
}

/// Can this write use more than before?
fn counts(request: &AdmissionRequest<'_>) -> bool {
    let measured =
        request.kind.storage.group.is_empty() && MEASURED.contains(&request.kind.storage.resource.as_str());
    match (request.operation, request.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "" | "resize") => measured,
        _ => false,
    }
}

#[async_trait::async_trait]
impl AdmissionPlugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        if request.namespace.is_empty() || !request.kind.info.is_namespaced() || !counts(request) {
            return Ok(());
        }
        let (group, resource) = (&request.kind.storage.group, &request.kind.storage.resource);
        let new = usage(group, resource, request.object);
        let old = request.old_object.map(|old| usage(group, resource, old));
        let delta = growth(&new, old.as_ref());
        let quotas = if delta.is_empty() { Vec::new() } else { self.quotas(request, &new) };
        if quotas.is_empty() {
            return Ok(());
        }
        if group.is_empty() && resource == "pods" {
            for quota in &quotas {
                missing_for_containers(quota.hard.keys().map(String::as_str), request.object)
                    .map_err(|why| request.forbidden(format!("failed quota: {}: {why}", quota.name)))?;
            }
        }
        let key = Key::new(group, resource, request.namespace, request.name);
        let mut state = lock(&self.state);
        state.catch_up(&self.store);
        let snapshot = self.store.snapshot();
        // It exists: the write will fail as such, and uses nothing.
        if request.operation == Operation::Create && snapshot.get(&key).is_some() {
            return Ok(());
        }
        let objects = state.objects(&snapshot, group, resource, request.namespace);
        for quota in quotas.iter().filter(|quota| quota.limits(&new).next().is_some()) {
            quota.admit(&quota.used(objects.values()), &delta).map_err(|why| request.forbidden(why))?;
        }
        state.reserve(key, new, &self.state, request.effects);
        Ok(())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere can leave the index behind the store: its next look starts over.
    state.lock().unwrap_or_else(|poisoned| {
        let mut state = PoisonError::into_inner(poisoned);
        state.watches.clear();
        state
    })
}

impl State {
    fn catch_up(&mut self, store: &Store) {
        if self.watches.is_empty() || !self.drain() {
            self.start_over(store);
        }
    }

    /// Takes in every event there is; false where some were lost.
    fn drain(&mut self) -> bool {
        let mut watches = std::mem::take(&mut self.watches);
        for watch in &mut watches {
            while let Some(item) = watch.next().now_or_never() {
                match item {
                    Some(Ok(WatchItem::Event(event))) => match event.kind {
                        EventKind::Put => self.note(&event.object),
                        EventKind::Delete => self.forget(&event.object.key),
                    },
                    Some(Ok(WatchItem::Progress(_))) => {}
                    Some(Err(_)) | None => return false,
                }
            }
        }
        self.watches = watches;
        true
    }

    fn start_over(&mut self, store: &Store) {
        let snapshot = store.snapshot();
        self.stored.clear();
        let mut watches = Vec::new();
        for resource in MEASURED {
            let prefix = Prefix::resource("", resource);
            watches.extend(store.watch(prefix.clone(), snapshot.revision()));
            for object in snapshot.scan(&prefix, None) {
                self.note(&object);
            }
        }
        // With one missing the next look starts over again.
        self.watches = if watches.len() == MEASURED.len() { watches } else { Vec::new() };
    }

    fn note(&mut self, object: &Object) {
        let key = &object.key;
        let Ok(value) = serde_json::from_slice::<Value>(&object.value) else { return self.forget(key) };
        let place = (key.resource().to_owned(), key.namespace().to_owned());
        let used = usage("", key.resource(), &value);
        self.stored.entry(place).or_default().insert(key.clone(), used);
    }

    fn forget(&mut self, key: &Key) {
        let place = (key.resource().to_owned(), key.namespace().to_owned());
        if let Some(objects) = self.stored.get_mut(&place) {
            objects.remove(key);
            if objects.is_empty() {
                self.stored.remove(&place);
            }
        }
    }

    /// What each object of a resource in a namespace uses, or will use when its write has happened.
    fn objects(
        &self,
        snapshot: &Snapshot,
        group: &str,
        resource: &str,
        namespace: &str,
    ) -> BTreeMap<Key, ObjectUsage> {
        let measured = group.is_empty() && MEASURED.contains(&resource);
        let prefix = Prefix::resource(group, resource).in_namespace(namespace);
        let mut objects = if measured {
            self.stored.get(&(resource.to_owned(), namespace.to_owned())).cloned().unwrap_or_default()
        } else {
            let each = usage(group, resource, &Value::Null);
            snapshot.scan(&prefix, None).map(|object| (object.key.clone(), each.clone())).collect()
        };
        for (key, writes) in self.reserved.iter().filter(|(key, _)| prefix.matches(key)) {
            for (_, used) in writes {
                match objects.get_mut(key) {
                    Some(object) => object.raise(used),
                    None => {
                        objects.insert(key.clone(), used.clone());
                    }
                }
            }
        }
        objects
    }

    /// Keeps what the write will use until it has happened or failed.
    fn reserve(&mut self, key: Key, used: ObjectUsage, shared: &Arc<Mutex<Self>>, effects: &Effects) {
        self.reservations += 1;
        let id = self.reservations;
        self.reserved.entry(key.clone()).or_default().push((id, used));
        let (failed, same) = (shared.clone(), key.clone());
        effects.on_failure(move || lock(&failed).drop_reservation(&same, id));
        let written = shared.clone();
        // The store's event speaks for the object now: whoever looks next has seen it.
        effects.on_success(move || lock(&written).drop_reservation(&key, id));
    }

    fn drop_reservation(&mut self, key: &Key, id: u64) {
        if let Some(writes) = self.reserved.get_mut(key) {
            writes.retain(|(other, _)| *other != id);
            if writes.is_empty() {
                self.reserved.remove(key);
            }
        }
    }
}
