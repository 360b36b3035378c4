//! Role assignments.

use gantry_identity_api::RoleAssignment;

use super::identity::Write;
use super::refusal::{Refusal, Verdict};
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::policy::{Act, Subject};

pub(super) fn assignment(write: &mut Write<'_>, new: &RoleAssignment) -> Verdict {
    let Some(wanted) = Assignment::of(new) else {
        return Err(Refusal::invalid(
            "spec",
            "",
            "exactly one of `user` and `group`, and exactly one of `project`, `domain` and `system`",
        ));
    };
    if wanted.inherited && *wanted.target == Target::System {
        return Err(Refusal::invalid("spec.inherited", true, "nothing is below the system"));
    }
    let domain = target_domain(write, &wanted.target)?;
    actor_is_there(write, &wanted.actor)?;
    let role = write.state.roles.get(&wanted.role);
    let role = role.ok_or_else(|| Refusal::missing("spec.role", &wanted.role, "role"))?;
    if role.spec.domain.is_some() && role.spec.domain != domain {
        return Err(Refusal::forbidden("a domain's role is good inside that domain only"));
    }
    if role.metadata.deletion_timestamp.is_some() {
        return Err(Refusal::forbidden("the role is being deleted"));
    }
    let subject = Subject::Assignment { role: &wanted.role, actor: &wanted.actor, target: &wanted.target };
    write.allowed(Act::Create, &subject)?;
    let same = |other: &Assignment| {
        (&other.role, &other.target, other.inherited) == (&wanted.role, &wanted.target, wanted.inherited)
    };
    let there = write.state.assignments.of_actor(&wanted.actor).iter().find(|other| same(other));
    match there {
        Some(other) if other.id.as_ref() != write.id => {
            Err(Refusal::Taken(format!("the role is assigned already, by {:?}", other.id)))
        }
        _ => Ok(()),
    }
}

/// The domain the target is in; `None`: the system is in none.
fn target_domain(write: &Write<'_>, target: &Target) -> Result<Option<String>, Refusal> {
    let leaving = || Refusal::forbidden("what the role is assigned in is being deleted");
    match target {
        Target::System => Ok(None),
        Target::Domain(id) => {
            let found = write.state.domains.get(id);
            let found = found.ok_or_else(|| Refusal::missing("spec.domain", id, "domain"))?;
            if found.metadata.deletion_timestamp.is_some() {
                return Err(leaving());
            }
            Ok(Some(id.to_string()))
        }
        Target::Project(id) => {
            let found = write.state.projects.get(id);
            let found = found.ok_or_else(|| Refusal::missing("spec.project", id, "project"))?;
            if found.metadata.deletion_timestamp.is_some() {
                return Err(leaving());
            }
            Ok(Some(found.spec.domain.clone()))
        }
    }
}

fn actor_is_there(write: &Write<'_>, actor: &Actor) -> Verdict {
    let leaving = match actor {
        Actor::User(id) => {
            let found = write.state.users.get(id);
            found
                .ok_or_else(|| Refusal::missing("spec.user", id, "user"))?
                .metadata
                .deletion_timestamp
                .is_some()
        }
        Actor::Group(id) => {
            let found = write.state.groups.get(id);
            found
                .ok_or_else(|| Refusal::missing("spec.group", id, "group"))?
                .metadata
                .deletion_timestamp
                .is_some()
        }
    };
    if leaving { Err(Refusal::forbidden("who the role is assigned to is being deleted")) } else { Ok(()) }
}
