//! Roles as cluster roles: their own rules and those of every role they imply, computed and not aggregated, so that
//! no label on somebody else's cluster role adds to them.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use super::{bindings, names};
use crate::bootstrap::system_rules;
use crate::directory::State;

/// The rules of the role and of all it implies, each once, in the order of the roles' ids.
pub fn rules(state: &State, role: &str) -> Vec<PolicyRule> {
    let mut all: Vec<PolicyRule> = Vec::new();
    for id in state.implied([role.to_owned()]) {
        for rule in state.roles.get(&id).into_iter().flat_map(|role| &role.spec.rules) {
            if !all.contains(rule) {
                all.push(rule.clone());
            }
        }
    }
    all
}

/// What a role is in a namespace, and what it is in the whole cluster. None of a role that is being deleted, and no
/// cluster-wide one of a domain's role.
pub fn cluster_roles(state: &State, id: &str) -> Vec<ClusterRole> {
    let Some(role) = state.roles.get(id).filter(|r| r.metadata.deletion_timestamp.is_none()) else {
        return Vec::new();
    };
    let inside = rules(state, id);
    let mut all = Vec::with_capacity(2);
    if role.spec.domain.is_none() {
        let mut everywhere = inside.clone();
        for implied in state.implied([id.to_owned()]) {
            everywhere.extend(system_rules(&implied));
        }
        all.push(cluster_role(&names::system_role(id), id, everywhere));
    }
    all.push(cluster_role(&names::cluster_role(id), id, inside));
    all
}

fn cluster_role(name: &str, id: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: bindings::metadata(name, id), rules: Some(rules), aggregation_rule: None }
}

/// The roles whose cluster roles contain the role's rules, itself included.
pub fn affected(state: &State, id: &str) -> Vec<String> {
    let mut all: Vec<String> = state
        .roles
        .iter()
        .filter_map(|role| role.metadata.name.clone())
        .filter(|other| state.implied([other.clone()]).contains(id))
        .collect();
    if !all.iter().any(|other| other == id) {
        all.push(id.to_owned());
    }
    all
}
