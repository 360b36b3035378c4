//! What a connection asked before is recorded in short, and the records say what they would say otherwise.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gantry_frontdoor::Limits;
use gantry_kube_types::{
    AuditBody, AuditClosed, AuditEvent, AuditLevel, AuditLike, AuditOwn, AuditPlan, AuditSink, AuditStage,
    RequestInfo, UserInfo,
};
use http::{Method, Request};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

use crate::harness::{Harness, read, request};

const PODS: &str = "/api/v1/namespaces/demo/pods";
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the like of what comes again, as the trail does; or, where it is `forgetful`, of nothing.
#[derive(Default)]
struct Sink {
    forgetful: bool,
    events: Mutex<Vec<AuditEvent>>,
    /// Events that were told as what is their own.
    again: AtomicUsize,
    /// What is kept is good for this one.
    epoch: AtomicU64,
    plans: AtomicU64,
    bodies: AtomicBool,
}

impl Sink {
    fn count(&self) -> usize {
        self.events.lock().expect("not poisoned").len()
    }

    async fn until(&self, enough: usize) {
        let look = async {
            while self.count() < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("recorded in time");
    }

    /// All that the events say but what is new each time.
    fn shown(&self) -> Vec<String> {
        self.events.lock().expect("not poisoned").iter().map(shown).collect()
    }
}

fn shown(event: &AuditEvent) -> String {
    let place = event.uri.path_and_query().cloned().expect("a path");
    let mut event = event.clone();
    assert!(!event.id.is_empty() && event.received > jiff::Timestamp::UNIX_EPOCH && !event.latency.is_zero());
    (event.id, event.received, event.latency) = Default::default();
    event.uri = place.into();
    format!("{event:?}")
}

#[async_trait::async_trait]
impl AuditSink for Sink {
    fn plan(&self, _: &UserInfo, _: &RequestInfo) -> AuditPlan {
        let bodies = self.bodies.load(Ordering::SeqCst);
        let level = if bodies { AuditLevel::RequestResponse } else { AuditLevel::Metadata };
        AuditPlan::of(level).without(AuditStage::RequestReceived)
    }

    fn plans_version(&self) -> Option<u64> {
        (!self.forgetful).then(|| self.plans.load(Ordering::SeqCst))
    }

    fn try_reserve(&self) -> bool {
        true
    }

    async fn reserve(&self) -> Result<(), AuditClosed> {
        Ok(())
    }

    fn commit(&self, event: Box<AuditEvent>) -> Option<AuditLike> {
        let mut events = self.events.lock().expect("not poisoned");
        let plain = event.impersonated.is_none()
            && event.annotations.is_empty()
            && event.status.refusal.is_none()
            && event.response == AuditBody::Absent;
        let known = plain && events.iter().any(|other| shown(other) == shown(&event));
        events.push(AuditEvent::clone(&event));
        let kept = Arc::new(self.epoch.load(Ordering::SeqCst));
        known.then_some(AuditLike { event, kept })
    }

    fn commit_again(&self, like: &AuditLike, own: AuditOwn<'_>) -> bool {
        if like.kept.downcast_ref() != Some(&self.epoch.load(Ordering::SeqCst)) {
            return false;
        }
        let mut event = AuditEvent::clone(&like.event);
        (event.id, event.received, event.latency) = (own.id.to_owned(), own.received, own.latency);
        self.events.lock().expect("not poisoned").push(event);
        self.again.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn release(&self) {}
}

/// Path, headers, and the status of the answer.
type Question = (&'static str, &'static [(&'static str, &'static str)], u16);

/// One connection of alice's.
enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>, String),
}

impl Connection {
    async fn open(harness: &Harness, protocol: &[u8]) -> Self {
        let stream = TokioIo::new(harness.connect(true, protocol).await);
        if protocol == b"h2" {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            return Self::Two(sender, format!("https://{}", harness.address));
        }
        let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self::One(sender)
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> u16 {
        let answer = match self {
            Self::One(sender) => sender.send_request(request).await,
            Self::Two(sender, authority) => {
                *request.uri_mut() = format!("{authority}{}", request.uri()).parse().expect("a URI");
                sender.send_request(request).await
            }
        };
        read(answer.expect("an answer")).await.0
    }

    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.send(request(path, headers)).await
    }
}

