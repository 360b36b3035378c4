//! What a good token means at this moment: the user as the user is now, the scope as it is now, the roles as they
//! are now. Nothing of it is in the token, so a right that is taken away is gone with the next request.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gantry_identity_api::{DEFAULT_DOMAIN, Domain, Named, Project, Role, User, UserSpec, extra, roles};
use gantry_kube_types::{UserFields, UserInfo, groups};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::directory::State;
use crate::directory::assignments::Target;
use crate::directory::resolve::{Grants, Roles};
use crate::directory::table::Entry;
use crate::policy::Authority;
use crate::token::{Claims, TokenScope};

/// Id and name of the project whose admins are the platform's, as Keystone's `admin_project` is.
pub const ADMIN_PROJECT: &str = "admin";

/// A token that is good, with all that hangs on it.
#[derive(Clone, Debug)]
pub struct Session {
    pub claims: Arc<Claims>,
    pub user: Arc<User>,
    pub domain: Arc<Domain>,
    /// `None`: the token has no scope.
    pub scope: Option<Target>,
    /// The project of a project scope.
    pub project: Option<Arc<Project>>,
    /// The domain of a domain scope, or the one of the scope's project.
    pub scope_domain: Option<Arc<Domain>>,
    /// The roles in the scope, implied ones included.
    pub roles: Vec<Arc<Role>>,
    /// What the caller may with identity's own objects.
    pub authority: Authority,
    /// The caller as Kubernetes, the registry and audit know them.
    pub info: UserInfo,
    /// When what the token was made from ends, where that does not need a change of anything.
    pub(crate) ends_at: Option<Timestamp>,
    /// The token as Keystone's clients see it, once one has looked.
    pub(crate) shown: Shown,
}

/// Bodies of answers that show the token, without and with the catalogue. Services ask for the same few tokens again
/// and again, and a session lives no longer than what it was made from stays as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown([OnceLock<Bytes>; 2]);

impl Shown {
    pub(crate) fn get_or(&self, with_catalog: bool, make: impl FnOnce() -> Bytes) -> Bytes {
        self.0[usize::from(with_catalog)].get_or_init(make).clone()
    }
}

impl Session {
    /// `None`: the user, the scope or what the token was made from is gone, disabled or expired.
    pub fn of(state: &State, claims: Arc<Claims>, now: Timestamp) -> Option<Self> {
        let user = state.users.get(&claims.user)?.clone();
        let domain = state.domains.get(&user.spec.domain)?.clone();
        if !state.user_active(&user) {
            return None;
        }
        if !claims.trust.as_deref().is_none_or(|id| trust_stands(state, id, now)) {
            return None;
        }
        let scope = target(&claims.scope);
        let roles = match &scope {
            Some(scope) => Some(roles(state, &claims, &user, scope, now)?),
            None => None,
        };
        let (project, scope_domain) = match &scope {
            Some(Target::Project(id)) => {
                let project = state.projects.get(id).filter(|p| state.project_enabled(p))?.clone();
                let domain = state.domains.get(&project.spec.domain)?.clone();
                (Some(project), Some(domain))
            }
            Some(Target::Domain(id)) => {
                (None, Some(state.domains.get(id).filter(|d| d.spec.enabled)?.clone()))
            }
            Some(Target::System) | None => (None, None),
        };
        let authority = authority(state, &claims, &user, scope.as_ref(), roles.as_ref());
        let info = user_info(state, &claims, &user, scope.as_ref(), roles.as_ref())?;
        let shown = roles.iter().flatten().filter_map(|id| state.roles.get(id));
        // Roles of a domain stand for what they imply, as in Keystone.
        let roles = shown.filter(|role| role.spec.domain.is_none()).cloned().collect();
        let (ends_at, shown) = (ends_at(state, &claims), Shown::default());
        Some(Self {
            claims,
            user,
            domain,
            scope,
            project,
            scope_domain,
            roles,
            authority,
            info,
            ends_at,
            shown,
        })
    }

