//! `/auth`: tokens, and what can be had with one's own.

mod request;
mod token;

use std::sync::Arc;

use super::routes::Routes;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_identity_api::roles;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, Visit, done, object};
use super::domains::Domains;
use super::errors::ApiError;
use super::projects::Projects;
use super::timestamps;
use super::typed::list_of;
use super::users::{brief, plain};
use crate::access_rules::has_rules;
use crate::directory::State;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::session::Session;

pub(crate) use request::scope;

pub(crate) const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
const RECEIPT: HeaderName = HeaderName::from_static("openstack-auth-receipt");
/// Said by services that keep to the access rules of application credentials.
const ACCESS_RULES: &str = "openstack-identity-access-rules";
/// Whose tokens every token may be shown to: services that check their callers.
const SERVICE: &str = "service";

/// The routes.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .route("/auth/tokens", get(validate).post(login).delete(revoke))
        .route("/auth/catalog", get(catalog))
        .route("/auth/projects", get(own_projects))
        .route("/auth/domains", get(own_domains))
        .route("/auth/system", get(own_system))
}

/// `POST /auth/tokens`
async fn login(visit: Visit, body: Body) -> Answer {
    let auth = body.0.get("auth").and_then(Value::as_object);
    let auth = auth.ok_or_else(|| ApiError::expecting("auth", "request body"))?;
    let mut request = request::parse(auth)?;
    request.receipt = visit.header(RECEIPT.as_str()).map(str::to_owned);
    match visit.core.login(request, &visit.origin).await {
        Ok(issued) => answer(&visit, StatusCode::CREATED, &issued.session, &issued.token),
        Err(IdentityError::MoreRequired { receipt, user, methods }) => {
            Err(more_required(&visit, &receipt, &user, &methods))
        }
        Err(error) => Err(error.into()),
    }
}

/// The token and what it is good for; with `nocatalog` in the query without the catalogue.
pub(crate) fn answer(visit: &Visit, status: StatusCode, session: &Session, token: &str) -> Answer {
    let with_catalog = visit.query.get("nocatalog").is_none();
    let body = session.shown.get_or(with_catalog, || {
        json!({ "token": token::body(&visit.state(), session, with_catalog) }).to_string().into()
    });
    let json = HeaderValue::from_static("application/json");
    let mut response = (status, [(CONTENT_TYPE, json)], body).into_response();
    mark(&mut response, token);
    Ok(response)
}

fn mark(response: &mut Response, token: &str) {
    if let Ok(value) = HeaderValue::from_str(token) {
        response.headers_mut().insert(SUBJECT_TOKEN, value);
    }
}

/// `401` that says what else is asked for, with the receipt to come back with.
fn more_required(visit: &Visit, receipt: &str, user: &str, methods: &[String]) -> ApiError {
    let state = visit.state();
    let shown = rules_left(&state, user, methods);
    let user = state.users.get(user);
    let (issued, expires) = times(receipt);
    let body = json!({
        "user": user.map(|u| brief(&state, u)),
        "methods": methods,
        "issued_at": issued.map(timestamps::zulu),
        "expires_at": expires.map(timestamps::zulu),
    });
    ApiError::unauthorized()
        .with("receipt", body)
        .with("required_auth_methods", json!(shown))
        .bare()
        .header(RECEIPT, receipt)
}

/// The user's multi-factor rules that can still be met after these methods.
pub(crate) fn rules_left(state: &State, user: &str, methods: &[String]) -> Vec<Vec<String>> {
    let user = state.users.get(user);
    let rules = user.and_then(|u| u.spec.options.multi_factor_auth_rules.clone()).unwrap_or_default();
    rules.into_iter().filter(|rule| methods.iter().all(|m| rule.contains(m))).collect()
}

/// When the receipt, which is a token of ours, was made and ends.
fn times(receipt: &str) -> (Option<Timestamp>, Option<Timestamp>) {
    let claims = receipt.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Value = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let at = |name: &str| {
        let seconds = claims.get(name).and_then(Value::as_f64)?;
        // Times of tokens are well within what a whole number of microseconds can hold.
        Timestamp::from_microsecond((seconds * 1e6) as i64).ok()
    };
    (at("iat"), at("exp"))
}

