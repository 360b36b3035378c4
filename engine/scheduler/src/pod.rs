//! A pod as the scheduler sees it: read once, asked often.

use gantry_kube_logic::selector::LabelSelector;
use gantry_kube_logic::taints;
use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, Pod, PodAffinityTerm, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
};
use kube::ResourceExt;

use crate::labels::{self, Labels};
use crate::resources::{Resources, pod_requests};

/// A port of the host that a pod wants: protocol, address (empty: all), port.
pub type HostPort = (String, String, i32);

/// One affinity or anti-affinity term.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    pub selector: LabelSelector,
    pub topology_key: String,
    /// Namespaces by name; with [`AffinityTerm::namespace_selector`] absent and this empty, the pod's own.
    pub namespaces: Vec<String>,
    pub namespace_selector: Option<LabelSelector>,
    /// 1–100 of a preferred term, 0 of a required one.
    pub weight: i64,
}

#[derive(Clone, Debug)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: String,
    pub selector: LabelSelector,
    pub required: bool,
    pub min_domains: i64,
    pub honours_affinity: bool,
    pub honours_taints: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    pub priority: i32,
    pub leaving: bool,
    pub requests: Resources,
    /// `spec.nodeName`, once placed.
    pub node: Option<String>,
    pub node_selector: Labels,
    /// Any of them must match; `None` asks for nothing.
    pub node_terms: Option<Vec<NodeSelectorTerm>>,
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
    pub images: Vec<String>,
    pub affinity: Vec<AffinityTerm>,
    pub anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<AffinityTerm>,
    pub preferred_anti_affinity: Vec<AffinityTerm>,
    pub spread: Vec<Spread>,
}

impl PodInfo {
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.namespace().unwrap_or_default();
        let affinity = spec.affinity.unwrap_or_default();
        let node_affinity = affinity.node_affinity.unwrap_or_default();
        let together = affinity.pod_affinity.unwrap_or_default();
        let apart = affinity.pod_anti_affinity.unwrap_or_default();
        let labels = pod.labels().clone();
        let required = |terms: Option<Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            terms.into_iter().flatten().map(|t| affinity_term(t, 0, &labels)).collect()
        };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let mut host_ports = Vec::new();
        let mut images = Vec::new();
        for container in containers {
            images.extend(container.image.clone());
            for port in container.ports.iter().flatten() {
                let number = port.host_port.unwrap_or(if spec.host_network == Some(true) {
                    port.container_port
                } else {
                    0
                });
                if number > 0 {
                    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                    let address = port.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default();
                    host_ports.push((protocol, address, number));
                }
            }
        }
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            leaving: pod.metadata.deletion_timestamp.is_some(),
            requests: pod_requests(pod),
            node: spec.node_name.filter(|n| !n.is_empty()),
            node_selector: spec.node_selector.unwrap_or_default(),
            node_terms: node_affinity
                .required_during_scheduling_ignored_during_execution
                .map(|selector| selector.node_selector_terms),
            preferred_nodes: node_affinity
                .preferred_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            tolerations: spec.tolerations.unwrap_or_default(),
            host_ports,
            images,
            affinity: required(together.required_during_scheduling_ignored_during_execution),
            anti_affinity: required(apart.required_during_scheduling_ignored_during_execution),
            preferred_affinity: weighted(
                together.preferred_during_scheduling_ignored_during_execution,
                &labels,
            ),
            preferred_anti_affinity: weighted(
                apart.preferred_during_scheduling_ignored_during_execution,
                &labels,
            ),
            spread: spec
                .topology_spread_constraints
                .into_iter()
                .flatten()
                .map(|c| spread(c, &labels))
                .collect(),
            namespace,
            labels,
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    /// Does any toleration cover this taint?
    pub fn tolerates(&self, taint: &k8s_openapi::api::core::v1::Taint) -> bool {
        self.tolerations.iter().any(|toleration| taints::tolerates(toleration, taint))
    }
}

fn weighted(
    terms: Option<Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>,
    labels: &Labels,
) -> Vec<AffinityTerm> {
    let terms = terms.into_iter().flatten();
    terms.map(|w| affinity_term(w.pod_affinity_term, i64::from(w.weight), labels)).collect()
}

/// `matchLabelKeys` of a term become requirements on the pod's own values.
fn affinity_term(term: PodAffinityTerm, weight: i64, labels: &Labels) -> AffinityTerm {
    let mut source = term.label_selector;
    for key in term.match_label_keys.iter().flatten() {
        if let (Some(selector), Some(value)) = (source.as_mut(), labels.get(key)) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    AffinityTerm {
        selector: labels::selector(source.as_ref()),
        topology_key: term.topology_key,
        namespaces: term.namespaces.unwrap_or_default(),
        namespace_selector: term.namespace_selector.as_ref().map(|s| labels::selector(Some(s))),
        weight,
    }
}

fn spread(constraint: TopologySpreadConstraint, labels: &Labels) -> Spread {
    let mut source = constraint.label_selector;
    for key in constraint.match_label_keys.iter().flatten() {
        if let (Some(selector), Some(value)) = (source.as_mut(), labels.get(key)) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    Spread {
        max_skew: i64::from(constraint.max_skew),
        topology_key: constraint.topology_key,
        selector: labels::selector(source.as_ref()),
        required: constraint.when_unsatisfiable == "DoNotSchedule",
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        honours_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honours_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}
