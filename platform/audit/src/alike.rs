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
    AuditBody, AuditEvent, AuditLevel, AuditObject, AuditOwn, AuditStage, AuditStatus, SecurityEvent,
    UserInfo,
};
use http::{HeaderValue, Uri};
use jiff::Timestamp;

use crate::index::Term;
use crate::json::{self, Times};
use crate::line::{self, completed};
use crate::namespaces::Namespaces;

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
    /// The version of those that the kept records were written with.
    namespaces: u64,
}

/// One record without what is its own.
pub(crate) struct Kept {
    asked: Asked,
    /// What stands before id, time of arrival, time of the end and latency, and behind them.
    fixed: [Box<[u8]>; 5],
    /// Without the id's.
    pub(crate) terms: Arc<[Term]>,
    /// The version of those that it was written with.
    namespaces: u64,
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
        let kept = table.kept.get(&hash).filter(|kept| kept.asked.is_of(event) && kept.is_as_of(namespaces));
        kept.cloned()
    }

    pub(crate) fn keep(&self, hash: u64, kept: Kept) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.namespaces != kept.namespaces || table.kept.len() >= KEPT_MAX {
            *table = Table { namespaces: kept.namespaces, ..Table::default() };
        }
        table.kept.insert(hash, Arc::new(kept));
    }
}

impl Kept {
    /// Of what was written of a plain event at this version of the namespaces, and its terms without the id's. `None`:
    /// it has no latency.
    pub(crate) fn of(
        event: &AuditEvent,
        written: &[u8],
        own: line::Own,
        mut terms: Vec<Term>,
        namespaces: u64,
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
        Some(Self { asked: Asked::of(event), fixed, terms: terms.into(), namespaces })
    }

