//! `watch`: one JSON document per line, until the client, the time limit or the store ends it.

mod part;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use gantry_kube_logic::negotiate::{Form, Output};
use gantry_kube_types::{FieldError, StatusError};
use gantry_store::{Compacted, Event, EventKind, Object, Prefix, Revision, Store, Watch, WatchItem};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval};

use crate::encode;
use crate::kind::Kind;
use crate::query::resource_version;
use crate::request::Context;
use crate::select::Selection;
use crate::table::{self, IncludeObject};
use part::Part;

/// Upstream's default; each watch gets a random time between one and two of these.
const TIMEOUT_SECONDS_MIN: u64 = 1800;
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// A short watch has its bookmark this long before its end, so that the next one goes on from there.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

pub(crate) fn watch(context: &Context) -> Result<Response<Body>, StatusError> {
    let output = context.output()?;
    let selection = Selection::of(&context.kind, &context.query)?;
    let mut prefix = context.prefix();
    let name = if context.info.name.is_empty() { selection.name() } else { Some(context.info.name.as_str()) };
    if let Some(name) = name {
        prefix = prefix.named(name);
    }
    let view = View {
        kind: context.kind.clone(),
        selection,
        output,
        include: IncludeObject::of(&context.query)?,
        columns_sent: false,
    };
    let seconds = match context.query.number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()) {
        None | Some(0) => rand::rng().random_range(TIMEOUT_SECONDS_MIN..TIMEOUT_SECONDS_MIN * 2),
        Some(seconds) => seconds,
    };
    let stream = Stream::open(context, prefix, view, Duration::from_secs(seconds))?;
    let lines = stream::unfold(stream, |mut stream| async move {
        stream.next().await.map(|line| (Ok::<_, Infallible>(line), stream))
    });
    let mut response = Response::new(Body::from_stream(lines));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// What is sent before the events.
struct Start {
    initial: VecDeque<Arc<Object>>,
    /// Events after this revision follow.
    from: u64,
    /// Is the end of the initial objects marked by a bookmark?
    marked: bool,
}

