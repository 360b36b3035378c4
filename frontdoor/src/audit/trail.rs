//! The record of one request, from its beginning to its end.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use gantry_kube_types::{
    Attributes, AuditBody, AuditEvent, AuditLevel, AuditLike, AuditNotes, AuditPlace, AuditPlan, AuditSink,
    AuditStage, AuditStatus, StatusError, UserInfo, audit_annotations,
};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::lately::{Again, Question};
use crate::capture::{Tee, TeeBody, collect};
use crate::connection::Connection;
use crate::limits::GuardedBody;
use crate::streams::Stream;

/// Refusals name their reason in so many bytes, or it is not read.
const REFUSAL_BYTES_MAX: u64 = 16 << 10;

/// The record of one request while it is in the making.
#[derive(Default)]
pub(crate) struct Trail(State);

#[derive(Default)]
enum State {
    #[default]
    None,
    /// The same was asked before, and up to now the same came of it.
    Again(Again),
    Open(Box<Open>),
}

pub(crate) struct Open {
    event: Box<AuditEvent>,
    room: Room,
    plan: AuditPlan,
    began: Instant,
    sent: Sent,
    body_bytes_max: usize,
    /// Where it is one that can be remembered.
    question: Option<Question>,
    /// Where the answer goes on.
    stream: Option<Arc<Stream>>,
}

/// Where the next record goes.
pub(super) enum Room {
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

impl From<Again> for Trail {
    fn from(again: Again) -> Self {
        Self(State::Again(again))
    }
}

impl From<Open> for Trail {
    fn from(open: Open) -> Self {
        Self(State::Open(Box::new(open)))
    }
}

impl Trail {
    /// All of the record that is in the making.
    fn open(&mut self) -> Option<&mut Open> {
        if matches!(self.0, State::Again(_)) {
            self.0 = self.take().map_or(State::None, State::Open);
        }
        if let State::Open(open) = &mut self.0 { Some(open) } else { None }
    }

    fn take(&mut self) -> Option<Box<Open>> {
        match std::mem::take(&mut self.0) {
            State::None => None,
            State::Again(again) => Some(Box::new(again.whole())),
            State::Open(open) => Some(open),
        }
    }

    /// Who asks what; `behind` is who impersonates.
    pub(crate) fn describe(&mut self, asked: Attributes, behind: Option<&UserInfo>) {
        // The same asks the same.
        if behind.is_none() && matches!(self.0, State::Again(_)) {
            return;
        }
        let Some(open) = self.open() else { return };
        open.event.describe(asked);
        if let Some(caller) = behind {
            let as_whom = std::mem::replace(&mut open.event.user, caller.clone());
            open.event.impersonated = Some(Box::new(as_whom));
        }
    }

    /// Was the same allowed, when decisions were what they are at this version?
    pub(crate) fn was_allowed(&self, version: Option<u64>) -> bool {
        matches!(&self.0, State::Again(again) if again.was_allowed(version))
    }

    /// It was not decided anew, because it would be as before.
    pub(crate) fn allowed_again(&mut self, version: Option<u64>) {
        if let State::Again(again) = &mut self.0 {
            again.allowed(None, version);
        }
    }

    /// What the authoriser said, asked at this version of its decisions or a later one.
    pub(crate) fn decided(&mut self, allowed: bool, reason: String, version: Option<u64>) {
        if let State::Again(again) = &mut self.0
            && allowed
            && again.allowed(Some(&reason), version)
        {
            return;
        }
        let Some(open) = self.open() else { return };
        open.event.decision = Some((allowed, reason));
        if let Some(question) = &mut open.question {
            question.decisions = version.filter(|_| allowed);
        }
    }

    /// The record of the stage before anything is done, where the policy wants it.
    pub(crate) async fn received(&mut self) -> Result<(), StatusError> {
        // Where it is wanted, nothing is asked again.
        let State::Open(open) = &mut self.0 else { return Ok(()) };
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
        if let Some(open) = self.open() {
            open.event.stage = AuditStage::Panic;
        }
    }

