//! Assignments as bindings, as a pure plan: who is bound to which role in a project's namespaces and in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_identity_api::{Named, Project, labels};
use gantry_kube_logic::rbac::GROUP as RBAC;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use kube::ResourceExt;
use kube::core::ObjectMeta;

use super::names;
use crate::directory::State;
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::directory::table::Entry;

/// Subjects in one binding: an object stays well below the size the API takes.
pub const SUBJECTS_MAX: usize = 1000;

/// Somebody a role is bound to, in the order and form of the binding's subjects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    Group(String),
    User(String),
}

/// Role id → who has it.
pub type Holders = BTreeMap<Arc<str>, BTreeSet<Bound>>;

/// Who is bound to what inside a project. Disabled users, domains and projects, and whatever is being deleted, have
/// no bindings.
pub fn in_project(state: &State, project: &Project) -> Holders {
    let mut holders = Holders::new();
    if project.metadata.deletion_timestamp.is_some() || !state.project_enabled(project) {
        return holders;
    }
    let id = project.id();
    let here = Target::Project(id.as_str().into());
    let mut targets = vec![Target::Domain(project.spec.domain.as_str().into())];
    targets.extend(state.ancestry(&id).iter().map(|p| Target::Project(p.id().as_str().into())));
    for assignment in targets.iter().flat_map(|target| state.assignments.on_target(target)) {
        if state.holds(assignment, &here) {
            add(&mut holders, state, assignment);
        }
    }
    holders
}

/// Who is bound to what in the whole cluster.
pub fn in_system(state: &State) -> Holders {
    let mut holders = Holders::new();
    for assignment in state.assignments.on_target(&Target::System) {
        if state.holds(assignment, &Target::System) {
            add(&mut holders, state, assignment);
        }
    }
    holders
}

fn add(holders: &mut Holders, state: &State, assignment: &Assignment) {
    if let Some(bound) = bound(state, &assignment.actor) {
        holders.entry(assignment.role.clone()).or_default().insert(bound);
    }
}

/// The actor as RBAC knows it; `None`: gone, disabled or leaving.
fn bound(state: &State, actor: &Actor) -> Option<Bound> {
    match actor {
        Actor::User(id) => {
            let user = state.users.get(id).filter(|u| u.metadata.deletion_timestamp.is_none())?;
            state.user_enabled(user).then(|| state.kubernetes_name(user))?.map(Bound::User)
        }
        Actor::Group(id) => {
            let group = state.groups.get(id).filter(|g| g.metadata.deletion_timestamp.is_none())?;
            let domain = state.domains.get(&group.spec.domain).filter(|d| d.spec.enabled)?;
            Some(Bound::Group(format!("{}/{}", domain.display_name(), group.display_name())))
        }
    }
}

/// The bindings of a project's namespace.
pub fn role_bindings(holders: &Holders, namespace: &str, project: &Project) -> Vec<RoleBinding> {
    let mut all = Vec::new();
    for (role, bound) in holders {
        let subjects: Vec<&Bound> = bound.iter().collect();
        for (part, subjects) in subjects.chunks(SUBJECTS_MAX).enumerate() {
            let mut metadata = metadata(&names::binding(role, part), role);
            metadata.namespace = Some(namespace.to_owned());
            let own = metadata.labels.get_or_insert_default();
            own.insert(labels::PROJECT.to_owned(), project.name_any());
            own.insert(labels::DOMAIN.to_owned(), project.spec.domain.clone());
            all.push(RoleBinding {
                metadata,
                role_ref: role_ref(&names::cluster_role(role)),
                subjects: Some(subjects.iter().map(|s| subject(s)).collect()),
            });
        }
    }
    all
}

/// The cluster-wide bindings.
pub fn cluster_bindings(holders: &Holders) -> Vec<ClusterRoleBinding> {
    let binding = |(role, bound): (&Arc<str>, &BTreeSet<Bound>)| ClusterRoleBinding {
        metadata: metadata(&names::system_role(role), role),
        role_ref: role_ref(&names::system_role(role)),
        subjects: Some(bound.iter().map(subject).collect()),
    };
    holders.iter().map(binding).collect()
}

fn subject(bound: &Bound) -> Subject {
    let (kind, name) = match bound {
        Bound::Group(name) => ("Group", name),
        Bound::User(name) => ("User", name),
    };
    Subject { api_group: Some(RBAC.to_owned()), kind: kind.to_owned(), name: name.clone(), namespace: None }
}

fn role_ref(cluster_role: &str) -> RoleRef {
    RoleRef {
        api_group: Some(RBAC.to_owned()),
        kind: "ClusterRole".to_owned(),
        name: cluster_role.to_owned(),
    }
}

/// The metadata of something that stands for a role.
pub fn metadata(name: &str, role: &str) -> ObjectMeta {
    let own = [(labels::MANAGED_BY, labels::MANAGED_BY_VALUE), (labels::ROLE, role)];
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
        ..ObjectMeta::default()
    }
}
