//! `/groups`: users that get roles together.

use axum::extract::Path;
use gantry_identity_api::{Group, GroupSpec, Named, User};
use gantry_kube_types::SecurityEvent;
use serde_json::json;

use super::call::{Answer, Call, done, object, text};
use super::cascade;
use super::domains::{domain_of, known_domain};
use super::errors::ApiError;
use super::schema::{Form, Json, Shape, must, null};
use super::typed::{Collection, find, list_of, store_change, unknown};
use super::users::Users;
use crate::admission::may_join;
use crate::directory::State;
use crate::directory::table::{Entry, Table};
use crate::hanging;
use crate::policy::{Act, Authority, Subject};

pub(crate) struct Groups;

impl Collection for Groups {
    type Kind = Group;
    const PLURAL: &'static str = "groups";
    const NEW: Shape = Shape::open(
        "group",
        &[must("name", Form::Name(64)), null("domain_id", Form::Name(64)), null("description", Form::Text)],
    );
    const CHANGE: Shape = Self::NEW;
    const FILTERS: &'static [&'static str] = &["name", "domain_id"];
    const EVENTS: Option<[SecurityEvent; 3]> = Some([SecurityEvent::RightChanged; 3]);

    fn table(state: &State) -> &Table<Group> {
        &state.groups
    }

    fn subject(group: &Group) -> Subject<'_> {
        Subject::Group { domain: &group.spec.domain }
    }

    fn show(group: &Group) -> Json {
        let mut all = group.spec.extra.clone();
        all.extend(object(json!({
            "name": group.display_name(),
            "domain_id": group.spec.domain,
            "description": group.spec.description,
        })));
        all
    }

    fn create(call: &Call, state: &State, id: &str, body: &mut Json) -> Result<Group, ApiError> {
        let domain = domain_of(call, body);
        known_domain(call, state, &domain, "create_group")?;
        let mut group = Group::new(id, GroupSpec { domain, ..GroupSpec::default() });
        take(state, &mut group, body)?;
        Ok(group)
    }

    fn change(state: &State, group: &mut Group, body: &Json) -> Result<(), ApiError> {
        if text(body, "domain_id").is_some_and(|id| id != group.spec.domain) {
            return Err(ApiError::invalid("Cannot change Domain ID"));
        }
        take(state, group, body)
    }

    async fn cascade(call: &Call, group: &Group) -> Result<(), ApiError> {
        let doomed = hanging::of_group(&call.state(), &group.id());
        cascade::act(call, doomed).await
    }
}

fn take(state: &State, group: &mut Group, body: &Json) -> Result<(), ApiError> {
    let id = group.id();
    let spec = &mut group.spec;
    if let Some(name) = text(body, "name") {
        if state.groups.by_name(Some(&spec.domain), name).is_some_and(|other| other.id() != id) {
            let detail = format!("Duplicate entry found with name {name} at domain ID {}", spec.domain);
            return Err(ApiError::conflict("group", &detail));
        }
        spec.name = Some(name.to_owned());
    }
    if let Some(description) = body.get("description") {
        spec.description = description.as_str().unwrap_or_default().to_owned();
    }
    spec.extra.extend(unknown(&Groups::NEW, body, &[]));
    Ok(())
}

/// `GET /groups/{id}/users`
pub(crate) async fn list_users(call: Call, Path(id): Path<String>) -> Answer {
    let users = {
        let state = call.state();
        find::<Groups>(&call, &state, &id, Act::Read, "list_users_in_group")?;
        let members = state.users.iter().filter(|u| state.groups_of(u).any(|g| g.id() == id));
        members.cloned().collect()
    };
    list_of::<Users>(&call, users)
}

/// `GET` and `HEAD /groups/{id}/users/{user}`
pub(crate) async fn has_user(call: Call, Path((id, user)): Path<(String, String)>) -> Answer {
    let state = call.state();
    find::<Groups>(&call, &state, &id, Act::Read, "check_user_in_group")?;
    let found = state.users.get(&user).ok_or_else(|| ApiError::not_found("user", &user))?;
    if state.groups_of(found).any(|g| g.id() == id) { done() } else { Err(no_member(&id, &user)) }
}

/// `PUT /groups/{id}/users/{user}`
pub(crate) async fn add_user(call: Call, Path((id, user)): Path<(String, String)>) -> Answer {
    {
        let state = call.state();
        let group = find::<Groups>(&call, &state, &id, Act::Update, "add_user_to_group")?;
        let found = state.users.get(&user).ok_or_else(|| ApiError::not_found("user", &user))?;
        if found.spec.domain != group.spec.domain {
            return Err(ApiError::refused(format!(
                "Group {id} must be in the same domain as the user {user}."
            )));
        }
        let joins = |state: &State, who: &Authority| may_join(state, who, &id);
        call.within_rights(&state, joins, "add_user_to_group")?;
        if group.spec.provider.is_some() {
            return Err(ApiError::refused(format!(
                "Who is in group {id} is its identity provider's to say."
            )));
        }
    }
    let join = |_: &State, found: &mut User| {
        if !found.spec.groups.contains(&id) {
            found.spec.groups.push(id.clone());
        }
        Ok(())
    };
    store_change(&call, &user, join).await?;
    call.record(SecurityEvent::RightChanged, "groups", &id).await?;
    done()
}

/// `DELETE /groups/{id}/users/{user}`
pub(crate) async fn remove_user(call: Call, Path((id, user)): Path<(String, String)>) -> Answer {
    {
        let state = call.state();
        find::<Groups>(&call, &state, &id, Act::Update, "remove_user_from_group")?;
        state.users.get(&user).ok_or_else(|| ApiError::not_found("user", &user))?;
    }
    let leave = |_: &State, found: &mut User| {
        let before = found.spec.groups.len();
        found.spec.groups.retain(|g| *g != id);
        if found.spec.groups.len() < before { Ok(()) } else { Err(no_member(&id, &user)) }
    };
    store_change(&call, &user, leave).await?;
    call.record(SecurityEvent::RightChanged, "groups", &id).await?;
    done()
}

fn no_member(group: &str, user: &str) -> ApiError {
    ApiError::gone(format!("User '{user}' not found in group '{group}'"))
}
