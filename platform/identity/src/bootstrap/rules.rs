//! What the roles that are always there permit.

use gantry_identity_api::{RoleSpec, roles};
use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::rights::rule;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const REGISTRY: &str = "registry.gantry.dev";
const LOGS: &str = "logs.gantry.dev";
/// Group of the audit trail's virtual resource.
pub(crate) const AUDIT: &str = "audit.gantry.dev";

/// The default roles: id and what it is. Each of admin, manager, member implies the next. They are immutable, as in
/// Keystone: what everybody counts on is not changed by the way.
pub fn default_roles() -> Vec<(&'static str, RoleSpec)> {
    let role = |id: &'static str, description: &str, rules: Vec<PolicyRule>, implies: &[&str]| {
        let implies = implies.iter().map(|id| (*id).to_owned()).collect();
        let (name, description) = (Some(id.to_owned()), description.to_owned());
        let options = [("immutable".to_owned(), true.into())].into_iter().collect();
        (id, RoleSpec { name, description, rules, implies, options, ..RoleSpec::default() })
    };
    vec![
        role(roles::READER, "Looks at what the project has; not at its secrets.", reader(), &[]),
        role(roles::MEMBER, "Works with what the project has.", member(), &[roles::READER]),
        role(
            roles::MANAGER,
            "Manages the project's environments and who works in it.",
            manager(),
            &[roles::MEMBER],
        ),
        role(roles::ADMIN, "Everything in its scope.", admin(), &[roles::MANAGER]),
        role(roles::AUDITOR, "Reads the audit records of its scope.", auditor(), &[]),
        role(
            roles::OPERATOR,
            "Runs the platform: nodes, storage, networks, policies; sees no tenant's secrets.",
            operator(),
            &[],
        ),
    ]
}

/// What a default role permits at system scope beyond its rules: those are for the inside of projects.
pub fn system_rules(role: &str) -> Vec<PolicyRule> {
    match role {
        roles::ADMIN => vec![
            PolicyRule { non_resource_urls: Some(vec!["*".to_owned()]), ..verbs(&["*"]) },
            rule(&["*"], "*", &["*"]),
        ],
        roles::READER => vec![
            rule(READ, "", &["nodes", "persistentvolumes", "namespaces", "componentstatuses"]),
            rule(READ, "apiextensions.k8s.io", &["customresourcedefinitions"]),
            rule(READ, "storage.k8s.io", &["*"]),
            rule(READ, "rbac.authorization.k8s.io", &["*"]),
            rule(READ, "scheduling.k8s.io", &["priorityclasses"]),
            rule(READ, "node.k8s.io", &["runtimeclasses"]),
            rule(READ, gantry_identity_api::GROUP, &["*"]),
            rule(READ, REGISTRY, &["repositories"]),
        ],
        _ => Vec::new(),
    }
}

fn verbs(verbs: &[&str]) -> PolicyRule {
    PolicyRule { verbs: verbs.iter().map(|v| (*v).to_owned()).collect(), ..PolicyRule::default() }
}

const WORKLOADS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

fn reader() -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> =
        WORKLOADS.iter().map(|(group, names)| rule(READ, group, names)).collect();
    rules.extend([
        rule(
            READ,
            "",
            &[
                "bindings",
                "events",
                "limitranges",
                "namespaces",
                "persistentvolumeclaims/status",
                "pods/log",
                "pods/status",
                "resourcequotas",
                "resourcequotas/status",
                "services/status",
            ],
        ),
        rule(READ, "events.k8s.io", &["events"]),
        rule(
            READ,
            "apps",
            &[
                "controllerrevisions",
                "daemonsets/status",
                "deployments/status",
                "replicasets/status",
                "statefulsets/status",
            ],
        ),
        rule(READ, "autoscaling", &["horizontalpodautoscalers/status"]),
        rule(READ, "batch", &["cronjobs/status", "jobs/status"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(READ, "metrics.k8s.io", &["pods"]),
        rule(READ, "networking.k8s.io", &["ingresses/status"]),
        rule(READ, "policy", &["poddisruptionbudgets/status"]),
        rule(&["pull"], REGISTRY, &["repositories"]),
        rule(&["get", "list"], LOGS, &["logs"]),
    ]);
    rules
}

fn member() -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> =
        WORKLOADS.iter().map(|(group, names)| rule(WRITE, group, names)).collect();
    rules.extend([
        rule(&[READ, WRITE].concat(), "", &["secrets"]),
        rule(
            &["get", "create"],
            "",
            &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"],
        ),
        rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
        rule(&["impersonate"], "", &["serviceaccounts"]),
        rule(WRITE, "", &["events"]),
        rule(&[READ, WRITE].concat(), "coordination.k8s.io", &["leases"]),
        rule(&["create"], "authorization.k8s.io", &["localsubjectaccessreviews"]),
        rule(&["push"], REGISTRY, &["repositories"]),
    ]);
    rules
}

fn manager() -> Vec<PolicyRule> {
    vec![
        rule(READ, "rbac.authorization.k8s.io", &["roles", "rolebindings"]),
        rule(&["delete", "update", "patch"], REGISTRY, &["repositories"]),
        rule(&[READ, WRITE].concat(), REGISTRY, &["registrywebhooks"]),
        rule(&["get", "list"], AUDIT, &["records"]),
    ]
}

