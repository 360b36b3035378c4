//! Records that are like one before: the same caller asked the same, and the same came of it.
//!
//! Nodes, controllers and whoever polls ask again and again. Of such a record only id, times and latency are its own:
//! these are queued, and written with a reference to a record before ([`gantry_audit_api::like`]); its terms are one list
//! that the index shares. Finding what it is like is so little work that the request's own thread does it, while the event
//! is in its cache; the writer's thread makes and keeps what others are like.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use gantry_audit_api::like::{Own, Ranges};
use gantry_kube_types::{
    AuditBody, AuditEvent, AuditLevel, AuditObject, AuditStage, SecurityEvent, UserInfo,
};
use http::{HeaderValue, Uri};
use jiff::Timestamp;

use crate::index::Term;
use crate::json::{self, Times};
use crate::line::{self, completed};
use crate::namespaces::{Facts, Namespaces};

/// Kept at most, about two KiB each.
const KEPT_MAX: usize = 1024;

/// What was written lately.
#[derive(Default)]
pub(crate) struct Alike {
    /// Every request is hashed here, and by identity for what was decided about it: SipHash took 0.7 µs of one.
    hashes: RandomState,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    kept: HashMap<u64, Arc<Kept>, RandomState>,
    /// Those that the kept records were written with.
    namespaces: Arc<HashMap<String, Facts>>,
}

/// One record without what is its own.
pub(crate) struct Kept {
    asked: Asked,
    /// What stands before id, time of arrival, time of the end and latency, and behind them.
    fixed: [Box<[u8]>; 5],
    /// Without the id's.
    pub(crate) terms: Arc<[Term]>,
}

impl Alike {
    /// By what the event is found; `None`: it has something that is seldom the same twice.
    pub(crate) fn hash(&self, event: &AuditEvent) -> Option<u64> {
        let fields = (event.user.address(), place(&event.uri), event.status.code);
        is_plain(event).then(|| self.hashes.hash_one(fields))
    }

    /// What is kept of the event's like.
    pub(crate) fn find(&self, hash: u64, event: &AuditEvent, namespaces: &Namespaces) -> Option<Arc<Kept>> {
        // Whole entries are put in: a panic leaves none half done.
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let kept = table.kept.get(&hash).filter(|kept| kept.asked.is_of(event))?;
        namespaces.are(&table.namespaces).then(|| kept.clone())
    }

    pub(crate) fn keep(&self, hash: u64, kept: Kept, namespaces: Arc<HashMap<String, Facts>>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&table.namespaces, &namespaces) || table.kept.len() >= KEPT_MAX {
            *table = Table { namespaces, ..Table::default() };
        }
        table.kept.insert(hash, Arc::new(kept));
    }
}

impl Kept {
    /// Of what was written of a plain event, and its terms without the id's. `None`: it has no latency.
    pub(crate) fn of(
        event: &AuditEvent,
        written: &[u8],
        own: line::Own,
        mut terms: Vec<Term>,
    ) -> Option<Self> {
        let line::Own { id, received, completed, latency } = own;
        let latency = latency?;
        let fixed = [
            0..id.start,
            id.end..received.start,
            received.end..completed.start,
            completed.end..latency.start,
            latency.end..written.len(),
        ];
        terms.sort_unstable();
        terms.dedup();
        let fixed = fixed.map(|range| written[range].into());
        Some(Self { asked: Asked::of(event), fixed, terms: terms.into() })
    }

    /// Appends the record of an event that is like the kept one; returns where in it stands what is its own.
    pub(crate) fn write(&self, out: &mut Vec<u8>, own: &Own<'_>, times: &mut Times) -> Option<Ranges> {
        let [head, arrival, end, latency, rest] = &self.fixed;
        let begin = out.len();
        let mut put = |fixed: &[u8], write: &mut dyn FnMut(&mut Vec<u8>)| {
            out.extend_from_slice(fixed);
            let start = out.len() - begin;
            write(out);
            start..out.len() - begin
        };
        let ranges = [
            put(head, &mut |out| json::text(out, own.id)),
            put(arrival, &mut |out| times.write(out, time(own.received_us))),
            put(end, &mut |out| times.write(out, time(own.completed_us))),
            put(latency, &mut |out| json::digits(out, own.latency_us.into())),
        ];
        out.extend_from_slice(rest);
        Ranges::new(ranges)
    }
}

