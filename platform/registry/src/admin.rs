//! What operators start by hand: collecting garbage, and checking the store. Both answer with one JSON object a line:
//! how far it is, and at the end what came of it. Whoever hangs up ends it; what was done until then is done.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::unfold;
use gantry_kube_types::{Attributes, StatusError, UserInfo};
use gantry_registry_api::GROUP;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender, error::TrySendError};

use crate::Registry;
use crate::tokens::parse_form;

/// The virtual resource of everything that is stored, with the verbs `collect` and `check`.
const BLOBS: &str = "blobs";
/// How often somebody who watches is told something.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Lines that wait for a slow reader; further ones are left out.
const LINES_MAX: usize = 16;

/// `POST /registry/v1/gc`
pub(crate) async fn collect(State(registry): State<Registry>, request: Request) -> Response {
    if let Err(error) = require(&registry, &request, "collect") {
        return refused(&error);
    }
    answer(move |teller| async move {
        let watch = teller.clone();
        let done = registry.gc_watched(move |progress| watch.tell(|| json!({ "progress": progress })));
        done.await.map(|collected| json!({ "collected": collected }))
    })
}

/// `POST /registry/v1/fsck?content=true`
pub(crate) async fn check(State(registry): State<Registry>, request: Request) -> Response {
    if let Err(error) = require(&registry, &request, "check") {
        return refused(&error);
    }
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let content = query.iter().any(|(name, value)| name == "content" && value == "true");
    answer(move |teller| async move {
        let watch = teller.clone();
        let done = registry.fsck(content, move |done, total| {
            watch.tell(|| json!({ "progress": { "done": done, "total": total } }))
        });
        done.await.map(|checked| json!({ "checked": checked }))
    })
}

fn require(registry: &Registry, request: &Request, verb: &str) -> Result<(), StatusError> {
    let user = request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous);
    // A token for images is none for the store.
    let narrow = user.extra.contains_key(crate::tokens::SCOPES_KEY);
    let attributes = Attributes {
        user,
        verb: verb.to_owned(),
        is_resource_request: true,
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        resource: BLOBS.to_owned(),
        ..Attributes::default()
    };
    if !narrow && registry.inner.access.authorizer.authorize(&attributes).is_allowed() {
        return Ok(());
    }
    let who = &attributes.user.username;
    Err(StatusError::forbidden(
        GROUP,
        BLOBS,
        "",
        format!("User {who:?} cannot {verb} them; it needs the role operator"),
    ))
}

fn refused(error: &StatusError) -> Response {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(error.to_json())).into_response()
}

/// Passes on what happens, not oftener than somebody can read.
#[derive(Clone)]
struct Teller {
    lines: Sender<Bytes>,
    last: std::sync::Arc<Mutex<Option<Instant>>>,
}

impl Teller {
    /// False when nobody listens any more.
    fn tell(&self, what: impl FnOnce() -> Value) -> bool {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return !self.lines.is_closed();
        }
        *last = Some(Instant::now());
        !matches!(self.lines.try_send(line(&what())), Err(TrySendError::Closed(_)))
    }
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn answer<F, Fut>(work: F) -> Response
where
    F: FnOnce(Teller) -> Fut + Send + 'static,
    Fut: Future<Output = std::io::Result<Value>> + Send + 'static,
{
    let (lines, told) = mpsc::channel(LINES_MAX);
    tokio::spawn(async move {
        let last = work(Teller { lines: lines.clone(), last: Default::default() }).await;
        let last = last.unwrap_or_else(|error| {
            tracing::error!(%error, "the registry's store could not be read or written");
            json!({ "error": format!("the registry's storage failed: {}", error.kind()) })
        });
        // Nobody may be there any more.
        let _ = lines.send(line(&last)).await;
    });
    let stream = unfold(told, |mut told| async move {
        let line = told.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), told))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response()
}
