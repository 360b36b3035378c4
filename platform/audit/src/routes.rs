//! The query API.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use gantry_audit_api::query;
use gantry_audit_api::verify::{Report, VerifyError, Witness, verify};
use gantry_audit_api::{GROUP, PATH, RESOURCE, VERSION, files};
use gantry_kube_logic::selector::{FieldRequirement, FieldSelector};
use gantry_kube_types::{GoesOn, ResourceInfo, Scope, StatusError, UserInfo};
use gantry_routes::Routes;
use http::StatusCode;
use serde_json::json;

use crate::Inner;
use crate::search::{self, Page};
use crate::sessions::Recording;
use crate::shown::{self, Piece, typed, wants_table};
use crate::streams;

const LINES: &str = "application/x-ndjson";
/// Records of one request that are shown.
const SAME_ID_MAX: usize = 100;
/// A verification is begun again so often when files go while it runs.
const VERIFY_AGAIN_MAX: usize = 2;

type Answer = Result<Response, Refusal>;
type Trail = State<Arc<Inner>>;
type Asked = Result<Query<query::Query>, QueryRejection>;

/// A `Status` object as the answer.
pub(crate) struct Refusal(StatusError);

impl<E: Into<StatusError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self.0.to_json())).into_response()
    }
}

pub(crate) fn router(inner: Arc<Inner>) -> Router {
    let router = table().router().fallback(|| async { Refusal(StatusError::no_such_resource()) });
    router.with_state(inner)
}

pub(crate) fn paths() -> Vec<String> {
    table().paths()
}

fn table() -> Routes<Arc<Inner>> {
    let at = |path: &str| format!("{PATH}/{path}");
    Routes::new()
        .route(&format!("/apis/{GROUP}"), get(group))
        .route(PATH, get(resources))
        .route(&at("records"), get(list))
        .route(&at("records/{id}"), get(record))
        .route(&at("sessions/{id}"), get(session))
        .route(&at("checkpoints"), get(checkpoints))
        .route(&at("keys"), get(keys))
        .route(&at("export"), get(export))
        .route(&at("verify"), get(verification))
}

/// What discovery says of it.
pub(crate) fn discovered() -> (ResourceInfo, Vec<&'static str>) {
    let info = ResourceInfo {
        group: GROUP.into(),
        version: VERSION.into(),
        resource: RESOURCE.into(),
        singular: "record".into(),
        kind: "Record".into(),
        list_kind: "RecordList".into(),
        scope: Scope::Cluster,
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
    };
    (info, vec!["get", "list", "watch"])
}

async fn group() -> Response {
    let version = json!({ "groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION });
    axum::Json(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": [version], "preferredVersion": version,
    }))
    .into_response()
}

async fn resources() -> Response {
    let (info, verbs) = discovered();
    axum::Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": info.api_version(),
        "resources": [{
            "name": info.resource, "singularName": info.singular, "namespaced": info.is_namespaced(),
            "kind": info.kind, "verbs": verbs,
        }],
    }))
    .into_response()
}

fn caller(request: &Request) -> UserInfo {
    request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous)
}

fn read(asked: Asked) -> Result<query::Query, StatusError> {
    let Query(query) = asked.map_err(|rejection| StatusError::bad_request(rejection.body_text()))?;
    let selector = FieldSelector::parse(query.field_selector.as_deref().unwrap_or_default());
    let selector = selector.map_err(|error| StatusError::bad_request(error.to_string()))?;
    let query = selected(query, selector.requirements).map_err(StatusError::bad_request)?;
    match query.problem() {
        Some(problem) => Err(StatusError::bad_request(problem)),
        None => Ok(query),
    }
}

/// The query with what a field selector asks for, too.
fn selected(mut query: query::Query, selector: Vec<FieldRequirement>) -> Result<query::Query, String> {
    for FieldRequirement { field, value, equal } in selector {
        if !equal {
            return Err(format!("field selector {field}!={value}: records are found by what is equal"));
        }
        let Some(wanted) = query.field_mut(&field) else {
            return Err(format!("field label not supported: {field}"));
        };
        if wanted.replace(value.clone()).is_some_and(|other| other != value) {
            return Err(format!("{field} cannot be two things at once"));
        }
    }
    Ok(query)
}

