//! `GET /containerLogs/{namespace}/{pod}/{container}`: the log of one container, whole, its end, or as it grows.

mod files;
mod line;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use gantry_cri::{ContainerState, ContainerStatusRequest, Runtime};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use self::files::{Batch, LogReader};
use self::line::{Filter, Source};
use self::watch::Watch;
use super::error::{Failure, find_pod, has_container};
use crate::api::{AgentApi, PodRecord};

/// Batches of at most about 64 KiB that wait for a slow client.
const BATCHES_MAX: usize = 4;
/// A follower asks the runtime this often whether the container still runs although nothing was closed.
const RECHECK: Duration = Duration::from_secs(30);
/// The runtime closes the log a moment before it tells that the container ended; nothing announces the second.
const SETTLE_FIRST: Duration = Duration::from_millis(10);
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// What the request asks for.
#[derive(Debug, Default)]
struct Options {
    follow: bool,
    previous: bool,
    tail: Option<u64>,
    limit: Option<u64>,
    filter: Filter,
}

impl Options {
    /// Reads `PodLogOptions` from the query.
    fn parse(pairs: &[(String, String)], now: Timestamp) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut since_seconds = None;
        for (name, value) in pairs {
            let invalid = || Failure::bad_request(format!("invalid value {value:?} of {name}"));
            match name.as_str() {
                _ if value.is_empty() => {}
                "follow" => options.follow = flag(value).ok_or_else(invalid)?,
                "previous" => options.previous = flag(value).ok_or_else(invalid)?,
                "timestamps" => options.filter.timestamps = flag(value).ok_or_else(invalid)?,
                "tailLines" => options.tail = Some(value.parse().map_err(|_| invalid())?),
                "limitBytes" => {
                    options.limit = Some(value.parse().ok().filter(|n| *n > 0).ok_or_else(invalid)?);
                }
                "sinceSeconds" => {
                    let seconds = value.parse::<i64>().ok().filter(|n| *n > 0).ok_or_else(invalid)?;
                    // Longer ago than time can tell means everything.
                    since_seconds = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
                }
                "sinceTime" => options.filter.since = Some(value.parse().map_err(|_| invalid())?),
                "stream" => {
                    options.filter.only = match value.as_str() {
                        "All" => None,
                        "Stdout" => Some(Source::Stdout),
                        "Stderr" => Some(Source::Stderr),
                        _ => return Err(invalid()),
                    };
                }
                _ => {}
            }
        }
        if since_seconds.is_some() {
            options.filter.since = since_seconds;
        }
        Ok(options)
    }
}

/// A boolean as Go reads it.
pub(super) fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A log that can be read.
#[derive(Debug, PartialEq, Eq)]
struct Log {
    path: PathBuf,
    container_id: String,
    running: bool,
}

