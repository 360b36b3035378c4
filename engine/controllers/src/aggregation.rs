//! ClusterRoles with an aggregation rule hold the rules of all roles it selects.

use std::sync::Arc;

use gantry_reconcile::{Again, Key, Queue, work};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};

use crate::owned;
use crate::shared::{Shared, gone_is_fine};

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<Key> = Queue::default();
    let (observed, keys) = (shared.clone(), queue.clone());
    // Any role may be selected by any aggregating one; there are few of those.
    shared.informers.cluster_roles.on_change(move |change| {
        for role in observed.informers.cluster_roles.list() {
            if role.aggregation_rule.is_some() {
                keys.add(Key::of(&*role));
            }
        }
        if let Some(role) = change.object()
            && role.aggregation_rule.is_some()
        {
            keys.add(Key::of(&**role));
        }
    });
    let this = shared.clone();
    work(&shared.tasks, "clusterrole-aggregation", queue, 1, move |key| {
        let shared = this.clone();
        async move { reconcile(&shared, &key).await }
    });
}

async fn reconcile(shared: &Shared, key: &Key) -> kube::Result<Again> {
    let roles = &shared.informers.cluster_roles;
    roles.synced().await;
    let Some(role) = roles.get("", &key.name) else { return Ok(Again::OnChange) };
    let rules = aggregated(&role, &roles.list());
    if role.aggregation_rule.is_some() && role.rules.clone().unwrap_or_default() != rules {
        let api: Api<ClusterRole> = Api::all(shared.client.clone());
        let patch = Patch::Merge(serde_json::json!({"rules": rules}));
        gone_is_fine(api.patch(&key.name, &PatchParams::default(), &patch).await)?;
    }
    Ok(Again::OnChange)
}

/// The rules of every selected role but itself, by name, each rule once.
fn aggregated(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Vec<PolicyRule> {
    let rule = role.aggregation_rule.as_ref();
    let selectors = rule.and_then(|r| r.cluster_role_selectors.as_ref()).into_iter().flatten();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors.map(owned::selector) {
        for selected in
            all.iter().filter(|r| r.name_any() != role.name_any() && owned::matches(&selector, &***r))
        {
            for rule in selected.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selected_rules_are_gathered_once_and_never_ones_own() {
        let role = |name: &str, label: &str, verb: &str| -> Arc<ClusterRole> {
            let json = serde_json::json!({
                "metadata": {"name": name, "labels": {"to": label}},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "all"}}]},
                "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}],
            });
            Arc::new(serde_json::from_value(json).expect("a role"))
        };
        let all = [
            role("self", "all", "own"),
            role("a", "all", "get"),
            role("b", "all", "get"),
            role("c", "none", "list"),
        ];
        let verbs: Vec<_> = aggregated(&all[0], &all).into_iter().map(|r| r.verbs).collect();
        assert_eq!(verbs, [["get"]]);
    }
}
