//! How far rules are, for who watches them.

use std::sync::Arc;

use gantry_registry_api::{Replication, ReplicationStatus, replication_conditions};
use jiff::Timestamp;
use kube::ResourceExt;

use super::{Outcome, Replications};

/// What a rule did since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
    pub(crate) tags: u64,
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    pub(crate) deleted: u64,
}

/// One rule in the moment of a scrape.
pub(crate) struct Measured {
    pub(crate) object: Arc<Replication>,
    pub(crate) totals: Totals,
    pub(crate) lag_seconds: u64,
}

impl Measured {
    fn status(&self) -> Option<&ReplicationStatus> {
        self.object.status.as_ref()
    }

    pub(crate) fn last_run_seconds(&self) -> Option<u64> {
        u64::try_from(self.status()?.last_run.as_ref()?.0.as_second()).ok()
    }

    pub(crate) fn last_success_seconds(&self) -> Option<u64> {
        u64::try_from(self.status()?.last_success.as_ref()?.0.as_second()).ok()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.status().is_some_and(is_synced)
    }

    pub(crate) fn pending(&self) -> u32 {
        self.status().map_or(0, |status| status.pending)
    }
}

fn is_synced(status: &ReplicationStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == replication_conditions::SYNCED && c.status == "True")
}

/// Since when something waits to be copied; nothing where everything known is. `changed`: since when this process
/// knows of something; one that was just started knows what the object says.
fn behind_since(object: &Replication, changed: Option<Timestamp>) -> Option<Timestamp> {
    let status = object.status.as_ref();
    let last_success = status.and_then(|status| status.last_success.as_ref());
    let since = last_success.or(object.metadata.creation_timestamp.as_ref()).map(|time| time.0);
    match status.is_some_and(is_synced) {
        true => changed,
        false => [changed, since].into_iter().flatten().min(),
    }
}

impl Replications {
    /// Every rule as it is now, by name.
    pub(crate) fn measured(&self) -> Vec<Measured> {
        let Some(started) = self.started.get() else { return Vec::new() };
        let now = Timestamp::now().as_second();
        let mut rules = started.rules.list();
        rules.sort_by_key(|rule| rule.name_any());
        let state = self.state();
        let measured = rules.into_iter().map(|object| {
            let name = object.name_any();
            let since = behind_since(&object, state.behind.get(&name).copied());
            let lag = since.map_or(0, |since| now.saturating_sub(since.as_second()));
            let totals = state.totals.get(&name).copied().unwrap_or_default();
            Measured { object, totals, lag_seconds: u64::try_from(lag).unwrap_or(0) }
        });
        measured.collect()
    }

    /// Counts what a run did in one repository.
    pub(super) fn copied(&self, rule: &str, outcome: &Outcome) {
        let mut state = self.state();
        let totals = state.totals.entry(rule.to_owned()).or_default();
        totals.tags += u64::from(outcome.tags);
        totals.blobs += u64::from(outcome.blobs);
        totals.bytes += outcome.bytes;
        totals.deleted += u64::from(outcome.deleted);
    }

    /// Counts a run that began at `begun` and copied everything, or not.
    pub(super) fn ran(&self, rule: &str, begun: Timestamp, good: bool) {
        let mut state = self.state();
        let totals = state.totals.entry(rule.to_owned()).or_default();
        match good {
            true => totals.successes += 1,
            false => totals.failures += 1,
        }
        if !good {
            state.behind.entry(rule.to_owned()).or_insert(begun);
        } else if state.dirty.contains(rule) {
            // Changed while it ran: that is for the next one.
            state.behind.insert(rule.to_owned(), begun);
        } else {
            state.behind.remove(rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_is_behind_since_its_first_change_or_its_last_success() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let rule = |status: serde_json::Value| {
            let object = json!({
                "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "Replication",
                "metadata": { "name": "x", "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "direction": "push", "remote": { "endpoint": "https://x" }, "repositories": ["*"] },
                "status": status,
            });
            serde_json::from_value::<Replication>(object).expect("a rule")
        };
        let status = |synced: &str| {
            json!({ "lastSuccess": "2026-01-02T00:00:00Z", "conditions": [{ "type": "Synced", "status": synced,
                "reason": "x", "message": "", "lastTransitionTime": "2026-01-02T00:00:00Z" }] })
        };
        let changed = Some(at("2026-01-03T00:00:00Z"));
        for (status, changed, want) in [
            (serde_json::Value::Null, None, Some("2026-01-01T00:00:00Z")),
            (status("True"), None, None),
            (status("True"), changed, Some("2026-01-03T00:00:00Z")),
            // After a restart, and while it fails: since the last time that all was there.
            (status("False"), None, Some("2026-01-02T00:00:00Z")),
            (status("False"), changed, Some("2026-01-02T00:00:00Z")),
        ] {
            assert_eq!(behind_since(&rule(status.clone()), changed), want.map(at), "{status} {changed:?}");
        }
    }
}
