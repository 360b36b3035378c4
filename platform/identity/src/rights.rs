//! What the component's own user may do in the cluster, as RBAC rules for the composition root to grant.

use k8s_openapi::api::rbac::v1::PolicyRule;

/// The user the component's own client speaks as.
pub const OWN_USER: &str = "system:gantry:identity";

const ALL: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const LOOK: &[&str] = &["get", "list", "watch"];

/// The rules [`OWN_USER`] needs, cluster-wide. It gives rights away that it does not hold itself, so it may `bind`
/// and `escalate`; it reads no tenant's secrets but those that identity providers and pull secrets name.
pub fn rules() -> Vec<PolicyRule> {
    vec![
        rule(&["*"], gantry_identity_api::GROUP, &["*"]),
        rule(ALL, "apiextensions.k8s.io", &["customresourcedefinitions"]),
        rule(ALL, "", &["namespaces", "resourcequotas", "limitranges", "serviceaccounts"]),
        rule(&["create"], "", &["serviceaccounts/token"]),
        rule(&["get", "create", "update", "patch", "delete"], "", &["secrets"]),
        rule(LOOK, "", &["pods", "persistentvolumeclaims", "services"]),
        rule(
            &[ALL, &["bind", "escalate"]].concat(),
            "rbac.authorization.k8s.io",
            &["clusterroles", "clusterrolebindings", "roles", "rolebindings"],
        ),
        rule(&["create", "patch", "update"], "", &["events"]),
        rule(&["create", "patch", "update"], "events.k8s.io", &["events"]),
    ]
}

/// One rule about resources of one group.
pub(crate) fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> PolicyRule {
    let owned = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        verbs: owned(verbs),
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        ..PolicyRule::default()
    }
}
