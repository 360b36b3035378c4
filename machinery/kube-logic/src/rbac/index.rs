//! Roles and bindings, kept so that a decision looks only at the caller's own bindings.

use gantry_kube_types::{Attributes, Decision, UserInfo};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use super::grants::{Binding, Bindings, Grant};
use super::role::Roles;
use super::{PolicyRule, RoleRef, Subject};

/// The four stored kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacKind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

impl RbacKind {
    pub const ALL: [Self; 4] = [Self::Role, Self::ClusterRole, Self::RoleBinding, Self::ClusterRoleBinding];

    /// The plural resource name.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
            Self::RoleBinding => "rolebindings",
            Self::ClusterRoleBinding => "clusterrolebindings",
        }
    }

    pub fn from_resource(resource: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.resource() == resource)
    }
}

/// All roles and bindings of a cluster, by subject. A decision costs a few hash look-ups per group of
/// the caller and the rules of the roles bound to it, however many other bindings there are.
#[derive(Debug, Default)]
pub struct RuleIndex {
    roles: Roles,
    bindings: Bindings,
}

impl RuleIndex {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a stored object in, or out where `json` is `None`. An object that does not parse is
    /// taken out: what cannot be read grants nothing.
    pub fn apply(
        &mut self,
        kind: RbacKind,
        namespace: &str,
        name: &str,
        json: Option<&[u8]>,
    ) -> Result<(), serde_json::Error> {
        let Some(json) = json else {
            self.remove(kind, namespace, name);
            return Ok(());
        };
        let parsed = self.parse_and_set(kind, namespace, name, json);
        if parsed.is_err() {
            self.remove(kind, namespace, name);
        }
        parsed
    }

    fn parse_and_set(
        &mut self,
        kind: RbacKind,
        namespace: &str,
        name: &str,
        json: &[u8],
    ) -> Result<(), serde_json::Error> {
        match kind {
            RbacKind::Role => {
                let role: Role = serde_json::from_slice(json)?;
                self.set_role(namespace, name, role.rules.unwrap_or_default());
            }
            RbacKind::ClusterRole => {
                let role: ClusterRole = serde_json::from_slice(json)?;
                self.set_role("", name, role.rules.unwrap_or_default());
            }
            RbacKind::RoleBinding => {
                let binding: RoleBinding = serde_json::from_slice(json)?;
                self.set_binding(namespace, name, binding.role_ref, binding.subjects.unwrap_or_default());
            }
            RbacKind::ClusterRoleBinding => {
                let binding: ClusterRoleBinding = serde_json::from_slice(json)?;
                self.set_binding("", name, binding.role_ref, binding.subjects.unwrap_or_default());
            }
        }
        Ok(())
    }

    pub fn remove(&mut self, kind: RbacKind, namespace: &str, name: &str) {
        match kind {
            RbacKind::Role => self.remove_role(namespace, name),
            RbacKind::ClusterRole => self.remove_role("", name),
            RbacKind::RoleBinding => self.remove_binding(namespace, name),
            RbacKind::ClusterRoleBinding => self.remove_binding("", name),
        }
    }

    /// An empty `namespace` means a ClusterRole.
    pub fn set_role(&mut self, namespace: &str, name: &str, rules: Vec<PolicyRule>) {
        self.roles.set(namespace, name, rules);
    }

    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.roles.remove(namespace, name);
    }

    /// An empty `namespace` means a ClusterRoleBinding.
    pub fn set_binding(&mut self, namespace: &str, name: &str, role: RoleRef, subjects: Vec<Subject>) {
        self.remove_binding(namespace, name);
        // A ClusterRoleBinding may only name a ClusterRole.
        let of_cluster = role.kind == "ClusterRole";
        let may = of_cluster || !namespace.is_empty();
        let place = may.then(|| self.roles.bind(if of_cluster { "" } else { namespace }, &role.name));
        self.bindings.put(namespace, name, role, &subjects, place);
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        if let Some(binding) = self.bindings.remove(namespace, name)
            && let Some(place) = binding.place
        {
            self.roles.release(binding.role_namespace(), &binding.role.name, place);
        }
    }

    /// The rules of a role; `kind` as in a role reference.
    pub fn role_rules(&self, kind: &str, namespace: &str, name: &str) -> Option<&[PolicyRule]> {
        let namespace = if kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(namespace, name)
    }

    /// May the caller? Never `Deny`: RBAC only grants.
    pub fn decide(&self, attributes: &Attributes) -> Decision {
        let mut errors = Vec::new();
        let wanted = self.roles.wanted(attributes);
        for grant in self.grants(&attributes.user, &attributes.namespace) {
            match grant.place().and_then(|place| self.roles.allow(place, &wanted, attributes)) {
                Some(true) => return Decision::Allow(format!("RBAC: allowed by {}", describe(grant))),
                Some(false) => {}
                None => errors.push(missing_role(grant)),
            }
        }
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// Is the user, or one of their groups, a subject of a RoleBinding in this namespace?
    pub fn is_bound(&self, user: &UserInfo, namespace: &str) -> bool {
        self.bindings.is_bound(&user.username, &user.groups, namespace)
    }

    /// Every rule that holds for the user in `namespace` (cluster-wide ones included; only those where
    /// it is empty), and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in self.grants(user, namespace) {
            match self.rules_of(grant) {
                Some(found) => rules.extend(found.iter().cloned()),
                None => errors.push(missing_role(grant)),
            }
        }
        (rules, errors)
    }

    /// The caller's grants: cluster-wide ones first, then those of `namespace`.
    pub(super) fn grants<'a>(
        &'a self,
        user: &UserInfo,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Grant> + use<'a> {
        self.bindings.grants(&user.username, &user.groups, namespace)
    }

    /// The user's grants in every namespace.
    pub(super) fn all_grants<'a>(&'a self, user: &UserInfo) -> impl Iterator<Item = &'a Grant> {
        self.bindings.all_grants(&user.username, &user.groups)
    }

    /// The names and rules of the Roles of a namespace, or of the ClusterRoles.
    pub(super) fn roles_in(&self, namespace: &str) -> impl Iterator<Item = (&str, &[PolicyRule])> {
        self.roles.in_namespace(namespace)
    }

    /// Is the role referred to by a binding in this namespace?
    pub fn is_used_in(&self, namespace: &str, kind: &str, role: &str) -> bool {
        let mut in_place = self.bindings.iter().filter(|binding| *binding.namespace == *namespace);
        in_place.any(|binding| binding.role.kind == kind && binding.role.name == role)
    }

    pub(super) fn rules_of(&self, grant: &Grant) -> Option<&[PolicyRule]> {
        self.roles.at(grant.place()?)
    }
}

fn describe(grant: &Grant) -> String {
    let Binding { namespace, name, role, .. } = grant.binding.as_ref();
    let binding = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}")
    } else {
        format!("RoleBinding {:?}", format!("{name}/{namespace}"))
    };
    let who = grant.who();
    format!("{binding} of {} {:?} to {} {:?}", role.kind, role.name, who.kind(), who.to_string())
}

fn missing_role(grant: &Grant) -> String {
    let role = &grant.binding.role;
    format!("{}.{} {:?} not found", role.kind.to_ascii_lowercase(), super::GROUP, role.name)
}
