//! What changed in the directory since the last look, as keys to work on: the directory's objects are shared, so
//! one that is the same pointer is the same object, and a look at a hundred thousand of them is quick.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_identity_api::{ApplicationCredential, Domain, Group, Named, Project, Role, User};
use kube::Resource;

use super::namespaces::Namespaces;
use super::reconcile::Key;
use super::roles;
use crate::directory::State;
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::directory::table::Entry;

/// The objects at the last look.
#[derive(Default)]
pub struct Seen {
    domains: Vec<Arc<Domain>>,
    projects: Vec<Arc<Project>>,
    users: Vec<Arc<User>>,
    groups: Vec<Arc<Group>>,
    roles: Vec<Arc<Role>>,
    assignments: Vec<Arc<Assignment>>,
    credentials: Vec<Arc<ApplicationCredential>>,
}

/// A change of one object.
type Pair<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

impl Seen {
    /// What there is to do since the last look; at the first one, everything.
    pub fn advance(&mut self, state: &State, namespaces: &Namespaces) -> BTreeSet<Key> {
        let mut keys = Keys { state, namespaces, keys: BTreeSet::new() };
        let next = Self {
            domains: state.domains.iter().cloned().collect(),
            projects: state.projects.iter().cloned().collect(),
            users: state.users.iter().cloned().collect(),
            groups: state.groups.iter().cloned().collect(),
            roles: state.roles.iter().cloned().collect(),
            assignments: state.assignments.iter().cloned().collect(),
            credentials: state.application_credentials.iter().cloned().collect(),
        };
        changes(&self.domains, &next.domains, name, |pair| keys.domain(pair));
        changes(&self.projects, &next.projects, name, |pair| keys.project(pair));
        changes(&self.users, &next.users, name, |pair| keys.user(pair));
        changes(&self.groups, &next.groups, name, |pair| keys.group(pair));
        changes(&self.roles, &next.roles, name, |pair| keys.role(pair));
        changes(&self.assignments, &next.assignments, |a| a.id.as_ref(), |pair| keys.assignment(pair));
        changes(&self.credentials, &next.credentials, name, |pair| keys.credential(pair));
        *self = next;
        keys.keys
    }
}

fn name<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

fn leaving<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Walks two lists, both in the order of their ids, and tells of each difference.
fn changes<'a, T>(
    old: &'a [Arc<T>],
    new: &'a [Arc<T>],
    id: impl Fn(&T) -> &str,
    mut tell: impl FnMut(Pair<'a, T>),
) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {
                old.next();
                new.next();
                continue;
            }
            (Some(a), Some(b)) => id(a).cmp(id(b)),
        };
        match order {
            std::cmp::Ordering::Less => tell((old.next(), None)),
            std::cmp::Ordering::Greater => tell((None, new.next())),
            std::cmp::Ordering::Equal => tell((old.next(), new.next())),
        }
    }
}

struct Keys<'a> {
    state: &'a State,
    namespaces: &'a Namespaces,
    keys: BTreeSet<Key>,
}