    /// Would the same be written now?
    pub(crate) fn is_as_of(&self, namespaces: &Namespaces) -> bool {
        self.namespaces == namespaces.version()
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
    own_of(AuditOwn { id: &event.id, received: event.received, latency: event.latency })
}

/// The same of what is told of it.
pub(crate) fn own_of(AuditOwn { id, received, latency }: AuditOwn<'_>) -> Own<'_> {
    Own {
        id,
        received_us: received.as_microsecond(),
        completed_us: completed(received, latency).as_microsecond(),
        // A request that takes half a million years is not one.
        latency_us: latency.as_micros() as u64,
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

/// What of it is in records.
fn place(uri: &Uri) -> Option<&str> {
    uri.path_and_query().map(|p| p.as_str())
}

/// Everything a plain event's record depends on, but for what is its own. Nothing of it holds on to the memory of the
/// request. Each request is compared with one of these: its texts are one piece, which is in the processor's cache after
/// its beginning was read.
struct Asked {
    /// Keeps the address.
    _user: UserInfo,
    marks: Marks,
    lengths: [u32; TEXTS],
    texts: Box<[u8]>,
}

const TEXTS: usize = 14;

/// What is no text.
#[derive(PartialEq)]
struct Marks {
    user: usize,
    level: AuditLevel,
    stage: AuditStage,
    source: Option<IpAddr>,
    code: u16,
    decision: Option<bool>,
    security: Option<SecurityEvent>,
    /// Whether there is each header, and a path: one that is empty is there.
    present: [bool; 3],
}

/// Of a plain event. Every field is named here: one that is new has to be thought of.
fn asked(event: &AuditEvent) -> (Marks, [&[u8]; TEXTS]) {
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
        object: AuditObject { group, version, resource, subresource, namespace, name },
        status: AuditStatus { code, reason, message, refusal: _ },
        credential,
        decision,
        security,
    } = event;
    let [forwarded_for, user_agent] =
        [forwarded_for, user_agent].map(|value| value.as_ref().map(HeaderValue::as_bytes));
    let place = place(uri).map(str::as_bytes);
    let marks = Marks {
        user: user.address(),
        level: *level,
        stage: *stage,
        source: *source,
        code: *code,
        decision: decision.as_ref().map(|(allowed, _)| *allowed),
        security: *security,
        present: [forwarded_for, user_agent, place].map(|value| value.is_some()),
    };
    let [forwarded_for, user_agent, place] =
        [forwarded_for, user_agent, place].map(Option::unwrap_or_default);
    let why = decision.as_ref().map_or("", |(_, reason)| reason);
    let texts = [
        place,
        verb.as_bytes(),
        group.as_bytes(),
        version.as_bytes(),
        resource.as_bytes(),
        subresource.as_bytes(),
        namespace.as_bytes(),
        name.as_bytes(),
        reason.as_bytes(),
        message.as_bytes(),
        credential.as_bytes(),
        why.as_bytes(),
        forwarded_for,
        user_agent,
    ];
    (marks, texts)
}

impl Asked {
    fn of(event: &AuditEvent) -> Self {
        let (marks, texts) = asked(event);
        // A head has 64 KiB.
        let lengths = texts.map(|text| text.len() as u32);
        Self { _user: event.user.clone(), marks, lengths, texts: texts.concat().into() }
    }

    fn is_of(&self, event: &AuditEvent) -> bool {
        let (marks, texts) = asked(event);
        let mut rest = &*self.texts;
        self.marks == marks
            && texts.iter().zip(self.lengths).all(|(text, length)| text.len() == length as usize)
            && texts.iter().all(|text| {
                let (own, others) = rest.split_at(text.len());
                rest = others;
                own == *text
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AuditEvent {
        AuditEvent {
            id: "1".into(),
            user: UserInfo::authenticated("acme/alice", &[]),
            uri: Uri::from_static("/api/v1/namespaces/shop-dev/pods/web?a=b"),
            verb: "get".into(),
            object: AuditObject::new("", "pods", "web").in_namespace("shop-dev"),
            status: AuditStatus { code: 200, ..AuditStatus::default() },
            decision: Some((true, String::new())),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn what_differs_in_anything_but_its_own_is_not_alike() {
        let first = event();
        let asked = Asked::of(&first);
        let again = AuditEvent { id: "2".into(), user: first.user.clone(), ..event() };
        assert!(asked.is_of(&again));
        let header = |text| Some(HeaderValue::from_static(text));
        let changes: [fn(&mut AuditEvent); 15] = [
            |e| e.level = AuditLevel::Request,
            |e| e.stage = AuditStage::Panic,
            |e| e.user = UserInfo::authenticated("acme/alice", &[]),
            |e| e.source = Some([127, 0, 0, 1].into()),
            |e| e.uri = Uri::from_static("/api/v1/namespaces/shop-dev/pods/web?a=c"),
            |e| e.verb = "put".into(),
            |e| e.object.group = "apps".into(),
            |e| (e.object.resource, e.object.subresource) = ("pod".into(), "s".into()),
            |e| (e.object.namespace, e.object.name) = ("shop-de".into(), "vweb".into()),
            |e| e.status.code = 201,
            |e| (e.status.reason, e.status.message) = ("Gone".into(), "gone".into()),
            |e| e.credential = "bearer".into(),
            |e| e.decision = None,
            |e| e.decision = Some((true, "by a binding".into())),
            |e| e.security = Some(SecurityEvent::SecretRead),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = again.clone();
            change(&mut other);
            assert!(!asked.is_of(&other), "change {number}");
            assert!(Asked::of(&other).is_of(&other), "change {number}");
        }
        // One that is empty is there, and one is not the other.
        let empty = AuditEvent { user_agent: header(""), ..again.clone() };
        let forwarded = AuditEvent { forwarded_for: header("x"), ..again.clone() };
        let by = AuditEvent { user_agent: header("x"), ..again };
        assert!(!asked.is_of(&empty));
        assert!(!Asked::of(&by).is_of(&forwarded));
    }
}
