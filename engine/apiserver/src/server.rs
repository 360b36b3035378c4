//! The server: its parts, and the way a request takes through them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use gantry_kube_logic::negotiate;
use gantry_kube_types::{RequestInfo, StatusError, UserInfo};
use gantry_store::Store;
use http::{Method, Request, Response};
use serde_json::json;
use tower::ServiceExt;

use crate::admission::AdmissionPlugin;
use crate::eviction::Eviction;
use crate::kind::Kind;
use crate::node::NodeConnector;
use crate::query::Query;
use crate::reader::Reader;
use crate::registry::{Discovered, Registry, ResourceExtension};
use crate::request::{Context, Notes};
use crate::views::Views;
use crate::{connect, delete, discovery, openapi, patch, read, respond, scale, watch, write};

/// What the server is made of.
pub struct Config {
    pub kinds: Vec<Kind>,
    /// In the order they run.
    pub admission: Vec<Arc<dyn AdmissionPlugin>>,
    /// Groups served by others.
    pub extensions: Vec<Arc<dyn ResourceExtension>>,
    /// What is served behind the same front door and not here: discovery names it too.
    pub beside: Vec<Discovered>,
    /// `None`: streams to containers, logs and node proxies answer 503.
    pub nodes: Option<Arc<dyn NodeConnector>>,
    /// Lists and watches that show each caller what is theirs; `None`: all or nothing.
    pub views: Option<Arc<Views>>,
    /// `/version`: `v1.37.0+gantry`.
    pub git_version: String,
}

/// What [`Config::git_version`] says unless the composition root knows better.
pub const GIT_VERSION: &str = "v1.37.0+gantry";

/// The generic API server.
pub struct ApiServer {
    pub(crate) store: Store,
    pub(crate) registry: ArcSwap<Registry>,
    pub(crate) admission: Vec<Arc<dyn AdmissionPlugin>>,
    pub(crate) extensions: Vec<(Arc<dyn ResourceExtension>, Router)>,
    pub(crate) beside: Vec<Discovered>,
    pub(crate) nodes: Option<Arc<dyn NodeConnector>>,
    pub(crate) views: Option<Arc<Views>>,
    pub(crate) documents: openapi::Documents,
    git_version: String,
}

