//! What happens to one request, in order.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use futures::FutureExt;
use gantry_kube_types::{
    AUDIT_ID, Attributes, ConnectionInfo, Decision, GoesOn, RequestId, RequestInfo, SESSION_COOKIE,
    StatusError, UserInfo, groups, remove_cookie,
};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::audit::{AUTH_TOKEN, Arrival, Arrived, Trail};
use crate::authentication::AuthenticationFailed;
use crate::builder::{AuthPolicy, FrontDoor, Shared};
use crate::connection::Connection;
use crate::impersonation::{ImpersonatedBy, Impersonation, impersonated};
use crate::in_flight::InFlightPlace;
use crate::limits::{GuardedBody, StallBody};
use crate::listener::{Draining, InUse};
use crate::responses::{forbidden, status_response};
use crate::session::Session;
use crate::streams::{self, Stream};
use crate::unread::lend;

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Where a request comes from.
pub(crate) enum Origin {
    Network(ConnectionInfo),
    /// A component of this process, whose identity the composition root gave.
    InProcess(UserInfo),
}

/// Who gets the request, and under which policy.
enum Target<'a> {
    Health,
    Index,
    Handler(&'a Router, AuthPolicy),
}

impl Target<'_> {
    fn policy(&self) -> AuthPolicy {
        match self {
            Self::Handler(_, policy) => *policy,
            Self::Health | Self::Index => AuthPolicy::Kubernetes,
        }
    }
}

impl FrontDoor {
    /// Answers one request. Never fails: what goes wrong becomes a response.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        origin: &Origin,
        in_use: Option<InUse>,
        connection: &Connection,
    ) -> Response<Body> {
        let stall = self.0.limits.body_stall_timeout;
        let http1 = request.version() < Version::HTTP_2;
        let (head, body) = request.into_parts();
        let (body, unread) = lend(body);
        let mut request = Request::from_parts(head, Body::new(StallBody::new(body, stall)));
        let id = request_id(request.headers());
        // `request_id` admits only characters that stand in a header.
        let id_value = HeaderValue::from_str(&id.0).ok();
        if let Some(value) = &id_value {
            // Goes on with the request where it goes to a node, and links what is recorded there.
            request.headers_mut().insert(AUDIT_ID, value.clone());
        }
        let (mut response, place) = self.0.answer(request, origin, &id, connection).await;
        if let Some(value) = id_value {
            response.headers_mut().insert(REQUEST_ID, value.clone());
            response.headers_mut().insert(AUDIT_ID, value);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return response;
        }
        if http1 && !unread.drain().await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // A response without a body is not polled to its end, so it gives its place back now.
        let place = place.filter(|_| !response.body().is_end_stream());
        match (in_use, place) {
            (None, None) => response,
            held => response.map(|body| GuardedBody::wrap(body, held)),
        }
    }
}

/// A request that may be made.
struct Admitted {
    /// As whom.
    user: UserInfo,
    /// Who showed the credential.
    caller: UserInfo,
    place: Option<InFlightPlace>,
    /// What has to stay allowed while its answer goes on.
    asked: Vec<Attributes>,
}

/// Why a request has no answer of its handler.
enum Failure {
    Refused(StatusError),
    Panicked,
}

impl Failure {
    /// Who is not known is asked to show who they are.
    fn of_stranger(self) -> Self {
        match self {
            Self::Refused(error) if error.code == 403 => Self::Refused(StatusError::unauthorized()),
            other => other,
        }
    }

    /// What the caller is told.
    fn told(self, trail: &mut Trail) -> StatusError {
        match self {
            Self::Refused(error) => error,
            Self::Panicked => {
                trail.panicked();
                StatusError::internal("the request could not be completed")
            }
        }
    }
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        Self::Refused(error)
    }
}

/// Runs a part of the request; a panic ends the part and not the connection.
async fn caught<T>(id: &RequestId, part: impl Future<Output = Result<T, StatusError>>) -> Result<T, Failure> {
    match AssertUnwindSafe(part).catch_unwind().await {
        Ok(done) => done.map_err(Failure::Refused),
        Err(_) => {
            tracing::error!(request_id = id.0, "a handler panicked");
            Err(Failure::Panicked)
        }
    }
}

