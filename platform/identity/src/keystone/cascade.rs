//! What goes away with an object: found by a pure function, done in an order in which nothing is left dangling with
//! rights.

use gantry_identity_api::{
    ApplicationCredential, Group, KeystoneRecord, Project, Role, RoleAssignment, Trust, User,
};

use super::call::Call;
use super::errors::ApiError;
use crate::directory::State;
use crate::directory::assignments::{Actor, Assignment, Target};
use crate::directory::table::Entry;
use crate::errors::IdentityError;

/// One thing that goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doomed {
    Assignment(String),
    ApplicationCredential(String),
    Trust(String),
    Record(String),
    /// The user's membership in the group.
    Membership {
        user: String,
        group: String,
    },
    /// That one role implies another.
    Implication {
        role: String,
        implied: String,
    },
    User(String),
    Group(String),
    Role(String),
    Project(String),
    /// Every secret of the owner.
    Secrets(String),
}

/// Rights first, then what they hung on.
pub(crate) fn of_user(state: &State, id: &str) -> Vec<Doomed> {
    let mut all = assignments(state, |a| *a.actor == Actor::User(id.into()));
    let credentials = state.application_credentials.iter().filter(|c| c.spec.user == id);
    for credential in credentials {
        all.push(Doomed::ApplicationCredential(credential.id()));
    }
    let trusts = state.trusts.iter().filter(|t| t.spec.trustor == id || t.spec.trustee == id);
    all.extend(trusts.map(|t| Doomed::Trust(t.id())));
    all.extend(records(state, |r| {
        r.spec.parent.as_deref() == Some(id)
            || r.spec.attributes.get("user_id").and_then(|u| u.as_str()) == Some(id)
    }));
    all.push(Doomed::Secrets(id.to_owned()));
    all
}

pub(crate) fn of_group(state: &State, id: &str) -> Vec<Doomed> {
    let mut all = assignments(state, |a| *a.actor == Actor::Group(id.into()));
    let members = state.users.iter().filter(|u| u.spec.groups.iter().any(|g| g == id));
    all.extend(members.map(|u| Doomed::Membership { user: u.id(), group: id.to_owned() }));
    all
}

pub(crate) fn of_role(state: &State, id: &str) -> Vec<Doomed> {
    let mut all = assignments(state, |a| a.role.as_ref() == id);
    let implying = state.roles.iter().filter(|r| r.spec.implies.iter().any(|i| i == id));
    all.extend(implying.map(|r| Doomed::Implication { role: r.id(), implied: id.to_owned() }));
    all
}

pub(crate) fn of_project(state: &State, id: &str) -> Vec<Doomed> {
    let mut all = assignments(state, |a| *a.target == Target::Project(id.into()));
    let credentials = state.application_credentials.iter().filter(|c| c.spec.project == id);
    all.extend(credentials.map(|c| Doomed::ApplicationCredential(c.id())));
    let trusts = state.trusts.iter().filter(|t| t.spec.project.as_deref() == Some(id));
    all.extend(trusts.map(|t| Doomed::Trust(t.id())));
    all.extend(records(state, |r| r.spec.attributes.get("project_id").and_then(|p| p.as_str()) == Some(id)));
    all
}

/// Everything of the organisation, children before parents.
pub(crate) fn of_domain(state: &State, id: &str) -> Vec<Doomed> {
    let mut all = assignments(state, |a| *a.target == Target::Domain(id.into()));
    let users = state.users.iter().filter(|u| u.spec.domain == id);
    for user in users {
        all.extend(of_user(state, &user.id()));
        all.push(Doomed::User(user.id()));
    }
    for group in state.groups.iter().filter(|g| g.spec.domain == id) {
        all.extend(
            of_group(state, &group.id()).into_iter().filter(|d| !matches!(d, Doomed::Membership { .. })),
        );
        all.push(Doomed::Group(group.id()));
    }
    let mut projects: Vec<_> = state.projects.iter().filter(|p| p.spec.domain == id).collect();
    projects.sort_by_key(|p| std::cmp::Reverse(state.ancestry(&p.id()).len()));
    for project in projects {
        all.extend(of_project(state, &project.id()));
        all.push(Doomed::Project(project.id()));
    }
    for role in state.roles.iter().filter(|r| r.spec.domain.as_deref() == Some(id)) {
        all.extend(of_role(state, &role.id()));
        all.push(Doomed::Role(role.id()));
    }
    all.extend(records(state, |r| {
        r.spec.attributes.get("domain_id").and_then(|d| d.as_str()) == Some(id)
            || (r.spec.collection == super::domain_config::COLLECTION && r.spec.id == id)
    }));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|doomed| seen.insert(doomed.clone()));
    all
}

