//! `/projects|domains|system/…/users|groups/…/roles` and the same below `/OS-INHERIT`: giving and taking roles.

use super::routes::Routes;
use axum::extract::Path;
use axum::routing::get;
use gantry_identity_api::{Role, RoleAssignment, RoleAssignmentSpec};
use gantry_kube_types::SecurityEvent;

use super::call::{Answer, Call, done};
use super::errors::ApiError;
use super::roles::Roles;
use super::typed::list_of;
use crate::directory::State;
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::policy::{Act, Subject};

/// What a path of grants is about, in the order of its parameters.
#[derive(Clone, Copy)]
struct Place {
    /// `projects`, `domains` or `system`
    target: &'static str,
    /// `users` or `groups`
    actor: &'static str,
    inherited: bool,
}

/// The routes of every place.
pub(crate) fn routes() -> Routes {
    let mut router = Routes::new();
    for (target, parameter) in [("projects", "/{project}"), ("domains", "/{domain}"), ("system", "")] {
        for (actor, actor_parameter) in [("users", "{user}"), ("groups", "{group}")] {
            let place = Place { target, actor, inherited: false };
            let roles = format!("/{target}{parameter}/{actor}/{actor_parameter}/roles");
            router = routes_of(router, place, &roles, &format!("{roles}/{{role}}"));
            if target != "system" {
                let inherited = Place { inherited: true, ..place };
                let list = format!("/OS-INHERIT{roles}/inherited_to_projects");
                let one = format!("/OS-INHERIT{roles}/{{role}}/inherited_to_projects");
                router = routes_of(router, inherited, &list, &one);
            }
        }
    }
    router
}

fn routes_of(router: Routes, place: Place, list: &str, one: &str) -> Routes {
    let path = |p: Path<Vec<String>>| p.0;
    router.route(list, get(move |call: Call, p: Path<Vec<String>>| async move { list_roles(&call, place, path(p)) }))
        .route(
            one,
            get(move |call: Call, p: Path<Vec<String>>| async move { has_role(&call, place, path(p)) })
                .put(move |call: Call, p: Path<Vec<String>>| async move { add_role(&call, place, path(p)).await })
                .delete(move |call: Call, p: Path<Vec<String>>| async move { take_role(&call, place, path(p)).await }),
        )
}

/// Who and where, out of the path's parameters; the role is what is left.
struct Grant {
    target: Target,
    actor: Actor,
    inherited: bool,
    role: Option<String>,
}

impl Grant {
    /// Everything named must be there.
    fn of(
        call: &Call,
        state: &State,
        place: Place,
        path: Vec<String>,
        action: &str,
    ) -> Result<Self, ApiError> {
        let mut path = path.into_iter();
        let target = match place.target {
            "system" => Target::System,
            "domains" => Target::Domain(path.next().unwrap_or_default().as_str().into()),
            _ => Target::Project(path.next().unwrap_or_default().as_str().into()),
        };
        let actor = path.next().unwrap_or_default();
        let actor = match place.actor {
            "users" => Actor::User(actor.as_str().into()),
            _ => Actor::Group(actor.as_str().into()),
        };
        let grant = Self { target, actor, inherited: place.inherited, role: path.next() };
        grant.check(state).map_err(|error| call.absent(state, action, error))?;
        Ok(grant)
    }

    fn check(&self, state: &State) -> Result<(), ApiError> {
        let missing = |word: &str, id: &str| Err(ApiError::not_found(word, id));
        match &self.actor {
            Actor::User(id) if state.users.get(id).is_none() => return missing("user", id),
            Actor::Group(id) if state.groups.get(id).is_none() => return missing("group", id),
            _ => {}
        }
        match &self.target {
            Target::Project(id) if state.projects.get(id).is_none() => return missing("project", id),
            Target::Domain(id) if state.domains.get(id).is_none() => return missing("domain", id),
            _ => {}
        }
        match &self.role {
            Some(id) if state.roles.get(id).is_none() => missing("role", id),
            _ => Ok(()),
        }
    }

    fn role(&self) -> &str {
        self.role.as_deref().unwrap_or_default()
    }

    fn name(&self) -> String {
        Assignment::object_name(self.role(), &self.actor, &self.target, self.inherited)
    }

    /// The assignment, by whatever name it was made.
    fn find(&self, state: &State) -> Option<String> {
        let all = state.assignments.of_actor(&self.actor).iter();
        let found = all.filter(|a| *a.target == self.target && a.inherited == self.inherited);
        found.filter(|a| a.role.as_ref() == self.role()).map(|a| a.id.to_string()).next()
    }

