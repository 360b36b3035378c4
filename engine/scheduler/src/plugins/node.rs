//! What a node is: its name, labels, taints and ports.

use k8s_openapi::api::core::v1::Taint;

use super::Cycle;
use crate::labels;
use crate::pod::{HostPort, PodInfo};
use crate::snapshot::NodeInfo;

pub fn unschedulable(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    reason(node.unschedulable && !cycle.pod.tolerates(&taint), || "node(s) were unschedulable".to_owned())
}

/// A pod that names its node never comes here; kept for pods that name it through a field selector.
pub fn name(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    let other = cycle.pod.node.as_ref().is_some_and(|wanted| *wanted != node.name);
    reason(other, || "node(s) didn't match the requested node name".to_owned())
}

pub fn taints(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    let untolerated = first_untolerated(cycle.pod, node);
    untolerated.map(|taint| format!("node(s) had untolerated taint {}", text(taint))).into_iter().collect()
}

/// The first taint that keeps the pod away.
pub fn first_untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    let keeping = node.taints.iter().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
    keeping.into_iter().find(|taint| !pod.tolerates(taint))
}

fn text(taint: &Taint) -> String {
    match taint.value.as_deref() {
        Some(value) if !value.is_empty() => format!("{{{}: {value}}}", taint.key),
        _ => format!("{{{}: }}", taint.key),
    }
}

pub fn preferred_taints(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule" && !cycle.pod.tolerates(t));
    i64::try_from(soft.count()).unwrap_or(i64::MAX)
}

pub fn affinity(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    reason(!matches_node(cycle.pod, node), || "node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// Do the node selector and the required node affinity allow this node?
pub fn matches_node(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let wanted =
        |terms: &Vec<_>| terms.iter().any(|term| labels::term_matches(term, &node.name, &node.labels));
    selected && pod.node_terms.as_ref().is_none_or(wanted)
}

pub fn preferred(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let terms = cycle.pod.preferred_nodes.iter();
    let matching = terms.filter(|term| {
        let empty = term.preference.match_expressions.is_none() && term.preference.match_fields.is_none();
        empty || labels::term_matches(&term.preference, &node.name, &node.labels)
    });
    matching.map(|term| i64::from(term.weight)).sum()
}

pub fn ports(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<String> {
    let taken = node.pods.values().flat_map(|pod| &pod.host_ports);
    let clash = taken.into_iter().any(|has| cycle.pod.host_ports.iter().any(|wants| collide(has, wants)));
    reason(clash, || "node(s) didn't have free ports for the requested pod ports".to_owned())
}

/// Same port and protocol, and one address covers the other.
fn collide(a: &HostPort, b: &HostPort) -> bool {
    a.0 == b.0 && a.2 == b.2 && (a.1.is_empty() || b.1.is_empty() || a.1 == b.1)
}

fn reason(refused: bool, text: impl FnOnce() -> String) -> Vec<String> {
    if refused { vec![text()] } else { Vec::new() }
}
