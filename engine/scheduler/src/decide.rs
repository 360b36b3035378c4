//! One pod, one snapshot, one decision, with all that was said on the way.

use std::collections::BTreeMap;

use crate::plugins::{Cycle, FILTERS, SCORES};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Where the pod goes, and what was said of every node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub node: Option<String>,
    pub nodes: Vec<NodeVerdict>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeVerdict {
    pub name: String,
    /// Empty: the pod could run here.
    pub reasons: Vec<String>,
    /// Weighted and summed; only of nodes that fit.
    pub score: i64,
    pub scores: Vec<PluginScore>,
}

/// What one plugin gave, before its weight: 0 to 100.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginScore {
    pub plugin: &'static str,
    pub score: i64,
    pub weight: i64,
}

impl Decision {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
    pub fn message(&self) -> String {
        if self.nodes.is_empty() {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.nodes.iter().flat_map(|node| &node.reasons) {
            *counts.entry(reason).or_insert(0) += 1;
        }
        let mut listed: Vec<String> =
            counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        listed.sort();
        format!("0/{} nodes are available: {}.", self.nodes.len(), listed.join(", "))
    }
}

/// Asks every plugin about every node. Of equal nodes, the one with fewer pods is taken, then the first
/// by name: the same question has the same answer.
pub fn decide(pod: &PodInfo, snapshot: &Snapshot) -> Decision {
    let cycle = Cycle::new(pod, snapshot);
    let mut nodes: Vec<NodeVerdict> = snapshot
        .nodes()
        .map(|node| {
            let refused =
                FILTERS.iter().map(|(_, filter)| filter(&cycle, node)).find(|reasons| !reasons.is_empty());
            NodeVerdict {
                name: node.name.clone(),
                reasons: refused.unwrap_or_default(),
                ..NodeVerdict::default()
            }
        })
        .collect();
    let fitting: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].reasons.is_empty()).collect();
    for (plugin, weight, score, normalise) in SCORES {
        let raw =
            fitting.iter().map(|at| snapshot.node(&nodes[*at].name).map_or(0, |node| score(&cycle, node)));
        let mut raw: Vec<i64> = raw.collect();
        normalise.apply(&mut raw);
        for (at, score) in fitting.iter().zip(raw) {
            nodes[*at].score += score * weight;
            nodes[*at].scores.push(PluginScore { plugin, score, weight: *weight });
        }
    }
    let pods_on = |name: &str| snapshot.node(name).map_or(0, |node| node.pods.len());
    let best = fitting.into_iter().map(|at| &nodes[at]).min_by(|a, b| {
        b.score
            .cmp(&a.score)
            .then_with(|| pods_on(&a.name).cmp(&pods_on(&b.name)))
            .then_with(|| a.name.cmp(&b.name))
    });
    Decision { node: best.map(|node| node.name.clone()), nodes }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
