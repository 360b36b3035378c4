//! From what was asked for to what the token is good for.

use gantry_identity_api::{Project, User};

use super::{Proof, ScopeRequest};
use crate::core::Core;
use crate::directory::State;
use crate::directory::assignments::Target;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::token::TokenScope;

/// The scope of a token to be made.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) target: Option<TokenScope>,
    pub(crate) trust: Option<String>,
    /// Whose token it is, where a trust lets the trustee act as the trustor.
    pub(crate) user: Option<String>,
}

impl Core {
    pub(super) fn scope(&self, proof: &Proof, asked: &ScopeRequest) -> Result<Chosen, IdentityError> {
        let state = self.directory.read();
        let user = proof.user.as_ref();
        if let Some(credential) = &proof.application_credential {
            return of_credential(&state, credential, asked);
        }
        let refused = IdentityError::Unauthorized;
        let target = match asked {
            ScopeRequest::Unscoped => None,
            // A token shown without a scope gives another without a scope, as in Keystone.
            ScopeRequest::Default if proof.token.is_some() => None,
            ScopeRequest::Default => default_project(&state, user),
            ScopeRequest::System => Some(TokenScope::System),
            ScopeRequest::Domain(domain) => {
                let domain = domain.find(&state).filter(|d| d.spec.enabled).ok_or(refused)?;
                Some(TokenScope::Domain(domain.id()))
            }
            ScopeRequest::Project(project) => {
                let found = project.find(&state).filter(|p| state.project_enabled(p)).ok_or(refused)?;
                Some(project_scope(found))
            }
            ScopeRequest::Trust(id) => return of_trust(&state, user, id),
        };
        let target = match proof.token.as_ref().map(|session| &session.claims.scope) {
            None | Some(TokenScope::Unscoped) => target,
            // Only a token without a scope is exchanged freely. Here such a one is good for all that is assigned to its
            // user, and not for nothing as in Keystone: who is given a token of one project could make themselves that.
            Some(narrow) if target.as_ref().is_none_or(|target| target == narrow) => Some(narrow.clone()),
            Some(_) => {
                let why = "You are not authorized to perform the requested action: rescope a scoped token.";
                return Err(IdentityError::Forbidden(why.to_owned()));
            }
        };
        if target.as_ref().is_some_and(|scope| state.roles_in(user, &target_of(scope)).is_empty()) {
            return Err(IdentityError::Unauthorized);
        }
        Ok(Chosen { target, ..Chosen::default() })
    }
}

fn target_of(scope: &TokenScope) -> Target {
    match scope {
        TokenScope::Unscoped | TokenScope::System => Target::System,
        TokenScope::Domain(id) => Target::Domain(id.as_str().into()),
        TokenScope::Project { id, .. } => Target::Project(id.as_str().into()),
    }
}

fn project_scope(project: &Project) -> TokenScope {
    TokenScope::Project { id: project.id(), domain: project.spec.domain.clone() }
}

fn default_project(state: &State, user: &User) -> Option<TokenScope> {
    let id = user.spec.default_project.as_deref()?;
    let project: &Project = state.projects.get(id)?;
    let roles = state.roles_in(user, &Target::Project(id.into()));
    (state.project_enabled(project) && !roles.is_empty()).then(|| project_scope(project))
}

/// A credential has the scope it was made with; asking for that one is allowed.
fn of_credential(state: &State, id: &str, asked: &ScopeRequest) -> Result<Chosen, IdentityError> {
    let credential = state.application_credentials.get(id).ok_or(IdentityError::Unauthorized)?;
    let project = &credential.spec.project;
    let same = match asked {
        ScopeRequest::Default => true,
        ScopeRequest::Project(asked) => asked.find(state).is_some_and(|p| p.id() == *project),
        _ => false,
    };
    if !same {
        return Err(IdentityError::Unauthorized);
    }
    let project = state.projects.get(project).ok_or(IdentityError::Unauthorized)?;
    Ok(Chosen { target: Some(project_scope(project)), ..Chosen::default() })
}

fn of_trust(state: &State, user: &User, id: &str) -> Result<Chosen, IdentityError> {
    // Who asks has proved who they are: this is no way to learn of trusts, whose ids are not to be guessed.
    let trust = state.trusts.get(id).ok_or_else(|| IdentityError::not_found("trust", id))?;
    let used_up = trust.spec.uses_max.is_some_and(|max| trust.status.as_ref().is_some_and(|s| s.uses >= max));
    if trust.spec.trustee != user.id() || used_up {
        return Err(IdentityError::Forbidden("Trust can not be used by this user.".to_owned()));
    }
    let project = trust.spec.project.as_deref().and_then(|id| state.projects.get(id));
    Ok(Chosen {
        target: project.map(|project| project_scope(project)),
        trust: Some(id.to_owned()),
        user: trust.spec.impersonation.then(|| trust.spec.trustor.clone()),
    })
}
