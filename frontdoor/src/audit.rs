//! The audit point: what is written down of a request, and when.
//!
//! A place in the sink's queue is taken once the caller is known and before anything is decided or done.
//! From then on the request cannot leave without its record: it is put there before the head of the answer
//! goes to the client, also when the handler panics, and when the client goes away and the request is
//! dropped half-way. What goes on for long (watches, logs, exec) has a record when it starts and another
//! when it ends.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use gantry_kube_types::{
    Attributes, AuditBody, AuditEvent, AuditLevel, AuditNotes, AuditPlace, AuditPlan, AuditSink, AuditStage,
    AuditStatus, RequestId, StatusError, UserInfo, WhenFull, audit_annotations,
};
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::capture::{Tee, TeeBody, collect};
use crate::limits::GuardedBody;
use crate::pipeline::Origin;

const FORWARDED_FOR: &str = "x-forwarded-for";
/// Refusals name their reason in so many bytes, or it is not read.
const REFUSAL_BYTES_MAX: u64 = 16 << 10;

/// Where records go, and how much of a body they may hold.
pub(crate) struct AuditPoint {
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) body_bytes_max: usize,
}

/// When a request came, and what it showed; noted before authentication takes its time and its headers.
pub(crate) struct Arrival {
    received: Timestamp,
    began: Instant,
    credential: &'static str,
}

impl Arrival {
    pub(crate) fn note(headers: &HeaderMap, origin: &Origin) -> Self {
        Self {
            received: Timestamp::now(),
            began: Instant::now(),
            credential: credential_kind(headers, origin),
        }
    }
}

fn credential_kind(headers: &HeaderMap, origin: &Origin) -> &'static str {
    let Origin::Network(connection) = origin else { return "in-process" };
    if headers.contains_key("x-auth-token") {
        return "token";
    }
    let scheme = headers.get(AUTHORIZATION).map(|value| value.as_bytes().split(|b| *b == b' ').next());
    match scheme {
        Some(Some(scheme)) if scheme.eq_ignore_ascii_case(b"bearer") => "bearer",
        Some(Some(scheme)) if scheme.eq_ignore_ascii_case(b"basic") => "password",
        Some(_) => "other",
        None if connection.client_certificates.is_empty() => "none",
        None => "client-certificate",
    }
}

impl AuditPoint {
    /// A place in the queue for a request with this plan; waits for one where the policy says so.
    pub(crate) async fn place(&self, plan: AuditPlan) -> Result<Option<AuditPlace>, StatusError> {
        if plan.level == AuditLevel::None {
            return Ok(None);
        }
        if let Some(place) = AuditPlace::try_take(&self.sink) {
            return Ok(Some(place));
        }
        if self.sink.when_full() == WhenFull::Fail {
            return Err(StatusError::service_unavailable("the audit trail takes no more records just now")
                .retry_after(1));
        }
        let place = AuditPlace::take(&self.sink).await;
        place.map(Some).map_err(|closed| StatusError::service_unavailable(closed.to_string()))
    }

    /// Begins the record of a request. Without a place there is none.
    pub(crate) fn open(
        &self,
        plan: AuditPlan,
        place: Option<AuditPlace>,
        request: &mut Request<Body>,
        id: &RequestId,
        origin: &Origin,
        arrival: &Arrival,
    ) -> Trail {
        let Some(place) = place else { return Trail(None) };
        let headers = request.headers();
        let event = AuditEvent {
            id: id.0.clone(),
            level: plan.level,
            received: arrival.received,
            source: match origin {
                Origin::Network(connection) => connection.peer.map(|peer| peer.ip()),
                Origin::InProcess(_) => None,
            },
            forwarded_for: headers.get(FORWARDED_FOR).cloned(),
            user_agent: headers.get(USER_AGENT).cloned(),
            uri: request.uri().clone(),
            omit_managed_fields: plan.omit_managed_fields,
            credential: Cow::Borrowed(arrival.credential),
            ..AuditEvent::default()
        };
        let mut open = Open {
            event: Box::new(event),
            room: Room::Place(place),
            plan,
            began: arrival.began,
            sent: Sent::None,
            body_bytes_max: self.body_bytes_max,
        };
        if plan.level >= AuditLevel::Request && !request.body().is_end_stream() {
            open.watch_body(request);
        }
        Trail(Some(Box::new(open)))
    }
}