impl ApiServer {
    /// Custom resource definitions already in the store are served at once. Spawn
    /// [`crate::run_custom_resources`] to follow their changes.
    pub fn new(store: Store, config: Config) -> Arc<Self> {
        let extensions = config.extensions.into_iter().map(|e| (e.clone(), e.router())).collect();
        let kinds = config.kinds.into_iter().map(complete);
        let server = Arc::new(Self {
            store,
            registry: ArcSwap::from_pointee(Registry::new(kinds.collect())),
            admission: config.admission,
            extensions,
            beside: config.beside,
            nodes: config.nodes,
            views: config.views,
            documents: openapi::Documents::default(),
            git_version: config.git_version,
        });
        crate::crd::refresh(&server);
        server
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The newest state of every object.
    pub fn reader(&self) -> Reader {
        Reader::new(self.store.snapshot())
    }

    /// The kind served under this name now.
    pub fn kind(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Kind>> {
        self.registry.load().get(group, version, resource).cloned()
    }

    /// Everything under `/api`, `/apis`, `/openapi` and `/version`. Requests must carry
    /// [`UserInfo`] in their extensions: they are authenticated and authorised before they come here.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(handle).with_state(self.clone())
    }
}

/// Adds what the server itself does for some kinds.
fn complete(mut kind: Kind) -> Kind {
    if kind.info.group.is_empty() && kind.has_subresource("eviction") {
        kind = kind.with_action("eviction", Arc::new(Eviction));
    }
    if kind.info.group == crate::crd::GROUP && kind.info.resource == crate::crd::RESOURCE {
        kind.check = Some(crate::crd::check);
    }
    kind
}

async fn handle(State(server): State<Arc<ApiServer>>, request: Request<Body>) -> Response<Body> {
    let head = request.method() == Method::HEAD;
    let response = route(&server, request).await.unwrap_or_else(|error| respond::failure(&error));
    if head { response.map(|_| Body::empty()) } else { response }
}

async fn route(server: &Arc<ApiServer>, request: Request<Body>) -> Result<Response<Body>, StatusError> {
    let info =
        request.extensions().get::<RequestInfo>().cloned().unwrap_or_else(|| {
            RequestInfo::parse(request.method(), request.uri().path(), request.uri().query())
        });
    // Without a caller nothing was authenticated: refuse rather than guess.
    let user = request.extensions().get::<UserInfo>().cloned().ok_or_else(StatusError::unauthorized)?;
    if !info.is_resource_request {
        return non_resource(server, &request, &info);
    }
    for (extension, router) in &server.extensions {
        if extension.group() == info.group && extension.version() == info.version {
            return router.clone().oneshot(request).await.map_err(StatusError::internal);
        }
    }
    let kind =
        server.kind(&info.group, &info.version, &info.resource).ok_or_else(StatusError::no_such_resource)?;
    let context = Context {
        query: Query::parse(request.uri().query()),
        headers: request.headers().clone(),
        server: server.clone(),
        user,
        info,
        kind,
        notes: Notes::default(),
    };
    let notes = context.notes.clone();
    let answered = match context.check_scope() {
        Ok(()) => resource(context, request).await,
        Err(error) => Err(error),
    };
    let mut response = answered.unwrap_or_else(|error| respond::failure(&error));
    if let Some(notes) = notes.taken() {
        response.extensions_mut().insert(notes);
    }
    Ok(response)
}

async fn resource(context: Context, request: Request<Body>) -> Result<Response<Body>, StatusError> {
    if connect::serves(&context) {
        return connect::serve(context, request).await;
    }
    if !context.info.subresource.is_empty() && !context.kind.has_subresource(&context.info.subresource) {
        return Err(StatusError::no_such_resource());
    }
    let subresource = context.info.subresource.clone();
    let body = request.into_body();
    match (context.info.verb.as_str(), subresource.as_str()) {
        (verb, "") if !context.kind.verbs.contains(&verb) => Err(context.not_allowed()),
        // Rights were decided on the name in the path, and these would act on the one in the body.
        ("create", "") if !context.info.name.is_empty() => Err(context.not_allowed()),
        ("update" | "patch" | "delete", _) if context.info.name.is_empty() => Err(context.not_allowed()),
        ("create", sub) if context.kind.actions.contains_key(sub) => write::act(context, body).await,
        ("get" | "update" | "patch", "scale") => scale::serve(context, body).await,
        ("get", "" | "status" | "approval" | "resize" | "ephemeralcontainers") => read::get(&context),
        ("list", "") => read::list(&context),
        ("watch", "") => watch::watch(&context),
        ("create", "") => write::create(context, body).await,
        ("update", _) => write::update(context, body).await,
        ("patch", _) => patch::patch(context, body).await,
        ("delete", "") => delete::delete(context, body).await,
        ("deletecollection", "") => delete::collection(context, body).await,
        _ => Err(context.not_allowed()),
    }
}

fn non_resource(
    server: &Arc<ApiServer>,
    request: &Request<Body>,
    info: &RequestInfo,
) -> Result<Response<Body>, StatusError> {
    let parts: Vec<&str> = info.path.split('/').filter(|p| !p.is_empty()).collect();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(StatusError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    match parts.as_slice() {
        ["version"] => {
            let output = negotiate::Output::of(request.headers(), true)?;
            let (major, minor) = (1, server.git_version.split('.').nth(1).unwrap_or("0"));
            let version = json!({
                "major": major.to_string(), "minor": minor, "gitVersion": server.git_version,
                "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "none", "compiler": "rustc",
                "platform": format!("{}/{}", std::env::consts::OS, architecture()),
            });
            respond::success(http::StatusCode::OK, crate::encode::to_bytes(&version), output)
        }
        ["api" | "apis", ..] => discovery::serve(server, &parts, request.headers()),
        ["openapi", rest @ ..] => openapi::serve(server, rest, request),
        _ => Err(StatusError::no_such_resource()),
    }
}

/// Go's word for it, which clients expect.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
