//! Rights on identity's own kinds, on repositories and records of projects and domains, and a second look at what
//! bindings grant.
//!
//! Domains, projects and the rest are cluster-scoped; who may what with them is [`crate::policy`]'s to say and not
//! RBAC's. Everything else is the engine's decision, with one condition: a right that comes from a binding of the
//! component must still be assigned. So a right ends when its assignment ends, also while the binding still stands
//! (a reconciler that is slow, or a process that was killed between the two).
//!
//! A decision's sentence names the role and where it holds. By which of the assignments it is there is looked up when
//! somebody asks why ([`crate::explain`]): a list of repositories makes a decision for each, and each would search.

use std::sync::Arc;

use gantry_identity_api::{GROUP, Named, roles};
use gantry_kube_logic::rbac::matching::allows;
use gantry_kube_types::{Attributes, Authorizer, Decision, Explanation, UserInfo};
use gantry_registry_api::Owner;

use crate::directory::State;
use crate::directory::assignments::Target;
use crate::directory::resolve::Roles;
use crate::directory::table::Entry;
use crate::policy::{Act, Subject, is_platforms, makes_rights, may};
use crate::tenancy::World;
use crate::tenancy::callers::{self, Caller, Scope};

/// Group and resource of the registry's virtual resource.
pub(crate) const REPOSITORIES: (&str, &str) = (gantry_registry_api::GROUP, gantry_registry_api::RESOURCE);

/// Group and resource of the audit trail's virtual resource.
pub(crate) const RECORDS: (&str, &str) = (crate::bootstrap::AUDIT, "records");

/// The engine's authoriser with identity's rules before and behind it.
pub struct IdentityAuthorizer {
    engine: Arc<dyn Authorizer>,
    world: Arc<World>,
}

impl IdentityAuthorizer {
    pub(crate) fn new(engine: Arc<dyn Authorizer>, world: Arc<World>) -> Self {
        Self { engine, world }
    }

    /// Of the engine's part; identity's own is the directory's and the namespaces'.
    pub(crate) fn decisions_version(&self, user: &UserInfo) -> Option<u64> {
        self.engine.decisions_version(user)
    }

    /// Of the engine's part, too.
    pub(crate) fn explain(&self, asked: &Attributes, listener: &UserInfo) -> Option<Explanation> {
        self.engine.explain(asked, listener)
    }

    /// `caller` is who asks, as the directory knows them.
    pub(crate) fn decide(&self, caller: &Caller, asked: &Attributes) -> Decision {
        if asked.is_resource_request
            && asked.group == GROUP
            && let Some(why) = own_kinds(&self.world.directory.read(), caller, asked)
        {
            return Decision::Allow(why);
        }
        match self.engine.authorize(asked) {
            Decision::Allow(why) if caller.of_platform => self.confirmed(asked, why),
            Decision::NoOpinion(why) => match owned(&self.world.directory.read(), caller, asked) {
                Some(why) => Decision::Allow(why),
                None => Decision::NoOpinion(explained(asked, caller, why)),
            },
            decided => decided,
        }
    }

    fn confirmed(&self, asked: &Attributes, why: String) -> Decision {
        let Some((role, namespace)) = component_binding(&why) else { return Decision::Allow(why) };
        let state = self.world.directory.read();
        let scope = match namespace {
            None => Some(Target::System),
            Some(namespace) => self.world.namespaces.project_of(namespace).map(Target::Project),
        };
        let user = callers::user(&state, &asked.user);
        let holds = user.zip(scope).is_some_and(|(user, scope)| {
            let enabled = match &scope {
                Target::Project(id) => state.projects.get(id).is_some_and(|p| state.project_enabled(p)),
                Target::System | Target::Domain(_) => true,
            };
            let assigned = || state.assigned(user).any(|a| a.role.as_ref() == role && state.holds(a, &scope));
            enabled && state.user_active(user) && assigned()
        });
        if holds { Decision::Allow(why) } else { Decision::NoOpinion("the assignment has ended".to_owned()) }
    }
}

/// The role and namespace of the component's binding that a decision of RBAC names; `None`: another binding.
fn component_binding(why: &str) -> Option<(&str, Option<&str>)> {
    let by = why.strip_prefix("RBAC: allowed by ")?;
    if let Some(rest) = by.strip_prefix("ClusterRoleBinding \"gantry:system:") {
        return Some((rest.split('"').next()?, None));
    }
    let (name, _) = by.strip_prefix("RoleBinding \"gantry:")?.split_once('"')?;
    let (binding, namespace) = name.rsplit_once('/')?;
    // Further parts of a binding are numbered: `member:1`.
    Some((binding.split(':').next()?, Some(namespace)))
}

