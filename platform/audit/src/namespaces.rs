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
