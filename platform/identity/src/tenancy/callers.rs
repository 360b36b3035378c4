//! Who a caller of the Kubernetes API is to identity: which user, and with which of the user's rights.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use gantry_identity_api::{User, extra};
use gantry_kube_types::{UserInfo, groups};
use kube::ResourceExt;

use crate::directory::State;
use crate::directory::assignments::Target;
use crate::directory::resolve::{Grants, Roles};
use crate::policy::{Authority, is_platforms};
use crate::rights::OWN_USER;
use crate::tenancy::decisions::Decisions;

/// Callers remembered between two changes of the directory.
const REMEMBERED_MAX: usize = 4096;
/// Of them, those that are known by their address: they are kept whole.
const ADDRESSES_MAX: usize = 1024;

/// What a credential is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All rights of the user.
    Whole,
    /// Those that hold there.
    At(Target),
    /// None: it names no scope, or more than one.
    Nothing,
}

/// A caller, with the rights in effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Narrowed to the scope.
    pub authority: Authority,
    pub scope: Scope,
    /// Known to identity, or claims to be: whatever such a caller may has to be in the directory.
    pub of_platform: bool,
}

impl Default for Caller {
    /// Somebody identity does not know.
    fn default() -> Self {
        Self { authority: Authority::default(), scope: Scope::Whole, of_platform: false }
    }
}

impl Caller {
    /// The caller as the directory knows them now.
    pub fn of(state: &State, info: &UserInfo) -> Self {
        let scope = scope(info);
        let unlimited = info.in_group(groups::MASTERS) || info.username == OWN_USER;
        if unlimited && scope == Scope::Whole {
            let authority = Authority { unlimited: true, ..Authority::default() };
            return Self { authority, scope, of_platform: false };
        }
        let of_platform = info.extra.contains_key(extra::USER_ID);
        let Some(user) = user(state, info) else {
            return Self { authority: Authority::default(), scope, of_platform };
        };
        // Not even what is their own: a credential may be older than the lock.
        if !state.user_active(user) {
            return Self { authority: Authority::default(), scope, of_platform: true };
        }
        let mut authority = Authority::whole(&user.name_any(), Default::default());
        if user.metadata.deletion_timestamp.is_none() {
            authority.grants = narrowed(state, info, &scope, state.grants(user));
        }
        authority.restricted = restricted(state, info);
        Self { authority, scope, of_platform: true }
    }

    /// Administrator of the platform, or the platform itself.
    pub fn is_unlimited(&self) -> bool {
        self.authority.unlimited || self.authority.grants.system.contains(gantry_identity_api::roles::ADMIN)
    }

    /// The roles in effect in the credential's scope, implied ones included.
    pub fn scoped_roles(&self) -> Option<&Roles> {
        match &self.scope {
            Scope::At(target) => self.authority.grants.in_scope(target),
            Scope::Whole | Scope::Nothing => None,
        }
    }
}

/// Is the caller plainly none of identity's, so that there is nothing to look up? Nodes, controllers and service
/// accounts make most of the requests.
pub fn is_stranger(info: &UserInfo) -> bool {
    let of_cluster = info.username.starts_with("system:") && info.username != OWN_USER;
    of_cluster && info.extra.is_empty() && !info.in_group(groups::MASTERS)
}

/// The user the caller is. What the credential says and what the user is called must agree: a name that was given
/// to somebody else in the meantime opens nothing.
pub fn user<'a>(state: &'a State, info: &UserInfo) -> Option<&'a Arc<User>> {
    match info.extra.get(extra::USER_ID).map(Vec::as_slice) {
        None => state.user_by_kubernetes_name(&info.username),
        Some([id]) => {
            let user = state.users.get(id)?;
            (state.kubernetes_name(user).as_deref() == Some(info.username.as_str())).then_some(user)
        }
        Some(_) => None,
    }
}

/// What the caller's credential is good for.
pub fn scope(info: &UserInfo) -> Scope {
    let has = |key: &str| info.extra.contains_key(key);
    let targets = [extra::PROJECT, extra::SCOPE_DOMAIN, extra::SYSTEM];
    if !targets.iter().chain(&[extra::ROLES, extra::APPLICATION_CREDENTIAL, extra::TRUST]).any(|key| has(key))
    {
        return Scope::Whole;
    }
    let given: Vec<(&str, &[String])> =
        targets.iter().filter_map(|key| Some((*key, info.extra.get(*key)?.as_slice()))).collect();
    match given.as_slice() {
        // Administrators of this project are the platform's, and a token of it says both.
        [(one, [id]), (other, [_])]
            if (*one, *other) == (extra::PROJECT, extra::SYSTEM) && is_platforms(id) =>
        {
            Scope::At(Target::System)
        }
        [(key, [id])] if *key == extra::PROJECT => Scope::At(Target::Project(id.as_str().into())),
        [(key, [id])] if *key == extra::SCOPE_DOMAIN => Scope::At(Target::Domain(id.as_str().into())),
        [(_, [_])] => Scope::At(Target::System),
        _ => Scope::Nothing,
    }
}

