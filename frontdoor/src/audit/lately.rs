//! What a connection asked lately: who polls asks the same again, and then the answers to three questions of the front
//! door are known already — what the policy wants of it, whether it is allowed, and what its record says.
//!
//! Nothing here decides. Each answer is good for as long as the version stays that it was given at; and whatever turns
//! out otherwise than before (another status, a note of the handler, a client that goes away) makes the whole record, as
//! if there had been nothing before it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use gantry_kube_types::{
    AuditEvent, AuditLevel, AuditLike, AuditOwn, AuditPlace, AuditPlan, AuditStage, AuditStatus, UserInfo,
};
use http::header::{HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::FORWARDED_FOR;
use super::trail::{Open, Room};

/// Questions that are remembered of a connection, four KiB each at most.
const QUESTIONS_MAX: usize = 4;
/// A question with a longer path and headers is not remembered: a head may have 64 KiB, and there are thousands of
/// connections.
const TEXT_BYTES_MAX: usize = 1024;
/// The version of a decision that was not made.
const NEVER: u64 = u64::MAX;

/// A few questions, and what came of them.
#[derive(Default)]
pub(crate) struct Lately(Mutex<Questions>);

#[derive(Default)]
struct Questions {
    kept: Vec<Arc<Before>>,
    /// Goes next.
    oldest: usize,
}

/// How a question was asked that may be remembered.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) plan: AuditPlan,
    /// The version that the plan is of.
    pub(super) plans: u64,
    /// The version that the decision is of, where one was made.
    pub(super) decisions: Option<u64>,
}

impl Question {
    /// `None`: its record has parts that seldom are the same twice.
    pub(super) fn new(request: &Request<Body>, plan: AuditPlan, plans: Option<u64>) -> Option<Self> {
        let is_short = plan.level == AuditLevel::Metadata
            && plan.wants(AuditStage::ResponseComplete)
            && !plan.wants(AuditStage::RequestReceived);
        let method = request.method().clone();
        plans.filter(|_| is_short).map(|plans| Self { method, plan, plans, decisions: None })
    }
}

/// A question, and what came of it.
pub(super) struct Before {
    question: Question,
    decisions: AtomicU64,
    like: AuditLike,
}

impl Lately {
    /// What came of the same question of the same caller, where the policy is the same.
    pub(super) fn find(
        &self,
        caller: &UserInfo,
        request: &Request<Body>,
        credential: &str,
        plans: Option<u64>,
    ) -> Option<Arc<Before>> {
        let plans = plans?;
        let questions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |before: &&Arc<Before>| {
            let (question, event) = (&before.question, &before.like.event);
            question.plans == plans
                && event.user.address() == caller.address()
                && event.uri.path_and_query() == request.uri().path_and_query()
                && question.method == request.method()
                && event.credential == credential
                && has(request.headers(), event)
        };
        questions.kept.iter().find(is_same).cloned()
    }

    /// Remembers a question to which the answer was good, in the place of an older one.
    pub(super) fn keep(&self, question: Question, mut like: AuditLike) {
        if text_bytes(&like.event) > TEXT_BYTES_MAX || own_memory(&mut like.event).is_none() {
            return;
        }
        let decisions = AtomicU64::new(question.decisions.unwrap_or(NEVER));
        let before = Arc::new(Before { question, decisions, like });
        let mut questions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Questions { kept, oldest } = &mut *questions;
        let same = kept.iter().position(|other| other.asks_as(&before));
        match same {
            Some(place) => kept[place] = before,
            None if kept.len() < QUESTIONS_MAX => kept.push(before),
            None => {
                kept[*oldest] = before;
                *oldest = (*oldest + 1) % QUESTIONS_MAX;
            }
        }
    }
}

fn has(headers: &HeaderMap, event: &AuditEvent) -> bool {
    headers.get(USER_AGENT) == event.user_agent.as_ref()
        && headers.get(FORWARDED_FOR) == event.forwarded_for.as_ref()
}

/// Of what a client can make long; the object's names are parts of the path.
fn text_bytes(event: &AuditEvent) -> usize {
    let headers = [&event.user_agent, &event.forwarded_for].into_iter().flatten();
    let path = event.uri.path_and_query().map_or(0, |path| path.as_str().len());
    path + headers.map(HeaderValue::len).sum::<usize>()
}

/// Lets go of the memory of the request, of which the event holds a small part.
fn own_memory(event: &mut AuditEvent) -> Option<()> {
    event.uri = PathAndQuery::try_from(event.uri.path_and_query()?.as_str()).ok()?.into();
    for header in [&mut event.user_agent, &mut event.forwarded_for].into_iter().flatten() {
        *header = HeaderValue::from_bytes(header.as_bytes()).ok()?;
    }
    Some(())
}

impl Before {
    fn asks_as(&self, other: &Self) -> bool {
        let (own, others) = (&self.like.event, &other.like.event);
        self.question.method == other.question.method && own.uri == others.uri
    }
}

/// The record of a question that was asked before, for as long as it turns out as it did.
pub(super) struct Again {
    before: Arc<Before>,
    place: AuditPlace,
    id: String,
    received: Timestamp,
    began: Instant,
    body_bytes_max: usize,
    /// It was decided as before.
    decided: bool,
}

impl Before {
    pub(super) fn plan(&self) -> AuditPlan {
        self.question.plan
    }

    pub(super) fn again(
        self: Arc<Self>,
        place: AuditPlace,
        id: String,
        (received, began): (Timestamp, Instant),
        body_bytes_max: usize,
    ) -> Again {
        Again { before: self, place, id, received, began, body_bytes_max, decided: false }
    }
}

impl Again {
    /// Was it allowed, when decisions were what they are at this version?
    pub(super) fn was_allowed(&self, version: Option<u64>) -> bool {
        version.is_some_and(|version| self.before.decisions.load(Ordering::Acquire) == version)
    }

    /// It is allowed, as before. False: for another reason.
    pub(super) fn allowed(&mut self, reason: Option<&str>, version: Option<u64>) -> bool {
        let before = self.before.like.event.decision.as_ref();
        let is_same = before.is_some_and(|(allowed, why)| *allowed && reason.is_none_or(|now| now == why));
        if is_same {
            self.before.decisions.store(version.unwrap_or(NEVER), Ordering::Release);
            self.decided = true;
        }
        is_same
    }

    /// Did the same come of it?
    pub(super) fn is_as_before(&self, status: StatusCode) -> bool {
        let event = &self.before.like.event;
        event.status.code == status.as_u16() && event.decision.is_some() == self.decided
    }

    /// Records it as what is its own. Given back where that cannot be told any more.
    pub(super) fn complete(self) -> Result<(), Self> {
        let Self { before, place, id, received, began, body_bytes_max, decided } = self;
        let own = AuditOwn { id: &id, received, latency: began.elapsed() };
        let put = place.put_again(&before.like, own);
        put.map_err(|place| Self { before, place, id, received, began, body_bytes_max, decided })
    }

    /// All of the record, as far as it is known by now.
    pub(super) fn whole(self) -> Open {
        let Self { before, place, id, received, began, body_bytes_max, decided } = self;
        let mut event = before.like.event.clone();
        event.id = id;
        event.received = received;
        event.latency = Duration::ZERO;
        event.status = AuditStatus::default();
        event.decision.take_if(|_| !decided);
        let question = before.question.clone();
        let decisions = Some(before.decisions.load(Ordering::Acquire)).filter(|_| decided);
        let question = Question { decisions, ..question };
        Open::new(event, Room::Place(place), question.plan, began, body_bytes_max, Some(question))
    }
}