/// Why the caller may do it with an object of identity; `None`: identity does not grant it.
pub(crate) fn own_kinds(state: &State, caller: &Caller, asked: &Attributes) -> Option<String> {
    let who = &caller.authority;
    let ends = |text: &str| Some(format!("identity: {:?} {text}", asked.user.username));
    if who.unlimited {
        return ends("may do everything");
    }
    // Status is written by the component alone.
    if who.user.is_empty() || !asked.subresource.is_empty() || makes_more(state, caller, asked) {
        return None;
    }
    let everything = |role: &str| who.grants.system.contains(role);
    let of = |act: Act| {
        let allowed = subject(state, &asked.resource, &asked.name).is_some_and(|s| may(state, who, act, &s));
        allowed.then(|| {
            let (user, verb) = (&asked.user.username, &asked.verb);
            format!("identity: {user:?} may {verb} {} {:?}", asked.resource, asked.name)
        })
    };
    match asked.verb.as_str() {
        "get" | "list" | "watch" if everything(roles::READER) => ends("sees everything"),
        "get" => of(Act::Read),
        "list" | "watch" if !asked.name.is_empty() => of(Act::Read),
        "update" | "patch" => of(Act::Update),
        "delete" => of(Act::Delete),
        "deletecollection" if everything(roles::ADMIN) => ends("administers the platform"),
        // Which ones is admission's to say: here the object is not known yet.
        "create" if creates(caller, &asked.resource) => ends("may create some of them"),
        _ => None,
    }
}

/// Would a credential that may not make others make rights that outlive it?
pub(crate) fn makes_more(state: &State, caller: &Caller, asked: &Attributes) -> bool {
    if !caller.authority.restricted || ["get", "list", "watch"].contains(&asked.verb.as_str()) {
        return false;
    }
    let made = || subject(state, &asked.resource, &asked.name).is_some_and(|s| makes_rights(&s));
    matches!(asked.resource.as_str(), "applicationcredentials" | "trusts") || made()
}

/// Could the caller create anything of the kind? Not what the policy would refuse in every case.
fn creates(caller: &Caller, resource: &str) -> bool {
    let who = &caller.authority;
    let in_a_domain = |role: &str| who.grants.domains.values().any(|has| has.contains(role));
    let in_a_project = |role: &str| who.grants.projects.iter().any(|(_, has)| has.contains(role));
    let of_tenants =
        |role: &str| who.grants.projects.iter().any(|(id, has)| !is_platforms(id) && has.contains(role));
    if who.grants.system.contains(roles::ADMIN) {
        return true;
    }
    match resource {
        "applicationcredentials" | "trusts" | "keystonerecords" => !who.restricted,
        "users" | "groups" => in_a_domain(roles::MANAGER),
        "projects" => in_a_domain(roles::MANAGER) || in_a_project(roles::ADMIN),
        "roleassignments" => in_a_domain(roles::MANAGER) || of_tenants(roles::MANAGER),
        "roles" | "identityproviders" => in_a_domain(roles::ADMIN),
        _ => false,
    }
}

/// What the policy calls an object that exists.
pub(crate) fn subject<'a>(state: &'a State, resource: &str, name: &'a str) -> Option<Subject<'a>> {
    Some(match resource {
        "domains" => state.domains.get(name).map(|_| Subject::Domain(name))?,
        "projects" => {
            let spec = &state.projects.get(name)?.spec;
            Subject::Project { id: Some(name), domain: &spec.domain, parent: spec.parent.as_deref() }
        }
        "users" => Subject::User { id: name, domain: &state.users.get(name)?.spec.domain },
        "groups" => Subject::Group { domain: &state.groups.get(name)?.spec.domain },
        "roles" => Subject::Role { domain: state.roles.get(name)?.spec.domain.as_deref() },
        "roleassignments" => {
            let found = state.assignments.get(name)?;
            Subject::Assignment { role: &found.role, actor: &found.actor, target: &found.target }
        }
        "applicationcredentials" => {
            Subject::Credential { user: &state.application_credentials.get(name)?.spec.user }
        }
        "trusts" => {
            let spec = &state.trusts.get(name)?.spec;
            Subject::Trust { trustor: &spec.trustor, trustee: &spec.trustee }
        }
        "identityproviders" => Subject::Provider { domain: &state.providers.get(name)?.spec.domain },
        "keystonerecords" => record_subject(&state.records.get(name)?.spec),
        _ => return None,
    })
}

