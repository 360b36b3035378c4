//! Assignments in memory: small, and found by who has them and where they hold.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use gantry_identity_api::{RoleAssignment, RoleAssignmentSpec};
use kube::ResourceExt;

use super::by_id::{ById, Keyed};

/// Who has a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Actor {
    User(Arc<str>),
    Group(Arc<str>),
}

/// Where a role holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    System,
    Domain(Arc<str>),
    Project(Arc<str>),
}

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub id: Box<str>,
    pub role: Arc<str>,
    pub actor: Arc<Actor>,
    pub target: Arc<Target>,
    pub inherited: bool,
}

impl Assignment {
    /// `None` where the object names not exactly one actor and one target: such an object grants nothing.
    pub fn of(object: &RoleAssignment) -> Option<Self> {
        let spec = &object.spec;
        let actor = match (&spec.user, &spec.group) {
            (Some(user), None) => Actor::User(user.as_str().into()),
            (None, Some(group)) => Actor::Group(group.as_str().into()),
            _ => return None,
        };
        let target = match (&spec.project, &spec.domain, spec.system) {
            (Some(project), None, false) => Target::Project(project.as_str().into()),
            (None, Some(domain), false) => Target::Domain(domain.as_str().into()),
            (None, None, true) => Target::System,
            _ => return None,
        };
        let role = spec.role.as_str().into();
        Some(Self {
            id: object.name_any().as_str().into(),
            role,
            actor: Arc::new(actor),
            target: Arc::new(target),
            inherited: spec.inherited,
        })
    }

    /// The name of the object; see [`RoleAssignmentSpec::object_name`].
    pub fn object_name(role: &str, actor: &Actor, target: &Target, inherited: bool) -> String {
        let mut spec =
            RoleAssignmentSpec { role: role.to_owned(), inherited, ..RoleAssignmentSpec::default() };
        match actor {
            Actor::User(id) => spec.user = Some(id.to_string()),
            Actor::Group(id) => spec.group = Some(id.to_string()),
        }
        match target {
            Target::System => spec.system = true,
            Target::Domain(id) => spec.domain = Some(id.to_string()),
            Target::Project(id) => spec.project = Some(id.to_string()),
        }
        spec.object_name()
    }
}

impl Keyed for Assignment {
    fn key(&self) -> &str {
        &self.id
    }
}

/// All assignments. There may be a hundred thousand, of few roles and by and on the same actors and targets: each of
/// these is in memory once, and an assignment is of pointers.
#[derive(Clone, Debug, Default)]
pub struct Assignments {
    roles: BTreeSet<Arc<str>>,
    by_id: BTreeSet<ById<Assignment>>,
    by_actor: Found<Actor>,
    by_target: Found<Target>,
}

impl Assignments {
    pub fn get(&self, id: &str) -> Option<&Arc<Assignment>> {
        self.by_id.get(id).map(|found| &found.0)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Assignment>> {
        self.by_id.iter().map(|found| &found.0)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn of_actor(&self, actor: &Actor) -> &[Arc<Assignment>] {
        self.by_actor.get(actor).map_or(&[], Vec::as_slice)
    }

    pub fn on_target(&self, target: &Target) -> &[Arc<Assignment>] {
        self.by_target.get(target).map_or(&[], Vec::as_slice)
    }

    pub(super) fn put(&mut self, mut assignment: Assignment) {
        self.remove(&assignment.id.clone());
        if let Some(known) = self.roles.get(&assignment.role) {
            assignment.role = known.clone();
        } else {
            self.roles.insert(assignment.role.clone());
        }
        if let Some((known, _)) = self.by_actor.get_key_value(&assignment.actor) {
            assignment.actor = known.clone();
        }
        if let Some((known, _)) = self.by_target.get_key_value(&assignment.target) {
            assignment.target = known.clone();
        }
        let assignment = Arc::new(assignment);
        add_to(&mut self.by_actor, &assignment.actor, &assignment);
        add_to(&mut self.by_target, &assignment.target, &assignment);
        self.by_id.insert(ById(assignment));
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(ById(old)) = self.by_id.take(id) else { return };
        drop_from(&mut self.by_actor, &old.actor, id);
        drop_from(&mut self.by_target, &old.target, id);
        // The set's own and that of the assignment that goes.
        if Arc::strong_count(&old.role) == 2 {
            self.roles.remove(&old.role);
        }
    }
}

type Found<T> = HashMap<Arc<T>, Vec<Arc<Assignment>>>;

fn add_to<T: Hash + Eq>(map: &mut Found<T>, key: &Arc<T>, assignment: &Arc<Assignment>) {
    let list = map.entry(key.clone()).or_default();
    if list.len() == list.capacity() {
        // Twice as many each time would leave room for six of ten.
        list.reserve_exact(1 + list.len() / 4);
    }
    list.push(assignment.clone());
}

fn drop_from<T: Hash + Eq>(map: &mut Found<T>, key: &T, id: &str) {
    if let Some(list) = map.get_mut(key) {
        list.retain(|a| a.id.as_ref() != id);
        if list.is_empty() {
            map.remove(key);
        }
    }
}
