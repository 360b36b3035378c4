//! What the component's own user may do in the cluster, as RBAC rules for the composition root to grant.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::tenancy::{account, names};

/// The user the component's own client speaks as.
pub const OWN_USER: &str = "system:gantry:identity";

const LOOK: &[&str] = &["get", "list", "watch"];
/// What a reconciler needs of a kind whose objects it keeps as planned.
const KEEP: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];

/// The rules [`OWN_USER`] needs, cluster-wide. It gives rights away that it does not hold itself, so it may `bind`
/// and `escalate`. Of secrets it can `get` any by its name, since identity providers name theirs in any namespace; it
/// lists, follows and writes those alone that are called as its image pull secrets (of what is created RBAC does not
/// see the name). Of service accounts it knows and changes `default`, which says what pods pull with; it makes no
/// tokens of any.
pub fn rules() -> Vec<PolicyRule> {
    vec![
        rule(&["*"], gantry_identity_api::GROUP, &["*"]),
        rule(KEEP, "apiextensions.k8s.io", &["customresourcedefinitions"]),
        rule(KEEP, "", &["namespaces", "resourcequotas", "limitranges"]),
        rule(&["get", "create"], "", &["secrets"]),
        named(&["list", "watch", "update", "delete"], "", "secrets", names::PULL_SECRET),
        named(&["list", "watch", "patch"], "", "serviceaccounts", account::DEFAULT),
        rule(LOOK, "", &["pods", "persistentvolumeclaims", "services"]),
        rule(
            &[KEEP, &["bind", "escalate"]].concat(),
            "rbac.authorization.k8s.io",
            &["clusterroles", "clusterrolebindings", "rolebindings"],
        ),
    ]
}

/// [`rule`] about the objects of this name: lists and watches have to ask for the name by a field selector.
fn named(verbs: &[&str], group: &str, resource: &str, name: &str) -> PolicyRule {
    PolicyRule { resource_names: Some(vec![name.to_owned()]), ..rule(verbs, group, &[resource]) }
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

#[cfg(test)]
mod tests {
    use gantry_kube_logic::rbac::matching::allows;
    use gantry_kube_types::{Attributes, UserInfo};

    use super::*;
    use crate::tenancy::tests::ask;

    #[test]
    fn secrets_and_service_accounts_are_the_tenants_but_for_two_names() {
        let user = UserInfo::authenticated(OWN_USER, &[]);
        let may = |asked: &Attributes| rules().iter().any(|rule| allows(rule, asked));
        for (asked, want) in [
            // By the name in a field selector, in all namespaces.
            ("list -/secrets - gantry-registry", true),
            ("watch -/secrets - gantry-registry", true),
            ("create -/secrets web-dev", true),
            ("update -/secrets web-dev gantry-registry", true),
            ("delete -/secrets web-dev gantry-registry", true),
            ("get -/secrets default directory", true),
            ("list -/secrets -", false),
            ("watch -/secrets -", false),
            ("list -/secrets web-dev", false),
            ("update -/secrets web-dev theirs", false),
            ("delete -/secrets web-dev theirs", false),
            ("deletecollection -/secrets web-dev", false),
            ("list -/serviceaccounts - default", true),
            ("watch -/serviceaccounts - default", true),
            ("patch -/serviceaccounts web-dev default", true),
            ("patch -/serviceaccounts web-dev theirs", false),
            ("create -/serviceaccounts web-dev", false),
            ("create -/serviceaccounts/token web-dev default", false),
            ("impersonate -/serviceaccounts web-dev default", false),
            ("create -/pods web-dev", false),
        ] {
            assert_eq!(may(&ask(&user, asked)), want, "{asked}");
        }
    }
}