fn start(context: &Context, prefix: &Prefix) -> Result<Start, StatusError> {
    let version = resource_version(context.query.text("resourceVersion"))?;
    let wanted = context.query.get("sendInitialEvents").map(|_| context.query.flag("sendInitialEvents"));
    let rule = context.query.text("resourceVersionMatch");
    let refuse = |field: &str, why: &str| {
        StatusError::invalid("meta.k8s.io", "ListOptions", "", &[FieldError::forbidden(field, why)])
    };
    match (wanted, rule) {
        (None, "") | (Some(_), "NotOlderThan") => {}
        (None, _) => {
            return Err(refuse(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        (Some(_), _) => {
            return Err(refuse(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
    }
    let snapshot = context.server.store.snapshot();
    let initial = match (wanted, version) {
        (Some(true), _) | (None, None | Some(0)) => snapshot.scan(prefix, None).collect(),
        (Some(false), None | Some(0)) => VecDeque::new(),
        (_, Some(from)) => return Ok(Start { initial: VecDeque::new(), from, marked: false }),
    };
    let marked = wanted == Some(true) && context.query.flag("allowWatchBookmarks");
    Ok(Start { initial, from: snapshot.revision(), marked })
}

fn expired(compacted: Compacted, from: u64) -> StatusError {
    StatusError::expired(format!("too old resource version: {from} ({})", compacted.compacted))
}

/// One open watch.
struct Stream {
    watch: Result<Watch, Compacted>,
    view: View,
    part: Option<Part>,
    store: Store,
    prefix: Prefix,
    /// Lines that are made and not yet sent.
    ready: VecDeque<Bytes>,
    initial: VecDeque<Arc<Object>>,
    marked: bool,
    position: u64,
    bookmarks: Option<Interval>,
    ends: Instant,
    over: bool,
}

impl Stream {
    fn open(context: &Context, prefix: Prefix, view: View, timeout: Duration) -> Result<Self, StatusError> {
        let mut part = context.server.views.as_ref().and_then(|views| views.of(context)).map(Part::new);
        let start = start(context, &prefix)?;
        let resumed = start.initial.is_empty() && !start.marked;
        let store = context.server.store.clone();
        let known = part.as_mut().map_or(Ok(()), |part| {
            if resumed { part.resume(&store, &prefix, &view, start.from) } else { Ok(()) }
        });
        // A version that is too old is told as an event, as upstream does: informers list anew on that,
        // where they would only repeat a refused request.
        let watch = known.and_then(|()| store.watch(prefix.clone(), start.from));
        let last = timeout.checked_sub(BOOKMARK_BEFORE_END).filter(|d| !d.is_zero());
        let first = last.unwrap_or(BOOKMARK_PERIOD).min(BOOKMARK_PERIOD);
        let bookmarks = context
            .query
            .flag("allowWatchBookmarks")
            .then(|| tokio::time::interval_at(Instant::now() + first, BOOKMARK_PERIOD));
        Ok(Self {
            watch,
            view,
            part,
            store,
            prefix,
            ready: VecDeque::new(),
            initial: start.initial,
            marked: start.marked,
            position: start.from,
            bookmarks,
            ends: Instant::now() + timeout,
            over: false,
        })
    }

    /// The next line; `None` ends the answer.
    async fn next(&mut self) -> Option<Bytes> {
        while let Some(object) = self.initial.pop_front() {
            if self.view.selects(&object) && self.part.as_mut().is_none_or(|part| part.shows(&object)) {
                return Some(self.view.event("ADDED", &object, object.revision));
            }
        }
        if std::mem::take(&mut self.marked) {
            return Some(self.view.bookmark(self.position, true));
        }
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let item = match &mut self.watch {
                Err(compacted) => Some(Err(*compacted)),
                Ok(watch) => tokio::select! {
                    item = watch.next() => item,
                    () = tick(self.bookmarks.as_mut()) => {
                        watch.request_progress();
                        continue;
                    }
                    () = rights_changed(self.part.as_mut()) => {
                        watch.request_progress();
                        continue;
                    }
                    () = tokio::time::sleep_until(self.ends) => None,
                },
            };
            match item {
                None => self.over = true,
                Some(Err(compacted)) => {
                    self.over = true;
                    let status = expired(compacted, self.position).to_json();
                    return Some(line("ERROR", &encode::to_bytes(&status)));
                }
                Some(Ok(WatchItem::Progress(revision))) => self.progress(revision),
                Some(Ok(WatchItem::Event(event))) => {
                    self.position = event.revision;
                    let line = match &mut self.part {
                        Some(part) => part.change(&mut self.view, &event),
                        None => self.view.change(&event),
                    };
                    self.ready.extend(line);
                }
            }
        }
    }

    /// Every event up to `revision` has been sent: the moment to look at changed rights.
    fn progress(&mut self, revision: Revision) {
        self.position = revision;
        if let Some(part) = &mut self.part {
            match part.recheck(&self.store, &self.prefix, &mut self.view, revision) {
                Ok(lines) => self.ready.extend(lines),
                Err(compacted) => self.watch = Err(compacted),
            }
        }
        if self.bookmarks.is_some() {
            self.ready.push_back(self.view.bookmark(revision, false));
        }
    }
}

async fn rights_changed(part: Option<&mut Part>) {
    match part {
        Some(part) => part.rights_changed().await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

/// How one watcher sees objects.
struct View {
    kind: Arc<Kind>,
    selection: Selection,
    output: Output,
    include: IncludeObject,
    /// Only the first table of a watch names the columns.
    columns_sent: bool,
}

impl View {
    fn selects(&self, object: &Object) -> bool {
        self.selection.matches(&self.kind, object)
    }

    /// The event as this watcher sees it: an object that begins or ceases to match appears or goes.
    fn change(&mut self, event: &Event) -> Option<Bytes> {
        let before = event.previous.as_ref().is_some_and(|o| self.selects(o));
        let now = event.kind == EventKind::Put && self.selects(&event.object);
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(self.event("ADDED", &event.object, event.revision)),
            (true, true) => Some(self.event("MODIFIED", &event.object, event.revision)),
            // A deleted object shows its final state; one that left the selection the last that matched.
            (true, false) if event.kind == EventKind::Delete => {
                Some(self.event("DELETED", &event.object, event.revision))
            }
            (true, false) => {
                event.previous.as_ref().map(|previous| self.event("DELETED", previous, event.revision))
            }
        }
    }

    fn event(&mut self, kind: &str, object: &Object, revision: u64) -> Bytes {
        if self.output.form == Form::Object && object.revision == revision {
            return line(kind, &encode::served(&self.kind, object));
        }
        let mut value = encode::decode(&self.kind, object);
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        line(kind, &encode::to_bytes(&self.formed(value)))
    }

    fn formed(&mut self, object: Value) -> Value {
        match self.output.form {
            Form::Object => object,
            Form::Metadata => table::partial(object),
            Form::Table => {
                let sent = std::mem::replace(&mut self.columns_sent, true);
                let columns = if sent { Value::Null } else { table::columns(&self.kind) };
                let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                let row = table::row(&self.kind, object, self.include, Timestamp::now());
                table::table(metadata, columns, vec![row])
            }
        }
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let mut object = json!({
            "kind": self.kind.info.kind, "apiVersion": self.kind.info.api_version(),
            "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        if self.output.form == Form::Metadata {
            object = table::partial(object);
        }
        line("BOOKMARK", &encode::to_bytes(&object))
    }
}
