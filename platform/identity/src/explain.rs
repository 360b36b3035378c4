//! Why somebody may or may not do something that assignments decide and not bindings: with identity's own kinds, with
//! repositories and with records of projects and domains.
//!
//! Nothing here knows the rules. The very functions that decide are asked again: with the grants of each assignment
//! alone, which finds those that grant it; and with one more role in each scope that matters, which finds what is
//! missing. So an explanation cannot say other than the decision does.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_identity_api::{GROUP, Named, Role, User};
use gantry_kube_types::{
    Attributes, EXPLAINED_MAX, Explanation, Grants as Granted, Missing, Place, UserInfo,
};

use crate::authorizer::{RECORDS, is_owned, own_kinds, owned, owner, project_name, role_name, subject};
use crate::directory::State;
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::directory::resolve::Grants;
use crate::directory::table::Entry;
use crate::policy::{Act, Authority, Subject, may};
use crate::tenancy::World;
use crate::tenancy::callers::{self, Caller};

const ASSIGNMENT: &str = "RoleAssignment";
/// What one may do with one object of identity, with one repository, and with the records of one project or domain.
const OWN_VERBS: [&str; 4] = ["get", "update", "patch", "delete"];
const REPOSITORY_VERBS: [&str; 4] = ["pull", "push", "update", "delete"];
const RECORD_VERBS: [&str; 2] = ["get", "list"];

/// `None`: it is not ours to decide. What `listener` may not see is not named.
pub(crate) fn explain(world: &World, asked: &Attributes, listener: &UserInfo) -> Option<Explanation> {
    let own = asked.is_resource_request && asked.group == GROUP;
    if !own && !is_owned(asked) {
        return None;
    }
    let (caller, listener) = (world.caller(&asked.user), world.caller(listener));
    let state = world.directory.read();
    let question = Question { state: &state, asked, caller: &caller, listener: &listener.authority };
    Some(if question.decided(asked, &caller.authority.grants) {
        Explanation { grants: question.granting(), ..Explanation::default() }
    } else {
        question.refusal()
    })
}

/// One question, who it is about and who hears the answer.
struct Question<'a> {
    state: &'a State,
    asked: &'a Attributes,
    caller: &'a Caller,
    listener: &'a Authority,
}