/// Polls, and everything that can come in between.
async fn story(protocol: &[u8], sink: Arc<Sink>) {
    let limits = Limits { read_requests_max: 1, ..Limits::default() };
    let harness = Harness::start_audited(limits, Some(sink.clone())).await;
    let mut alice = Connection::open(&harness, protocol).await;
    the_same_again(&mut alice).await;
    something_else_comes_of_it(&mut alice).await;
    rights_and_policies_change(&mut alice, &harness, &sink).await;
    no_room_and_no_client(alice, protocol, &harness, &sink).await;
    harness.stop().await;
}

async fn the_same_again(alice: &mut Connection) {
    let questions: [Question; 12] = [
        (PODS, &[], 200),
        (PODS, &[("user-agent", "kubectl")], 200),
        (PODS, &[("x-forwarded-for", "10.0.0.1")], 200),
        ("/api/v1/namespaces/demo/pods?limit=1", &[], 200),
        ("/api/v1/namespaces/demo/pods/web", &[], 200),
        (PODS, &[("authorization", "Bearer x")], 200),
        (PODS, &[("x-answer", "204")], 204),
        ("/api/v1/nodes", &[], 403),
        ("/api/v1/namespaces/demo/secrets/key", &[], 403),
        ("/members/x", &[], 200),
        ("/open/x", &[], 200),
        ("/open/refusal", &[], 400),
    ];
    // One after the other again and again, then in turns of so many that some are forgotten.
    for (path, headers, code) in questions {
        for _ in 0..4 {
            assert_eq!(alice.get(path, headers).await, code, "{path} {headers:?}");
        }
    }
    for _ in 0..3 {
        for (path, headers, code) in questions {
            assert_eq!(alice.get(path, headers).await, code, "{path} {headers:?}");
        }
    }
}

async fn something_else_comes_of_it(alice: &mut Connection) {
    let odd: [(&[(&str, &str)], u16); 5] = [
        (&[("x-answer", "404")], 404),
        (&[("x-answer", "201")], 201),
        (&[("x-note", "noted")], 200),
        (&[("impersonate-user", "bob")], 403),
        (&[("impersonate-user", "root")], 403),
    ];
    for (headers, code) in odd {
        for _ in 0..3 {
            assert_eq!(alice.get(PODS, &[]).await, 200);
        }
        for _ in 0..3 {
            assert_eq!(alice.get(PODS, headers).await, code, "{headers:?}");
        }
    }
    for _ in 0..3 {
        assert_eq!(alice.get("/open/panic", &[]).await, 500);
        let mut post = request(PODS, &[]);
        *post.method_mut() = Method::POST;
        assert_eq!(alice.send(post).await, 200);
    }
}

async fn rights_and_policies_change(alice: &mut Connection, harness: &Harness, sink: &Sink) {
    // Rights end at once, and come back for another reason.
    for (why, code) in [(None, 403), (Some("by another binding"), 200), (Some(""), 200), (Some(""), 200)] {
        harness.rules.change(why);
        for _ in 0..3 {
            assert_eq!(alice.get(PODS, &[]).await, code, "{why:?}");
        }
    }
    // What somebody may as whom they act is not theirs, though it be for the same reason.
    let as_bob: &[(&str, &str)] = &[("impersonate-user", "bob")];
    for (out, headers, code) in
        [(false, &[][..], 200), (true, as_bob, 200), (true, &[], 403), (false, &[], 200)]
    {
        harness.rules.leave_alice_out(out);
        for _ in 0..3 {
            assert_eq!(alice.get("/healthz", headers).await, code, "{out} {headers:?}");
        }
    }
    harness.rules.leave_alice_out(true);
    assert_eq!(alice.get("/healthz", as_bob).await, 200);
    assert_eq!(alice.get("/healthz", &[]).await, 403);
    harness.rules.leave_alice_out(false);
    // What the sink keeps is not good any more, and the policy wants more or less.
    sink.epoch.fetch_add(1, Ordering::SeqCst);
    for bodies in [false, true, false] {
        sink.bodies.store(bodies, Ordering::SeqCst);
        sink.plans.fetch_add(1, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(alice.get(PODS, &[]).await, 200);
        }
    }
}