fn assignments(state: &State, which: impl Fn(&Assignment) -> bool) -> Vec<Doomed> {
    let found = state.assignments.iter().filter(|a| which(a));
    found.map(|a| Doomed::Assignment(a.id.to_string())).collect()
}

fn records<'a>(
    state: &'a State,
    which: impl Fn(&KeystoneRecord) -> bool + 'a,
) -> impl Iterator<Item = Doomed> + 'a {
    state.records.iter().filter(move |r| which(r)).map(|r| Doomed::Record(r.id()))
}

/// Does it; what is gone already is well.
pub(crate) async fn act(call: &Call, doomed: Vec<Doomed>) -> Result<(), ApiError> {
    for one in doomed {
        match remove(call, &one).await {
            Ok(()) | Err(IdentityError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn remove(call: &Call, doomed: &Doomed) -> Result<(), IdentityError> {
    let objects = &call.core.objects;
    match doomed {
        Doomed::Assignment(id) => objects.delete::<RoleAssignment>(id).await,
        Doomed::ApplicationCredential(id) => {
            objects.delete::<ApplicationCredential>(id).await?;
            call.core.vault.delete_owner(id).await?;
            Ok(())
        }
        Doomed::Trust(id) => objects.delete::<Trust>(id).await,
        Doomed::Record(id) => objects.delete::<KeystoneRecord>(id).await,
        Doomed::Membership { user, group } => {
            let leave = |user: &mut User| {
                user.spec.groups.retain(|g| g != group);
                Ok(())
            };
            objects.update::<User>(user, leave).await.map(drop)
        }
        Doomed::Implication { role, implied } => {
            let without = |role: &mut Role| {
                role.spec.implies.retain(|i| i != implied);
                Ok(())
            };
            objects.update::<Role>(role, without).await.map(drop)
        }
        Doomed::User(id) => objects.delete::<User>(id).await,
        Doomed::Group(id) => objects.delete::<Group>(id).await,
        Doomed::Role(id) => objects.delete::<Role>(id).await,
        Doomed::Project(id) => objects.delete::<Project>(id).await,
        Doomed::Secrets(owner) => {
            call.core.vault.delete_owner(owner).await?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{assign, two_organisations};

    #[test]
    fn nothing_of_a_domain_is_left_and_nothing_else_goes() {
        let mut state = two_organisations();
        for text in ["member alice project:web", "reader eve project:shop", "admin eve domain:globex"] {
            assign(&mut state, text);
        }
        let doomed = of_domain(&state, "acme");
        let at = |wanted: Doomed| doomed.iter().position(|d| *d == wanted);
        let project = |id: &str| at(Doomed::Project(id.to_owned())).expect("goes");
        assert!(project("cart") < project("shop") && project("shop") < project("web"), "{doomed:?}");
        for user in ["alice", "bob"] {
            let goes = at(Doomed::User(user.to_owned())).expect("goes");
            assert!(at(Doomed::Secrets(user.to_owned())).expect("goes") < goes);
        }
        assert!(at(Doomed::Assignment("reader-eve-project-shop".to_owned())).is_some());
        assert!(at(Doomed::Assignment("admin-eve-domain-globex".to_owned())).is_none());
        assert!(at(Doomed::User("eve".to_owned())).is_none());
    }

    #[test]
    fn a_group_goes_with_its_memberships_and_rights() {
        let mut state = two_organisations();
        assign(&mut state, "reader group:acme-devs project:ops");
        let doomed = of_group(&state, "acme-devs");
        let membership = Doomed::Membership { user: "alice".to_owned(), group: "acme-devs".to_owned() };
        assert_eq!(doomed, [Doomed::Assignment("reader-group-acme-devs-project-ops".to_owned()), membership]);
    }
}
