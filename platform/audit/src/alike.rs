//! Records that are like one before: the same caller asked the same, and the same came of it.
//!
//! Nodes, controllers and whoever polls ask again and again. Of such a record only id, times and latency are its own:
//! the rest of its JSON is copied, and its terms are one list that the index shares.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use gantry_kube_types::{
    AuditBody, AuditEvent, AuditLevel, AuditObject, AuditStage, SecurityEvent, UserInfo,
};
use http::{HeaderValue, Uri};

use crate::index::Term;
use crate::json::{self, Times};
use crate::line::{Own, completed};
use crate::namespaces::{Facts, Namespaces};

/// Kept at most, about two KiB each.
const KEPT_MAX: usize = 1024;
/// Of what was seen once; only what comes again is kept.
const ONCE_MAX: usize = 1024;

/// What was written lately.
pub(crate) struct Alike {
    hashes: RandomState,
    kept: HashMap<u64, Kept>,
    once: Box<[u64]>,
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

/// What is known of an event's like.
pub(crate) enum Look<'a> {
    Kept(&'a Kept),
    /// It came before, and is worth keeping.
    Again(u64),
    New,
}

impl Default for Alike {
    fn default() -> Self {
        Self {
            hashes: RandomState::new(),
            kept: HashMap::new(),
            once: vec![0; ONCE_MAX].into(),
            namespaces: Arc::default(),
        }
    }
}

impl Alike {
    pub(crate) fn look(&mut self, event: &AuditEvent, namespaces: &Namespaces) -> Look<'_> {
        if !is_plain(event) {
            return Look::New;
        }
        if !namespaces.are(&self.namespaces) {
            self.namespaces = namespaces.all();
            self.kept.clear();
        }
        let hash = self.hashes.hash_one((event.user.address(), place(&event.uri), event.status.code));
        match self.kept.get(&hash) {
            Some(kept) if kept.asked.is_of(event) => Look::Kept(kept),
            _ if std::mem::replace(&mut self.once[hash as usize % ONCE_MAX], hash) == hash => {
                Look::Again(hash)
            }
            _ => Look::New,
        }
    }

    /// Keeps what was written of an event.
    pub(crate) fn keep(&mut self, hash: u64, event: &AuditEvent, written: &[u8], own: &Own, terms: &[Term]) {
        let Some(latency) = own.latency.clone() else { return };
        if self.kept.len() >= KEPT_MAX {
            self.kept.clear();
        }
        let (id, received, completed) = (own.id.clone(), own.received.clone(), own.completed.clone());
        let fixed = [
            0..id.start,
            id.end..received.start,
            received.end..completed.start,
            completed.end..latency.start,
            latency.end..written.len(),
        ];
        let mut terms = terms.to_vec();
        terms.sort_unstable();
        terms.dedup();
        let kept = Kept {
            asked: Asked::of(event),
            fixed: fixed.map(|range| written[range].into()),
            terms: terms.into(),
        };
        self.kept.insert(hash, kept);
    }
}

impl Kept {
    /// The record of an event that is like the kept one.
    pub(crate) fn write(&self, out: &mut Vec<u8>, event: &AuditEvent, times: &mut Times) {
        let [head, arrival, end, latency, rest] = &self.fixed;
        out.extend_from_slice(head);
        json::text(out, &event.id);
        out.extend_from_slice(arrival);
        times.write(out, event.received);
        out.extend_from_slice(end);
        times.write(out, completed(event));
        out.extend_from_slice(latency);
        json::digits(out, event.latency.as_micros());
        out.extend_from_slice(rest);
    }
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