    /// Is the token good for all that its user may?
    pub(crate) fn is_whole(&self) -> bool {
        self.claims.scope == TokenScope::Unscoped
            && self.claims.roles.is_none()
            && !is_delegated(&self.claims)
    }

    /// The platform's administrators by certificate (`system:masters`), who are no users of identity: everything is
    /// theirs to do, and nothing is theirs. `None`: the caller is none of them.
    pub fn of_master(state: &State, caller: &UserInfo, now: Timestamp) -> Option<Self> {
        if !caller.in_group(groups::MASTERS) {
            return None;
        }
        let domain = state.domains.get(DEFAULT_DOMAIN)?.clone();
        let spec = UserSpec {
            name: Some(caller.username.clone()),
            domain: domain.id(),
            enabled: true,
            ..UserSpec::default()
        };
        let claims = Claims {
            methods: vec!["certificate".to_owned()],
            scope: TokenScope::System,
            ..Claims::unscoped("", "", &domain.id(), now..now)
        };
        Some(Self {
            claims: Arc::new(claims),
            // Without an id: no object is this user's own.
            user: Arc::new(User::new("", spec)),
            domain,
            scope: Some(Target::System),
            project: None,
            scope_domain: None,
            roles: state.roles.get(roles::ADMIN).cloned().into_iter().collect(),
            authority: Authority { unlimited: true, ..Authority::default() },
            info: caller.clone(),
            ends_at: None,
            shown: Shown::default(),
        })
    }

    /// Made in the project whose admins are the platform's.
    pub fn is_admin_project(&self) -> bool {
        self.project.as_ref().is_some_and(|p| p.id() == ADMIN_PROJECT)
    }
}

fn target(scope: &TokenScope) -> Option<Target> {
    match scope {
        TokenScope::Unscoped => None,
        TokenScope::System => Some(Target::System),
        TokenScope::Domain(id) => Some(Target::Domain(id.as_str().into())),
        TokenScope::Project { id, .. } => Some(Target::Project(id.as_str().into())),
    }
}

fn expired(at: &Option<Time>, now: Timestamp) -> bool {
    at.as_ref().is_some_and(|at| at.0 <= now)
}

/// Does the trust still stand that a token was made with?
pub(crate) fn trust_stands(state: &State, id: &str, now: Timestamp) -> bool {
    let enabled = |id: &String| state.users.get(id).is_some_and(|user| state.user_active(user));
    state.trusts.get(id).is_some_and(|trust| {
        let spec = &trust.spec;
        enabled(&spec.trustor) && enabled(&spec.trustee) && !expired(&spec.expires_at, now)
    })
}

/// Made with something that its user handed out, which is good for what it says and not for the user's rights.
fn is_delegated(claims: &Claims) -> bool {
    claims.trust.is_some() || claims.application_credential.is_some() || claims.oauth.is_some()
}

/// The roles the token has in its scope; `None` when it has none and is good for nothing.
fn roles(state: &State, claims: &Claims, user: &User, scope: &Target, now: Timestamp) -> Option<Roles> {
    let mut roles = state.roles_in(user, scope);
    if let Some(id) = &claims.application_credential {
        let credential = state.application_credentials.get(id)?;
        if credential.spec.user != user.id() || expired(&credential.spec.expires_at, now) {
            return None;
        }
        let given = state.implied(credential.spec.roles.iter().cloned());
        roles = roles.intersection(&given).cloned().collect();
    }
    if let Some(id) = &claims.trust {
        let trust = state.trusts.get(id)?;
        let trustor = state.users.get(&trust.spec.trustor)?;
        // The trustor's roles as they are now, of those that were entrusted.
        let given = state.implied(trust.spec.roles.iter().cloned());
        roles = state.roles_in(trustor, scope).intersection(&given).cloned().collect();
    }
    if let Some(only) = &claims.roles {
        roles.retain(|role| only.contains(role));
    }
    (!roles.is_empty()).then_some(roles)
}

