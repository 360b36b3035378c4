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
use gantry_audit_api::{GROUP, PATH, VERSION, files};
use gantry_kube_types::{GoesOn, StatusError, UserInfo};
use gantry_routes::Routes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, StatusCode};
use serde_json::json;

use crate::Inner;
use crate::search::{self, Hit, Page};
use crate::sessions::Recording;
use crate::streams;

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

async fn group() -> Response {
    let version = json!({ "groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION });
    axum::Json(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": [version], "preferredVersion": version,
    }))
    .into_response()
}

async fn resources() -> Response {
    axum::Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [{
            "name": "records", "singularName": "record", "namespaced": false, "kind": "Event",
            "verbs": ["get", "list"],
        }],
    }))
    .into_response()
}

fn caller(request: &Request) -> UserInfo {
    request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous)
}

fn read(asked: Asked) -> Result<query::Query, StatusError> {
    let Query(query) = asked.map_err(|rejection| StatusError::bad_request(rejection.body_text()))?;
    match query.problem() {
        Some(problem) => Err(StatusError::bad_request(problem)),
        None => Ok(query),
    }
}

async fn list(State(inner): Trail, asked: Asked, request: Request) -> Answer {
    let query = read(asked)?;
    if query.follow {
        let viewer = inner.viewer(caller(&request), "list");
        return Ok((Extension(GoesOn), lines(streams::follow(inner, query, viewer))).into_response());
    }
    let scope = inner.scope(&caller(&request), "list");
    let next = inner.catalog.tip.borrow().next_sequence;
    let page = inner.reading(move |inner| search::search(&inner.catalog, &query, &scope)).await?;
    Ok(event_list(&page, next))
}

async fn record(State(inner): Trail, Path(id): Path<String>, request: Request) -> Answer {
    let scope = inner.scope(&caller(&request), "get");
    let next = inner.catalog.tip.borrow().next_sequence;
    let wanted = id.clone();
    let hits =
        inner.reading(move |inner| search::by_id(&inner.catalog, &wanted, &scope, SAME_ID_MAX)).await?;
    if hits.is_empty() {
        return Err(StatusError::not_found(GROUP, "records", &id).into());
    }
    Ok(event_list(&Page { hits, continue_: None }, next))
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

/// Records as they are kept, in a list; nothing is parsed.
fn event_list(page: &Page, next_sequence: u64) -> Response {
    let continue_ = page.continue_.map(|sequence| sequence.to_string()).unwrap_or_default();
    let mut body =
        Vec::with_capacity(256 + page.hits.iter().map(|hit| hit.payload.len() + 32).sum::<usize>());
    let head = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{"continue":"{continue_}","resourceVersion":"{next_sequence}"}},"items":["#
    );
    body.extend_from_slice(head.as_bytes());
    for (index, hit) in page.hits.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        append(&mut body, hit.sequence, &hit.payload);
    }
    body.extend_from_slice(b"]}\n");
    typed(Body::from(body), "application/json")
}

/// A record with its place in the trail.
pub(crate) fn append(out: &mut Vec<u8>, sequence: u64, payload: &[u8]) {
    match payload.strip_suffix(b"}") {
        Some(open) if open.len() > 1 => {
            out.extend_from_slice(open);
            out.extend_from_slice(format!(",\"sequence\":{sequence}}}").as_bytes());
        }
        _ => out.extend_from_slice(payload),
    }
}

impl Hit {
    /// The record as a line of an export.
    pub(crate) fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(self.payload.len() + 32);
        append(&mut line, self.sequence, &self.payload);
        line.push(b'\n');
        line
    }
}

fn lines(body: Body) -> Response {
    typed(body, "application/x-ndjson")
}

fn typed(body: Body, kind: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 1] = [(CONTENT_TYPE, HeaderValue::from_static(kind))];
    (headers, body).into_response()
}
