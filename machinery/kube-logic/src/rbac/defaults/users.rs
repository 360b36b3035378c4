//! The roles people are given: cluster-admin, admin, edit, view.

use super::{ALL, Defaults, PolicyRule, READ, WRITE, aggregates, group, paths, rule};

const TO_ADMIN: &str = "rbac.authorization.k8s.io/aggregate-to-admin";
const TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
const TO_VIEW: &str = "rbac.authorization.k8s.io/aggregate-to-view";

const APPS_READ: &[&str] = &[
    "controllerrevisions",
    "daemonsets",
    "daemonsets/status",
    "deployments",
    "deployments/scale",
    "deployments/status",
    "replicasets",
    "replicasets/scale",
    "replicasets/status",
    "statefulsets",
    "statefulsets/scale",
    "statefulsets/status",
];
const APPS_WRITE: &[&str] = &[
    "daemonsets",
    "deployments",
    "deployments/rollback",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
];

pub(super) fn add(all: &mut Defaults) {
    all.cluster_role("cluster-admin", vec![rule(ALL, ALL, ALL), paths(ALL, ALL)]);
    all.bind("cluster-admin", "cluster-admin", vec![group("system:masters")]);
    // Their rules are filled by the aggregation controller; until it has run they are those of the
    // roles below, so that a new cluster is usable at once.
    let (view, edit, admin) = (view_rules(), edit_rules(), admin_rules());
    let union = |parts: &[&Vec<PolicyRule>]| parts.iter().flat_map(|p| p.iter().cloned()).collect();
    all.cluster_role("admin", union(&[&admin, &edit, &view])).aggregation_rule = Some(aggregates(TO_ADMIN));
    let role = all.cluster_role("edit", union(&[&edit, &view]));
    role.aggregation_rule = Some(aggregates(TO_EDIT));
    label(role, TO_ADMIN);
    let role = all.cluster_role("view", view.clone());
    role.aggregation_rule = Some(aggregates(TO_VIEW));
    label(role, TO_EDIT);
    label(all.cluster_role("system:aggregate-to-admin", admin), TO_ADMIN);
    label(all.cluster_role("system:aggregate-to-edit", edit), TO_EDIT);
    label(all.cluster_role("system:aggregate-to-view", view), TO_VIEW);
}

fn label(role: &mut k8s_openapi::api::rbac::v1::ClusterRole, label: &str) {
    role.metadata.labels.get_or_insert_default().insert(label.to_owned(), "true".to_owned());
}

fn admin_rules() -> Vec<PolicyRule> {
    let all_verbs = [WRITE, READ].concat();
    vec![
        rule(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]),
        rule(&all_verbs, &["rbac.authorization.k8s.io"], &["roles", "rolebindings"]),
    ]
}

fn edit_rules() -> Vec<PolicyRule> {
    let interactive =
        ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"];
    let core = [
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "services",
        "services/proxy",
    ];
    vec![
        rule(READ, &[""], &interactive),
        rule(&["impersonate"], &[""], &["serviceaccounts"]),
        rule(WRITE, &[""], &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
        rule(&["create"], &[""], &["pods/eviction"]),
        rule(WRITE, &[""], &core),
        rule(&["create"], &[""], &["serviceaccounts/token"]),
        rule(WRITE, &["apps"], APPS_WRITE),
        rule(WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
        rule(WRITE, &["batch"], &["cronjobs", "jobs"]),
        rule(WRITE, &["policy"], &["poddisruptionbudgets"]),
        rule(WRITE, &["networking.k8s.io"], &["networkpolicies", "ingresses"]),
        rule(&[WRITE, READ].concat(), &["coordination.k8s.io"], &["leases"]),
    ]
}

fn view_rules() -> Vec<PolicyRule> {
    let core = [
        "bindings",
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "namespaces/status",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    vec![
        rule(READ, &[""], &core),
        rule(READ, &["discovery.k8s.io"], &["endpointslices"]),
        rule(READ, &["apps"], APPS_READ),
        rule(READ, &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
        rule(READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
        rule(READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
        rule(READ, &["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"]),
        rule(READ, &["metrics.k8s.io"], &["pods", "nodes"]),
    ]
}
