//! The roles and bindings every cluster begins with, as data. The server creates what is missing and
//! adds what was taken away from them, unless their annotation says otherwise.

mod controllers;
mod system;
mod users;

pub use system::node_rules;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{GROUP, PolicyRule};

/// On every default object.
pub const BOOTSTRAP_LABEL: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// `false` keeps an object from being reconciled.
pub const AUTOUPDATE_ANNOTATION: &str = "rbac.authorization.kubernetes.io/autoupdate";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const ALL: &[&str] = &["*"];

/// All default objects.
#[derive(Clone, Debug)]
pub struct Defaults {
    pub cluster_roles: Vec<ClusterRole>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub roles: Vec<Role>,
    pub role_bindings: Vec<RoleBinding>,
}

/// The default objects.
pub fn defaults() -> Defaults {
    let mut all = Defaults {
        cluster_roles: Vec::new(),
        cluster_role_bindings: Vec::new(),
        roles: Vec::new(),
        role_bindings: Vec::new(),
    };
    users::add(&mut all);
    system::add(&mut all);
    controllers::add(&mut all);
    all
}

impl Defaults {
    fn cluster_role(&mut self, name: &str, rules: Vec<PolicyRule>) -> &mut ClusterRole {
        self.cluster_roles.push(ClusterRole {
            metadata: metadata(None, name),
            rules: Some(rules),
            aggregation_rule: None,
        });
        let last = self.cluster_roles.len() - 1;
        &mut self.cluster_roles[last]
    }

    fn bind(&mut self, name: &str, role: &str, subjects: Vec<Subject>) {
        self.cluster_role_bindings.push(ClusterRoleBinding {
            metadata: metadata(None, name),
            role_ref: role_ref("ClusterRole", role),
            subjects: Some(subjects),
        });
    }

    /// A role in `namespace`, bound there to `subjects` under the same name.
    fn namespaced(&mut self, namespace: &str, name: &str, rules: Vec<PolicyRule>, subjects: Vec<Subject>) {
        let metadata = metadata(Some(namespace), name);
        self.roles.push(Role { metadata: metadata.clone(), rules: Some(rules) });
        self.role_bindings.push(RoleBinding {
            metadata,
            role_ref: role_ref("Role", name),
            subjects: Some(subjects),
        });
    }
}

fn metadata(namespace: Option<&str>, name: &str) -> ObjectMeta {
    let (key, value) = BOOTSTRAP_LABEL;
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some([(key.to_owned(), value.to_owned())].into()),
        annotations: Some([(AUTOUPDATE_ANNOTATION.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

fn owned(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
    PolicyRule {
        verbs: owned(verbs),
        api_groups: Some(owned(groups)),
        resources: Some(owned(resources)),
        ..PolicyRule::default()
    }
}

fn named(verbs: &[&str], group: &str, resource: &str, names: &[&str]) -> PolicyRule {
    PolicyRule { resource_names: Some(owned(names)), ..rule(verbs, &[group], &[resource]) }
}

fn paths(verbs: &[&str], paths: &[&str]) -> PolicyRule {
    PolicyRule { verbs: owned(verbs), non_resource_urls: Some(owned(paths)), ..PolicyRule::default() }
}

/// Events are written by everybody who acts on objects.
fn events() -> PolicyRule {
    rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"])
}

fn user(name: &str) -> Subject {
    Subject {
        api_group: Some(GROUP.to_owned()),
        kind: "User".to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

fn group(name: &str) -> Subject {
    Subject { kind: "Group".to_owned(), ..user(name) }
}

fn service_account(namespace: &str, name: &str) -> Subject {
    Subject {
        api_group: None,
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
    }
}

fn aggregates(label: &str) -> AggregationRule {
    let selector = LabelSelector {
        match_labels: Some([(label.to_owned(), "true".to_owned())].into()),
        ..LabelSelector::default()
    };
    AggregationRule { cluster_role_selectors: Some(vec![selector]) }
}
