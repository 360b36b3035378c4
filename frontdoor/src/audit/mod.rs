//! The audit point: what is written down of a request, and when.
//!
//! A place in the sink's queue is taken once the caller is known and before anything is decided or done.
//! From then on the request cannot leave without its record: it is put there before the head of the answer
//! goes to the client, also when the handler panics, and when the client goes away and the request is
//! dropped half-way. What goes on for long (watches, logs, exec) has a record when it starts and another
//! when it ends.

mod lately;
mod trail;

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use gantry_kube_types::{
    AuditEvent, AuditLevel, AuditPlace, AuditPlan, AuditSink, RequestId, RequestInfo, StatusError, UserInfo,
    WhenFull,
};
use http::header::{AUTHORIZATION, HeaderName, USER_AGENT};
use http::{HeaderMap, Request};
use jiff::Timestamp;
use tokio::time::Instant;

pub(crate) use self::lately::Lately;
use self::lately::Question;
use self::trail::{Open, Room};
pub(crate) use self::trail::{Rest, Trail};
use crate::connection::Connection;
use crate::pipeline::Origin;
use crate::session::Session;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Keystone's.
pub(crate) const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Where records go, and how much of a body they may hold.
pub(crate) struct AuditPoint {
    pub(crate) sink: Arc<dyn AuditSink>,
    pub(crate) body_bytes_max: usize,
}

/// When a request came, and what it showed; noted before authentication takes its time and its headers.
pub(crate) struct Arrival {
    pub(crate) received: Timestamp,
    began: Instant,
    credential: &'static str,
}

/// A request as it came.
pub(crate) struct Arrived<'a> {
    pub(crate) id: &'a RequestId,
    pub(crate) origin: &'a Origin,
    pub(crate) arrival: &'a Arrival,
    pub(crate) connection: &'a Connection,
}

impl Arrival {
    pub(crate) fn note(headers: &HeaderMap, origin: &Origin, session: Session) -> Self {
        Self {
            received: Timestamp::now(),
            began: Instant::now(),
            credential: credential_kind(headers, origin, session),
        }
    }
}

fn credential_kind(headers: &HeaderMap, origin: &Origin, session: Session) -> &'static str {
    let Origin::Network(connection) = origin else { return "in-process" };
    if headers.contains_key(AUTH_TOKEN) {
        return "token";
    }
    let scheme = headers.get(AUTHORIZATION).map(|value| value.as_bytes().split(|b| *b == b' ').next());
    match scheme {
        Some(Some(scheme)) if scheme.eq_ignore_ascii_case(b"bearer") => "bearer",
        Some(Some(scheme)) if scheme.eq_ignore_ascii_case(b"basic") => "password",
        Some(_) => "other",
        None if session == Session::Counts => "session",
        None if connection.client_certificates.is_empty() => "none",
        None => "client-certificate",
    }
}

impl AuditPoint {
    /// A place in the queue for a request with this plan; waits for one where the policy says so.
    async fn place(&self, plan: AuditPlan) -> Result<Option<AuditPlace>, StatusError> {
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

    /// Begins the record of a request, once there is a place for it. `caller` is who shows the credential.
    pub(crate) async fn begin(
        &self,
        caller: Option<&UserInfo>,
        info: &RequestInfo,
        request: &mut Request<Body>,
        arrived: &Arrived<'_>,
    ) -> Result<Trail, StatusError> {
        let Arrived { id, origin, arrival, connection } = arrived;
        // As of before: the plan is at least as new.
        let plans = self.sink.plans_version();
        let lately = connection.lately();
        let before = caller.and_then(|caller| lately.find(caller, request, arrival.credential, plans));
        let plan = match (&before, caller) {
            (Some(before), _) => before.plan(),
            (None, Some(caller)) => self.sink.plan(caller, info),
            (None, None) => self.sink.plan(&UserInfo::anonymous(), info),
        };
        let Some(place) = self.place(plan).await? else { return Ok(Trail::default()) };
        let Arrival { received, began, credential } = **arrival;
        if let Some(before) = before {
            let again = before.again(place, id.0.clone(), (received, began), self.body_bytes_max);
            return Ok(again.into());
        }
        let headers = request.headers();
        let event = AuditEvent {
            id: id.0.clone(),
            level: plan.level,
            received,
            source: match origin {
                Origin::Network(connection) => connection.peer.map(|peer| peer.ip()),
                Origin::InProcess(_) => None,
            },
            forwarded_for: headers.get(FORWARDED_FOR).cloned(),
            user_agent: headers.get(USER_AGENT).cloned(),
            uri: request.uri().clone(),
            omit_managed_fields: plan.omit_managed_fields,
            credential: Cow::Borrowed(credential),
            ..AuditEvent::default()
        };
        let question = Question::new(request, plan, plans);
        let room = Room::Place(place);
        let mut open = Open::new(Box::new(event), room, plan, began, self.body_bytes_max, question);
        open.watch_body(request);
        Ok(open.into())
    }
}
