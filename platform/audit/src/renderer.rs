//! Events as JSON with their terms, for the writer's thread.

use std::sync::Arc;

use gantry_kube_types::AuditEvent;

use crate::alike::{self, Alike, Kept};
use crate::index::terms::{self, Texts};
use crate::index::{Fresh, Term};
use crate::json::Times;
use crate::line::{self, Surroundings};
use crate::namespaces::Namespaces;

/// Records that are remembered as seen once; only what comes again is kept.
const ONCE_MAX: usize = 1024;

/// What is remembered from one record to the next.
pub(crate) struct Renderer {
    texts: Texts,
    times: Times,
    alike: Arc<Alike>,
    once: Box<[u64]>,
}

impl Renderer {
    pub(crate) fn new(alike: Arc<Alike>) -> Self {
        Self { texts: Texts::default(), times: Times::default(), alike, once: vec![0; ONCE_MAX].into() }
    }

    /// Replaces `payload` with the record of the event, and begins a row of its own terms; gives those that it has in
    /// common with others.
    pub(crate) fn render(
        &mut self,
        payload: &mut Vec<u8>,
        fresh: &mut Fresh,
        event: &AuditEvent,
        namespaces: &Namespaces,
        session: Option<String>,
    ) -> Option<Arc<[Term]>> {
        let Self { texts, times, alike: known, once } = self;
        payload.clear();
        fresh.begin_row();
        let hash = known.hash(event);
        if let Some(kept) = hash.and_then(|hash| known.find(hash, event, namespaces)) {
            kept.write(payload, &alike::own(event), times);
            fresh.push(terms::of_id(&event.id));
            return Some(kept.terms.clone());
        }
        // Two places each: records that come in turns would drive each other out of one for ever.
        let again = hash.filter(|hash| {
            let places = [*hash, hash.rotate_left(32)].map(|place| place as usize % ONCE_MAX);
            places.map(|place| std::mem::replace(&mut once[place], *hash)).contains(hash)
        });
        // As of before: what is kept is good for these.
        let again = again.map(|hash| (hash, namespaces.version()));
        let fresh_id = &mut || uuid::Uuid::new_v4().to_string();
        let around = Surroundings { namespaces, session, fresh_id, times };
        let own = line::write(payload, event, around, |record| {
            terms::of_record(record, texts, |term| fresh.push(term));
        });
        if let Some((hash, namespaces)) = again {
            let id = terms::of_id(&event.id);
            let others = fresh.begun().iter().copied().filter(|term| *term != id).collect();
            if let Some(kept) = Kept::of(event, payload, own, others, namespaces) {
                known.keep(hash, kept);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::time::Duration;

    use gantry_kube_types::{AuditBody, AuditObject, AuditStage, AuditStatus, SecurityEvent, UserInfo};
    use http::HeaderValue;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::namespaces::Facts;

    /// Events that differ from each other in one place or another.
    fn events() -> impl Strategy<Value = Vec<AuditEvent>> {
        let users = ["acme/alice", "acme/bob"].map(|name| UserInfo::authenticated(name, &["acme/devs"]));
        let event = (
            (any::<u32>(), 1..2_000_000_u64, prop::sample::select(users.to_vec()), 0..4_usize),
            prop::sample::select(vec![200_u16, 404]),
            prop::sample::select(vec!["get", "list"]),
            prop::sample::select(vec![None, Some("kubectl"), Some("curl \"x\"")]),
            prop::sample::select(vec![None, Some("10.0.0.1")]),
            prop::sample::select(vec!["a", "b"]),
            0..40_usize,
        );
        let made = event.prop_map(|((id, micros, user, uri), code, verb, agent, from, namespace, odd)| {
            let mut event = AuditEvent {
                id: format!("{id:08x}"),
                received: Timestamp::from_microsecond(1_790_000_000_000_000 + i64::from(id))
                    .expect("in range"),
                latency: Duration::from_micros(micros),
                user,
                source: from.and_then(|from| from.parse().ok()),
                user_agent: agent.map(HeaderValue::from_static),
                uri: http::Uri::from_static(["/x", "/x?token=S", "/x/y", "https://h/x"][uri]),
                verb: verb.to_owned(),
                object: AuditObject::new("", "configmaps", "c").in_namespace(namespace),
                status: AuditStatus { code, ..AuditStatus::default() },
                decision: Some((code == 200, format!("because of {verb}"))),
                credential: "bearer".into(),
                ..AuditEvent::default()
            };
            // Few, so that most are like another one.
            match odd {
                0 => event.annotations.push(("a/b".into(), "c".to_owned())),
                1 => event.impersonated = Some(Box::new(UserInfo::anonymous())),
                2 => event.response = AuditBody::TooLarge,
                3 => event.status.refusal = Some("{}".into()),
                4 => event.status.reason = "Gone".to_owned(),
                5 => event.status.message = "it went".to_owned(),
                6 => event.security = Some(SecurityEvent::LoginFailed),
                7 => event.stage = AuditStage::Panic,
                8 => event.decision = None,
                9 => event.credential = "password".into(),
                10 => event.forwarded_for = Some(HeaderValue::from_static("10.1.1.1")),
                11 => event.object.subresource = "status".to_owned(),
                12 => event.latency = Duration::ZERO,
                13 => event.user.extra.insert("k".to_owned(), vec!["v".to_owned()]).map_or((), drop),
                _ => {}
            }
            event
        });
        proptest::collection::vec(made, 1..300)
    }

    fn rendered(
        renderer: &mut Renderer,
        event: &AuditEvent,
        namespaces: &Namespaces,
    ) -> (String, BTreeSet<Term>, bool) {
        let (mut payload, mut fresh) = (Vec::new(), Fresh::default());
        let shared = renderer.render(&mut payload, &mut fresh, event, namespaces, None);
        let terms = fresh.begun().iter().chain(shared.iter().flat_map(|shared| shared.iter())).copied();
        (String::from_utf8(payload).expect("text"), terms.collect(), shared.is_some())
    }

    proptest! {
        #[test]
        fn a_record_like_another_is_as_if_it_were_the_first(events in events(), changed in 0..300_usize) {
            let namespaces = Namespaces::default();
            let mut renderer = Renderer::new(Arc::default());
            for (at, event) in events.iter().enumerate() {
                if at == changed {
                    let facts = Facts { project: Some("p1".to_owned()), ..Facts::default() };
                    namespaces.replace(HashMap::from([("a".to_owned(), facts)]));
                }
                let (text, terms, _) = rendered(&mut renderer, event, &namespaces);
                let (want, all, _) = rendered(&mut Renderer::new(Arc::default()), event, &namespaces);
                prop_assert_eq!(text, want);
                prop_assert_eq!(terms, all);
            }
        }
    }

    #[test]
    fn what_comes_a_third_time_is_copied() {
        let (namespaces, mut renderer) = (Namespaces::default(), Renderer::new(Arc::default()));
        let event =
            AuditEvent { id: "r".to_owned(), latency: Duration::from_micros(7), ..AuditEvent::default() };
        let copied: Vec<bool> = (0..4).map(|_| rendered(&mut renderer, &event, &namespaces).2).collect();
        assert_eq!(copied, [false, false, true, true]);
    }
}
