//! `/roles`, `/roles/{id}/implies` and `/role_inferences`: rights by name, and which come with which.

use axum::Json as JsonBody;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use gantry_identity_api::{Named, Role, RoleSpec, roles};
use gantry_kube_types::SecurityEvent;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::call::{Answer, Call, done, object, text};
use super::cascade;
use super::errors::ApiError;
use super::schema::{Form, Json, Shape, may, must, null};
use super::typed::{
    Collection, check_immutable, check_options, find, full, merge_options, store_change, unknown,
};
use crate::bootstrap::is_immutable;
use crate::directory::State;
use crate::directory::table::{Entry, Table};
use crate::hanging;
use crate::policy::{Act, Subject};

pub(crate) struct Roles;

impl Collection for Roles {
    type Kind = Role;
    const PLURAL: &'static str = "roles";
    const NEW: Shape = Shape::open(
        "role",
        &[
            must("name", Form::Name(255)),
            null("domain_id", Form::Name(64)),
            null("description", Form::Text),
            may("options", Form::Object),
        ],
    );
    const CHANGE: Shape = Self::NEW;
    const FILTERS: &'static [&'static str] = &["name", "domain_id"];
    const EVENTS: Option<[SecurityEvent; 3]> = Some([SecurityEvent::RightChanged; 3]);

    fn table(state: &State) -> &Table<Role> {
        &state.roles
    }

    fn subject(role: &Role) -> Subject<'_> {
        Subject::Role { domain: role.spec.domain.as_deref() }
    }

    fn show(role: &Role) -> Json {
        let mut all = role.spec.extra.clone();
        let description = Some(&role.spec.description).filter(|d| !d.is_empty());
        all.extend(object(json!({
            "name": role.display_name(),
            "domain_id": role.spec.domain,
            "description": description,
            "options": options(role),
        })));
        all
    }

    fn create(_call: &Call, state: &State, id: &str, body: &mut Json) -> Result<Role, ApiError> {
        check_options(body)?;
        let domain = text(body, "domain_id").map(str::to_owned);
        if let Some(domain) = domain.as_deref().filter(|d| state.domains.get(d).is_none()) {
            return Err(ApiError::not_found("domain", domain));
        }
        let mut role = Role::new(id, RoleSpec { domain, ..RoleSpec::default() });
        take(state, &mut role, body)?;
        Ok(role)
    }

    fn change(state: &State, role: &mut Role, body: &Json) -> Result<(), ApiError> {
        check_options(body)?;
        check_immutable("role", &role.id(), Some(&options(role)), Some(body))?;
        if body.get("domain_id").is_some_and(|d| d.as_str() != role.spec.domain.as_deref()) {
            return Err(ApiError::invalid("Update of `domain_id` is not allowed."));
        }
        take(state, role, body)
    }

    /// Everybody may see what roles there are.
    fn may_list(_call: &Call, _state: &State) -> bool {
        true
    }

    fn keeps(_state: &State, role: &Role) -> Option<ApiError> {
        check_immutable("role", &role.id(), Some(&options(role)), None).err()
    }

    /// Roles of domains are shown to who asks for a domain's.
    fn listed(call: &Call, role: &Role) -> Option<Json> {
        let asked = call.query.get("domain_id").is_some();
        (asked || role.spec.domain.is_none()).then(|| full::<Self>(call, role))
    }

    async fn cascade(call: &Call, role: &Role) -> Result<(), ApiError> {
        let doomed = hanging::of_role(&call.state(), &role.id());
        cascade::act(call, doomed).await
    }
}

/// The options of a role; see [`is_immutable`].
fn options(role: &Role) -> Value {
    let mut options = role.spec.options.clone();
    if is_immutable(role) {
        options.insert("immutable".to_owned(), json!(true));
    }
    Value::Object(options)
}

fn take(state: &State, role: &mut Role, body: &Json) -> Result<(), ApiError> {
    let id = role.id();
    let spec = &mut role.spec;
    if let Some(name) = text(body, "name") {
        if state.roles.by_name(spec.domain.as_deref(), name).is_some_and(|other| other.id() != id) {
            let place = spec.domain.as_ref().map(|d| format!(" at domain ID {d}")).unwrap_or_default();
            return Err(ApiError::conflict(
                "role",
                &format!("Duplicate entry found with name {name}{place}"),
            ));
        }
        spec.name = Some(name.to_owned());
    }
    if let Some(description) = body.get("description") {
        spec.description = description.as_str().unwrap_or_default().to_owned();
    }
    merge_options(&mut spec.options, body);
    spec.extra.extend(unknown(&Roles::NEW, body, &[]));
    Ok(())
}

/// A role as it stands in inferences.
fn brief(call: &Call, role: &Role) -> Value {
    let id = role.id();
    json!({ "id": id, "name": role.display_name(), "links": { "self": call.url(&format!("roles/{id}")) } })
}

