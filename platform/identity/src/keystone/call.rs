//! One call: who makes it, where its answer points to, what its body holds.

use std::ops::Deref;
use std::sync::Arc;

use axum::Json as JsonBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use gantry_identity_api::extra::TOKEN_ID;
use gantry_kube_types::{
    AuditEvent, AuditNotes, AuditObject, ConnectionInfo, Cookie, RequestId, SESSION_COOKIE, SecurityEvent,
    UserInfo, audit_annotations,
};
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::errors::ApiError;
use super::query::Query;
use super::schema::{Json, Shape, bad};
use crate::access_rules;
use crate::core::Core;
use crate::directory::State;
use crate::login::Origin;
use crate::policy::{Act, Authority, Subject, may};
use crate::session::Session;

/// Where the API begins.
pub(crate) const PREFIX: &str = "/identity";
/// Keystone's own bound of a body.
const BODY_BYTES_MAX: usize = 114_688;

/// What a handler gives back.
pub(crate) type Answer = Result<Response, ApiError>;

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<Core>);

/// A call by whoever: few things can be done without a token.
pub(crate) struct Visit {
    pub(crate) core: Arc<Core>,
    /// `https://host:6443/identity`
    pub(crate) base: String,
    /// The path below `base`, with the query.
    path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) origin: Origin,
}

impl Visit {
    /// `https://host:6443/identity/v3/users/ID`
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v3/{path}", self.base)
    }

    /// The URL that was called.
    pub(crate) fn own_url(&self) -> String {
        format!("{}{}", self.base, self.path)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The session that the browser has, whoever the request is by.
    pub(crate) fn browsers_session(&self) -> Option<Arc<Session>> {
        self.core.validate(of_browser(&self.headers)?).ok()
    }

    pub(crate) fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.core.directory.read()
    }

    /// `{"links": {…}, PLURAL: [the page of the items that the query asks for]}`
    pub(crate) fn list(&self, plural: &str, filters: &[&str], mut items: Vec<Json>) -> Answer {
        items.retain(|item| self.query.matches(filters, item));
        let marker = self.query.page(&mut items)?;
        let path = self.path.split('?').next().unwrap_or_default();
        let next = marker.map(|marker| format!("{}{path}?{}", self.base, self.query.with_marker(&marker)));
        let mut body = json!({ "links": { "next": next, "previous": null, "self": self.own_url() } });
        if next.is_some() {
            body["truncated"] = json!(true);
        }
        body[plural] = Value::Array(items.into_iter().map(Value::Object).collect());
        Ok(JsonBody(body).into_response())
    }
}

impl FromRequestParts<Api> for Visit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let connection = parts.extensions.get::<ConnectionInfo>().cloned().unwrap_or_default();
        let request = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        Ok(Self {
            core: api.0.clone(),
            base: base_url(&parts.headers, &parts.uri),
            path: path.strip_prefix(PREFIX).unwrap_or(path).to_owned(),
            query: Query::of(&parts.uri),
            headers: parts.headers.clone(),
            origin: Origin { connection, request },
        })
    }
}

/// The address the client used, so that what it is pointed to is reachable for it.
pub(crate) fn base_url(headers: &HeaderMap, uri: &http::Uri) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST.as_str()).or_else(|| uri.authority().map(|a| a.as_str())).unwrap_or("localhost");
    let scheme = match text("x-forwarded-proto").or(uri.scheme_str()) {
        Some("http") => "http",
        _ => "https",
    };
    format!("{scheme}://{host}{PREFIX}")
}

/// A call by somebody who is known.
pub(crate) struct Call {
    visit: Visit,
    pub(crate) session: Arc<Session>,
}

impl Deref for Call {
    type Target = Visit;

    fn deref(&self) -> &Visit {
        &self.visit
    }
}