/// The record of one request while it is in the making.
#[derive(Default)]
pub(crate) struct Trail(Option<Box<Open>>);

struct Open {
    event: Box<AuditEvent>,
    room: Room,
    plan: AuditPlan,
    began: Instant,
    sent: Sent,
    body_bytes_max: usize,
}

/// Where the next record goes.
enum Room {
    Place(AuditPlace),
    /// The place has been used: another is taken when there is something to record.
    Later(Arc<dyn AuditSink>),
}

impl Room {
    fn sink(&self) -> &Arc<dyn AuditSink> {
        match self {
            Self::Place(place) => place.sink(),
            Self::Later(sink) => sink,
        }
    }
}

enum Sent {
    None,
    Opaque,
    Watched(Arc<Mutex<Tee>>),
}

impl Trail {
    /// Who asks what; `behind` is who impersonates.
    pub(crate) fn describe(&mut self, asked: Attributes, behind: Option<&UserInfo>) {
        let Some(open) = &mut self.0 else { return };
        open.event.describe(asked);
        if let Some(caller) = behind {
            let as_whom = std::mem::replace(&mut open.event.user, caller.clone());
            open.event.impersonated = Some(Box::new(as_whom));
        }
    }

    /// What the authoriser said.
    pub(crate) fn decided(&mut self, allowed: bool, reason: String) {
        if let Some(open) = &mut self.0 {
            open.event.decision = Some((allowed, reason));
        }
    }

    /// The record of the stage before anything is done, where the policy wants it.
    pub(crate) async fn received(&mut self) -> Result<(), StatusError> {
        let Some(open) = &mut self.0 else { return Ok(()) };
        if !open.plan.wants(AuditStage::RequestReceived) {
            return Ok(());
        }
        let mut event = open.event.clone();
        event.stage = AuditStage::RequestReceived;
        event.latency = open.began.elapsed();
        let recorded = open.room.sink().record(*event).await;
        recorded.map_err(|closed| StatusError::service_unavailable(closed.to_string()))
    }

    /// The handler panicked.
    pub(crate) fn panicked(&mut self) {
        if let Some(open) = &mut self.0 {
            open.event.stage = AuditStage::Panic;
        }
    }

    /// Records the answer, and gives it back to be sent. `error` is what the front door itself refused with.
    pub(crate) async fn finish(
        mut self,
        mut response: Response<Body>,
        error: Option<StatusError>,
        long_running: bool,
        ending: &Ending,
    ) -> Response<Body> {
        let notes = response.extensions_mut().remove::<AuditNotes>();
        let Some(open) = &mut self.0 else { return response };
        open.event.status = AuditStatus { code: response.status().as_u16(), ..AuditStatus::default() };
        if let Some(notes) = notes {
            apply(&mut open.event, notes);
        }
        let upgraded = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        if let Some(error) = error {
            open.event.status.reason = error.reason;
            open.event.status.message = error.message;
        } else if upgraded || (long_running && response.status().is_success()) {
            return self.go_on(response, upgraded, ending);
        } else {
            response = open.read_answer(response).await;
        }
        if let Some(open) = self.0.take() {
            open.complete();
        }
        response
    }

    /// The answer goes on for long: one record now, one at its end.
    fn go_on(mut self, response: Response<Body>, upgraded: bool, ending: &Ending) -> Response<Body> {
        let Some(mut open) = self.0.take() else { return response };
        let later = Room::Later(open.room.sink().clone());
        let room = std::mem::replace(&mut open.room, later);
        if open.plan.wants(AuditStage::ResponseStarted)
            && let Room::Place(place) = room
        {
            let mut event = open.event.clone();
            event.stage = AuditStage::ResponseStarted;
            event.latency = open.began.elapsed();
            event.request = open.taken_request();
            place.put(event);
        }
        if !open.plan.wants(AuditStage::ResponseComplete) {
            return response;
        }
        let rest = Rest(Some(open));
        if upgraded {
            ending.keep(rest);
            return response;
        }
        response.map(|body| GuardedBody::wrap(body, rest))
    }
}