/// What a record of the event has of its own.
pub(crate) fn own(event: &AuditEvent) -> Own<'_> {
    Own {
        id: &event.id,
        received_us: event.received.as_microsecond(),
        completed_us: completed(event).as_microsecond(),
        // A request that takes half a million years is not one.
        latency_us: event.latency.as_micros() as u64,
    }
}

fn time(micros: i64) -> Timestamp {
    // It was one before.
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

/// Has it nothing that is seldom the same twice?
fn is_plain(event: &AuditEvent) -> bool {
    let bodiless = event.request == AuditBody::Absent && event.response == AuditBody::Absent;
    // Sessions are recorded there, and linked.
    let session = matches!(event.object.subresource.as_str(), "exec" | "attach");
    let told =
        event.impersonated.is_some() || event.status.refusal.is_some() || !event.annotations.is_empty();
    bodiless && !session && !told && !event.id.is_empty() && !event.latency.is_zero()
}

/// Everything a plain event's record depends on, but for what is its own. Nothing of it holds on to the memory of the
/// request.
struct Asked {
    level: AuditLevel,
    stage: AuditStage,
    user: UserInfo,
    source: Option<IpAddr>,
    forwarded_for: Option<Box<[u8]>>,
    user_agent: Option<Box<[u8]>>,
    uri: Option<Box<str>>,
    verb: String,
    object: AuditObject,
    code: u16,
    reason: String,
    message: String,
    credential: String,
    decision: Option<(bool, String)>,
    security: Option<SecurityEvent>,
}

fn bytes(value: Option<&HeaderValue>) -> Option<&[u8]> {
    value.map(HeaderValue::as_bytes)
}

/// What of it is in records.
fn place(uri: &Uri) -> Option<&str> {
    uri.path_and_query().map(|p| p.as_str())
}

impl Asked {
    fn of(event: &AuditEvent) -> Self {
        Self {
            level: event.level,
            stage: event.stage,
            user: event.user.clone(),
            source: event.source,
            forwarded_for: bytes(event.forwarded_for.as_ref()).map(Into::into),
            user_agent: bytes(event.user_agent.as_ref()).map(Into::into),
            uri: place(&event.uri).map(Into::into),
            verb: event.verb.clone(),
            object: event.object.clone(),
            code: event.status.code,
            reason: event.status.reason.clone(),
            message: event.status.message.clone(),
            credential: event.credential.clone().into_owned(),
            decision: event.decision.clone(),
            security: event.security,
        }
    }

    /// Of a plain event. Every field is named here: one that is new has to be thought of.
    fn is_of(&self, event: &AuditEvent) -> bool {
        let AuditEvent {
            id: _,
            received: _,
            latency: _,
            impersonated: _,
            request: _,
            response: _,
            omit_managed_fields: _,
            annotations: _,
            level,
            stage,
            user,
            source,
            forwarded_for,
            user_agent,
            uri,
            verb,
            object,
            status,
            credential,
            decision,
            security,
        } = event;
        self.user.address() == user.address()
            && self.uri.as_deref() == place(uri)
            && self.code == status.code
            && (self.level, self.stage, self.security) == (*level, *stage, *security)
            && self.verb == *verb
            && self.object == *object
            && self.source == *source
            && self.forwarded_for.as_deref() == bytes(forwarded_for.as_ref())
            && self.user_agent.as_deref() == bytes(user_agent.as_ref())
            && self.reason == status.reason
            && self.message == status.message
            && self.credential == *credential
            && self.decision == *decision
    }
}
