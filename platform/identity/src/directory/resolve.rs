//! Which roles somebody has where: direct, by group, inherited down the tree, implied by others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_identity_api::User;

use super::assignments::{Actor, Assignment, Target};
use super::state::State;
use super::table::Entry;
use crate::session::ADMIN_PROJECT;

/// Ids of roles.
pub type Roles = BTreeSet<String>;

/// The roles somebody may use, by where they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub system: Roles,
    pub domains: BTreeMap<String, Roles>,
    pub projects: BTreeMap<String, Roles>,
}

impl Grants {
    /// The roles in one scope.
    pub fn in_scope(&self, target: &Target) -> Option<&Roles> {
        match target {
            Target::System => (!self.system.is_empty()).then_some(&self.system),
            Target::Domain(id) => self.domains.get(id.as_ref()),
            Target::Project(id) => self.projects.get(id.as_ref()),
        }
    }

    /// Puts more roles into one scope.
    pub fn add(&mut self, target: &Target, roles: Roles) {
        let there = match target {
            Target::System => &mut self.system,
            Target::Domain(id) => self.domains.entry(id.to_string()).or_default(),
            Target::Project(id) => self.projects.entry(id.to_string()).or_default(),
        };
        there.extend(roles);
    }

    /// These grants cut down to one scope, and there to `roles` where they are given.
    pub fn narrowed(&self, target: &Target, roles: Option<&Roles>) -> Self {
        let kept = self.in_scope(target).cloned().unwrap_or_default();
        let kept: Roles = match roles {
            Some(only) => kept.intersection(only).cloned().collect(),
            None => kept,
        };
        let mut narrowed = Self::default();
        match target {
            _ if kept.is_empty() => {}
            Target::System => narrowed.system = kept,
            Target::Domain(id) => drop(narrowed.domains.insert(id.to_string(), kept)),
            Target::Project(id) => drop(narrowed.projects.insert(id.to_string(), kept)),
        }
        narrowed
    }
}

impl State {
    /// The user and the user's groups, as actors.
    pub fn actors(&self, user: &User) -> Vec<Actor> {
        let mut actors = vec![Actor::User(user.id().as_str().into())];
        actors.extend(self.groups_of(user).map(|group| Actor::Group(group.id().as_str().into())));
        actors
    }

    /// Everything assigned to the user or the user's groups.
    pub fn assigned<'a>(&'a self, user: &User) -> impl Iterator<Item = &'a Arc<Assignment>> {
        self.actors(user).into_iter().flat_map(|actor| self.assignments.of_actor(&actor))
    }

    /// The roles that come with `roles`, themselves included. Unknown roles grant nothing.
    pub fn implied(&self, roles: impl IntoIterator<Item = String>) -> Roles {
        let mut all = Roles::new();
        let mut open: Vec<String> = roles.into_iter().collect();
        while let Some(id) = open.pop() {
            let Some(role) = self.roles.get(&id) else { continue };
            if all.insert(id) {
                open.extend(role.spec.implies.iter().cloned());
            }
        }
        all
    }

    /// Is the role good where it is assigned? It exists, and a domain's role is good inside that domain only.
    fn role_fits(&self, assignment: &Assignment) -> bool {
        let Some(role) = self.roles.get(&assignment.role) else { return false };
        let Some(domain) = role.spec.domain.as_deref() else { return true };
        match &*assignment.target {
            Target::System => false,
            Target::Domain(id) => id.as_ref() == domain,
            Target::Project(id) => self.projects.get(id).is_some_and(|p| p.spec.domain == domain),
        }
    }

    /// Does the assignment hold in the scope? An inherited one holds below its target, never on it.
    pub fn holds(&self, assignment: &Assignment, scope: &Target) -> bool {
        self.role_fits(assignment) && self.reaches(assignment, scope)
    }

    fn reaches(&self, assignment: &Assignment, scope: &Target) -> bool {
        match (scope, &*assignment.target, assignment.inherited) {
            (Target::System, Target::System, false) => true,
            (Target::Domain(at), Target::Domain(on), false) => at == on,
            (Target::Project(at), Target::Project(on), false) => at == on,
            (Target::Project(at), Target::Project(on), true) => {
                at != on && self.ancestry(at).iter().any(|p| p.id() == on.as_ref())
            }
            (Target::Project(at), Target::Domain(on), true) => {
                // Rights over a domain are none over the platform.
                let platforms = at.as_ref() == ADMIN_PROJECT;
                !platforms && self.projects.get(at).is_some_and(|p| p.spec.domain == on.as_ref())
            }
            _ => false,
        }
    }

    /// The roles the user has in the scope, implied ones included.
    pub fn roles_in(&self, user: &User, scope: &Target) -> Roles {
        let direct = self.assigned(user).filter(|a| self.holds(a, scope)).map(|a| a.role.to_string());
        self.implied(direct.collect::<BTreeSet<String>>())
    }

    /// The user's roles in every scope. Disabled projects and domains have none.
    pub fn grants(&self, user: &User) -> Grants {
        self.grants_by(self.assigned(user).map(Arc::as_ref))
    }

    /// What comes of these assignments alone.
    pub fn grants_by<'a>(&self, assignments: impl IntoIterator<Item = &'a Assignment>) -> Grants {
        let mut found = Grants::default();
        for assignment in assignments.into_iter().filter(|a| self.role_fits(a)) {
            let role = assignment.role.to_string();
            match (&*assignment.target, assignment.inherited) {
                (Target::System, _) => drop(found.system.insert(role)),
                (Target::Domain(id), false) => add(&mut found.domains, id, role),
                (Target::Project(id), false) => add(&mut found.projects, id, role),
                (Target::Domain(_) | Target::Project(_), true) => {
                    let below = self.projects.iter().map(|p| p.id());
                    for project in
                        below.filter(|id| self.reaches(assignment, &Target::Project(id.as_str().into())))
                    {
                        add(&mut found.projects, &project, role.clone());
                    }
                }
            }
        }
        found.system = self.implied(found.system);
        found.domains.retain(|id, _| self.domains.get(id).is_some_and(|d| d.spec.enabled));
        found.projects.retain(|id, _| self.projects.get(id).is_some_and(|p| self.project_enabled(p)));
        for roles in found.domains.values_mut().chain(found.projects.values_mut()) {
            *roles = self.implied(std::mem::take(roles));
        }
        found.domains.retain(|_, roles| !roles.is_empty());
        found.projects.retain(|_, roles| !roles.is_empty());
        found
    }
}

fn add(map: &mut BTreeMap<String, Roles>, id: &str, role: String) {
    map.entry(id.to_owned()).or_default().insert(role);
}