impl Drop for Trail {
    /// The request was dropped: the client went away, and what the handler had done by then nobody knows.
    fn drop(&mut self) {
        if let Some(mut open) = self.0.take() {
            open.event.annotations.push((audit_annotations::ABANDONED.into(), "true".to_owned()));
            open.complete();
        }
    }
}

impl Open {
    fn watch_body(&mut self, request: &mut Request<Body>) {
        if !is_object(request.headers()) {
            self.sent = Sent::Opaque;
            return;
        }
        let tee = Arc::new(Mutex::new(Tee::new(self.body_bytes_max)));
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(TeeBody::new(body, tee.clone()));
        self.sent = Sent::Watched(tee);
    }

    fn taken_request(&mut self) -> AuditBody {
        match &self.sent {
            Sent::None => AuditBody::Absent,
            Sent::Opaque => AuditBody::Opaque,
            Sent::Watched(tee) => tee.lock().unwrap_or_else(PoisonError::into_inner).taken(),
        }
    }

    /// Reads as much of the answer as the level asks for, and the reason of a refusal at every level.
    async fn read_answer(&mut self, response: Response<Body>) -> Response<Body> {
        let refused = response.status().as_u16() >= 400
            && response.body().size_hint().exact().is_some_and(|bytes| bytes <= REFUSAL_BYTES_MAX);
        let wanted = self.plan.level >= AuditLevel::RequestResponse;
        if response.body().is_end_stream() || !(refused || wanted) {
            return response;
        }
        if !is_object(response.headers()) {
            if wanted {
                self.event.response = AuditBody::Opaque;
            }
            return response;
        }
        let (head, body) = response.into_parts();
        let (kept, body) = collect(body, self.body_bytes_max).await;
        if let (true, AuditBody::Whole(bytes)) = (refused, &kept) {
            self.event.status.refusal = Some(bytes.clone());
        }
        if wanted {
            self.event.response = kept;
        }
        Response::from_parts(head, body)
    }

    /// Queues the last record of the request.
    fn complete(mut self) {
        if !self.plan.wants(self.event.stage) {
            return;
        }
        self.event.request = self.taken_request();
        self.event.latency = self.began.elapsed();
        match self.room {
            Room::Place(place) => place.put(self.event),
            Room::Later(sink) => record_later(&sink, *self.event),
        }
    }
}

/// Queues the record of something that has ended and that nobody waits for. Outside of a runtime, while
/// the process ends, there is nobody who could write it either.
fn record_later(sink: &Arc<dyn AuditSink>, event: AuditEvent) {
    if let Some(place) = AuditPlace::try_take(sink) {
        return place.put(Box::new(event));
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let sink = sink.clone();
        runtime.spawn(async move {
            if let Err(error) = sink.record(event).await {
                tracing::error!(%error, "the end of a long request is not on record");
            }
        });
    }
}

fn apply(event: &mut AuditEvent, notes: AuditNotes) {
    if let Some(user) = notes.user {
        event.user = user;
    }
    if let Some(credential) = notes.credential {
        event.credential = credential;
    }
    if let Some(verb) = notes.verb {
        event.verb = verb;
    }
    if let Some(object) = notes.object {
        event.object = object;
    }
    if let Some(name) = notes.name {
        event.object.name = name;
    }
    event.security = notes.security.or(event.security);
    event.annotations.extend(notes.annotations);
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Bodies that are objects; Kubernetes takes a body without a type for JSON.
fn is_object(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let Ok(kind) = kind.to_str() else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == PROTOBUF || (kind.ends_with("json") || kind.ends_with("yaml")) && !kind.ends_with("ndjson")
}

/// Records the end of what went on for long, when it is dropped.
pub(crate) struct Rest(Option<Box<Open>>);

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.complete();
        }
    }
}

/// What is to happen when a connection ends: it outlives the requests on it, and the upgrade of one.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<Mutex<Option<Rest>>>);

impl Ending {
    fn keep(&self, rest: Rest) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
    }

    /// The connection is gone.
    pub(crate) fn ended(&self) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(rest);
    }
}