async fn no_room_and_no_client(mut alice: Connection, protocol: &[u8], harness: &Harness, sink: &Sink) {
    let before = sink.count();
    let other = hangs(Connection::open(harness, protocol).await, harness).await;
    assert_eq!(alice.get(PODS, &[]).await, 429);
    other.abort();
    sink.until(before + 2).await;
    assert_eq!(alice.get(PODS, &[]).await, 200);
    hangs(alice, harness).await.abort();
    sink.until(before + 4).await;
}

/// Asks what is never answered; comes back when the handler has it.
async fn hangs(mut connection: Connection, harness: &Harness) -> JoinHandle<u16> {
    let handled = harness.handled();
    let hanging = tokio::spawn(async move { connection.get(PODS, &[("x-answer", "hang")]).await });
    let taken = async {
        while harness.handled() == handled {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("the handler has it");
    hanging
}

#[tokio::test]
async fn records_say_the_same_whether_it_was_asked_before_or_not() {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let (short, whole) =
            (Arc::new(Sink::default()), Arc::new(Sink { forgetful: true, ..Sink::default() }));
        tokio::join!(story(protocol, short.clone()), story(protocol, whole.clone()));
        let (short_events, whole_events) = (short.shown(), whole.shown());
        for (number, (short, whole)) in short_events.iter().zip(&whole_events).enumerate() {
            assert_eq!(short, whole, "event {number}");
        }
        assert_eq!(short_events.len(), whole_events.len());
        let (again, all) = (short.again.load(Ordering::SeqCst), short_events.len());
        // Of twelve questions eight are answered well, twice each in turn.
        assert!(again >= 30, "{again} of {all} in short");
        assert_eq!(whole.again.load(Ordering::SeqCst), 0);
    }
}

/// Requests of one connection at once share what is remembered.
#[tokio::test]
async fn each_of_many_at_once_has_its_record() {
    const EACH: usize = 60;
    let sink = Arc::new(Sink::default());
    let harness = Harness::start_audited(Limits::default(), Some(sink.clone())).await;
    let connection = Connection::open(&harness, b"h2").await;
    let Connection::Two(sender, authority) = connection else { panic!("it is HTTP/2") };
    let pod = format!("{PODS}/web");
    let questions = [(PODS, "200", 200), (PODS, "404", 404), (pod.as_str(), "204", 204)];
    for _ in 0..3 {
        let asked = (0..EACH).flat_map(|_| questions).map(|(path, answer, code)| {
            let mut connection = Connection::Two(sender.clone(), authority.clone());
            async move {
                assert_eq!(connection.get(path, &[("x-answer", answer)]).await, code);
            }
        });
        futures::future::join_all(asked).await;
    }
    let events = sink.events.lock().expect("not poisoned").clone();
    let ids: HashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!((events.len(), ids.len()), (9 * EACH, 9 * EACH));
    for (_, _, code) in questions {
        assert_eq!(events.iter().filter(|event| event.status.code == code).count(), 3 * EACH, "{code}");
    }
    assert!(sink.again.load(Ordering::SeqCst) > 0);
    harness.stop().await;
}

/// A head may be long, and connections are many.
#[tokio::test]
async fn long_questions_are_not_remembered() {
    let sink = Arc::new(Sink::default());
    let harness = Harness::start_audited(Limits::default(), Some(sink.clone())).await;
    let mut alice = Connection::open(&harness, b"http/1.1").await;
    for (path, again) in [(format!("{PODS}?a={}", "x".repeat(2000)), 0), (format!("{PODS}?a=x"), 3)] {
        for _ in 0..5 {
            assert_eq!(alice.get(&path, &[]).await, 200);
        }
        assert_eq!(sink.again.load(Ordering::SeqCst), again);
    }
    harness.stop().await;
}
