//! What a node has left.

use super::{Cycle, SCORE_MAX};
use crate::snapshot::NodeInfo;

pub fn fit(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    let mut reasons = Vec::new();
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    let limit = node.allocatable.get("pods");
    if pods + 1 > limit {
        reasons.push("Too many pods".to_owned());
    }
    for (name, wanted) in cycle.pod.requests.iter() {
        if wanted > 0 && wanted > node.allocatable.get(name) - node.requested.get(name) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}

/// The more is left, the better.
pub fn least_allocated(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let (cpu, memory) = used_fractions(cycle, node);
    let free = |used: f64| ((1.0 - used).max(0.0) * SCORE_MAX as f64) as i64;
    (free(cpu) + free(memory)) / 2
}

/// The closer CPU and memory are to being used alike, the better.
pub fn balanced(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let (cpu, memory) = used_fractions(cycle, node);
    let apart = (cpu.min(1.0) - memory.min(1.0)).abs() / 2.0;
    ((1.0 - apart) * SCORE_MAX as f64) as i64
}

/// How much of the node would be requested with this pod on it.
fn used_fractions(cycle: &Cycle<'_>, node: &NodeInfo) -> (f64, f64) {
    let (cpu, memory) = cycle.pod.requests.for_scoring();
    let fraction = |used: i64, of: i64| if of > 0 { used as f64 / of as f64 } else { 1.0 };
    (
        fraction(node.requested_for_scoring.0 + cpu, node.allocatable.get("cpu")),
        fraction(node.requested_for_scoring.1 + memory, node.allocatable.get("memory")),
    )
}
