//! What happens to one request, in order.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use futures::FutureExt;
use gantry_kube_types::{
    Attributes, ConnectionInfo, Decision, RequestId, RequestInfo, StatusError, UserInfo, groups,
};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tower::ServiceExt;

use crate::authentication::AuthenticationFailed;
use crate::builder::{AuthPolicy, FrontDoor, Shared};
use crate::impersonation::{ImpersonatedBy, impersonated};
use crate::limits::{GuardedBody, StallBody};
use crate::listener::{Draining, InUse};
use crate::responses::{forbidden, status_response};

const REQUEST_ID: &str = "x-request-id";
const AUDIT_ID: &str = "audit-id";
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
    ) -> Response<Body> {
        let stall = self.0.limits.body_stall_timeout;
        let request = request.map(|body| Body::new(StallBody::new(body, stall)));
        let id = request_id(request.headers());
        let answered = AssertUnwindSafe(self.0.answer(request, origin, &id)).catch_unwind().await;
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => status_response(&error),
            Err(_) => {
                tracing::error!(request_id = id.0, "a handler panicked");
                status_response(&StatusError::internal("the request could not be completed"))
            }
        };
        // `request_id` admits only characters that stand in a header.
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(REQUEST_ID, value.clone());
            response.headers_mut().insert(AUDIT_ID, value);
        }
        match in_use {
            Some(in_use) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                response.map(|body| GuardedBody::wrap(body, in_use))
            }
            _ => response,
        }
    }
}

impl Shared {
    async fn answer(
        &self,
        mut request: Request<Body>,
        origin: &Origin,
        id: &RequestId,
    ) -> Result<Response<Body>, StatusError> {
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        let target = self.target(&request);
        let policy = target.policy();
        let user = self.identify(&mut request, origin, policy).await?;
        if policy == AuthPolicy::Authenticated && user.is_anonymous() {
            return Err(StatusError::unauthorized());
        }
        let place = self.place(&info, &user, origin, policy)?;
        if policy == AuthPolicy::Kubernetes {
            self.authorize(&user, &info)?;
        }
        tracing::debug!(
            request_id = id.0,
            user = user.username,
            verb = info.verb,
            path = info.path,
            "request"
        );
        let response = match target {
            Target::Health => {
                let query = request.uri().query().unwrap_or_default();
                self.health.answer(&info.path, query).ok_or_else(StatusError::no_such_resource)?
            }
            Target::Index => self.index(request.headers()),
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
                router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {})
            }
        };
        Ok(finish(response, place, policy))
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

    async fn identify(
        &self,
        request: &mut Request<Body>,
        origin: &Origin,
        policy: AuthPolicy,
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
        if policy != AuthPolicy::Delegated {
            request.headers_mut().remove(AUTHORIZATION);
        }
        match impersonated(request.headers_mut(), &caller, self.authorizer.as_ref())? {
            None => Ok(caller),
            Some(user) => {
                request.extensions_mut().insert(ImpersonatedBy(caller));
                Ok(user)
            }
        }
    }

    /// A place among the requests in flight. What goes on for long, callers of this process (whose
    /// connections are bounded), handlers with bounds of their own and the masters, who must be able
    /// to repair an overloaded server, need none.
    fn place(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
        origin: &Origin,
        policy: AuthPolicy,
    ) -> Result<Option<OwnedSemaphorePermit>, StatusError> {
        let exempt = policy == AuthPolicy::Delegated
            || matches!(origin, Origin::InProcess(_))
            || info.is_long_running()
            || user.in_group(groups::MASTERS);
        if exempt {
            return Ok(None);
        }
        match self.in_flight.enter(&info.verb) {
            Some(place) => Ok(Some(place)),
            None => Err(StatusError::too_many_requests("Too many requests, please try again later.", 1)),
        }
    }

    fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), StatusError> {
        let attributes = Attributes::of(user, info);
        match self.authorizer.authorize(&attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
        }
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

fn finish(
    mut response: Response<Body>,
    place: Option<OwnedSemaphorePermit>,
    policy: AuthPolicy,
) -> Response<Body> {
    if policy == AuthPolicy::Kubernetes {
        let headers = response.headers_mut();
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    }
    match place {
        // A response without a body would never be polled to its end, so it gives its place back now.
        Some(place) if !http_body::Body::is_end_stream(response.body()) => {
            response.map(|body| GuardedBody::wrap(body, Arc::new(place)))
        }
        _ => response,
    }
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