impl Keys<'_> {
    fn all_namespaces(&mut self) {
        let owned = self.namespaces.owned();
        self.keys.extend(owned.into_iter().map(|(namespace, _)| Key::Namespace(namespace)));
        self.keys.insert(Key::System);
    }

    fn namespaces_of(&mut self, project: &str) {
        self.keys.extend(self.namespaces.of_project(project).into_iter().map(Key::Namespace));
    }

    /// The project's own namespaces and those of every project below it.
    fn tree(&mut self, project: &str) {
        self.namespaces_of(project);
        let below: Vec<String> = self.state.projects.iter().map(|p| p.id()).collect();
        for id in below.into_iter().filter(|id| id != project) {
            if self.state.ancestry(&id).iter().any(|above| above.id() == project) {
                self.keys.insert(Key::Project(id.clone()));
                self.namespaces_of(&id);
            }
        }
    }

    fn domain(&mut self, (old, new): Pair<'_, Domain>) {
        let Some(domain) = new.or(old) else { return };
        self.keys.insert(Key::Domain(domain.id()));
        let matters = |d: &Arc<Domain>| (d.display_name(), d.spec.enabled, leaving(d.as_ref()));
        if old.map(matters) != new.map(matters) {
            let own: Vec<String> =
                self.state.projects.iter().filter(|p| p.spec.domain == domain.id()).map(|p| p.id()).collect();
            self.keys.extend(own.into_iter().map(Key::Project));
            // Its users may have roles anywhere.
            self.all_namespaces();
        }
    }

    fn project(&mut self, (old, new): Pair<'_, Project>) {
        let Some(project) = new.or(old) else { return };
        self.keys.insert(Key::Project(project.id()));
        let same =
            old.zip(new).is_some_and(|(a, b)| a.spec == b.spec && leaving(a.as_ref()) == leaving(b.as_ref()));
        if !same {
            self.keys.insert(Key::Domain(project.spec.domain.clone()));
            self.keys.extend(project.spec.parent.clone().map(Key::Project));
            self.tree(&project.id());
        }
    }

    fn user(&mut self, (old, new): Pair<'_, User>) {
        let Some(user) = new.or(old) else { return };
        if new.is_none_or(|u| leaving(u.as_ref())) {
            self.keys.insert(Key::User(user.id()));
        }
        let matters =
            |u: &Arc<User>| (u.display_name(), u.spec.domain.clone(), u.spec.enabled, leaving(u.as_ref()));
        if old.map(matters) != new.map(matters) {
            self.actor(&Actor::User(user.id().as_str().into()));
        }
    }

    fn group(&mut self, (old, new): Pair<'_, Group>) {
        let Some(group) = new.or(old) else { return };
        if new.is_none_or(|g| leaving(g.as_ref())) {
            self.keys.insert(Key::Group(group.id()));
        }
        let matters = |g: &Arc<Group>| (g.display_name(), g.spec.domain.clone(), leaving(g.as_ref()));
        if old.map(matters) != new.map(matters) {
            self.actor(&Actor::Group(group.id().as_str().into()));
        }
    }

    fn actor(&mut self, actor: &Actor) {
        let state = self.state;
        for assignment in state.assignments.of_actor(actor) {
            self.held(assignment);
        }
    }

    fn role(&mut self, (old, new): Pair<'_, Role>) {
        let Some(role) = new.or(old) else { return };
        self.keys.extend(roles::affected(self.state, &role.id()).into_iter().map(Key::Role));
        let matters = |r: &Arc<Role>| (r.spec.domain.clone(), leaving(r.as_ref()));
        if old.map(matters) != new.map(matters) {
            self.all_namespaces();
        }
    }

    fn assignment(&mut self, (old, new): Pair<'_, Assignment>) {
        for assignment in [old, new].into_iter().flatten() {
            self.held(assignment);
        }
        if let Some(assignment) = new {
            self.keys.extend(dangling(self.state, assignment));
        }
    }

    /// Where the assignment shows.
    fn held(&mut self, assignment: &Assignment) {
        match (&*assignment.target, assignment.inherited) {
            (Target::System, _) => drop(self.keys.insert(Key::System)),
            (Target::Project(id), false) => self.namespaces_of(id),
            (Target::Project(id), true) => self.tree(id),
            // Rights on the domain itself are no bindings.
            (Target::Domain(_), false) => {}
            (Target::Domain(domain), true) => {
                let own = self.state.projects.iter().filter(|p| p.spec.domain == domain.as_ref());
                let own: Vec<String> = own.map(|p| p.id()).collect();
                own.iter().for_each(|id| self.namespaces_of(id));
            }
        }
    }

    fn credential(&mut self, (old, new): Pair<'_, ApplicationCredential>) {
        let Some(credential) = new.or(old) else { return };
        if new.is_none_or(|c| leaving(c.as_ref())) {
            self.keys.insert(Key::Credential(credential.id()));
        }
        if self.state.users.get(&credential.spec.user).is_none() {
            self.keys.insert(Key::User(credential.spec.user.clone()));
        }
        if self.state.projects.get(&credential.spec.project).is_none() {
            self.keys.insert(Key::Project(credential.spec.project.clone()));
        }
    }
}

/// What the assignment names and is not there: the cascade of it has not come to its end.
fn dangling(state: &State, assignment: &Assignment) -> Vec<Key> {
    let mut keys = Vec::new();
    match &*assignment.actor {
        Actor::User(id) if state.users.get(id).is_none() => keys.push(Key::User(id.to_string())),
        Actor::Group(id) if state.groups.get(id).is_none() => keys.push(Key::Group(id.to_string())),
        Actor::User(_) | Actor::Group(_) => {}
    }
    match &*assignment.target {
        Target::Project(id) if state.projects.get(id).is_none() => keys.push(Key::Project(id.to_string())),
        Target::Domain(id) if state.domains.get(id).is_none() => keys.push(Key::Domain(id.to_string())),
        Target::System | Target::Project(_) | Target::Domain(_) => {}
    }
    if state.roles.get(&assignment.role).is_none() {
        keys.push(Key::Role(assignment.role.to_string()));
    }
    keys
}