impl Question<'_> {
    /// Would the caller be allowed it with these grants?
    fn decided(&self, asked: &Attributes, grants: &Grants) -> bool {
        let authority = Authority { grants: grants.clone(), ..self.caller.authority.clone() };
        let caller = Caller { authority, ..self.caller.clone() };
        let why = match asked.group == GROUP {
            true => own_kinds(self.state, &caller, asked),
            false => owned(self.state, &caller, asked),
        };
        why.is_some()
    }

    fn user(&self) -> Option<&Arc<User>> {
        self.state.users.get(&self.caller.authority.user)
    }

    /// The assignments each of which is enough. None where it takes no assignment: everybody keeps their own.
    fn granting(&self) -> Vec<Granted> {
        let Some(user) = self.user().filter(|_| !self.decided(self.asked, &Grants::default())) else {
            return Vec::new();
        };
        let seen = self.state.assigned(user).filter(|assignment| self.tells_assignment(assignment));
        let enough = seen.filter(|assignment| self.suffices(assignment));
        enough.take(EXPLAINED_MAX).filter_map(|assignment| self.described(assignment)).collect()
    }

    fn suffices(&self, assignment: &Assignment) -> bool {
        let alone = self.state.grants_by([assignment]);
        let scope = &self.caller.scope;
        self.decided(self.asked, &callers::narrowed(self.state, &self.asked.user, scope, alone))
    }

    fn described(&self, assignment: &Assignment) -> Option<Granted> {
        let domain_of = |id: &str| self.state.domains.get(id).map(|d| d.display_name());
        let (subject_kind, subject) = match &*assignment.actor {
            Actor::User(id) => ("User", self.state.kubernetes_name(self.state.users.get(id)?)?),
            Actor::Group(id) => {
                let group = self.state.groups.get(id)?;
                ("Group", format!("{}/{}", domain_of(&group.spec.domain)?, group.display_name()))
            }
        };
        Some(Granted {
            binding_kind: ASSIGNMENT,
            scope: Some(self.place(&assignment.target)?),
            inherited: assignment.inherited,
            binding: assignment.id.to_string(),
            role_kind: "Role".to_owned(),
            role: role_name(self.state, &assignment.role)?,
            implied: self.implied(assignment).unwrap_or_default(),
            subject_kind: subject_kind.to_owned(),
            subject,
            ..Granted::default()
        })
    }

    /// The least role that comes with the assigned one and is enough.
    fn implied(&self, assignment: &Assignment) -> Option<String> {
        let mut others = self.state.implied([assignment.role.to_string()]);
        others.remove(assignment.role.as_ref());
        let least = self
            .by_breadth(others)
            .into_iter()
            .find(|id| self.suffices(&Assignment { role: id.as_str().into(), ..assignment.clone() }));
        role_name(self.state, &least?)
    }

    fn refusal(&self) -> Explanation {
        let nearest = self.nearest();
        let verbs: &[&str] = match self.asked.group.as_str() {
            GROUP => &OWN_VERBS,
            group if group == RECORDS.0 => &RECORD_VERBS,
            _ => &REPOSITORY_VERBS,
        };
        let held = |verb: &&str| {
            let other = Attributes { verb: (*verb).to_owned(), ..self.asked.clone() };
            self.decided(&other, &self.caller.authority.grants)
        };
        // By its name, or by whose they are.
        let named = !self.asked.name.is_empty() || !self.asked.namespace.is_empty();
        let held_verbs = verbs.iter().filter(|verb| named && held(verb)).map(|v| (*v).to_owned()).collect();
        let note = match (nearest.is_empty(), named) {
            (false, _) => String::new(),
            // The same for what is not there and for what the listener does not see.
            (true, true) => "identity: no role that you can see grants it".to_owned(),
            (true, false) => "identity: rights are on single objects: ask about one by its name".to_owned(),
        };
        Explanation { nearest, held_verbs, note, ..Explanation::default() }
    }

    /// The least roles that would be enough, from the innermost scope outwards.
    fn nearest(&self) -> Vec<Missing> {
        let Some(user) = self.user().filter(|user| self.state.user_active(user)) else { return Vec::new() };
        let whole = self.state.grants(user);
        // It is the credential that is too narrow.
        if self.decided(self.asked, &whole) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for target in self.scopes(user) {
            let Some(place) = self.place(&target) else { continue };
            let enough = self.state.roles.iter().filter(|role| self.fits(role, &target)).filter(|role| {
                let mut more = whole.clone();
                more.add(&target, self.state.implied([role.id()]));
                self.decided(self.asked, &more)
            });
            for role in self.least(enough.map(|role| role.id()).collect()) {
                all.extend(role_name(self.state, &role).map(|name| Missing {
                    role_kind: "Role",
                    role: name,
                    binding_kind: ASSIGNMENT,
                    scope: Some(place.clone()),
                    bound_in: self.held_in(user, &role),
                    ..Missing::default()
                }));
            }
        }
        all.truncate(EXPLAINED_MAX);
        all
    }

    /// Where a role may matter to the question, the innermost first; none of what the listener does not see. The
    /// system is none of them: whoever has a role there has it over everybody.
    fn scopes(&self, user: &User) -> Vec<Target> {
        let domain = |id: &str| Target::Domain(id.into());
        let tree = |id: &str| -> Vec<Target> {
            let chain = self.state.ancestry(id);
            let projects = chain.iter().map(|p| Target::Project(p.id().as_str().into()));
            projects.chain(chain.first().map(|p| domain(&p.spec.domain))).collect()
        };
        if self.asked.group != GROUP {
            let owner = owner(self.state, self.asked).unwrap_or_default();
            let project = owner.project.map(|id| Target::Project(id.as_str().into()));
            return project.into_iter().chain(owner.domain.map(|id| domain(&id))).collect();
        }
        if self.asked.verb == "create" && self.asked.name.is_empty() {
            return vec![domain(&user.spec.domain)];
        }
        let Some(subject) = subject(self.state, &self.asked.resource, &self.asked.name) else {
            return Vec::new();
        };
        if !may(self.state, self.listener, Act::Read, &subject) {
            return Vec::new();
        }
        match subject {
            Subject::Domain(id) => vec![domain(id)],
            Subject::Project { id: Some(id), .. } => tree(id),
            Subject::User { domain: id, .. }
            | Subject::Group { domain: id }
            | Subject::Role { domain: Some(id) }
            | Subject::Provider { domain: id }
            | Subject::Project { id: None, domain: id, .. } => vec![domain(id)],
            Subject::Assignment { target: Target::Project(id), .. } => tree(id),
            Subject::Assignment { target: Target::Domain(id), .. } => vec![domain(id)],
            Subject::Assignment { target: Target::System, .. }
            | Subject::Role { domain: None }
            | Subject::Credential { .. }
            | Subject::Trust { .. }
            | Subject::Platform
            | Subject::Private => Vec::new(),
        }
    }

    /// Roles that can be given there, and that the listener knows of.
    fn fits(&self, role: &Role, target: &Target) -> bool {
        let domain = role.spec.domain.as_deref();
        let of_target = match target {
            Target::System => None,
            Target::Domain(id) => Some(id.to_string()),
            Target::Project(id) => self.state.projects.get(id).map(|p| p.spec.domain.clone()),
        };
        (domain.is_none() || domain == of_target.as_deref())
            && may(self.state, self.listener, Act::Read, &Subject::Role { domain })
    }

    /// Those that have none of the others in them, the one that implies the fewest first.
    fn least(&self, enough: BTreeSet<String>) -> Vec<String> {
        let has_another = |id: &String| {
            let implied = self.state.implied([id.clone()]);
            implied.iter().any(|other| other != id && enough.contains(other))
        };
        self.by_breadth(enough.iter().filter(|id| !has_another(id)).cloned().collect())
    }

    fn by_breadth(&self, roles: BTreeSet<String>) -> Vec<String> {
        let mut roles: Vec<String> = roles.into_iter().collect();
        roles.sort_by_cached_key(|id| (self.state.implied([id.clone()]).len(), id.clone()));
        roles
    }

    /// Where the user has this very role, as far as the listener sees that.
    fn held_in(&self, user: &User, role: &str) -> Vec<String> {
        let held = self.state.assigned(user).filter(|a| a.role.as_ref() == role && self.tells_assignment(a));
        let places: BTreeSet<Place> = held.filter_map(|a| self.place(&a.target)).collect();
        places.iter().map(told).take(EXPLAINED_MAX).collect()
    }

    fn tells_assignment(&self, assignment: &Assignment) -> bool {
        let Assignment { role, actor, target, .. } = assignment;
        may(self.state, self.listener, Act::Read, &Subject::Assignment { role, actor, target })
    }

    /// The scope by its name; `None`: the listener does not see it, or it is gone.
    fn place(&self, target: &Target) -> Option<Place> {
        let sees = |subject: &Subject<'_>| may(self.state, self.listener, Act::Read, subject);
        let (kind, name) = match target {
            Target::System => ("System", String::new()),
            Target::Domain(id) => {
                let domain = self.state.domains.get(id).filter(|_| sees(&Subject::Domain(id)))?;
                ("Domain", domain.display_name())
            }
            Target::Project(id) => {
                let found = subject(self.state, "projects", id).filter(sees);
                ("Project", found.and_then(|_| project_name(self.state, id))?)
            }
        };
        Some(Place { kind, name })
    }
}

/// `project acme/web`.
fn told(place: &Place) -> String {
    format!("{} {}", place.kind.to_ascii_lowercase(), place.name).trim_end().to_owned()
}

#[cfg(test)]
#[path = "explain/tests.rs"]
mod tests;
