//! Clusters of a few nodes, and where pods go on them.

use std::sync::Arc;

use super::*;
use serde_json::{Value, json};

fn node(name: &str, cpu: &str, extra: Value) -> k8s_openapi::api::core::v1::Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": &name[..1]}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}},
    });
    json_patch::merge(&mut node, &extra);
    serde_json::from_value(node).expect("a node")
}

fn pod(name: &str, spec: Value) -> PodInfo {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
    });
    json_patch::merge(&mut object["spec"], &spec);
    PodInfo::of(&serde_json::from_value(object).expect("a pod"))
}

fn cluster(nodes: &[k8s_openapi::api::core::v1::Node], placed: &[(&str, &str, Value)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|n| snapshot.put_node(n));
    for (name, on, spec) in placed {
        let mut info = pod(name, spec.clone());
        info.node = Some((*on).to_owned());
        snapshot.put_pod(Arc::new(info));
    }
    snapshot
}

fn terms(key: &str) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}]})
}

#[test]
fn pods_go_where_they_fit_and_most_is_left() {
    let nodes = [node("a1", "2", json!({})), node("b1", "4", json!({}))];
    for (what, placed, spec, want) in [
        ("most left", vec![], json!({}), Some("b1")),
        (
            "the emptier",
            vec![("x", "b1", json!({})), ("y", "b1", json!({})), ("z", "b1", json!({}))],
            json!({}),
            Some("a1"),
        ),
        ("selector", vec![], json!({"nodeSelector": {"zone": "a"}}), Some("a1")),
        ("no such label", vec![], json!({"nodeSelector": {"zone": "c"}}), None),
        (
            "too big",
            vec![],
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "5"}}}]}),
            None,
        ),
        (
            "required affinity",
            vec![],
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
                [{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["b"]}]}]}}}}),
            Some("a1"),
        ),
        (
            "preferred affinity outweighs what is left",
            vec![],
            json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": 100, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}]}}}),
            Some("a1"),
        ),
        (
            "near its like",
            vec![("x", "a1", json!({}))],
            json!({"affinity": {"podAffinity": terms("zone")}}),
            Some("a1"),
        ),
        (
            "away from its like",
            vec![("x", "b1", json!({}))],
            json!({"affinity": {"podAntiAffinity": terms("zone")}}),
            Some("a1"),
        ),
        (
            "repelled by one that runs",
            vec![("x", "b1", json!({"affinity": {"podAntiAffinity": terms("zone")}}))],
            json!({}),
            Some("a1"),
        ),
        ("the first of a group", vec![], json!({"affinity": {"podAffinity": terms("zone")}}), Some("b1")),
        (
            "spread",
            vec![("x", "b1", json!({}))],
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}}}]}),
            Some("a1"),
        ),
    ] {
        let snapshot = cluster(&nodes, &placed);
        assert_eq!(decide(&pod("new", spec), &snapshot).node.as_deref(), want, "{what}");
    }
}

#[test]
fn taints_and_host_ports_keep_pods_away() {
    let tainted =
        node("a1", "4", json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}));
    let snapshot = cluster(std::slice::from_ref(&tainted), &[]);
    assert_eq!(
        decide(&pod("p", json!({})), &snapshot).message(),
        "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."
    );
    let tolerating = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    assert_eq!(decide(&pod("p", tolerating), &snapshot).node.as_deref(), Some("a1"));
    let ports = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let snapshot = cluster(&[node("a1", "4", json!({}))], &[("x", "a1", ports.clone())]);
    let refused = decide(&pod("p", ports), &snapshot);
    assert_eq!(
        refused.message(),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
}

#[test]
fn every_node_is_explained() {
    let nodes = [
        node("a1", "500m", json!({})),
        node("b1", "4", json!({"spec": {"unschedulable": true}})),
        node("c1", "4", json!({})),
    ];
    let decision = decide(&pod("p", json!({})), &cluster(&nodes, &[]));
    assert_eq!(decision.node.as_deref(), Some("c1"));
    let reasons: Vec<_> = decision.nodes.iter().map(|n| n.reasons.join(",")).collect();
    assert_eq!(reasons, ["Insufficient cpu", "node(s) were unschedulable", ""]);
    assert_eq!(decision.nodes[2].scores.len(), SCORES.len());
}

#[test]
fn what_leaves_makes_room() {
    let mut snapshot = cluster(&[node("a1", "1", json!({}))], &[("x", "a1", json!({}))]);
    assert_eq!(decide(&pod("p", json!({})), &snapshot).node, None);
    snapshot.remove_pod("x");
    assert_eq!(decide(&pod("p", json!({})), &snapshot).node.as_deref(), Some("a1"));
    snapshot.remove_node("a1");
    assert_eq!(decide(&pod("p", json!({})), &snapshot).message(), "no nodes available to schedule pods");
}