impl Shared {
    async fn answer(
        &self,
        mut request: Request<Body>,
        origin: &Origin,
        id: &RequestId,
        connection: &Connection,
    ) -> (Response<Body>, Option<InFlightPlace>) {
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        let session = Session::judge(&mut request, &info);
        let arrival = Arrival::note(request.headers(), origin, session);
        let target = self.target(&request);
        let policy = target.policy();
        let long_running = info.is_long_running();
        let caller = caught(id, self.authenticate(&mut request, origin, policy, session)).await;
        let arrived = Arrived { id, origin, arrival: &arrival, connection };
        let mut trail = match self.begin(&caller, &info, &mut request, &arrived).await {
            Ok(trail) => trail,
            Err(error) => return (status_response(&error), None),
        };
        let is_stranger = caller.as_ref().is_ok_and(UserInfo::is_anonymous);
        let admitted = match caller {
            Ok(caller) => self.admit(&mut request, caller, &info, origin, policy, &mut trail),
            Err(failure) => {
                trail.describe(Attributes::of(&UserInfo::anonymous(), &info), None);
                Err(failure)
            }
        };
        let admitted = match trail.received().await {
            // It is not that the session may not: it is not known here.
            Ok(()) if is_stranger && session == Session::Ignored => admitted.map_err(Failure::of_stranger),
            Ok(()) => admitted,
            Err(error) => Err(error.into()),
        };
        let (mut place, mut stream) = (None, None);
        let answered = match admitted {
            Ok(Admitted { user, caller, place: own, asked }) => {
                tracing::debug!(
                    request_id = id.0,
                    user = user.username,
                    verb = info.verb,
                    path = info.path,
                    "request"
                );
                let handled = caught(id, self.dispatch(target, request, user, info, id, origin)).await;
                handled.map(|mut response| {
                    let is_said = response.extensions_mut().remove::<GoesOn>().is_some();
                    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                    match long_running || upgraded || is_said {
                        true => stream = Some(Stream::new(caller, arrival.received, asked)),
                        false => place = own,
                    }
                    finish(response, policy)
                })
            }
            Err(failure) => Err(failure),
        };
        let (response, error) = match answered {
            Ok(mut response) => {
                session.guard(&mut response);
                (response, None)
            }
            Err(failure) => {
                let error = failure.told(&mut trail);
                (status_response(&error), Some(error))
            }
        };
        let response = trail.finish(response, error, stream.as_ref(), connection).await;
        (self.go_on(response, stream, origin, connection), place)
    }

    /// An answer that goes on ends when what it was opened with is gone. Those in this process have nothing that is
    /// revoked.
    fn go_on(
        &self,
        response: Response<Body>,
        stream: Option<Arc<Stream>>,
        origin: &Origin,
        connection: &Connection,
    ) -> Response<Body> {
        let begun = response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match (stream, origin) {
            (Some(stream), Origin::Network(_)) if begun => {
                self.streams.add(&stream);
                streams::bind(stream, response, connection)
            }
            _ => response,
        }
    }

    /// The audit point: a place for the record, before anything is decided.
    async fn begin(
        &self,
        caller: &Result<UserInfo, Failure>,
        info: &RequestInfo,
        request: &mut Request<Body>,
        arrived: &Arrived<'_>,
    ) -> Result<Trail, StatusError> {
        let Some(point) = &self.audit else { return Ok(Trail::default()) };
        point.begin(caller.as_ref().ok(), info, request, arrived).await
    }

    /// As whom the caller acts, whether there is room for the request, and whether it may be made.
    fn admit(
        &self,
        request: &mut Request<Body>,
        caller: UserInfo,
        info: &RequestInfo,
        origin: &Origin,
        policy: AuthPolicy,
        trail: &mut Trail,
    ) -> Result<Admitted, Failure> {
        let impersonation = match impersonated(request.headers_mut(), &caller, self.authorizer.as_ref()) {
            Ok(impersonation) => impersonation,
            Err(error) => {
                trail.describe(Attributes::of(&caller, info), None);
                return Err(error.into());
            }
        };
        let (user, behind, mut asked) = match impersonation {
            None => (caller.clone(), None, Vec::new()),
            Some(Impersonation { user, asked }) => (user, Some(&caller), asked),
        };
        // What is decided about somebody else is not remembered. As of before: what is decided is at least as new.
        let asks_again = policy == AuthPolicy::Kubernetes && behind.is_none();
        let decisions = asks_again.then(|| self.authorizer.decisions_version(&user)).flatten();
        if trail.was_allowed(decisions) {
            let place = self.place(info, &user, origin, policy)?;
            trail.allowed_again(decisions);
            return Ok(Admitted { user, caller, place, asked });
        }
        let attributes = Attributes::of(&user, info);
        let place = self.place(info, &user, origin, policy);
        let allowed = place.and_then(|place| {
            if policy == AuthPolicy::Kubernetes {
                self.decide(&attributes, decisions, trail)?;
            }
            Ok(place)
        });
        if policy == AuthPolicy::Kubernetes && info.is_long_running() {
            asked.push(attributes.clone());
        }
        trail.describe(attributes, behind);
        if let Some(caller) = behind {
            request.extensions_mut().insert(ImpersonatedBy(caller.clone()));
        }
        Ok(Admitted { user, caller, place: allowed?, asked })
    }

