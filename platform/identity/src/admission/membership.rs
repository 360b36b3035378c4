//! Ways to rights that do not look like assignments: being put into a group, and becoming somebody else.

use crate::directory::State;
use crate::directory::assignments::Actor;
use crate::policy::{Act, Authority, Subject, may};

/// May the caller put somebody into the group? Whoever is in it has its roles, so the caller must be allowed to
/// assign each of them. `Err` names one that is not.
pub fn may_join(state: &State, who: &Authority, group: &str) -> Result<(), String> {
    may_give_all(state, who, &Actor::Group(group.into()))
        .map_err(|role| format!("members of group {group:?} have role {role:?}, which is not yours to give"))
}

/// Has the caller all rights of the user? Whoever may change how somebody signs in may sign in as them.
pub fn outranks(state: &State, who: &Authority, user: &str) -> Result<(), String> {
    let refuse = |role: String| format!("user {user:?} has role {role:?}, which is not yours to give");
    may_give_all(state, who, &Actor::User(user.into())).map_err(refuse)?;
    let groups = state.users.get(user).into_iter().flat_map(|u| &u.spec.groups);
    groups
        .into_iter()
        .try_for_each(|group| may_give_all(state, who, &Actor::Group(group.as_str().into())).map_err(refuse))
}

fn may_give_all(state: &State, who: &Authority, actor: &Actor) -> Result<(), String> {
    for assignment in state.assignments.of_actor(actor) {
        let subject = Subject::Assignment { role: &assignment.role, actor, target: &assignment.target };
        if !may(state, who, Act::Create, &subject) {
            return Err(assignment.role.to_string());
        }
    }
    Ok(())
}
