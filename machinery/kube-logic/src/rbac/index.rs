//! Roles and bindings, kept so that a decision looks only at the caller's own bindings.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_kube_types::{Attributes, Decision, UserInfo};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};

use super::role::{Place, Roles};
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

#[derive(Debug)]
pub(super) struct Binding {
    /// Empty: a ClusterRoleBinding.
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) role: RoleRef,
    pub(super) subjects: Vec<Subject>,
    /// Where its role stands; `None`: it may not name such a role.
    place: Option<Place>,
}

impl Binding {
    /// The namespace of its role: empty for a ClusterRole.
    fn role_namespace(&self) -> &str {
        if self.role.kind == "ClusterRole" { "" } else { &self.namespace }
    }
}

/// One subject of one binding.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) binding: Arc<Binding>,
    pub(super) subject: usize,
    /// The binding's, here so that a decision need not follow the pointer.
    place: Option<Place>,
}

/// What one user or group is bound to.
#[derive(Debug, Default)]
struct Grants {
    cluster: Vec<Grant>,
    namespaces: HashMap<String, Vec<Grant>>,
}

impl Grants {
    fn of(&self, namespace: &str) -> &[Grant] {
        if namespace.is_empty() {
            return &self.cluster;
        }
        self.namespaces.get(namespace).map_or(&[], Vec::as_slice)
    }
}

/// All roles and bindings of a cluster, by subject. A decision costs a few hash look-ups per group of
/// the caller and the rules of the roles bound to it, however many other bindings there are.
#[derive(Debug, Default)]
pub struct RuleIndex {
    roles: Roles,
    bindings: HashMap<(String, String), Arc<Binding>>,
    /// Service accounts stand here under their user name.
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
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
        let mut binding =
            Binding { namespace: namespace.to_owned(), name: name.to_owned(), role, subjects, place: None };
        // A ClusterRoleBinding may only name a ClusterRole.
        if !namespace.is_empty() || binding.role.kind == "ClusterRole" {
            binding.place = Some(self.roles.bind(binding.role_namespace(), &binding.role.name));
        }
        let binding = Arc::new(binding);
        for (subject, who) in binding.subjects.iter().enumerate() {
            let Some((of_group, key)) = subject_key(who, namespace) else { continue };
            let grants = self.subjects(of_group).entry(key).or_default();
            let grant = Grant { binding: binding.clone(), subject, place: binding.place };
            match namespace {
                "" => grants.cluster.push(grant),
                _ => grants.namespaces.entry(namespace.to_owned()).or_default().push(grant),
            }
        }
        self.bindings.insert((namespace.to_owned(), name.to_owned()), binding);
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some(binding) = self.bindings.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        if let Some(place) = binding.place {
            self.roles.release(binding.role_namespace(), &binding.role.name, place);
        }
        for who in &binding.subjects {
            let Some((of_group, key)) = subject_key(who, namespace) else { continue };
            let subjects = self.subjects(of_group);
            let Some(grants) = subjects.get_mut(&key) else { continue };
            if namespace.is_empty() {
                grants.cluster.retain(|grant| !Arc::ptr_eq(&grant.binding, &binding));
            } else if let Some(list) = grants.namespaces.get_mut(namespace) {
                list.retain(|grant| !Arc::ptr_eq(&grant.binding, &binding));
                if list.is_empty() {
                    grants.namespaces.remove(namespace);
                }
            }
            if grants.cluster.is_empty() && grants.namespaces.is_empty() {
                subjects.remove(&key);
            }
        }
    }

    fn subjects(&mut self, of_group: bool) -> &mut HashMap<String, Grants> {
        if of_group { &mut self.groups } else { &mut self.users }
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
            match grant.place.and_then(|place| self.roles.allow(place, &wanted, attributes)) {
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
        let bound = |grants: &Grants| grants.namespaces.contains_key(namespace);
        self.users.get(&user.username).is_some_and(bound)
            || user.groups.iter().any(|group| self.groups.get(group).is_some_and(bound))
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
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Grant> {
        // Looked up once: the hashes of a dozen group names are most of what a decision costs.
        let mut subjects: Vec<&Grants> = Vec::with_capacity(user.groups.len() + 1);
        subjects.extend(self.users.get(&user.username));
        subjects.extend(user.groups.iter().filter_map(|group| self.groups.get(group)));
        let local: Vec<&Grants> = if namespace.is_empty() { Vec::new() } else { subjects.clone() };
        let wide = subjects.into_iter().flat_map(|grants| grants.cluster.iter());
        wide.chain(local.into_iter().flat_map(move |grants| grants.of(namespace).iter()))
    }

    /// The user's grants in every namespace.
    pub(super) fn all_grants<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        let subjects = self.users.get(&user.username).into_iter().chain(groups);
        subjects.flat_map(|grants| grants.cluster.iter().chain(grants.namespaces.values().flatten()))
    }

    /// The names and rules of the Roles of a namespace, or of the ClusterRoles.
    pub(super) fn roles_in(&self, namespace: &str) -> impl Iterator<Item = (&str, &[PolicyRule])> {
        self.roles.in_namespace(namespace)
    }

    /// Is the role referred to by a binding in this namespace?
    pub fn is_used_in(&self, namespace: &str, kind: &str, role: &str) -> bool {
        let in_place = self.bindings.values().filter(|binding| binding.namespace == namespace);
        in_place.into_iter().any(|binding| binding.role.kind == kind && binding.role.name == role)
    }

    pub(super) fn rules_of(&self, grant: &Grant) -> Option<&[PolicyRule]> {
        self.roles.at(grant.place?)
    }
}

/// Under which name a subject stands in the index: `(is a group, name)`.
fn subject_key(subject: &Subject, binding_namespace: &str) -> Option<(bool, String)> {
    match subject.kind.as_str() {
        "User" => Some((false, subject.name.clone())),
        "Group" => Some((true, subject.name.clone())),
        "ServiceAccount" => {
            let namespace =
                subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
            (!namespace.is_empty())
                .then(|| (false, format!("system:serviceaccount:{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

fn describe(grant: &Grant) -> String {
    let Binding { namespace, name, role, subjects, .. } = grant.binding.as_ref();
    let subject = &subjects[grant.subject];
    let who = match subject.kind.as_str() {
        "ServiceAccount" => {
            let of = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
            format!("{}/{of}", subject.name)
        }
        _ => subject.name.clone(),
    };
    let binding = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}")
    } else {
        format!("RoleBinding {:?}", format!("{name}/{namespace}"))
    };
    format!("{binding} of {} {:?} to {} {who:?}", role.kind, role.name, subject.kind)
}

fn missing_role(grant: &Grant) -> String {
    let role = &grant.binding.role;
    format!("{}.{} {:?} not found", role.kind.to_ascii_lowercase(), super::GROUP, role.name)
}
