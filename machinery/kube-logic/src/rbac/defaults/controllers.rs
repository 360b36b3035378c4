//! One role per controller, `system:controller:NAME`, bound to the service account `NAME` of
//! `kube-system`: a controller that is fooled can do no more than its own work.

use super::{ALL, Defaults, PolicyRule, READ, events, rule, service_account};

const NAMESPACE: &str = "kube-system";

pub(super) fn add(all: &mut Defaults) {
    for (name, rules) in table() {
        let role = format!("system:controller:{name}");
        all.cluster_role(&role, rules);
        all.bind(&role, &role, vec![service_account(NAMESPACE, name)]);
    }
    all.namespaced(
        NAMESPACE,
        "extension-apiserver-authentication-reader",
        vec![super::named(READ, "", "configmaps", &["extension-apiserver-authentication"])],
        vec![super::user("system:kube-controller-manager"), super::user("system:kube-scheduler")],
    );
}

fn table() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let mut table = workloads();
    table.extend(cluster());
    table
}

fn workloads() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let pods = || rule(&["list", "watch", "create", "patch", "delete", "get", "update"], &[""], &["pods"]);
    let own = |group: &str, resource: &str| {
        let (status, finalizers) = (format!("{resource}/status"), format!("{resource}/finalizers"));
        vec![
            rule(&["get", "list", "watch", "update", "patch"], &[group], &[resource]),
            rule(&["update", "patch"], &[group], &[&status]),
            rule(&["update"], &[group], &[&finalizers]),
            events(),
        ]
    };
    let with = |mut rules: Vec<PolicyRule>, more: Vec<PolicyRule>| {
        rules.extend(more);
        rules
    };
    let revisions = || {
        rule(
            &["create", "delete", "get", "list", "patch", "update", "watch"],
            &["apps"],
            &["controllerrevisions"],
        )
    };
    let claims = || {
        rule(
            &["create", "delete", "get", "list", "patch", "update", "watch"],
            &[""],
            &["persistentvolumeclaims"],
        )
    };
    let replica_sets = || {
        rule(&["create", "delete", "get", "list", "patch", "update", "watch"], &["apps"], &["replicasets"])
    };
    vec![
        (
            "deployment-controller",
            with(
                own("apps", "deployments"),
                vec![replica_sets(), rule(&["get", "list", "update", "watch"], &[""], &["pods"])],
            ),
        ),
        ("replicaset-controller", with(own("apps", "replicasets"), vec![pods()])),
        ("replication-controller", with(own("", "replicationcontrollers"), vec![pods()])),
        ("statefulset-controller", with(own("apps", "statefulsets"), vec![pods(), revisions(), claims()])),
        (
            "daemon-set-controller",
            with(
                own("apps", "daemonsets"),
                vec![
                    pods(),
                    revisions(),
                    rule(READ, &[""], &["nodes"]),
                    rule(&["create"], &[""], &["pods/binding"]),
                ],
            ),
        ),
        ("job-controller", with(own("batch", "jobs"), vec![pods()])),
        (
            "cronjob-controller",
            with(
                own("batch", "cronjobs"),
                vec![
                    rule(
                        &["create", "delete", "get", "list", "patch", "update", "watch"],
                        &["batch"],
                        &["jobs"],
                    ),
                    rule(&["delete", "list"], &[""], &["pods"]),
                ],
            ),
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, &["policy"], &["poddisruptionbudgets"]),
                rule(&["update", "patch"], &["policy"], &["poddisruptionbudgets/status"]),
                rule(READ, &["apps"], &["deployments", "replicasets", "statefulsets"]),
                rule(READ, &[""], &["pods", "replicationcontrollers"]),
                rule(&["get"], ALL, &["*/scale"]),
                rule(&["patch", "update"], &[""], &["pods/status"]),
                events(),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            with(
                own("autoscaling", "horizontalpodautoscalers"),
                vec![
                    rule(&["get", "update"], ALL, &["*/scale"]),
                    rule(&["list", "watch"], &[""], &["pods"]),
                    rule(READ, &["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"], ALL),
                ],
            ),
        ),
    ]
}

fn cluster() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let everything = || rule(&["get", "list", "watch", "patch", "update", "delete"], ALL, ALL);
    let services = || rule(READ, &[""], &["services", "pods", "nodes"]);
    vec![
        (
            "namespace-controller",
            vec![
                rule(&["get", "list", "watch", "delete"], &[""], &["namespaces"]),
                rule(&["update"], &[""], &["namespaces/finalize", "namespaces/status"]),
                rule(&["get", "list", "delete", "deletecollection", "watch"], ALL, ALL),
                super::paths(&["get"], &["/api", "/api/*", "/apis", "/apis/*"]),
            ],
        ),
        (
            "generic-garbage-collector",
            vec![everything(), events(), super::paths(&["get"], &["/api", "/api/*", "/apis", "/apis/*"])],
        ),
        (
            "endpoint-controller",
            vec![
                services(),
                rule(&["get", "list", "create", "update", "patch", "delete", "watch"], &[""], &["endpoints"]),
                rule(&["create"], &[""], &["endpoints/restricted"]),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                services(),
                rule(
                    &["get", "list", "create", "update", "patch", "delete", "watch"],
                    &["discovery.k8s.io"],
                    &["endpointslices"],
                ),
                rule(&["create"], &["discovery.k8s.io"], &["endpointslices/restricted"]),
                rule(&["update"], &[""], &["services/finalizers"]),
                events(),
            ],
        ),
        (
            "service-account-controller",
            vec![
                rule(&["create", "get", "list", "watch"], &[""], &["serviceaccounts"]),
                rule(READ, &[""], &["namespaces"]),
                events(),
            ],
        ),
        (
            "root-ca-cert-publisher",
            vec![
                rule(&["create", "update", "patch", "get", "list", "watch"], &[""], &["configmaps"]),
                rule(READ, &[""], &["namespaces"]),
                events(),
            ],
        ),
        (
            "node-controller",
            vec![
                rule(&["get", "list", "update", "delete", "patch", "watch"], &[""], &["nodes"]),
                rule(&["patch", "update"], &[""], &["nodes/status", "pods/status"]),
                rule(&["get", "list", "watch", "delete"], &[""], &["pods"]),
                rule(READ, &["coordination.k8s.io"], &["leases"]),
                events(),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                rule(&["get", "list", "watch", "delete"], &[""], &["pods"]),
                rule(READ, &[""], &["nodes"]),
                rule(&["patch", "update"], &[""], &["pods/status"]),
                events(),
            ],
        ),
        (
            "clusterrole-aggregation-controller",
            vec![rule(
                &["escalate", "get", "list", "patch", "update", "watch"],
                &["rbac.authorization.k8s.io"],
                &["clusterroles"],
            )],
        ),
        (
            "event-expiry-controller",
            vec![rule(&["get", "list", "watch", "delete"], &["", "events.k8s.io"], &["events"])],
        ),
        (
            "ttl-after-finished-controller",
            vec![rule(&["get", "list", "watch", "delete"], &["batch"], &["jobs"]), events()],
        ),
        (
            "resourcequota-controller",
            vec![
                rule(&["list", "watch"], ALL, ALL),
                rule(&["update", "patch"], &[""], &["resourcequotas/status"]),
                events(),
            ],
        ),
    ]
}
