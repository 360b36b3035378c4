//! Callers whose credential is good for less than the user is.
//!
//! A token scoped to a project, or made with an application credential, is its user cut down to the namespaces of
//! the project and to what the listed roles grant there. Both must allow: the user's rights and the roles' rules.
//! A pull secret is no user's at all: [`pull`] says what it is good for, and nobody else is asked.

use std::sync::Arc;

use gantry_identity_api::{GROUP, Role};
use gantry_kube_logic::rbac::matching::allows;
use gantry_kube_types::{Attributes, Authorizer, Decision, Explanation, UserInfo};

use crate::authorizer::{IdentityAuthorizer, makes_more, own_kinds, owned};
use crate::bootstrap::system_rules;
use crate::directory::State;
use crate::directory::assignments::Target;
use crate::explain;
use crate::pull;
use crate::tenancy::World;
use crate::tenancy::callers::{self, Caller, Scope};
use crate::tenancy::namespaces::Namespaces;

/// Paths that tell what the API is, and nothing of what is in it.
const DISCOVERY: &[&str] =
    &["/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz", "/.well-known", "/openid"];

/// Narrows callers by what their credential says of its scope; everybody else passes as they are.
pub struct Narrowed {
    whole: IdentityAuthorizer,
    world: Arc<World>,
}

impl Narrowed {
    pub(crate) fn new(whole: IdentityAuthorizer, world: Arc<World>) -> Self {
        Self { whole, world }
    }
}

impl Authorizer for Narrowed {
    fn authorize(&self, asked: &Attributes) -> Decision {
        if callers::is_stranger(&asked.user) {
            return self.decide(&Caller::default(), asked);
        }
        if pull::is_pull_secret(&asked.user) {
            return pull::decide(&self.world.directory.read(), asked);
        }
        let known = self.world.known(&asked.user);
        let version = self.whole.decisions_version(&asked.user);
        known.decisions.get_or(version, asked, || self.decide(&known.caller, asked))
    }

    /// Both only grow, and so does their sum.
    fn decisions_version(&self, user: &UserInfo) -> Option<u64> {
        Some(self.whole.decisions_version(user)? + self.world.generation())
    }

    fn explain(&self, asked: &Attributes, listener: &UserInfo) -> Option<Explanation> {
        explain::explain(&self.world, asked, listener).or_else(|| self.whole.explain(asked, listener))
    }
}

impl Narrowed {
    fn decide(&self, caller: &Caller, asked: &Attributes) -> Decision {
        if caller.scope == Scope::Whole || is_open(asked) {
            return self.whole.decide(caller, asked);
        }
        {
            let state = self.world.directory.read();
            if asked.is_resource_request && asked.group == GROUP {
                if let Some(why) = own_kinds(&state, caller, asked) {
                    return Decision::Allow(why);
                }
                // No rule of a role makes up for it.
                if makes_more(&state, caller, asked) {
                    return outside(caller);
                }
            }
            if let Some(why) = owned(&state, caller, asked) {
                return Decision::Allow(why);
            }
            if !within(&state, &self.world.namespaces, caller, asked) {
                return outside(caller);
            }
        }
        self.whole.decide(caller, asked)
    }
}

/// `NoOpinion` and not `Deny`: a list may still show a part.
fn outside(caller: &Caller) -> Decision {
    Decision::NoOpinion(match &caller.scope {
        Scope::At(Target::Project(id)) => {
            format!("the credential is good for project {id:?} and its roles only")
        }
        Scope::At(Target::Domain(id)) => {
            format!("the credential is good for domain {id:?} and its roles only")
        }
        Scope::At(Target::System) => "the credential is good for its roles in the system only".to_owned(),
        Scope::Whole | Scope::Nothing => "the credential has no scope".to_owned(),
    })
}

/// Discovery and questions about oneself.
fn is_open(asked: &Attributes) -> bool {
    if !asked.is_resource_request {
        let begins = |path: &&str| {
            let rest = asked.path.strip_prefix(*path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        return asked.verb == "get" && DISCOVERY.iter().any(begins);
    }
    let self_review = match asked.group.as_str() {
        "authorization.k8s.io" => {
            matches!(asked.resource.as_str(), "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
        }
        "authentication.k8s.io" => asked.resource == "selfsubjectreviews",
        _ => false,
    };
    self_review && asked.verb == "create"
}

/// Is it in the credential's scope, and do the roles there allow it?
pub(crate) fn within(state: &State, namespaces: &Namespaces, caller: &Caller, asked: &Attributes) -> bool {
    let Some(roles) = caller.scoped_roles() else { return false };
    let roles = || roles.iter().filter_map(|id| state.roles.get(id));
    let grants = |role: &Arc<Role>| role.spec.rules.iter().any(|rule| allows(rule, asked));
    match &caller.scope {
        Scope::At(Target::Project(id)) => {
            let here = !asked.namespace.is_empty()
                && namespaces.project_of(&asked.namespace).is_some_and(|project| project == *id);
            here && roles().any(grants)
        }
        Scope::At(Target::System) => roles().any(|role| {
            let id = role.metadata.name.as_deref().unwrap_or_default();
            grants(role) || system_rules(id).iter().any(|rule| allows(rule, asked))
        }),
        // Rights of a domain are on identity's own kinds.
        Scope::At(Target::Domain(_)) | Scope::Whole | Scope::Nothing => false,
    }
}

#[cfg(test)]
#[path = "narrowed/tests.rs"]
mod tests;