/// Whoever administers a project hands rights on inside it, up to their own: the server refuses more.
fn admin() -> Vec<PolicyRule> {
    vec![rule(&[READ, WRITE].concat(), "rbac.authorization.k8s.io", &["roles", "rolebindings"])]
}

fn auditor() -> Vec<PolicyRule> {
    vec![rule(&["get", "list", "watch"], AUDIT, &["records", "sessions"])]
}

fn operator() -> Vec<PolicyRule> {
    let all = [READ, WRITE].concat();
    vec![
        rule(&all, "", &["nodes", "persistentvolumes"]),
        rule(READ, "", &["nodes/proxy", "nodes/stats", "nodes/metrics", "namespaces", "pods", "pods/status"]),
        rule(READ, "", &["events", "services", "endpoints", "persistentvolumeclaims", "resourcequotas"]),
        rule(READ, "apps", &["deployments", "daemonsets", "statefulsets", "replicasets"]),
        rule(READ, "batch", &["cronjobs", "jobs"]),
        rule(&["create"], "", &["pods/eviction"]),
        rule(&all, "storage.k8s.io", &["*"]),
        rule(&all, "scheduling.k8s.io", &["priorityclasses"]),
        rule(&all, "node.k8s.io", &["runtimeclasses"]),
        rule(&["collect", "check"], REGISTRY, &["blobs"]),
        rule(&["get", "update"], REGISTRY, &["advisories"]),
        rule(&[&all[..], &["review"]].concat(), REGISTRY, &["imagepolicies"]),
        rule(&all, "networks.gantry.dev", &["*"]),
        rule(&all, "volumes.gantry.dev", &["*"]),
        rule(&all, "balancer.gantry.dev", &["*"]),
        rule(READ, "metrics.k8s.io", &["nodes", "pods"]),
        rule(READ, gantry_identity_api::GROUP, &["domains", "projects"]),
        PolicyRule {
            verbs: vec!["get".to_owned()],
            non_resource_urls: Some(vec!["/metrics".to_owned()]),
            ..PolicyRule::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube_logic::rbac::matching::{allows_resource, allows_verb};

    fn rules(id: &str) -> Vec<PolicyRule> {
        let all = default_roles();
        let role = |id: &str| all.iter().find(|(name, _)| *name == id).map(|(_, spec)| spec.clone());
        let mut found = Vec::new();
        let mut open = vec![id.to_owned()];
        while let Some(id) = open.pop() {
            let spec = role(&id).expect("a default role");
            found.extend(spec.rules);
            open.extend(spec.implies);
        }
        found
    }

    fn grants(id: &str, verb: &str, group: &str, resource: &str) -> bool {
        let (main, sub) = resource.split_once('/').unwrap_or((resource, ""));
        rules(id).iter().any(|rule| {
            let groups = rule.api_groups.as_deref().unwrap_or_default();
            allows_verb(rule, verb)
                && (groups.iter().any(|g| g == group || g == "*"))
                && allows_resource(rule, main, sub)
        })
    }

    #[test]
    fn each_role_does_what_its_name_says_and_no_more() {
        const RBAC: &str = "rbac.authorization.k8s.io";
        for (verb, group, resource, who) in [
            ("get", "", "pods", "reader member manager admin operator"),
            ("create", "", "pods", "member manager admin"),
            ("get", "", "secrets", "member manager admin"),
            ("create", "", "pods/exec", "member manager admin"),
            ("get", "", "pods/log", "reader member manager admin"),
            ("create", RBAC, "rolebindings", "admin"),
            ("get", RBAC, "rolebindings", "manager admin"),
            ("bind", RBAC, "roles", ""),
            ("escalate", RBAC, "roles", ""),
            ("update", "", "namespaces", ""),
            ("create", "", "resourcequotas", ""),
            ("delete", "", "limitranges", ""),
            ("impersonate", "", "users", ""),
            ("pull", "registry.gantry.dev", "repositories", "reader member manager admin"),
            ("push", "registry.gantry.dev", "repositories", "member manager admin"),
            ("delete", "registry.gantry.dev", "repositories", "manager admin"),
            ("update", "registry.gantry.dev", "repositories", "manager admin"),
            ("create", "registry.gantry.dev", "registrywebhooks", "manager admin"),
            ("get", "registry.gantry.dev", "registrywebhooks", "manager admin"),
            ("collect", "registry.gantry.dev", "blobs", "operator"),
            ("update", "registry.gantry.dev", "advisories", "operator"),
            ("update", "registry.gantry.dev", "imagepolicies", "operator"),
            ("get", "logs.gantry.dev", "logs", "reader member manager admin"),
            ("get", "audit.gantry.dev", "records", "manager admin auditor"),
            ("delete", "", "nodes", "operator"),
        ] {
            for id in ["reader", "member", "manager", "admin", "auditor", "operator"] {
                let want = who.split(' ').any(|w| w == id);
                assert_eq!(grants(id, verb, group, resource), want, "{id}: {verb} {group}/{resource}");
            }
        }
    }
}
