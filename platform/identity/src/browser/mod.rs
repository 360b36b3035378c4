//! The door of browsers, at `/identity/session`: signing in gives a cookie, and the cookie is the signed token that every
//! service takes. Whether the cookie of a request counts is judged at the front door ([`gantry_kube_types::is_own_page`]).

mod cookie;
mod openid;
mod password;
mod who;

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use gantry_identity_api::{Named as _, ProviderType};
use gantry_routes::Routes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue, SET_COOKIE};
use serde_json::{Value, json};

use crate::core::Core;
use crate::directory::table::Entry;
use crate::keystone::{self, Answer, Api, ApiError, Body, Call, Visit};
use crate::login::{Issued, LoginRequest, Method, ScopeRequest};
use crate::session::Session;

/// Where a session is.
const SESSION: &str = "/identity/session";
/// Where providers send browsers back to.
const CALLBACK: &str = "/identity/session/callback";

/// Serves [`paths`].
pub(crate) fn router(core: Arc<Core>) -> Router {
    table().router().layer(from_fn(unstored)).with_state(Api(core))
}

/// `/identity/session` and what is below.
pub(crate) fn paths() -> Vec<String> {
    table().paths()
}

fn table() -> Routes<Api> {
    let session: MethodRouter<Api> = get(show).post(password::sign_in).delete(end);
    Routes::new()
        .route(SESSION, session)
        .route("/identity/session/providers", get(providers))
        .route("/identity/session/begin", get(openid::begin))
        .route(CALLBACK, get(openid::callback))
        .route("/identity/session/scope", post(rescope))
}

/// Whose session it is, is nobody else's to keep.
async fn unstored(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /identity/session/providers`: what a sign-in page offers.
async fn providers(visit: Visit) -> Answer {
    let state = visit.state();
    let open = state.providers.iter().filter_map(|provider| {
        let spec = &provider.spec;
        let domain = state.domains.get(&spec.domain).filter(|domain| domain.spec.enabled)?;
        let fits = spec.enabled && spec.provider_type == ProviderType::Oidc;
        let text =
            if spec.description.is_empty() { provider.display_name() } else { spec.description.clone() };
        let shown = json!({ "name": provider.display_name(), "domain": domain.display_name(), "text": text });
        fits.then_some(shown)
    });
    let mut open: Vec<Value> = open.collect();
    open.sort_by_key(|provider| [&provider["domain"], &provider["name"]].map(ToString::to_string));
    Ok(Json(json!({ "password": true, "providers": open })).into_response())
}

/// `GET /identity/session`
async fn show(call: Call) -> Answer {
    Ok(Json(who::of(&call.state(), &call.session)).into_response())
}

/// The cookie of a session that begins. The one that the browser had is forgotten by it, so its token ends.
async fn begin(visit: &Visit, issued: &Issued) -> Result<HeaderValue, ApiError> {
    let cookie = cookie::session(&issued.token, issued.session.claims.expires_at, visit.core.now())?;
    if let Some(before) = visit.browsers_session() {
        visit.core.revoke_token(&before, &issued.session, &visit.origin).await?;
    }
    Ok(cookie)
}

/// Who it is, and the cookie.
fn answer(visit: &Visit, session: &Session, cookie: HeaderValue) -> Response {
    let who = Json(who::of(&visit.state(), session));
    (StatusCode::OK, [(SET_COOKIE, cookie)], who).into_response()
}

/// `POST /identity/session/scope`: a token with another scope takes the place of the session's.
async fn rescope(call: Call, Body(body): Body) -> Answer {
    let token = call.token().ok_or_else(no_session)?.to_owned();
    let scope = keystone::scope(&Value::Object(body))?;
    if !matches!(scope, ScopeRequest::Project(_) | ScopeRequest::Domain(_) | ScopeRequest::System) {
        return Err(ApiError::invalid("A session is for a project, a domain or the system."));
    }
    let methods = vec![Method::Token { token }];
    let request = LoginRequest { methods, scope, ..LoginRequest::default() };
    let issued = call.core.login(request, &call.origin).await?;
    let cookie = begin(&call, &issued).await?;
    Ok(answer(&call, &issued.session, cookie))
}

/// `DELETE /identity/session`
async fn end(call: Call) -> Answer {
    call.token().ok_or_else(no_session)?;
    call.core.revoke_token(&call.session, &call.session, &call.origin).await?;
    let elsewhere = openid::end_session_url(&call).await;
    let body = Json(json!({ "endSessionUrl": elsewhere }));
    Ok(([(SET_COOKIE, cookie::ended())], body).into_response())
}

/// Who comes with a certificate has it as long as the connection.
fn no_session() -> ApiError {
    ApiError::invalid("You are known by a certificate; there is no session.")
}

/// The provider that the session's user came by.
fn provider_of(call: &Call) -> Option<String> {
    let by = call.session.claims.federation.as_ref()?;
    call.state().providers.get(&by.provider).map(|provider| provider.id())
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
