//! Putting a front door together.

use std::sync::Arc;

use axum::Router;
use gantry_kube_types::{AuditSink, Authenticator, Authorizer, Standing};
use tokio_util::sync::CancellationToken;

use crate::audit::AuditPoint;
use crate::authentication::Chain;
use crate::health::HealthChecks;
use crate::in_flight::InFlight;
use crate::limits::Limits;
use crate::streams::Streams;

/// Who decides whether a request may pass to a route's handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthPolicy {
    /// The authoriser, on the request's Kubernetes attributes; refusals are `Status` objects.
    Kubernetes,
    /// Everybody who showed a good credential.
    Authenticated,
    /// The handler itself; it gets anonymous callers too, keeps the `Authorization` header, and finds
    /// [`crate::AuthenticationFailed`] in the extensions when a credential was refused.
    Delegated,
}

pub(crate) struct Route {
    /// `/v2`; matches itself and what lies below.
    pub(crate) prefix: String,
    pub(crate) policy: AuthPolicy,
    pub(crate) router: Router,
}

type PathList = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) authenticators: Chain,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) standing: Option<Arc<dyn Standing>>,
    pub(crate) streams: Streams,
    /// Longest prefix first.
    pub(crate) routes: Vec<Route>,
    pub(crate) fallback: Router,
    pub(crate) health: HealthChecks,
    pub(crate) paths: Option<PathList>,
    pub(crate) audit: Option<AuditPoint>,
    pub(crate) limits: Limits,
    pub(crate) in_flight: InFlight,
    pub(crate) draining: CancellationToken,
}

/// The front door; cheap to clone.
#[derive(Clone)]
pub struct FrontDoor(pub(crate) Arc<Shared>);

impl FrontDoor {
    pub fn builder() -> FrontDoorBuilder {
        FrontDoorBuilder::default()
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }
}

impl std::fmt::Debug for FrontDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefixes: Vec<&str> = self.0.routes.iter().map(|r| r.prefix.as_str()).collect();
        f.debug_struct("FrontDoor").field("routes", &prefixes).finish_non_exhaustive()
    }
}

#[derive(Default)]
pub struct FrontDoorBuilder {
    authenticators: Vec<Arc<dyn Authenticator>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    standing: Option<Arc<dyn Standing>>,
    routes: Vec<Route>,
    fallback: Option<Router>,
    health: HealthChecks,
    paths: Option<PathList>,
    audit: Option<Arc<dyn AuditSink>>,
    limits: Limits,
}

impl FrontDoorBuilder {
    /// Adds one to the chain; they are asked in the order they were added.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticators.push(authenticator);
        self
    }

    /// Without one, only [`AuthPolicy::Authenticated`] and [`AuthPolicy::Delegated`] routes answer.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// Knows which credentials are not good any more: what was opened with one ends.
    #[must_use]
    pub fn standing(mut self, standing: Arc<dyn Standing>) -> Self {
        self.standing = Some(standing);
        self
    }

    /// `router` answers `prefix` and all below, by the whole path, under [`AuthPolicy::Kubernetes`].
    #[must_use]
    pub fn route(self, prefix: &str, router: Router) -> Self {
        self.route_with(prefix, AuthPolicy::Kubernetes, router)
    }

    #[must_use]
    pub fn route_with(mut self, prefix: &str, policy: AuthPolicy, router: Router) -> Self {
        self.routes.push(Route { prefix: prefix.trim_end_matches('/').to_owned(), policy, router });
        self
    }

    /// Answers what no route does, under [`AuthPolicy::Kubernetes`].
    #[must_use]
    pub fn fallback(mut self, router: Router) -> Self {
        self.fallback = Some(router);
        self
    }

    /// What `/healthz`, `/livez` and `/readyz` check.
    #[must_use]
    pub fn health(mut self, checks: HealthChecks) -> Self {
        self.health = checks;
        self
    }

    /// Further paths for the list at `/` (the API groups served now).
    #[must_use]
    pub fn paths(mut self, list: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        self.paths = Some(Arc::new(list));
        self
    }

    /// Where every request leaves its record. Without one nothing is recorded.
    #[must_use]
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = Some(sink);
        self
    }

    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub fn build(mut self) -> FrontDoor {
        self.routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        FrontDoor(Arc::new(Shared {
            authenticators: Chain(self.authenticators),
            authorizer: self.authorizer.unwrap_or_else(|| Arc::new(NobodyMay)),
            standing: self.standing,
            streams: Streams::default(),
            routes: self.routes,
            fallback: self.fallback.unwrap_or_default(),
            health: self.health,
            paths: self.paths,
            audit: self
                .audit
                .map(|sink| AuditPoint { sink, body_bytes_max: self.limits.audit_body_bytes_max }),
            in_flight: InFlight::new(&self.limits),
            limits: self.limits,
            draining: CancellationToken::new(),
        }))
    }
}

/// Stands in where no authoriser was brought.
struct NobodyMay;

impl Authorizer for NobodyMay {
    fn authorize(&self, _: &gantry_kube_types::Attributes) -> gantry_kube_types::Decision {
        gantry_kube_types::Decision::NoOpinion("no authorizer is configured".to_owned())
    }
}