/// The token in `X-Subject-Token`, where the caller may know of it.
///
/// `expired`: also one that has expired lately.
fn subject(call: &Call, action: &str, expired: bool) -> Result<(Arc<Session>, String), ApiError> {
    let token =
        call.header(SUBJECT_TOKEN.as_str()).ok_or_else(|| ApiError::gone("No token in the request"))?;
    let session = if expired { call.core.validate_expired(token) } else { call.core.validate(token) };
    let session = session.map_err(|_| ApiError::gone("Could not find the token."))?;
    let names = [roles::ADMIN, SERVICE];
    let services = call
        .session
        .roles
        .iter()
        .any(|role| names.contains(&gantry_identity_api::Named::display_name(role.as_ref()).as_str()));
    let allowed = session.user.id() == call.user() || call.sees_all(&call.state()) || services;
    if allowed { Ok((session, token.to_owned())) } else { Err(ApiError::forbidden(action)) }
}

/// Services, and the platform's administrators: to all others a token that has expired is none.
fn is_service(call: &Call) -> bool {
    let of_service = |role: &Arc<gantry_identity_api::Role>| {
        role.spec.domain.is_none() && gantry_identity_api::Named::display_name(role.as_ref()) == SERVICE
    };
    let authority = &call.session.authority;
    let administers = authority.unlimited || authority.grants.system.contains(roles::ADMIN);
    administers || call.session.roles.iter().any(of_service)
}

/// `GET` and `HEAD /auth/tokens`; with `allow_expired` for services that finish what was begun with a token.
async fn validate(call: Call, method: Method) -> Answer {
    let action = if method == Method::HEAD { "check_token" } else { "validate_token" };
    let expired = call.query.flag("allow_expired") && is_service(&call);
    let (session, token) = subject(&call, action, expired)?;
    // A service that does not know access rules would let the token do more than it may.
    if has_access_rules(&call, &session) && call.header(ACCESS_RULES).is_none() {
        return Err(ApiError::gone("Could not find the token."));
    }
    answer(&call, StatusCode::OK, &session, &token)
}

fn has_access_rules(call: &Call, session: &Session) -> bool {
    let id = session.claims.application_credential.as_deref();
    id.is_some_and(|id| has_rules(&call.state(), id))
}

/// `DELETE /auth/tokens`
async fn revoke(call: Call) -> Answer {
    let (session, _) = subject(&call, "revoke_token", false)?;
    call.core.revoke_token(&session, &call.session, &call.origin).await?;
    done()
}

/// `GET /auth/catalog`
async fn catalog(call: Call) -> Answer {
    let session = &call.session;
    if session.project.is_none() && session.scope_domain.is_none() {
        return Err(ApiError::refused("You are not authorized to perform the requested action."));
    }
    let catalog = token::of_session(&call.state(), session);
    plain(json!({ "catalog": catalog, "links": { "self": call.own_url() } }))
}

/// `GET /auth/projects`: those the user can scope a token to.
pub(crate) async fn own_projects(call: Call) -> Answer {
    let projects = {
        let state = call.state();
        let grants = state.grants(&call.session.user);
        grants.projects.keys().filter_map(|id| state.projects.get(id).cloned()).collect()
    };
    list_of::<Projects>(&call, projects)
}

/// `GET /auth/domains`
pub(crate) async fn own_domains(call: Call) -> Answer {
    let domains = {
        let state = call.state();
        let grants = state.grants(&call.session.user);
        grants.domains.keys().filter_map(|id| state.domains.get(id).cloned()).collect()
    };
    list_of::<Domains>(&call, domains)
}

/// `GET /auth/system`
async fn own_system(call: Call) -> Answer {
    let all = !call.state().grants(&call.session.user).system.is_empty();
    let system: Vec<Value> = all.then(|| json!({ "all": true })).into_iter().collect();
    Ok(axum::Json(object(json!({ "system": system, "links": { "self": call.own_url() } }))).into_response())
}