/// What is left of the grants with the caller's credential.
pub fn narrowed(state: &State, info: &UserInfo, scope: &Scope, grants: Grants) -> Grants {
    match scope {
        Scope::Whole => grants,
        Scope::At(target) => grants.narrowed(target, limited(state, info).as_ref()),
        Scope::Nothing => Grants::default(),
    }
}

/// The roles the credential is limited to; `None`: all of the user's in the scope.
fn limited(state: &State, info: &UserInfo) -> Option<Roles> {
    let listed: Option<Roles> = info.extra.get(extra::ROLES).map(|ids| ids.iter().cloned().collect());
    let Some(credential) = info.extra.get(extra::APPLICATION_CREDENTIAL) else { return listed };
    // One that is gone is good for nothing.
    let found = credential.first().and_then(|id| state.application_credentials.get(id));
    let own: Roles = found.map(|c| state.implied(c.spec.roles.iter().cloned())).unwrap_or_default();
    Some(match listed {
        Some(listed) => listed.intersection(&own).cloned().collect(),
        None => own,
    })
}

fn restricted(state: &State, info: &UserInfo) -> bool {
    let entrusted = info.extra.contains_key(extra::TRUST);
    entrusted
        || info.extra.get(extra::APPLICATION_CREDENTIAL).is_some_and(|ids| {
            let found = ids.first().and_then(|id| state.application_credentials.get(id));
            !found.is_some_and(|c| c.spec.unrestricted)
        })
}

/// Callers of the moment: a list asks about the same caller once per object.
#[derive(Default)]
pub struct Callers(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    generation: u64,
    callers: HashMap<String, Arc<Caller>>,
    /// Those asked about lately, by [`UserInfo::address`]. A request asks several times with the same value, and a
    /// token's session hands out the same value for every request.
    by_address: HashMap<usize, Known, RandomState>,
}

/// One value of the callers of the moment.
#[derive(Clone)]
pub(crate) struct Known {
    /// Keeps the address.
    _info: UserInfo,
    pub(crate) caller: Arc<Caller>,
    /// About this very value: two of one caller may be in different groups.
    pub(crate) decisions: Arc<Decisions>,
}

impl Callers {
    /// The caller of this very value, where it is remembered.
    pub(crate) fn known(&self, generation: u64, info: &UserInfo) -> Option<Known> {
        let remembered = self.lock();
        let known = remembered.by_address.get(&info.address())?;
        (remembered.generation == generation).then(|| known.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Caller::of`], remembered until the directory is at another generation.
    pub(crate) fn get(&self, generation: u64, state: &State, info: &UserInfo) -> Known {
        let mut remembered = self.lock();
        if remembered.generation != generation || remembered.callers.len() >= REMEMBERED_MAX {
            *remembered = Remembered { generation, ..Remembered::default() };
        }
        if let Some(known) = remembered.by_address.get(&info.address()) {
            return known.clone();
        }
        let made = || Arc::new(Caller::of(state, info));
        let caller = remembered.callers.entry(fingerprint(info)).or_insert_with(made).clone();
        if remembered.by_address.len() >= ADDRESSES_MAX {
            remembered.by_address.clear();
        }
        let known = Known { _info: info.clone(), caller, decisions: Arc::default() };
        remembered.by_address.insert(info.address(), known.clone());
        known
    }
}

/// Everything [`Caller::of`] looks at, with lengths: no two callers have one fingerprint.
fn fingerprint(info: &UserInfo) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(96);
    let masters = info.in_group(groups::MASTERS);
    // Writing to a String does not fail.
    let _ = write!(text, "{masters}:{}:{}", info.username.len(), info.username);
    for key in [
        extra::USER_ID,
        extra::PROJECT,
        extra::SCOPE_DOMAIN,
        extra::SYSTEM,
        extra::ROLES,
        extra::APPLICATION_CREDENTIAL,
        extra::TRUST,
    ] {
        if let Some(values) = info.extra.get(key) {
            let _ = write!(text, "|{key}={}", values.len());
            values.iter().for_each(|value| {
                let _ = write!(text, ":{}:{value}", value.len());
            });
        }
    }
    text
}