impl FromRequestParts<Api> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let visit = Visit::from_request_parts(parts, api).await?;
        let session = session(&visit, parts)?;
        let path = visit.path.split('?').next().unwrap_or_default();
        let allowed = session.claims.application_credential.as_deref().is_none_or(|credential| {
            access_rules::allow(
                &visit.state(),
                credential,
                access_rules::IDENTITY,
                parts.method.as_str(),
                path,
            )
        });
        if !allowed {
            return Err(ApiError::refused(
                "The application credential's access rules do not allow this call.",
            ));
        }
        Ok(Self { visit, session })
    }
}

/// The token that a request shows by itself: in Keystone's header, or as Kubernetes' clients show it.
fn explicit(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    text("x-auth-token").or_else(|| Some(text(AUTHORIZATION.as_str())?.strip_prefix("Bearer ")?.trim()))
}

/// The token that a browser brings, whatever else the request shows.
fn of_browser(headers: &HeaderMap) -> Option<&str> {
    match Cookie::of(headers, SESSION_COOKIE) {
        Cookie::One(token) => Some(token),
        Cookie::Absent | Cookie::Unclear => None,
    }
}

/// Who calls: by a token, or as an administrator of the platform whom the front door knows by a certificate.
fn session(visit: &Visit, parts: &Parts) -> Result<Arc<Session>, ApiError> {
    let caller = parts.extensions.get::<UserInfo>();
    // The front door has said who calls, and the audit trail says what it says. Two credentials at once, or
    // somebody who acts as another, are none.
    let same = |session: &Arc<Session>| {
        let is = |caller: &UserInfo| {
            caller.extra.get(TOKEN_ID).is_some_and(|ids| ids.iter().eq([&session.claims.id]))
        };
        caller.is_none_or(is)
    };
    if let Some(token) = explicit(&visit.headers) {
        let session = visit.core.validate(token).ok().filter(same);
        return session.ok_or_else(ApiError::unauthorized);
    }
    if let Some(session) = visit.browsers_session().filter(same) {
        return Ok(session);
    }
    let master = caller.and_then(|caller| Session::of_master(&visit.state(), caller, visit.core.now()));
    master.map(Arc::new).ok_or_else(ApiError::unauthorized)
}

impl Call {
    /// The token that the caller came with. `None`: it was a certificate.
    pub(crate) fn token(&self) -> Option<&str> {
        let came = !self.session.claims.id.is_empty();
        explicit(&self.headers).or_else(|| of_browser(&self.headers)).filter(|_| came)
    }

    /// Id of the user who calls.
    pub(crate) fn user(&self) -> &str {
        &self.session.authority.user
    }

    pub(crate) fn may(&self, state: &State, act: Act, subject: &Subject<'_>) -> bool {
        may(state, &self.session.authority, act, subject)
    }

    /// `action` is Keystone's name of what is asked for (`get_user`).
    pub(crate) fn require(
        &self,
        state: &State,
        act: Act,
        subject: &Subject<'_>,
        action: &str,
    ) -> Result<(), ApiError> {
        if self.may(state, act, subject) { Ok(()) } else { Err(ApiError::forbidden(action)) }
    }

    /// What is written from here is written by the component, which may do everything: what it would not be the
    /// caller's to do is refused before. `asked` is one of admission's own checks.
    pub(crate) fn within_rights(
        &self,
        state: &State,
        asked: impl FnOnce(&State, &Authority) -> Result<(), String>,
        action: &str,
    ) -> Result<(), ApiError> {
        asked(state, &self.session.authority).map_err(|why| ApiError::forbidden_since(action, &why))
    }

    /// Was the token made with something that its user handed out: an application credential, a trust?
    pub(crate) fn is_delegated(&self) -> bool {
        let claims = &self.session.claims;
        claims.application_credential.is_some() || claims.trust.is_some() || claims.oauth.is_some()
    }

    /// Sees the whole platform, and so may know what is not there.
    pub(crate) fn sees_all(&self, state: &State) -> bool {
        self.may(state, Act::Read, &Subject::Private)
    }

