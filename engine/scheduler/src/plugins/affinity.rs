//! Pods that want to be near others, or far from them.

use std::collections::HashMap;

use super::Cycle;
use crate::labels;
use crate::pod::{AffinityTerm, PodInfo};
use crate::snapshot::{NodeInfo, Snapshot};

/// Topology key and value.
type Domain = (String, String);

/// What the pods that run mean for the pod at hand, per domain.
#[derive(Default)]
pub struct Counts {
    /// Per required affinity term: domains with matching pods.
    affinity: Vec<HashMap<Domain, i64>>,
    anti_affinity: Vec<HashMap<Domain, i64>>,
    /// Domains that running pods keep this one out of.
    repelled: HashMap<Domain, i64>,
    /// Sum of the weights of preferred terms, both ways.
    preferred: HashMap<Domain, i64>,
    any_match: bool,
}

/// How strongly a running pod's required affinity draws a new one, as upstream's default.
const HARD_AFFINITY_WEIGHT: i64 = 1;

impl Counts {
    pub fn of(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut counts = Self {
            affinity: vec![HashMap::new(); pod.affinity.len()],
            anti_affinity: vec![HashMap::new(); pod.anti_affinity.len()],
            ..Self::default()
        };
        for node in snapshot.nodes() {
            for other in node.pods.values() {
                counts.look(pod, node, other, snapshot);
            }
        }
        counts
    }

    fn look(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, snapshot: &Snapshot) {
        let domain = |term: &AffinityTerm| {
            let value = node.labels.get(&term.topology_key)?;
            Some((term.topology_key.clone(), value.clone()))
        };
        for (at, term) in pod.affinity.iter().enumerate() {
            // Required terms hold together: a pod counts only if it matches all of them.
            if pod.affinity.iter().all(|t| covers(t, pod, other, snapshot))
                && let Some(domain) = domain(term)
            {
                self.any_match = true;
                *self.affinity[at].entry(domain).or_insert(0) += 1;
            }
        }
        for (at, term) in pod.anti_affinity.iter().enumerate() {
            if covers(term, pod, other, snapshot)
                && let Some(domain) = domain(term)
            {
                *self.anti_affinity[at].entry(domain).or_insert(0) += 1;
            }
        }
        for term in &other.anti_affinity {
            if covers(term, other, pod, snapshot)
                && let Some(domain) = domain(term)
            {
                *self.repelled.entry(domain).or_insert(0) += 1;
            }
        }
        let mut weigh = |term: &AffinityTerm, weight: i64, owner: &PodInfo, target: &PodInfo| {
            if covers(term, owner, target, snapshot)
                && let Some(domain) = domain(term)
            {
                *self.preferred.entry(domain).or_insert(0) += weight;
            }
        };
        pod.preferred_affinity.iter().for_each(|t| weigh(t, t.weight, pod, other));
        pod.preferred_anti_affinity.iter().for_each(|t| weigh(t, -t.weight, pod, other));
        other.preferred_affinity.iter().for_each(|t| weigh(t, t.weight, other, pod));
        other.preferred_anti_affinity.iter().for_each(|t| weigh(t, -t.weight, other, pod));
        other.affinity.iter().for_each(|t| weigh(t, HARD_AFFINITY_WEIGHT, other, pod));
    }
}

/// Is `target` one of those that `owner`'s term speaks of?
fn covers(term: &AffinityTerm, owner: &PodInfo, target: &PodInfo, snapshot: &Snapshot) -> bool {
    let named = if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        target.namespace == owner.namespace
    } else {
        term.namespaces.contains(&target.namespace)
            || term.namespace_selector.as_ref().is_some_and(|selector| {
                snapshot.namespace_labels(&target.namespace).is_some_and(|l| labels::matches(selector, l))
            })
    };
    named && labels::matches(&term.selector, &target.labels)
}

pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    let counts = &cycle.affinity;
    let domain = |key: &str| Some((key.to_owned(), node.labels.get(key)?.clone()));
    let near = cycle.pod.affinity.iter().zip(&counts.affinity).all(|(term, found)| {
        domain(&term.topology_key).is_some_and(|d| found.get(&d).is_some_and(|count| *count > 0))
    });
    // The first of a group that wants to be together has nobody to be near to but itself.
    let first = !counts.any_match
        && cycle.pod.affinity.iter().all(|t| {
            covers(t, cycle.pod, cycle.pod, cycle.snapshot) && node.labels.contains_key(&t.topology_key)
        });
    if !near && !first {
        return vec!["node(s) didn't match pod affinity rules".to_owned()];
    }
    let crowded = cycle.pod.anti_affinity.iter().zip(&counts.anti_affinity).any(|(term, found)| {
        domain(&term.topology_key).is_some_and(|d| found.get(&d).is_some_and(|count| *count > 0))
    });
    if crowded {
        return vec!["node(s) didn't match pod anti-affinity rules".to_owned()];
    }
    if counts.repelled.keys().any(|(key, value)| node.labels.get(key) == Some(value)) {
        return vec!["node(s) didn't satisfy existing pods anti-affinity rules".to_owned()];
    }
    Vec::new()
}

pub fn score(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let here =
        cycle.affinity.preferred.iter().filter(|((key, value), _)| node.labels.get(key) == Some(value));
    here.map(|(_, weight)| weight).sum()
}
