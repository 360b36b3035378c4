//! Why a caller may or may not: every binding that grants, or the roles that would and how they would
//! have to be bound.

use gantry_kube_types::{Attributes, EXPLAINED_MAX, Explanation, Grants, Missing, UserInfo};

use super::grants::Grant;
use super::matching::{allows, list};
use super::{PolicyRule, RuleIndex};

impl RuleIndex {
    /// Explains [`RuleIndex::decide`]. `tells`: which roles (kind, namespace, name) may be named to whom
    /// this is told.
    pub fn explain(&self, attributes: &Attributes, tells: &dyn Fn(&str, &str, &str) -> bool) -> Explanation {
        let mut explanation = Explanation::default();
        let mut held: Vec<String> = Vec::new();
        for grant in self.grants(&attributes.user, &attributes.namespace) {
            let rules = self.rules_of(grant).unwrap_or_default();
            if rules.iter().any(|rule| allows(rule, attributes)) {
                explanation.grants.push(describe(grant));
            } else {
                held.extend(rules.iter().flat_map(|rule| verbs_on_same(rule, attributes)));
            }
        }
        explanation.grants.truncate(EXPLAINED_MAX);
        if explanation.grants.is_empty() {
            held.sort();
            held.dedup();
            explanation.held_verbs = held;
            explanation.nearest = self.nearest(attributes, tells);
        }
        explanation
    }

    fn nearest(&self, attributes: &Attributes, tells: &dyn Fn(&str, &str, &str) -> bool) -> Vec<Missing> {
        let namespace = &attributes.namespace;
        let mut found: Vec<((bool, bool, usize), Missing)> = Vec::new();
        let places = [("ClusterRole", ""), ("Role", namespace.as_str())];
        for (kind, place) in
            places.into_iter().filter(|(kind, place)| *kind == "ClusterRole" || !place.is_empty())
        {
            for (name, rules) in self.roles_in(place) {
                if !rules.iter().any(|rule| allows(rule, attributes)) || !tells(kind, place, name) {
                    continue;
                }
                let bound_in = self.bound_to(&attributes.user, kind, name);
                let missing = Missing {
                    role_kind: kind,
                    role: name.to_owned(),
                    binding_kind: if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" },
                    namespace: namespace.clone(),
                    bound_in,
                    ..Missing::default()
                };
                // What parts of the cluster have is given to no person.
                let parts_own = name.starts_with("system:");
                found.push(((missing.bound_in.is_empty(), parts_own, breadth(rules)), missing));
            }
        }
        found.sort_by(|a, b| (a.0, &a.1.role).cmp(&(b.0, &b.1.role)));
        found.into_iter().map(|(_, missing)| missing).take(EXPLAINED_MAX).collect()
    }

    /// Namespaces in which the user is bound to the role.
    fn bound_to(&self, user: &UserInfo, kind: &str, role: &str) -> Vec<String> {
        let mut places: Vec<String> = self
            .all_grants(user)
            .filter(|grant| grant.binding.role.kind == kind && grant.binding.role.name == role)
            .map(|grant| grant.binding.namespace.to_string())
            .filter(|place| !place.is_empty())
            .collect();
        places.sort();
        places.dedup();
        places.truncate(EXPLAINED_MAX);
        places
    }
}

fn describe(grant: &Grant) -> Grants {
    let binding = grant.binding.as_ref();
    Grants {
        binding_kind: if binding.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" },
        namespace: binding.namespace.to_string(),
        binding: binding.name.clone(),
        role_kind: binding.role.kind.clone(),
        role: binding.role.name.clone(),
        subject_kind: grant.who().kind().to_owned(),
        subject: grant.who().to_string(),
        ..Grants::default()
    }
}

/// The verbs a rule grants on what is asked for, whatever verb is asked for.
fn verbs_on_same<'a>(
    rule: &'a PolicyRule,
    attributes: &Attributes,
) -> impl Iterator<Item = String> + use<'a> {
    // Each by itself: a rule on logs grants one of its verbs on pods' logs and not the others.
    let asked = attributes.clone();
    let same = move |verb: &&String| allows(rule, &Attributes { verb: (*verb).clone(), ..asked.clone() });
    rule.verbs.iter().filter(same).cloned()
}

/// How much a role grants, roughly: roles that grant less are named first.
fn breadth(rules: &[PolicyRule]) -> usize {
    let size = |values: &[String]| if values.iter().any(|v| v == "*") { 1000 } else { values.len().max(1) };
    let of = |rule: &PolicyRule| {
        let names = list(&rule.resource_names);
        let named = if names.is_empty() { 10 } else { names.len().min(10) };
        let paths = list(&rule.non_resource_urls).len();
        size(&rule.verbs) * size(list(&rule.api_groups)) * size(list(&rule.resources)) * named + paths
    };
    rules.iter().map(of).fold(0_usize, usize::saturating_add)
}
