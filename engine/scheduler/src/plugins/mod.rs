//! What is asked of every node. A filter says why a node cannot be; a score says how well it would be,
//! 0 to 100. Each is one file; all are pure.

mod affinity;
mod images;
mod node;
mod resources;
mod spread;

use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// What plugins may look at besides the node at hand.
pub struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub snapshot: &'a Snapshot,
    pub affinity: affinity::Counts,
    pub spread: spread::Counts,
}

impl<'a> Cycle<'a> {
    /// Counts over the whole cluster once per pod, so that the plugins are quick per node.
    pub fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        Self {
            pod,
            snapshot,
            affinity: affinity::Counts::of(pod, snapshot),
            spread: spread::Counts::of(pod, snapshot),
        }
    }
}

/// Why a node cannot be, one or more reasons; empty when it can.
type Filter = fn(&Cycle<'_>, &NodeInfo) -> Vec<String>;
/// A raw score; brought to 0–100 over all nodes by [`Normalise`].
type Score = fn(&Cycle<'_>, &NodeInfo) -> i64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Normalise {
    /// Is 0–100 already.
    No,
    /// The highest becomes 100.
    HighestIs100,
    /// The lowest becomes 100, the highest 0.
    LowestIs100,
    /// The range from lowest to highest becomes 0 to 100.
    Range,
}

/// By name, in the order they are asked.
pub const FILTERS: &[(&str, Filter)] = &[
    ("NodeUnschedulable", node::unschedulable),
    ("NodeName", node::name),
    ("TaintToleration", node::taints),
    ("NodeAffinity", node::affinity),
    ("NodePorts", node::ports),
    ("NodeResourcesFit", resources::fit),
    ("PodTopologySpread", spread::filter),
    ("InterPodAffinity", affinity::filter),
];

/// Name, weight, score, normalisation: the weights of upstream's default profile.
pub const SCORES: &[(&str, i64, Score, Normalise)] = &[
    ("NodeResourcesFit", 1, resources::least_allocated, Normalise::No),
    ("NodeResourcesBalancedAllocation", 1, resources::balanced, Normalise::No),
    ("ImageLocality", 1, images::locality, Normalise::No),
    ("TaintToleration", 3, node::preferred_taints, Normalise::LowestIs100),
    ("NodeAffinity", 2, node::preferred, Normalise::HighestIs100),
    ("PodTopologySpread", 2, spread::score, Normalise::LowestIs100),
    ("InterPodAffinity", 2, affinity::score, Normalise::Range),
];

pub const SCORE_MAX: i64 = 100;

impl Normalise {
    pub fn apply(self, scores: &mut [i64]) {
        let highest = scores.iter().copied().max().unwrap_or(0);
        let lowest = scores.iter().copied().min().unwrap_or(0);
        for score in scores {
            *score = match self {
                Self::No => *score,
                Self::HighestIs100 if highest > 0 => *score * SCORE_MAX / highest,
                Self::HighestIs100 => 0,
                Self::LowestIs100 if highest > 0 => SCORE_MAX - *score * SCORE_MAX / highest,
                Self::LowestIs100 => SCORE_MAX,
                Self::Range if highest > lowest => (*score - lowest) * SCORE_MAX / (highest - lowest),
                Self::Range => 0,
            };
        }
    }
}
