//! What the trail knows of namespaces: whose project each is, and whether its sessions are recorded.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::RecordSessions;

/// Marks the project of a namespace; see the identity component's API crate.
pub(crate) const PROJECT_LABEL: &str = "identity.gantry.dev/project";
/// `none`, `terminals` or `all`, as an annotation or a label of a namespace.
pub const RECORD_SESSIONS: &str = "audit.gantry.dev/record-sessions";

/// What is known of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) project: Option<String>,
    pub(crate) sessions: Option<RecordSessions>,
}

/// The facts of all of them, replaced whole; readers never wait.
#[derive(Clone, Default)]
pub(crate) struct Namespaces(Arc<ArcSwap<HashMap<String, Facts>>>);

impl Namespaces {
    pub(crate) fn get(&self, namespace: &str) -> Option<Facts> {
        if namespace.is_empty() {
            return None;
        }
        self.0.load().get(namespace).cloned()
    }

    /// Are they these, and unchanged?
    pub(crate) fn are(&self, these: &Arc<HashMap<String, Facts>>) -> bool {
        Arc::ptr_eq(&self.0.load(), these)
    }

    pub(crate) fn all(&self) -> Arc<HashMap<String, Facts>> {
        self.0.load_full()
    }

    pub(crate) fn replace(&self, all: HashMap<String, Facts>) {
        self.0.store(Arc::new(all));
    }

    pub(crate) fn change(&self, change: impl Fn(&mut HashMap<String, Facts>)) {
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            change(&mut all);
            all
        });
    }
}
