//! What every caller may do, and the parts of the system other than controllers.

use super::{ALL, Defaults, PolicyRule, READ, events, group, named, paths, rule, service_account, user};

const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const LEASES: &str = "coordination.k8s.io";

pub(super) fn add(all: &mut Defaults) {
    callers(all);
    node(all);
    scheduler(all);
    network(all);
    all.cluster_role("system:kube-controller-manager", controller_manager_rules());
    all.bind(
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        vec![user("system:kube-controller-manager")],
    );
}

fn callers(all: &mut Defaults) {
    let everybody = || vec![group("system:authenticated"), group("system:unauthenticated")];
    all.cluster_role("system:discovery", vec![paths(&["get"], DISCOVERY)]);
    all.bind("system:discovery", "system:discovery", vec![group("system:authenticated")]);
    let info = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    all.cluster_role("system:public-info-viewer", vec![paths(&["get"], &info)]);
    all.bind("system:public-info-viewer", "system:public-info-viewer", everybody());
    all.cluster_role(
        "system:basic-user",
        vec![
            rule(
                &["create"],
                &["authorization.k8s.io"],
                &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
            rule(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
            // Answers about others only who may ask about others.
            rule(&["create"], &["authorization.gantry.dev"], &["explain"]),
        ],
    );
    all.bind("system:basic-user", "system:basic-user", vec![group("system:authenticated")]);
    let issuer = ["/.well-known/openid-configuration", "/openid/v1/jwks"];
    all.cluster_role("system:service-account-issuer-discovery", vec![paths(&["get"], &issuer)]);
    all.bind(
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        vec![group("system:serviceaccounts")],
    );
    let below =
        ["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"];
    all.cluster_role("system:monitoring", vec![paths(&["get"], &below)]);
    all.bind("system:monitoring", "system:monitoring", vec![group("system:monitoring")]);
    all.cluster_role(
        "system:auth-delegator",
        vec![
            rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
            rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
        ],
    );
}

/// Not bound to nodes: the node authoriser gives these rights, narrowed to the node's own objects.
fn node(all: &mut Defaults) {
    all.cluster_role("system:node", node_rules());
    all.bind("system:node", "system:node", Vec::new());
}

/// What a node may do before the narrowing.
pub fn node_rules() -> Vec<PolicyRule> {
    vec![
        rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
        rule(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews", "subjectaccessreviews"]),
        rule(READ, &[""], &["services"]),
        rule(&["create", "get", "list", "watch"], &[""], &["nodes"]),
        rule(&["patch", "update"], &[""], &["nodes/status"]),
        rule(&["patch", "update", "delete"], &[""], &["nodes"]),
        events(),
        rule(READ, &[""], &["pods"]),
        rule(&["create", "delete"], &[""], &["pods"]),
        rule(&["patch", "update"], &[""], &["pods/status"]),
        rule(&["create"], &[""], &["pods/eviction"]),
        rule(READ, &[""], &["configmaps", "secrets"]),
        rule(&["get"], &[""], &["persistentvolumeclaims", "persistentvolumes"]),
        rule(&["get"], &[""], &["endpoints"]),
        // The node's own network does what a node proxy and the cluster DNS do elsewhere.
        rule(READ, &["discovery.k8s.io"], &["endpointslices"]),
        rule(READ, &[""], &["namespaces"]),
        // Whoever may place a pod here decided on its image; containerd fetches it as the node.
        rule(&["pull"], &["registry.gantry.dev"], &["repositories"]),
        paths(&["get"], DISCOVERY),
        rule(&["get", "create", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
        rule(&["get", "create", "update", "patch", "delete"], &[LEASES], &["leases"]),
        rule(&["get"], &["storage.k8s.io"], &["volumeattachments"]),
        rule(&["get", "create", "update", "patch", "delete"], &["storage.k8s.io"], &["csinodes"]),
        rule(READ, &["storage.k8s.io"], &["csidrivers"]),
        rule(READ, &["node.k8s.io"], &["runtimeclasses"]),
        rule(&["create"], &[""], &["serviceaccounts/token"]),
        rule(&["get"], &[""], &["serviceaccounts"]),
    ]
}

fn scheduler(all: &mut Defaults) {
    let read_only = [
        rule(READ, &[""], &["nodes", "namespaces", "replicationcontrollers", "services"]),
        rule(READ, &["apps"], &["replicasets", "statefulsets"]),
        rule(READ, &["policy"], &["poddisruptionbudgets"]),
        rule(READ, &[""], &["persistentvolumeclaims", "persistentvolumes"]),
        rule(
            READ,
            &["storage.k8s.io"],
            &["csinodes", "csidrivers", "csistoragecapacities", "storageclasses", "volumeattachments"],
        ),
        rule(READ, &["scheduling.k8s.io"], &["priorityclasses"]),
    ];
    let mut rules = vec![
        events(),
        rule(&["create"], &[LEASES], &["leases"]),
        named(&["get", "update", "patch"], LEASES, "leases", &["kube-scheduler"]),
        rule(&["delete", "get", "list", "watch"], &[""], &["pods"]),
        rule(&["create"], &[""], &["bindings", "pods/binding"]),
        rule(&["patch", "update"], &[""], &["pods/status"]),
        rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
        rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
        rule(ALL, &["scheduling.gantry.dev"], &["schedulingexplanations", "schedulingexplanations/status"]),
        paths(&["get"], DISCOVERY),
    ];
    rules.extend(read_only);
    all.cluster_role("system:kube-scheduler", rules);
    all.bind("system:kube-scheduler", "system:kube-scheduler", vec![user("system:kube-scheduler")]);
}

fn network(all: &mut Defaults) {
    all.cluster_role(
        "system:node-proxier",
        vec![
            rule(&["list", "watch"], &[""], &["services", "endpoints"]),
            rule(&["get", "list", "watch"], &[""], &["nodes"]),
            events(),
            rule(&["list", "watch"], &["discovery.k8s.io"], &["endpointslices"]),
            rule(&["list", "watch"], &["networking.k8s.io"], &["servicecidrs"]),
        ],
    );
    all.bind("system:node-proxier", "system:node-proxier", vec![user("system:kube-proxy")]);
    all.cluster_role(
        "system:kube-dns",
        vec![
            rule(&["list", "watch"], &[""], &["endpoints", "services", "namespaces", "pods"]),
            rule(&["list", "watch"], &["discovery.k8s.io"], &["endpointslices"]),
        ],
    );
    let dns = vec![service_account("kube-system", "kube-dns"), user("system:kube-dns")];
    all.bind("system:kube-dns", "system:kube-dns", dns);
}

/// The embedded controllers run in one process under one name: the sum of what each of them needs.
fn controller_manager_rules() -> Vec<PolicyRule> {
    let everything = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    vec![
        rule(&everything, ALL, ALL),
        // Cluster role aggregation writes roles whose rules the controllers do not hold themselves.
        rule(&["escalate"], &["rbac.authorization.k8s.io"], &["clusterroles"]),
        paths(&["get"], DISCOVERY),
    ]
}
