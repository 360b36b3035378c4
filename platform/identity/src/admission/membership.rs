//! Ways to rights that do not look like assignments: being put into a group, becoming somebody else, and ruling over
//! the place somebody else signs in at.

use gantry_identity_api::{IdentityProvider, Named, User};

use crate::directory::State;
use crate::directory::assignments::{Actor, Target};
use crate::directory::table::Entry;
use crate::policy::{Act, Authority, Subject, may};
use crate::providers::keeps_roles;

/// May the caller put somebody into the group? Whoever is in it has its roles, so the caller must be allowed to
/// assign each of them. `Err` names one that is not.
pub fn may_join(state: &State, who: &Authority, group: &str) -> Result<(), String> {
    may_give_all(state, who, &Actor::Group(group.into()))
        .map_err(|role| format!("members of group {group:?} have role {role:?}, which is not yours to give"))
}

/// Has the caller all rights of the user? Whoever may change how somebody signs in may sign in as them, and then has
/// what the user was entrusted with, too.
pub fn outranks(state: &State, who: &Authority, user: &str) -> Result<(), String> {
    let refuse = |role: String| format!("user {user:?} has role {role:?}, which is not yours to give");
    let actor = Actor::User(user.into());
    may_give_all(state, who, &actor).map_err(refuse)?;
    let groups = state.users.get(user).into_iter().flat_map(|u| &u.spec.groups);
    for group in groups {
        may_give_all(state, who, &Actor::Group(group.as_str().into())).map_err(refuse)?;
    }
    for trust in state.trusts.iter().filter(|trust| trust.spec.trustee == user) {
        let Some(project) = &trust.spec.project else { continue };
        let target = Target::Project(project.as_str().into());
        for role in &trust.spec.roles {
            may_give(state, who, role, &actor, &target).map_err(refuse)?;
        }
    }
    Ok(())
}

/// Does the change decide who may sign in as the user? A user who is disabled leaves; that is nobody's way in.
pub fn signs_in_otherwise(old: &User, new: &User) -> bool {
    let way = |u: &User| {
        (u.spec.federated.clone(), u.spec.provider.clone(), u.spec.options.clone(), u.display_name())
    };
    way(old) != way(new) || (new.spec.enabled && !old.spec.enabled)
}

/// May the caller say where people of the provider come from? Whoever does can come as each of its users, be in each
/// of its groups and of those that it maps to, and, where a Keystone's roles are kept, have any role in any project of
/// the domain.
pub fn rules_provider(state: &State, who: &Authority, provider: &IdentityProvider) -> Result<(), String> {
    let id = provider.id();
    let is = |of: &Option<String>| of.as_deref() == Some(id.as_str());
    for group in state.groups.iter().filter(|group| is(&group.spec.provider)) {
        may_join(state, who, &group.id())?;
    }
    for group in provider.spec.group_mapping.values().flatten() {
        may_join(state, who, group)?;
    }
    for user in state.users.iter().filter(|user| is(&user.spec.provider)) {
        outranks(state, who, &user.id())?;
    }
    if !keeps_roles(&provider.spec) {
        return Ok(());
    }
    let anybody = Actor::User("".into());
    for project in state.projects.iter().filter(|project| project.spec.domain == provider.spec.domain) {
        let target = Target::Project(project.id().as_str().into());
        for role in state.roles.iter().filter(|role| role.spec.domain.is_none()) {
            may_give(state, who, &role.id(), &anybody, &target).map_err(|role| {
                format!("config.sync.keepRoles can give role {role:?}, which is not yours to give")
            })?;
        }
    }
    Ok(())
}

fn may_give_all(state: &State, who: &Authority, actor: &Actor) -> Result<(), String> {
    let assigned = state.assignments.of_actor(actor).iter();
    assigned.into_iter().try_for_each(|a| may_give(state, who, &a.role, actor, &a.target))
}

fn may_give(
    state: &State,
    who: &Authority,
    role: &str,
    actor: &Actor,
    target: &Target,
) -> Result<(), String> {
    let allowed = may(state, who, Act::Create, &Subject::Assignment { role, actor, target });
    if allowed { Ok(()) } else { Err(role.to_owned()) }
}
