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
use gantry_oci::RepositoryName;
use gantry_registry_api::{GROUP, RESOURCE, Retention};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Sender, error::TrySendError};

use crate::Registry;
use crate::rules::Retain;
use crate::tokens::parse_form;

/// The virtual resource of everything that is stored, with the verbs `collect` and `check`.
const BLOBS: &str = "blobs";
/// Longest body with retention rules to try.
const RULES_BYTES_MAX: usize = 64 << 10;
/// How often somebody who watches is told something.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Lines that wait for a slow reader; further ones are left out.
const LINES_MAX: usize = 16;

/// `POST /registry/v1/gc`
pub(crate) async fn collect(State(registry): State<Registry>, request: Request) -> Response {
    if let Err(error) = require(&registry, &request, BLOBS, "collect") {
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
    if let Err(error) = require(&registry, &request, BLOBS, "check") {
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

/// `POST /registry/v1/replicate?name=NAME`: runs a replication now.
pub(crate) async fn replicate(State(registry): State<Registry>, request: Request) -> Response {
    // It moves what is stored, and can fill disks.
    if let Err(error) = require(&registry, &request, BLOBS, "collect") {
        return refused(&error);
    }
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let name = query.into_iter().find(|(n, _)| n == "name").map(|(_, value)| value).unwrap_or_default();
    answer(move |teller| async move {
        let watch = |done, total| teller.tell(|| json!({ "progress": { "done": done, "total": total } }));
        Ok(match registry.replicate(&name, &watch).await {
            None => json!({ "error": format!("there is no replication {name:?}") }),
            Some(Ok(outcome)) => json!({ "replicated": outcome }),
            Some(Err(why)) => json!({ "error": format!("not everything was copied: {why}") }),
        })
    })
}

/// `POST /registry/v1/retention?repository=NAME&dryRun=true`: what goes, or would; with rules in the body, by those.
pub(crate) async fn retain(State(registry): State<Registry>, request: Request) -> Response {
    let user = request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous);
    if user.is_anonymous() {
        return refused(&StatusError::unauthorized());
    }
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let field = |name: &str| query.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str());
    let Ok(repository) = field("repository").parse::<RepositoryName>() else {
        return refused(&StatusError::bad_request("repository must be the name of a repository"));
    };
    let narrow = user.extra.contains_key(crate::tokens::SCOPES_KEY);
    // Who may change the rules may see and do what they say.
    if narrow || !registry.inner.access.allows(&user, "update", repository.as_str()) {
        let why = "it needs the role manager where it belongs";
        return refused(&StatusError::forbidden(GROUP, RESOURCE, repository.as_str(), why));
    }
    let dry_run = field("dryRun") == "true";
    let Ok(body) = axum::body::to_bytes(request.into_body(), RULES_BYTES_MAX).await else {
        return refused(&StatusError::too_large("retention rules are shorter"));
    };
    let how = match (dry_run, body.is_empty(), serde_json::from_slice::<Retention>(&body)) {
        (false, true, _) => Retain::Do,
        (true, true, _) => Retain::DryRun,
        (true, false, Ok(retention)) => Retain::Try(retention),
        (true, false, Err(error)) => {
            return refused(&StatusError::bad_request(format!("the rules are not valid: {error}")));
        }
        (false, false, _) => {
            return refused(&StatusError::bad_request(
                "rules are tried with dryRun=true, and kept in the object",
            ));
        }
    };
    match registry.retain(&repository, how).await {
        Ok(plan) => {
            let manifests: Vec<String> = plan.manifests.iter().map(ToString::to_string).collect();
            let tags: Vec<&str> = plan.tags.iter().map(gantry_oci::Tag::as_str).collect();
            axum::Json(json!({ "dryRun": dry_run, "tags": tags, "manifests": manifests })).into_response()
        }
        Err(error) => {
            tracing::error!(%error, %repository, "retention failed");
            refused(&StatusError::internal("the registry's storage failed"))
        }
    }
}

/// The right on a resource of the registry as a whole.
pub(crate) fn require(
    registry: &Registry,
    request: &Request,
    resource: &str,
    verb: &str,
) -> Result<(), StatusError> {
    let user = request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous);
    // A token for images is none for the store.
    let narrow = user.extra.contains_key(crate::tokens::SCOPES_KEY);
    let attributes = Attributes {
        user,
        verb: verb.to_owned(),
        is_resource_request: true,
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        ..Attributes::default()
    };
    if !narrow && registry.inner.access.authorizer.authorize(&attributes).is_allowed() {
        return Ok(());
    }
    let who = &attributes.user.username;
    Err(StatusError::forbidden(
        GROUP,
        resource,
        "",
        format!("User {who:?} cannot {verb} them; it needs the role operator"),
    ))
}

pub(crate) fn refused(error: &StatusError) -> Response {
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