/// The first end among the application credential and the trust that the token was made with.
fn ends_at(state: &State, claims: &Claims) -> Option<Timestamp> {
    let credential = claims.application_credential.as_deref();
    let credential = credential.and_then(|id| state.application_credentials.get(id));
    let trust = claims.trust.as_deref().and_then(|id| state.trusts.get(id));
    let credential = credential.and_then(|c| c.spec.expires_at.as_ref());
    let trust = trust.and_then(|t| t.spec.expires_at.as_ref());
    credential.into_iter().chain(trust).map(|at| at.0).min()
}

fn authority(
    state: &State,
    claims: &Claims,
    user: &User,
    scope: Option<&Target>,
    roles: Option<&Roles>,
) -> Authority {
    let mut authority = match (scope, roles) {
        (Some(scope), Some(roles)) => {
            let mut grants = Grants::default();
            match scope {
                Target::System => grants.system.clone_from(roles),
                Target::Domain(id) => drop(grants.domains.insert(id.to_string(), roles.clone())),
                Target::Project(id) => {
                    if id.as_ref() == ADMIN_PROJECT {
                        grants.system.clone_from(roles);
                    }
                    grants.projects.insert(id.to_string(), roles.clone());
                }
            }
            Authority::whole(&user.id(), grants)
        }
        // A trust without a project hands on no role.
        _ if is_delegated(claims) => Authority::whole(&user.id(), Grants::default()),
        _ => Authority::whole(&user.id(), state.grants(user)),
    };
    let credential = claims.application_credential.as_deref();
    let credential = credential.and_then(|id| state.application_credentials.get(id));
    authority.restricted = credential.is_some_and(|c| !c.spec.unrestricted) || claims.trust.is_some();
    authority
}

fn user_info(
    state: &State,
    claims: &Claims,
    user: &User,
    scope: Option<&Target>,
    roles: Option<&Roles>,
) -> Option<UserInfo> {
    let mut all = BTreeMap::new();
    let mut put = |key: &str, values: Vec<String>| drop(all.insert(key.to_owned(), values));
    put(extra::USER_ID, vec![user.id()]);
    put(extra::DOMAIN, vec![user.spec.domain.clone()]);
    put(extra::METHOD, claims.methods.clone());
    put(extra::TOKEN_ID, vec![claims.id.clone()]);
    if let Some(chain) = &claims.chain {
        put(extra::TOKEN_CHAIN, vec![chain.clone()]);
    }
    if let Some(federation) = &claims.federation {
        put(extra::PROVIDER, vec![federation.provider.clone()]);
    }
    if let Some(oauth) = &claims.oauth {
        put(extra::OAUTH, vec![oauth.consumer.clone(), oauth.access_token.clone()]);
    }
    match scope {
        None => {}
        Some(Target::System) => put(extra::SYSTEM, vec!["all".to_owned()]),
        Some(Target::Domain(id)) => put(extra::SCOPE_DOMAIN, vec![id.to_string()]),
        Some(Target::Project(id)) => {
            put(extra::PROJECT, vec![id.to_string()]);
            // Admins of this project are the platform's, also with a token of the project.
            if id.as_ref() == ADMIN_PROJECT {
                put(extra::SYSTEM, vec!["all".to_owned()]);
            }
        }
    }
    match roles {
        Some(roles) => put(extra::ROLES, roles.iter().cloned().collect()),
        // Limited to nothing, and not without a limit.
        None if is_delegated(claims) => put(extra::ROLES, Vec::new()),
        None => {}
    }
    if let Some(id) = &claims.trust {
        put(extra::TRUST, vec![id.clone()]);
    }
    if let Some(id) = &claims.application_credential {
        put(extra::APPLICATION_CREDENTIAL, vec![id.clone()]);
    }
    let username = state.kubernetes_name(user)?;
    let mut member_of = state.kubernetes_groups(user);
    member_of.push(groups::AUTHENTICATED.to_owned());
    Some(UserFields { username, uid: user.id(), groups: member_of, extra: all }.into())
}

/// `acme/alice`, for messages.
pub(crate) fn spoken_name(state: &State, user: &User) -> String {
    state.kubernetes_name(user).unwrap_or_else(|| user.display_name())
}