async fn list(State(inner): Trail, asked: Asked, request: Request) -> Answer {
    let query = read(asked)?;
    let table = !query.follow && wants_table(request.headers())?;
    if query.follow || query.watch {
        let viewer = inner.viewer(caller(&request), "list");
        let piece = match (query.follow, table) {
            (true, _) => Piece::Line,
            (false, false) => Piece::Added,
            (false, true) => Piece::AddedRow,
        };
        let kind = if query.follow { LINES } else { "application/json" };
        let records = streams::follow(inner, query, viewer, piece);
        return Ok((Extension(GoesOn), typed(records, kind)).into_response());
    }
    let scope = inner.scope(&caller(&request), "list");
    let next = inner.catalog.tip.borrow().next_sequence;
    let page = inner.reading(move |inner| search::search(&inner.catalog, &query, &scope)).await?;
    Ok(shown::list(&page, next, table))
}

async fn record(State(inner): Trail, Path(id): Path<String>, request: Request) -> Answer {
    let table = wants_table(request.headers())?;
    let scope = inner.scope(&caller(&request), "get");
    let next = inner.catalog.tip.borrow().next_sequence;
    let wanted = id.clone();
    let hits =
        inner.reading(move |inner| search::by_id(&inner.catalog, &wanted, &scope, SAME_ID_MAX)).await?;
    if hits.is_empty() {
        return Err(StatusError::not_found(GROUP, "records", &id).into());
    }
    Ok(shown::list(&Page { hits, continue_: None }, next, table))
}

async fn session(State(inner): Trail, Path(id): Path<String>, request: Request) -> Answer {
    let scope = inner.scope(&caller(&request), "get");
    let wanted = id.clone();
    let cast = inner.reading(move |inner| inner.session_file(&wanted, &scope)).await?;
    match cast {
        Recording::Whole(file) => Ok(typed(streams::session(file), "application/x-asciicast")),
        Recording::Absent => Err(StatusError::not_found(GROUP, "sessions", &id).into()),
        Recording::Changed => {
            tracing::error!(session = id, "a recording is not the one whose hash is in the audit trail");
            let why =
                format!("the recording {id} was changed: its SHA-256 is not the one in the audit trail");
            Err(StatusError::internal(why).into())
        }
    }
}

async fn checkpoints(State(inner): Trail, asked: Asked, request: Request) -> Answer {
    let query = read(asked)?;
    inner.require_all(&caller(&request), "list")?;
    let before = query.continue_.as_ref().and_then(|t| t.parse().ok()).unwrap_or(u64::MAX);
    let page = inner.reading(move |inner| search::checkpoints(&inner.catalog, before, query.page())).await?;
    let items: Vec<serde_json::Value> =
        page.hits.iter().filter_map(|hit| serde_json::from_slice(&hit.payload).ok()).collect();
    let continue_ = page.continue_.map(|sequence| sequence.to_string()).unwrap_or_default();
    let list = json!({
        "kind": "CheckpointList", "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": { "continue": continue_ }, "items": items,
    });
    Ok(axum::Json(list).into_response())
}

/// The public keys, for everybody: with them a checkpoint is worth something elsewhere.
async fn keys(State(inner): Trail) -> Answer {
    let path = inner.config.root.join(files::KEYS);
    let bytes = inner.reading(move |_| std::fs::read(path)).await?;
    Ok(typed(Body::from(bytes), "application/json"))
}

async fn export(State(inner): Trail, asked: Asked, request: Request) -> Answer {
    let query = read(asked)?;
    let scope = inner.scope(&caller(&request), "list");
    Ok(lines(streams::export(inner, query, scope)))
}

async fn verification(State(inner): Trail, request: Request) -> Answer {
    inner.require_all(&caller(&request), "get")?;
    let verified = inner.reading(|inner| verify_live(&inner.config.root).map_err(std::io::Error::other));
    Ok(axum::Json(verified.await?).into_response())
}

/// Begins again when a segment expires while it is read.
fn verify_live(root: &std::path::Path) -> Result<Report, VerifyError> {
    let mut report = verify(root, &Witness::default());
    for _ in 0..VERIFY_AGAIN_MAX {
        if report.is_ok() {
            break;
        }
        report = verify(root, &Witness::default());
    }
    report
}

impl Inner {
    /// Runs what reads the disk on a thread that may wait, a few at a time.
    pub(crate) async fn reading<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StatusError> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "the audit trail cannot be read");
            StatusError::internal("the audit trail cannot be read")
        };
        let _place = self.readers.acquire().await.map_err(|e| failed(&e))?;
        let inner = self.clone();
        let done = tokio::task::spawn_blocking(move || read(&inner)).await.map_err(|e| failed(&e))?;
        if self.catalog.has_spoilt() {
            self.keeper.wake();
        }
        done.map_err(|e| failed(&e))
    }
}

fn lines(body: Body) -> Response {
    typed(body, LINES)
}