pub(super) async fn handle(
    State(api): State<AgentApi>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    match open(&api, &namespace, &pod, &container, &query).await {
        Ok(body) => ([(http::header::CONTENT_TYPE, "text/plain")], body).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn open(
    api: &AgentApi,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &[(String, String)],
) -> Result<Body, Failure> {
    let options = Options::parse(query, Timestamp::now())?;
    let record = find_pod(api, namespace, pod)?;
    if !has_container(&record.pod, container) {
        return Err(Failure::not_found(format!("container {container:?} not found in pod {pod:?}")));
    }
    let log = choose(&record, pod, container, options.previous)?;
    let follow = options.follow && log.running;
    // The watch stands before the first read, so that nothing written in between is missed.
    let watch = match log.path.parent() {
        Some(directory) if follow => Some(Watch::new(directory).map_err(|e| failed(&log, &e))?),
        _ => None,
    };
    let path = log.path.clone();
    let opened = blocking(move || LogReader::open(&path, options.filter, options.tail, options.limit)).await;
    let reader = opened.map_err(|e| failed(&log, &e))?;
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    tokio::spawn(send(reader, watch, log, api.runtime.clone(), sender));
    Ok(Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

fn failed(log: &Log, error: &std::io::Error) -> Failure {
    Failure::internal(format!("failed to open log file {:?}: {error}", log.path))
}

/// Chooses the run whose log is meant, or says in the kubelet's words why there is none.
fn choose(record: &PodRecord, pod: &str, container: &str, previous: bool) -> Result<Log, Failure> {
    let current = record.container(container);
    let before = current.and_then(|c| c.previous.clone());
    let older = before.map(|(id, path)| Log { path, container_id: id, running: false });
    if previous {
        return older.ok_or_else(|| {
            Failure::bad_request(format!(
                "previous terminated container {container:?} in pod {pod:?} not found"
            ))
        });
    }
    match current {
        Some(c) if c.running || c.started_at_ns > 0 || c.log_path.exists() => {
            Ok(Log { path: c.log_path.clone(), container_id: c.id.clone(), running: c.running })
        }
        // Between two runs the last one's log is what people want to see.
        _ => older.ok_or_else(|| {
            let why = match waiting_reason(&record.pod, container).as_str() {
                "ErrImagePull" => "image can't be pulled".to_owned(),
                "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
                other => other.to_owned(),
            };
            Failure::bad_request(format!("container {container:?} in pod {pod:?} is waiting to start: {why}"))
        }),
    }
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let status = pod.status.as_ref();
    let lists = status
        .into_iter()
        .flat_map(|s| [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]);
    let known = lists.flatten().flatten().find(|s| s.name == container);
    let reason = known.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let spec = pod.spec.as_ref();
    let waits_for_init = spec.is_some_and(|s| {
        s.init_containers.as_ref().is_some_and(|l| !l.is_empty())
            && s.containers.iter().any(|c| c.name == container)
    });
    let default = if waits_for_init { "PodInitializing" } else { "ContainerCreating" };
    reason.filter(|r| !r.is_empty()).unwrap_or_else(|| default.to_owned())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

type Sender = mpsc::Sender<std::io::Result<Bytes>>;

/// Reads and sends until the end of the log, of the container, or of the client's interest.
async fn send(mut reader: LogReader, watch: Option<Watch>, log: Log, runtime: Runtime, sender: Sender) {
    let mut last_round = watch.is_none();
    let mut settle = None;
    loop {
        let read = blocking(move || {
            let batch = reader.read()?;
            Ok((reader, batch))
        });
        let batch = match read.await {
            Ok((back, batch)) => {
                reader = back;
                batch
            }
            Err(error) => {
                tracing::warn!(log = %log.path.display(), %error, "log not read to its end");
                // The body breaks off, so that the client does not take it for the whole log.
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        match batch {
            Batch::Some(bytes) => {
                if sender.send(Ok(bytes.into())).await.is_err() {
                    return;
                }
            }
            Batch::Limit(bytes) => {
                let _ = sender.send(Ok(bytes.into())).await;
                return;
            }
            Batch::End if last_round => break,
            Batch::End => {
                let Some(watch) = &watch else { break };
                tokio::select! {
                    () = sender.closed() => return,
                    ended = wait(watch, &log, &runtime, &mut settle) => last_round = ended,
                }
            }
        }
    }
    if let Batch::Some(bytes) | Batch::Limit(bytes) = reader.finish() {
        let _ = sender.send(Ok(bytes.into())).await;
    }
}

/// Waits until there may be more to read. `true`: the container ended, so what is written now is all. `settle` is
/// how long to wait at most before the next question, from a closed or removed file on; it outlives other changes.
async fn wait(watch: &Watch, log: &Log, runtime: &Runtime, settle: &mut Option<Duration>) -> bool {
    match tokio::time::timeout(settle.unwrap_or(RECHECK), watch.changed()).await {
        Ok(Err(_)) => true,
        Ok(Ok(change)) if change.closed || change.removed => {
            *settle = Some(SETTLE_FIRST);
            !is_running(runtime, &log.container_id).await
        }
        Ok(Ok(_)) => false,
        Err(_) => {
            // A rotated log goes on; then the next write wakes us.
            *settle = settle.map(|pause| pause * 2).filter(|pause| *pause <= SETTLE_MAX);
            !is_running(runtime, &log.container_id).await
        }
    }
}

async fn is_running(runtime: &Runtime, id: &str) -> bool {
    let request = ContainerStatusRequest { container_id: id.to_owned(), ..Default::default() };
    match runtime.container_status(request).await {
        Ok(answer) => answer
            .status
            .is_some_and(|s| matches!(s.state(), ContainerState::Running | ContainerState::Created)),
        // While the runtime is away (its restart, say) containers run on.
        Err(error) => !error.is_not_found(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