    fn missing(&self) -> ApiError {
        let (Actor::User(actor) | Actor::Group(actor)) = &self.actor;
        let target = match &self.target {
            Target::System => "system",
            Target::Domain(id) | Target::Project(id) => id.as_ref(),
        };
        ApiError::gone(format!(
            "Could not find role assignment with role: {}, user or group: {actor}, project, domain, or system: \
             {target}.",
            self.role()
        ))
    }

    fn require(&self, call: &Call, state: &State, act: Act, action: &str) -> Result<(), ApiError> {
        let subject = Subject::Assignment { role: self.role(), actor: &self.actor, target: &self.target };
        call.require(state, act, &subject, action)
    }

    /// A domain's role is good in that domain alone.
    fn check_domain(&self, state: &State) -> Result<(), ApiError> {
        let Some(domain) =
            state.roles.get(self.role()).and_then(|r: &std::sync::Arc<Role>| r.spec.domain.clone())
        else {
            return Ok(());
        };
        let role = self.role();
        match &self.target {
            Target::Project(id) if state.projects.get(id).is_some_and(|p| p.spec.domain != domain) => {
                Err(ApiError::refused(format!(
                    "Project {id} must be in the same domain as the role {role} being assigned."
                )))
            }
            Target::Domain(id) if id.as_ref() != domain => Err(ApiError::refused(format!(
                "Domain {id} must be the domain of the role {role} being assigned."
            ))),
            Target::System => {
                Err(ApiError::refused(format!("Role {role} belongs to a domain, not to the system.")))
            }
            _ => Ok(()),
        }
    }
}

fn list_roles(call: &Call, place: Place, path: Vec<String>) -> Answer {
    let roles = {
        let state = call.state();
        let grant = Grant::of(call, &state, place, path, "list_grants")?;
        grant.require(call, &state, Act::Read, "list_grants")?;
        let all = state.assignments.of_actor(&grant.actor).iter();
        let here = all.filter(|a| *a.target == grant.target && a.inherited == grant.inherited);
        here.filter_map(|a| state.roles.get(&a.role).cloned()).collect()
    };
    list_of::<Roles>(call, roles)
}

fn has_role(call: &Call, place: Place, path: Vec<String>) -> Answer {
    let state = call.state();
    let grant = Grant::of(call, &state, place, path, "check_grant")?;
    grant.require(call, &state, Act::Read, "check_grant")?;
    if grant.find(&state).is_some() { done() } else { Err(grant.missing()) }
}

async fn add_role(call: &Call, place: Place, path: Vec<String>) -> Answer {
    let (name, spec, target) = {
        let state = call.state();
        let grant = Grant::of(call, &state, place, path, "create_grant")?;
        grant.require(call, &state, Act::Create, "create_grant")?;
        grant.check_domain(&state)?;
        if grant.find(&state).is_some() {
            return done();
        }
        (grant.name(), spec_of(&grant), grant.target)
    };
    match call.core.objects.create(&RoleAssignment::new(&name, spec)).await {
        // Another was quicker, with the same assignment.
        Ok(_) | Err(crate::errors::IdentityError::Conflict(_)) => {}
        Err(error) => return Err(error.into()),
    }
    call.record_in(project_of(&target), SecurityEvent::RightChanged, "roleassignments", &name).await?;
    done()
}

fn project_of(target: &Target) -> Option<&str> {
    if let Target::Project(id) = target { Some(id) } else { None }
}

fn spec_of(grant: &Grant) -> RoleAssignmentSpec {
    let mut spec = RoleAssignmentSpec {
        role: grant.role().to_owned(),
        inherited: grant.inherited,
        ..RoleAssignmentSpec::default()
    };
    match &grant.actor {
        Actor::User(id) => spec.user = Some(id.to_string()),
        Actor::Group(id) => spec.group = Some(id.to_string()),
    }
    match &grant.target {
        Target::System => spec.system = true,
        Target::Domain(id) => spec.domain = Some(id.to_string()),
        Target::Project(id) => spec.project = Some(id.to_string()),
    }
    spec
}

async fn take_role(call: &Call, place: Place, path: Vec<String>) -> Answer {
    let (name, target) = {
        let state = call.state();
        let grant = Grant::of(call, &state, place, path, "revoke_grant")?;
        grant.require(call, &state, Act::Delete, "revoke_grant")?;
        (grant.find(&state).ok_or_else(|| grant.missing())?, grant.target)
    };
    call.core.objects.delete::<RoleAssignment>(&name).await?;
    call.record_in(project_of(&target), SecurityEvent::RightChanged, "roleassignments", &name).await?;
    done()
}
