//! Pods of one kind evenly over zones, racks or hosts.

use std::collections::HashMap;

use super::{Cycle, node};
use crate::labels;
use crate::pod::{PodInfo, Spread};
use crate::snapshot::{NodeInfo, Snapshot};

/// Per constraint: how many matching pods each value of its topology key has.
#[derive(Default)]
pub struct Counts(Vec<HashMap<String, i64>>);

impl Counts {
    pub fn of(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        Self(pod.spread.iter().map(|constraint| count(pod, constraint, snapshot)).collect())
    }
}

fn count(pod: &PodInfo, constraint: &Spread, snapshot: &Snapshot) -> HashMap<String, i64> {
    let keys: Vec<&str> = pod.spread.iter().filter(|c| c.required).map(|c| c.topology_key.as_str()).collect();
    let mut counts = HashMap::new();
    for info in snapshot.nodes() {
        let eligible = (!constraint.honours_affinity || node::matches_node(pod, info))
            && (!constraint.honours_taints || node::first_untolerated(pod, info).is_none())
            && keys.iter().all(|key| info.labels.contains_key(*key));
        let Some(value) = info.labels.get(&constraint.topology_key).filter(|_| eligible) else { continue };
        let matching = info.pods.values().filter(|other| {
            other.namespace == pod.namespace
                && !other.leaving
                && labels::matches(&constraint.selector, &other.labels)
        });
        *counts.entry(value.clone()).or_insert(0) += i64::try_from(matching.count()).unwrap_or(i64::MAX);
    }
    counts
}

pub fn filter(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    for (constraint, counts) in cycle.pod.spread.iter().zip(&cycle.spread.0).filter(|(c, _)| c.required) {
        let Some(value) = node.labels.get(&constraint.topology_key) else {
            return vec![
                "node(s) didn't match pod topology spread constraints (missing required label)".to_owned(),
            ];
        };
        let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
        let lowest = counts.values().copied().min().unwrap_or(0);
        let lowest = if domains < constraint.min_domains { 0 } else { lowest };
        let own = i64::from(labels::matches(&constraint.selector, &cycle.pod.labels));
        if counts.get(value).copied().unwrap_or(0) + own - lowest > constraint.max_skew {
            return vec!["node(s) didn't match pod topology spread constraints".to_owned()];
        }
    }
    Vec::new()
}

/// The fewer matching pods around, the better.
pub fn score(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let soft = cycle.pod.spread.iter().zip(&cycle.spread.0).filter(|(c, _)| !c.required);
    soft.filter_map(|(constraint, counts)| {
        let value = node.labels.get(&constraint.topology_key)?;
        counts.get(value).copied()
    })
    .sum()
}