fn inference(call: &Call, status: StatusCode, prior: &Role, implies: Value) -> Response {
    let inference = json!({ "prior_role": brief(call, prior), "implies": implies });
    (status, JsonBody(json!({ "role_inference": inference, "links": { "self": call.own_url() } })))
        .into_response()
}

/// `GET /roles/{id}/implies`
pub(crate) async fn list_implied(call: Call, Path(id): Path<String>) -> Answer {
    let state = call.state();
    let prior = find::<Roles>(&call, &state, &id, Act::Read, "list_implied_roles")?;
    let implied = prior.spec.implies.iter().filter_map(|id| state.roles.get(id));
    let implied = implied.map(|role| brief(&call, role)).collect();
    Ok(inference(&call, StatusCode::OK, &prior, implied))
}

/// `GET` and `HEAD /roles/{id}/implies/{implied}`
pub(crate) async fn get_implied(
    call: Call,
    Path((id, implied)): Path<(String, String)>,
    method: Method,
) -> Answer {
    let state = call.state();
    let prior = find::<Roles>(&call, &state, &id, Act::Read, "get_implied_role")?;
    let role = state.roles.get(&implied).ok_or_else(|| ApiError::not_found("role", &implied))?;
    if !prior.spec.implies.contains(&implied) {
        return Err(implies_not(&id, &implied));
    }
    if method == Method::HEAD {
        return done();
    }
    Ok(inference(&call, StatusCode::OK, &prior, brief(&call, role)))
}

/// `PUT /roles/{id}/implies/{implied}`
pub(crate) async fn add_implied(call: Call, Path((id, implied)): Path<(String, String)>) -> Answer {
    let action = "create_implied_role";
    let implied_role = {
        let state = call.state();
        let prior = find::<Roles>(&call, &state, &id, Act::Update, action)?;
        let role = state.roles.get(&implied).ok_or_else(|| ApiError::not_found("role", &implied))?.clone();
        if role.spec.domain.is_some() || role.display_name() == roles::ADMIN {
            return Err(ApiError::refused(format!("{implied} cannot be an implied roles.")));
        }
        check_given(&call, &state, &prior, &implied, action)?;
        role
    };
    let imply = |_: &State, role: &mut Role| {
        if !role.spec.implies.contains(&implied) {
            role.spec.implies.push(implied.clone());
        }
        Ok(())
    };
    let prior = store_change(&call, &id, imply).await?;
    call.record(SecurityEvent::RightChanged, "roles", &id).await?;
    Ok(inference(&call, StatusCode::CREATED, &prior, brief(&call, &implied_role)))
}

/// Who rules over a domain's roles puts nothing into them that they do not have in the domain themselves.
fn check_given(
    call: &Call,
    state: &State,
    prior: &Role,
    implied: &str,
    action: &str,
) -> Result<(), ApiError> {
    let Some(domain) = &prior.spec.domain else { return Ok(()) };
    if call.may(state, Act::Update, &Subject::Role { domain: None }) {
        return Ok(());
    }
    let own = call.session.authority.grants.domains.get(domain);
    let given = state.implied([implied.to_owned()]);
    if own.is_some_and(|own| given.is_subset(own)) { Ok(()) } else { Err(ApiError::forbidden(action)) }
}

/// `DELETE /roles/{id}/implies/{implied}`
pub(crate) async fn remove_implied(call: Call, Path((id, implied)): Path<(String, String)>) -> Answer {
    {
        let state = call.state();
        find::<Roles>(&call, &state, &id, Act::Update, "delete_implied_role")?;
        state.roles.get(&implied).ok_or_else(|| ApiError::not_found("role", &implied))?;
    }
    let without = |_: &State, role: &mut Role| {
        let before = role.spec.implies.len();
        role.spec.implies.retain(|i| *i != implied);
        if role.spec.implies.len() < before { Ok(()) } else { Err(implies_not(&id, &implied)) }
    };
    store_change(&call, &id, without).await?;
    call.record(SecurityEvent::RightChanged, "roles", &id).await?;
    done()
}

fn implies_not(id: &str, implied: &str) -> ApiError {
    ApiError::gone(format!("{id} does not imply {implied}."))
}

/// `GET /role_inferences`
pub(crate) async fn list_inferences(call: Call) -> Answer {
    let state = call.state();
    let prior = state.roles.iter().filter(|r| !r.spec.implies.is_empty());
    let seen = prior.filter(|r| call.may(&state, Act::Read, &Roles::subject(r)));
    let rules = seen.map(|prior| {
        let implied = prior.spec.implies.iter().filter_map(|id| state.roles.get(id));
        let implied: Vec<Value> = implied.map(|role| brief(&call, role)).collect();
        json!({ "prior_role": brief(&call, prior), "implies": implied })
    });
    let rules: Vec<Value> = rules.collect();
    super::users::plain(json!({ "role_inferences": rules, "links": { "self": call.own_url() } }))
}