    fn decide(
        &self,
        attributes: &Attributes,
        version: Option<u64>,
        trail: &mut Trail,
    ) -> Result<(), StatusError> {
        match self.authorizer.authorize(attributes) {
            Decision::Allow(reason) => {
                trail.decided(true, reason, version);
                Ok(())
            }
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                let refusal = forbidden(attributes, &reason);
                trail.decided(false, reason, version);
                Err(refusal)
            }
        }
    }

    /// Hands the request to who answers it.
    async fn dispatch(
        &self,
        target: Target<'_>,
        mut request: Request<Body>,
        user: UserInfo,
        info: RequestInfo,
        id: &RequestId,
        origin: &Origin,
    ) -> Result<Response<Body>, StatusError> {
        match target {
            Target::Health => {
                let query = request.uri().query().unwrap_or_default();
                self.health.answer(&info.path, query).ok_or_else(StatusError::no_such_resource)
            }
            Target::Index => Ok(self.index(request.headers())),
            Target::Handler(router, _) => {
                let router = router.clone();
                let extensions = request.extensions_mut();
                extensions.insert(user);
                extensions.insert(info);
                extensions.insert(id.clone());
                extensions.insert(Draining(self.draining.clone()));
                extensions.insert(match origin {
                    Origin::Network(connection) => connection.clone(),
                    Origin::InProcess(_) => ConnectionInfo::default(),
                });
                Ok(router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {}))
            }
        }
    }

    fn target(&self, request: &Request<Body>) -> Target<'_> {
        let path = request.uri().path();
        let below = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if path == "/" {
            return Target::Index;
        }
        if ["/healthz", "/livez", "/readyz"].into_iter().any(below) {
            return Target::Health;
        }
        match self.routes.iter().find(|route| below(&route.prefix)) {
            Some(route) => Target::Handler(&route.router, route.policy),
            None => Target::Handler(&self.fallback, AuthPolicy::Kubernetes),
        }
    }

    async fn authenticate(
        &self,
        request: &mut Request<Body>,
        origin: &Origin,
        policy: AuthPolicy,
        session: Session,
    ) -> Result<UserInfo, StatusError> {
        let caller = match origin {
            Origin::InProcess(user) => user.clone(),
            Origin::Network(connection) => {
                match self.authenticators.authenticate(request.headers(), connection).await {
                    Ok(user) => user,
                    Err(error) if policy == AuthPolicy::Delegated => {
                        request.extensions_mut().insert(AuthenticationFailed(error));
                        UserInfo::anonymous()
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        // Handlers need none, and some hand the request on: to a node, to a pod.
        if policy != AuthPolicy::Delegated {
            let headers = request.headers_mut();
            headers.remove(AUTHORIZATION);
            headers.remove(AUTH_TOKEN);
            if session == Session::Counts {
                remove_cookie(headers, SESSION_COOKIE);
            }
        }
        Ok(caller)
    }

    /// A place among the requests in flight. Callers of this process (whose connections are bounded) and the masters,
    /// who must be able to repair an overloaded server, need none, and where the front door decides, nor does what
    /// goes on for long.
    fn place(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
        origin: &Origin,
        policy: AuthPolicy,
    ) -> Result<Option<InFlightPlace>, StatusError> {
        if policy == AuthPolicy::Authenticated && user.is_anonymous() {
            return Err(StatusError::unauthorized());
        }
        let Origin::Network(connection) = origin else { return Ok(None) };
        if user.in_group(groups::MASTERS) {
            return Ok(None);
        }
        let place = match policy {
            AuthPolicy::Delegated => self.in_flight.enter_as(user, connection.peer.map(|peer| peer.ip())),
            _ if info.is_long_running() => return Ok(None),
            _ => self.in_flight.enter(&info.verb),
        };
        let too_many = || StatusError::too_many_requests("Too many requests, please try again later.", 1);
        place.map(Some).ok_or_else(too_many)
    }

    /// The list of paths, or the console for a browser where there is one.
    fn index(&self, headers: &HeaderMap) -> Response<Body> {
        let browser =
            headers.get(ACCEPT).and_then(|a| a.to_str().ok()).is_some_and(|a| a.contains("text/html"));
        if browser && self.routes.iter().any(|route| route.prefix == "/console") {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/console"));
            return response;
        }
        let mut paths = self.health.paths();
        paths.extend(self.routes.iter().map(|route| route.prefix.clone()));
        paths.extend(self.paths.as_ref().map(|list| list()).unwrap_or_default());
        paths.sort();
        paths.dedup();
        let mut response = Response::new(Body::from(serde_json::json!({ "paths": paths }).to_string()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn finish(mut response: Response<Body>, policy: AuthPolicy) -> Response<Body> {
    if policy == AuthPolicy::Kubernetes {
        let headers = response.headers_mut();
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    }
    response
}

/// The client's id where it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let given = [REQUEST_ID, AUDIT_ID].iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    RequestId(given.filter(plain).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned))
}