    /// Lists of users, groups and projects are for readers of the system or of a domain.
    pub(crate) fn may_list(&self, state: &State) -> bool {
        let reader = gantry_identity_api::roles::READER;
        self.sees_all(state)
            || self.session.authority.grants.domains.values().any(|roles| roles.contains(reader))
    }

    /// What to say of an object that is not there: who does not see everything is not told.
    pub(crate) fn absent(&self, state: &State, action: &str, error: ApiError) -> ApiError {
        if self.sees_all(state) { error } else { ApiError::forbidden(action) }
    }

    /// Tells the audit trail; what cannot be recorded has not been done.
    pub(crate) async fn record(
        &self,
        event: SecurityEvent,
        resource: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        self.record_in(None, event, resource, name).await
    }

    /// [`Call::record`] of what is in a project, so that its managers see it.
    pub(crate) async fn record_in(
        &self,
        project: Option<&str>,
        event: SecurityEvent,
        resource: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        let about = AuditObject::new(gantry_identity_api::GROUP, resource, name);
        let mut event = AuditEvent::security(event, self.session.info.clone()).about(about);
        event.annotations.extend(project.map(|id| (audit_annotations::PROJECT.into(), id.to_owned())));
        Ok(self.core.record(event, &self.origin).await?)
    }
}

/// A JSON object in a request's body.
pub(crate) struct Body(pub(crate) Json);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let limited = Limited::new(request.into_body(), BODY_BYTES_MAX);
        let bytes = limited.collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                let message = format!("Request is too large. Larger than {BODY_BYTES_MAX} bytes.");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            } else {
                ApiError::expecting("valid JSON", "request body")
            }
        })?;
        match serde_json::from_slice(&bytes.to_bytes()) {
            Ok(Value::Object(body)) => Ok(Self(body)),
            _ => Err(ApiError::expecting("valid JSON", "request body")),
        }
    }
}

impl Body {
    /// The member `name`, which must be an object.
    pub(crate) fn member(mut self, name: &str) -> Result<Json, ApiError> {
        match self.0.remove(name) {
            Some(Value::Object(object)) => Ok(object),
            Some(other) => {
                let message = format!("{} is not of type 'object'", super::schema::python(&other));
                Err(bad(name, &other, &message))
            }
            None => Err(ApiError::invalid(format!("'{name}' is a required property"))),
        }
    }

    /// The checked attributes of a new object.
    pub(crate) fn new_object(self, shape: &Shape) -> Result<Json, ApiError> {
        let mut object = self.member(shape.member)?;
        shape.new_object(&mut object)?;
        Ok(object)
    }

    /// The checked attributes of a change.
    pub(crate) fn change(self, shape: &Shape) -> Result<Json, ApiError> {
        let mut object = self.member(shape.member)?;
        shape.change(&mut object)?;
        Ok(object)
    }
}

/// `{MEMBER: object}`; the record says the id of a new one, which the path does not have, and whose domain's it is.
pub(crate) fn shown(status: StatusCode, member: &str, object: Json) -> Response {
    let made = (status == StatusCode::CREATED).then(|| text(&object, "id").map(str::to_owned)).flatten();
    let domain =
        text(&object, "domain_id").map(|id| (audit_annotations::OBJECT_DOMAIN.into(), id.to_owned()));
    let mut body = Json::new();
    body.insert(member.to_owned(), Value::Object(object));
    let mut response = (status, JsonBody(body)).into_response();
    if made.is_some() || domain.is_some() {
        let annotations = domain.into_iter().collect();
        response.extensions_mut().insert(AuditNotes { name: made, annotations, ..AuditNotes::default() });
    }
    response
}

/// Done, and nothing to say.
pub(crate) fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The id of a new object.
pub(crate) fn fresh_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// An attribute that is text.
pub(crate) fn text<'a>(object: &'a Json, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// Attributes from a literal.
pub(crate) fn object(value: Value) -> Json {
    match value {
        Value::Object(object) => object,
        _ => Json::new(),
    }
}
