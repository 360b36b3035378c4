//! Which cluster addresses and node ports are taken: an index fed by the store's events, and the
//! reservations of writes under way.
//!
//! Every decision is made under one lock after the index has caught up with the store. A reservation is
//! dropped when its write is stored (the store's event then speaks for it) or has failed, so there is no
//! moment at which an address that is given looks free.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use gantry_store::{EventKind, Key, Object, Prefix, Store, Watch, WatchItem};
use serde_json::Value;

use crate::admission::Effects;
use crate::kinds::value::{integer, items, string, text};

/// One thing that only one service may hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Claim {
    Address(IpAddr),
    /// A port of every node, with its protocol.
    Port(u16, String),
}

/// What a service holds.
pub(super) fn claims(service: &Value) -> Vec<Claim> {
    let address = text(service, "/spec/clusterIP").parse().ok().map(Claim::Address);
    let ports = items(service, "/spec/ports").iter().filter_map(|port| {
        let number = u16::try_from(integer(port, "/nodePort")?).ok().filter(|n| *n > 0)?;
        Some(Claim::Port(number, string(port, "protocol").to_owned()))
    });
    let health = integer(service, "/spec/healthCheckNodePort").and_then(|n| u16::try_from(n).ok());
    let health = health.filter(|n| *n > 0).map(|n| Claim::Port(n, "TCP".to_owned()));
    address.into_iter().chain(ports).chain(health).collect()
}

/// The index of one API server.
pub(super) struct Taken {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `None` before the first look and after the store's ring of events has passed us by.
    watch: Option<Watch>,
    /// More than one owner only where the store held such services before we came.
    owners: HashMap<Claim, Vec<Key>>,
    held: BTreeMap<Key, Vec<Claim>>,
    reserved: HashMap<Claim, Key>,
}

impl Taken {
    pub(super) fn new(store: Store) -> Self {
        Self { store, state: Arc::default() }
    }

    /// Locks the index in its newest state.
    pub(super) fn look(&self) -> Look<'_> {
        let mut state = lock(&self.state);
        state.catch_up(&self.store);
        Look { state, shared: self.state.clone() }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere can leave the index behind the store: its next look starts over.
    state.lock().unwrap_or_else(|poisoned| {
        let mut state = PoisonError::into_inner(poisoned);
        state.watch = None;
        state
    })
}

/// The index while nobody else decides.
pub(super) struct Look<'a> {
    state: MutexGuard<'a, State>,
    shared: Arc<Mutex<State>>,
}

impl Look<'_> {
    /// May `service` have it? Yes where nobody else has it.
    pub(super) fn is_free(&self, claim: &Claim, service: &Key) -> bool {
        let others = |owners: &Vec<Key>| owners.iter().any(|o| o != service);
        !self.state.owners.get(claim).is_some_and(others)
            // Not even a twin under the same name may share what is reserved: one of them will fail.
            && !self.state.reserved.contains_key(claim)
    }

    /// Keeps it for `service` until its write has happened or failed.
    pub(super) fn reserve(&mut self, claim: Claim, service: &Key, effects: &Effects) {
        self.state.reserved.insert(claim.clone(), service.clone());
        let (shared, undone) = (self.shared.clone(), claim.clone());
        effects.on_failure(move || {
            lock(&shared).reserved.remove(&undone);
        });
        let shared = self.shared.clone();
        effects.on_success(move || {
            lock(&shared).reserved.remove(&claim);
        });
    }
}

impl State {
    fn catch_up(&mut self, store: &Store) {
        if self.watch.is_none() {
            self.start_over(store);
        }
        let Some(watch) = &mut self.watch else { return };
        let mut events = Vec::new();
        // Pending: every event there is has been given. Closed or passed by: look again from the start.
        let lost = loop {
            match watch.next().now_or_never() {
                None => break false,
                Some(Some(Ok(WatchItem::Event(event)))) => events.push(event),
                Some(Some(Ok(WatchItem::Progress(_)))) => {}
                Some(Some(Err(_)) | None) => break true,
            }
        };
        if lost {
            self.start_over(store);
            return;
        }
        for event in events {
            match event.kind {
                EventKind::Delete => self.forget(&event.object.key),
                EventKind::Put => self.note(&event.object),
            }
        }
    }

    fn start_over(&mut self, store: &Store) {
        let services = Prefix::resource("", "services");
        let snapshot = store.snapshot();
        self.owners.clear();
        self.held.clear();
        self.watch = store.watch(services.clone(), snapshot.revision()).ok();
        for object in snapshot.scan(&services, None) {
            self.note(&object);
        }
    }

    fn note(&mut self, object: &Object) {
        self.forget(&object.key);
        let Ok(service) = serde_json::from_slice::<Value>(&object.value) else { return };
        let claims = claims(&service);
        for claim in &claims {
            self.owners.entry(claim.clone()).or_default().push(object.key.clone());
        }
        self.held.insert(object.key.clone(), claims);
    }

    fn forget(&mut self, key: &Key) {
        for claim in self.held.remove(key).unwrap_or_default() {
            if let Some(owners) = self.owners.get_mut(&claim) {
                owners.retain(|o| o != key);
                if owners.is_empty() {
                    self.owners.remove(&claim);
                }
            }
        }
    }
}