    /// Records the answer, and gives it back to be sent. `error` is what the front door itself refused with; `stream`
    /// is there where the answer may go on for long.
    pub(crate) async fn finish(
        mut self,
        mut response: Response<Body>,
        error: Option<StatusError>,
        stream: Option<&Arc<Stream>>,
        connection: &Connection,
    ) -> Response<Body> {
        let notes = response.extensions_mut().remove::<AuditNotes>();
        let upgraded = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        let goes_on = upgraded || stream.is_some();
        let is_good = error.is_none() && !goes_on && response.status().as_u16() < 400;
        if is_good && notes.is_none() && self.finished_again(response.status()) {
            return response;
        }
        let Some(open) = self.open() else { return response };
        open.event.status = AuditStatus { code: response.status().as_u16(), ..AuditStatus::default() };
        if let Some(notes) = notes {
            // They can differ where the question does not.
            open.question = None;
            apply(&mut open.event, notes);
        }
        if let Some(error) = error {
            open.event.status.reason = error.reason;
            open.event.status.message = error.message;
        } else if upgraded || (stream.is_some() && response.status().is_success()) {
            open.stream = stream.cloned();
            return self.go_on(response, upgraded, connection);
        } else {
            response = open.read_answer(response).await;
        }
        if let Some(mut open) = self.take() {
            let question = open.question.take().filter(|_| is_good);
            if let (Some(like), Some(question)) = (open.complete(), question) {
                connection.lately().keep(question, like);
            }
        }
        response
    }

    /// Records what turned out as it did before. False: it did not, and all of it is still to be recorded.
    fn finished_again(&mut self, status: StatusCode) -> bool {
        let again = match std::mem::take(&mut self.0) {
            State::Again(again) if again.is_as_before(status) => again,
            other => {
                self.0 = other;
                return false;
            }
        };
        match again.complete() {
            Ok(()) => true,
            Err(again) => {
                self.0 = State::Again(again);
                false
            }
        }
    }

    /// The answer goes on for long: one record now, one at its end.
    fn go_on(mut self, response: Response<Body>, upgraded: bool, connection: &Connection) -> Response<Body> {
        let Some(mut open) = self.take() else { return response };
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
            connection.keep(rest);
            return response;
        }
        response.map(|body| GuardedBody::wrap(body, rest))
    }
}

impl Drop for Trail {
    /// The request was dropped: the client went away, and what the handler had done by then nobody knows.
    fn drop(&mut self) {
        if let Some(mut open) = self.take() {
            open.event.annotations.push((audit_annotations::ABANDONED.into(), "true".to_owned()));
            open.complete();
        }
    }
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

impl Open {
    pub(super) fn new(
        event: Box<AuditEvent>,
        room: Room,
        plan: AuditPlan,
        began: Instant,
        body_bytes_max: usize,
        question: Option<Question>,
    ) -> Self {
        Self { event, room, plan, began, sent: Sent::None, body_bytes_max, question, stream: None }
    }

    /// Keeps what the request sends, where the policy wants it.
    pub(super) fn watch_body(&mut self, request: &mut Request<Body>) {
        if self.plan.level < AuditLevel::Request || request.body().is_end_stream() {
            return;
        }
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

    /// Queues the last record of the request; gives it back where the sink keeps its like.
    pub(super) fn complete(mut self) -> Option<AuditLike> {
        if !self.plan.wants(self.event.stage) {
            return None;
        }
        self.event.request = self.taken_request();
        self.event.latency = self.began.elapsed();
        if self.stream.is_some_and(|stream| stream.has_ended()) {
            self.event.annotations.push((audit_annotations::ENDED.into(), "true".to_owned()));
        }
        match self.room {
            Room::Place(place) => place.put(self.event),
            Room::Later(sink) => {
                record_later(&sink, *self.event);
                None
            }
        }
    }
}

/// Queues the record of something that has ended and that nobody waits for. Outside of a runtime, while
/// the process ends, there is nobody who could write it either.
fn record_later(sink: &Arc<dyn AuditSink>, event: AuditEvent) {
    if let Some(place) = AuditPlace::try_take(sink) {
        place.put(Box::new(event));
        return;
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
