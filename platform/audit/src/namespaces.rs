//! What the trail knows of namespaces: whose project each is, and whether its sessions are recorded; and which projects
//! and domains there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use gantry_registry_api::Owner;

use crate::config::RecordSessions;

/// `none`, `terminals` or `all`, as an annotation or a label of a namespace.
pub use gantry_identity_api::labels::RECORD_SESSIONS;

/// What is known of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) project: Option<String>,
    pub(crate) sessions: Option<RecordSessions>,
}

/// The facts of all of them, replaced whole; readers never wait.
#[derive(Clone, Default)]
pub(crate) struct Namespaces(Arc<ArcSwap<All>>);

/// As they were at one moment.
#[derive(Clone, Default)]
pub(crate) struct All {
    /// Grows with every change.
    version: u64,
    pub(crate) facts: HashMap<String, Facts>,
}

impl Namespaces {
    pub(crate) fn get(&self, namespace: &str) -> Option<Facts> {
        if namespace.is_empty() {
            return None;
        }
        self.0.load().facts.get(namespace).cloned()
    }

    /// As long as it stays, so do the facts.
    pub(crate) fn version(&self) -> u64 {
        self.0.load().version
    }

    pub(crate) fn all(&self) -> Arc<All> {
        self.0.load_full()
    }

    pub(crate) fn replace(&self, facts: HashMap<String, Facts>) {
        self.change(|all| all.clone_from(&facts));
    }

    pub(crate) fn change(&self, change: impl Fn(&mut HashMap<String, Facts>)) {
        self.0.rcu(|all| {
            let All { version, mut facts } = All::clone(all);
            change(&mut facts);
            All { version: version + 1, facts }
        });
    }
}

/// Every project and domain: whose records there may be beside those of namespaces.
#[derive(Default)]
pub(crate) struct Owners {
    all: RwLock<Arc<BTreeSet<Owned>>>,
    /// Grows after each change.
    version: AtomicU64,
}

/// As questions about rights have it in the place of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owned {
    Project(String),
    Domain(String),
}

impl std::fmt::Display for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Project(id) => Owner::of_project(id).fmt(f),
            Self::Domain(id) => Owner::of_domain(id).fmt(f),
        }
    }
}

impl Owners {
    /// As long as it stays, so do they.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn all(&self) -> Arc<BTreeSet<Owned>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is there, or it is gone. What is gone has nobody with a right in it.
    pub(crate) fn set(&self, owned: Owned, is_there: bool) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if all.contains(&owned) != is_there {
            let all = Arc::make_mut(&mut all);
            if is_there {
                all.insert(owned)
            } else {
                all.remove(&owned)
            };
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}