/// Whose a record is.
pub(crate) fn record_subject(spec: &gantry_identity_api::KeystoneRecordSpec) -> Subject<'_> {
    match (spec.collection.as_str(), spec.parent.as_deref()) {
        ("regions" | "services" | "endpoints" | "limits" | "registered_limits", _) => Subject::Platform,
        ("credentials" | "access_rules", Some(user)) => Subject::Credential { user },
        _ => Subject::Private,
    }
}

/// Why the caller may do it with a repository, or with records that are about no namespace: by a role where that belongs.
/// Registry and trail say whose it is in the place of a namespace (see [`Owner`]); where nobody says whose repository it
/// is, the name does.
pub(crate) fn owned(state: &State, caller: &Caller, asked: &Attributes) -> Option<String> {
    let owner = owner(state, asked)?;
    let grants = &caller.authority.grants;
    let allowing = |has: &Roles| has.iter().find(|id| role_allows(state, id, asked)).cloned();
    let by = |role: &str, place: &str, name: Option<String>| {
        let name = name.unwrap_or_default();
        Some(format!("identity: role {:?} in {place} {name:?}", role_name(state, role).unwrap_or_default()))
    };
    if let Some(id) = &owner.project {
        let role = allowing(grants.projects.get(id)?)?;
        return by(&role, "project", project_name(state, id));
    }
    let id = owner.domain.as_ref()?;
    let domain = state.domains.get(id)?;
    if let Some(role) = grants.domains.get(id).and_then(allowing) {
        return by(&role, "domain", Some(domain.display_name()));
    }
    // What belongs to an organisation is there for all its projects to read.
    let inside = |project: &str| state.projects.get(project).is_some_and(|p| p.spec.domain == *id);
    let mut projects = grants.projects.iter().filter(|(project, _)| asked.verb == "pull" && inside(project));
    let (project, role) = projects.find_map(|(project, has)| Some((project, allowing(has)?)))?;
    by(&role, "project", project_name(state, project))
}

/// Does one of the role's own rules allow it?
fn role_allows(state: &State, id: &str, asked: &Attributes) -> bool {
    state.roles.get(id).is_some_and(|role| role.spec.rules.iter().any(|rule| allows(rule, asked)))
}

/// Whose the repository or the records are that are asked about; `None`: it is about something else, or nobody's.
pub(crate) fn owner(state: &State, asked: &Attributes) -> Option<Owner> {
    if !is_owned(asked) {
        return None;
    }
    match asked.namespace.as_str() {
        "" => Some(Owner::of_project(named_after(state, &asked.name)?)),
        said => said.parse().ok(),
    }
}

/// Is it about what projects and domains own, repositories and records, and not about something in a namespace?
pub(crate) fn is_owned(asked: &Attributes) -> bool {
    let said = || asked.namespace.parse::<Owner>().is_ok();
    asked.is_resource_request
        && match (asked.group.as_str(), asked.resource.as_str()) {
            REPOSITORIES => asked.namespace.is_empty() || said(),
            RECORDS => said(),
            _ => false,
        }
}

/// `acme/web`, as users write it.
pub(crate) fn project_name(state: &State, id: &str) -> Option<String> {
    let project = state.projects.get(id)?;
    let domain = state.domains.get(&project.spec.domain)?;
    Some(format!("{}/{}", domain.display_name(), project.display_name()))
}

/// `member`, or `acme/deployer` for a domain's role.
pub(crate) fn role_name(state: &State, id: &str) -> Option<String> {
    let role = state.roles.get(id)?;
    let Some(domain) = &role.spec.domain else { return Some(role.display_name()) };
    Some(format!("{}/{}", state.domains.get(domain)?.display_name(), role.display_name()))
}

/// The project that a repository is named after: `<domain>/<project>/<repository>`.
pub(crate) fn named_after(state: &State, repository: &str) -> Option<String> {
    let mut parts = repository.splitn(3, '/');
    let (domain, project) = (parts.next()?, parts.next()?);
    parts.next().filter(|rest| !rest.is_empty())?;
    let domain = state.domains.by_name(None, domain)?;
    Some(state.projects.by_name(Some(&domain.id()), project)?.id())
}

/// A refusal that says how it is done, where that is not by this request.
fn explained(asked: &Attributes, caller: &Caller, why: String) -> String {
    let makes = asked.verb == "create" && asked.group.is_empty() && asked.resource == "namespaces";
    if makes && caller.of_platform && caller.scope != Scope::Nothing {
        return names_of_namespaces();
    }
    why
}

/// What a tenant is told who tries to make a namespace.
pub(crate) fn names_of_namespaces() -> String {
    "namespaces are made by environments of projects: `gantry project environment add`".to_owned()
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
#[path = "authorizer/tests.rs"]
mod tests;
