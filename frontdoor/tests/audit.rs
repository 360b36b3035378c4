//! Every request leaves its record, before its answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_frontdoor::Limits;
use gantry_kube_types::{
    AuditBody, AuditClosed, AuditEvent, AuditLevel, AuditLike, AuditPlan, AuditSink, AuditStage, RequestInfo,
    UserInfo, WhenFull,
};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio::sync::Semaphore;

use crate::harness::{Harness, request};

const PODS: &str = "/api/v1/namespaces/demo/pods";
const SESSION: (&str, &str) = ("cookie", "__Host-gantry-session=carols");
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps events in memory, in a queue with few places that the test empties.
pub(crate) struct Kept {
    events: Mutex<Vec<AuditEvent>>,
    places: Semaphore,
    level: AuditLevel,
    fail: AtomicBool,
}

impl Kept {
    pub(crate) fn new(places: usize, level: AuditLevel) -> Arc<Self> {
        let fail = AtomicBool::new(false);
        Arc::new(Self { events: Mutex::default(), places: Semaphore::new(places), level, fail })
    }

    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        self.events.lock().expect("not poisoned").clone()
    }

    /// `user verb path code stage` of what was recorded since the last call.
    fn lines(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.events.lock().expect("not poisoned"));
        let line = |e: &AuditEvent| {
            let who = match &e.impersonated {
                Some(as_whom) => format!("{} as {}", e.user.username, as_whom.username),
                None => e.user.username.clone(),
            };
            format!("{who} {} {} {} {}", e.verb, e.uri.path(), e.status.code, e.stage.name())
        };
        events.iter().map(line).collect()
    }

    pub(crate) async fn until(&self, enough: impl Fn(&[AuditEvent]) -> bool) {
        let look = async {
            while !enough(&self.events()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("recorded in time");
    }
}

#[async_trait::async_trait]
impl AuditSink for Kept {
    fn plan(&self, _: &UserInfo, request: &RequestInfo) -> AuditPlan {
        if request.path.starts_with("/healthz") {
            return AuditPlan::NOTHING;
        }
        AuditPlan::of(self.level).without(AuditStage::RequestReceived)
    }

    fn when_full(&self) -> WhenFull {
        if self.fail.load(Ordering::SeqCst) { WhenFull::Fail } else { WhenFull::Wait }
    }

    fn try_reserve(&self) -> bool {
        self.places.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    async fn reserve(&self) -> Result<(), AuditClosed> {
        self.places.acquire().await.map(tokio::sync::SemaphorePermit::forget).map_err(|_| AuditClosed)
    }

    fn commit(&self, event: Box<AuditEvent>) -> Option<AuditLike> {
        self.events.lock().expect("not poisoned").push(*event);
        None
    }

    fn release(&self) {
        self.places.add_permits(1);
    }
}

#[tokio::test]
async fn who_gets_an_answer_is_on_record_already() {
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    let stale = [("authorization", "Bearer stale")];
    let bob = [("authorization", "Bearer bob-token"), ("user-agent", "curl/8"), ("x-request-id", "id-7")];
    for (certified, path, headers, want) in [
        (true, PODS, &[][..], "alice list PATH 200 ResponseComplete"),
        (true, "/api/v1/nodes", &[], "alice list PATH 403 ResponseComplete"),
        (true, PODS, &[("impersonate-user", "bob")], "alice as bob list PATH 403 ResponseComplete"),
        (true, PODS, &[("impersonate-user", "root")], "alice list PATH 403 ResponseComplete"),
        (false, PODS, &[], "system:anonymous list PATH 403 ResponseComplete"),
        (false, PODS, &stale, "system:anonymous list PATH 401 ResponseComplete"),
        (false, "/members/x", &[], "system:anonymous get PATH 401 ResponseComplete"),
        (false, "/open/x", &[], "system:anonymous get PATH 200 ResponseComplete"),
        (false, "/open/x", &stale, "system:anonymous get PATH 200 ResponseComplete"),
        (false, "/", &[], "system:anonymous get PATH 403 ResponseComplete"),
        (false, "/nowhere", &[], "system:anonymous get PATH 403 ResponseComplete"),
        (false, "/open/panic", &[], "system:anonymous get PATH 500 Panic"),
    ] {
        harness.get(certified, path, headers).await;
        assert_eq!(kept.lines(), [want.replace("PATH", path)], "{path} {headers:?}");
    }
    harness.get(false, "/healthz", &[]).await;
    assert_eq!(kept.lines(), [""; 0], "by policy");
    harness.get(false, "/api/v1/nodes?limit=5", &bob).await;
    let [event] = kept.events().try_into().expect("one record");
    assert_eq!((event.id.as_str(), event.credential.as_ref()), ("id-7", "bearer"));
    assert_eq!(event.user_agent.as_ref().map(|v| v.as_bytes()), Some(&b"curl/8"[..]));
    assert_eq!(event.uri.to_string(), "/api/v1/nodes?limit=5");
    assert_eq!(event.source, "127.0.0.1".parse().ok());
    assert_eq!((event.object.resource.as_str(), event.decision), ("nodes", Some((true, String::new()))));
    harness.stop().await;
}

#[tokio::test]
async fn a_record_says_how_the_caller_proved_who_it_is() {
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    for (certified, header, want) in [
        (true, None, "client-certificate"),
        (false, None, "none"),
        (false, Some(("authorization", "Bearer bob-token")), "bearer"),
        // What is shown in the request goes before what the connection showed.
        (true, Some(("authorization", "bearer bob-token")), "bearer"),
        (false, Some(("authorization", "Basic YWNtZS9hbGljZTpwYXNzd29yZA==")), "password"),
        (false, Some(("x-auth-token", "keystone's")), "token"),
        (false, Some(("authorization", "Negotiate xyz")), "other"),
        (false, Some(SESSION), "session"),
        (true, Some(SESSION), "session"),
        (false, Some(("cookie", "theme=dark")), "none"),
    ] {
        let headers: Vec<(&str, &str)> = header.into_iter().collect();
        harness.get(certified, "/open/x", &headers).await;
        let event = kept.events().pop().expect("a record");
        assert_eq!(event.credential, want, "{certified} {header:?}");
    }
    for (more, want) in
        [(("authorization", "Bearer bob-token"), "bearer"), (("sec-fetch-site", "cross-site"), "none")]
    {
        harness.get(false, "/open/x", &[SESSION, more]).await;
        assert_eq!(kept.events().pop().expect("a record").credential, want, "{more:?} beside a session");
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_refusals_words_are_on_record() {
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    harness.get(true, "/api/v1/namespaces/demo/secrets/key", &[]).await;
    harness.get(false, "/open/refusal", &[]).await;
    let [own, handlers] = kept.events().try_into().expect("two records");
    assert!(own.status.message.ends_with("in the namespace \"demo\": not for you"), "{own:?}");
    assert_eq!(own.decision, Some((false, "not for you".to_owned())));
    assert_eq!(handlers.status.refusal.as_deref(), Some(&b"{\"message\":\"no\"}"[..]));
    harness.stop().await;
}

#[tokio::test]
async fn callers_in_the_process_are_recorded_with_what_they_sent() {
    let kept = Kept::new(1000, AuditLevel::RequestResponse);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    let alice = Client::new(harness.door.connect_as(UserInfo::authenticated("alice", &[])), "demo");
    let request = http::Request::post(PODS)
        .header("content-type", "application/json")
        .body(b"{\"kind\":\"Pod\"}".to_vec())
        .expect("a request");
    let answer = alice.request_text(request).await.expect("answered");
    let [event] = kept.events().try_into().expect("one record");
    assert_eq!(event.request, AuditBody::Whole("{\"kind\":\"Pod\"}".into()));
    assert_eq!(event.response, AuditBody::Whole(answer.into()));
    assert_eq!((event.source, event.credential.as_ref()), (None, "in-process"));
    harness.stop().await;
}

#[tokio::test]
async fn what_goes_on_for_long_is_recorded_at_both_ends() {
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    let alice = Client::new(harness.door.connect_as(UserInfo::authenticated("alice", &[])), "demo");
    let path = format!("{PODS}/web/exec");
    let upgrade = http::Request::get(&path)
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(kube::client::Body::empty())
        .expect("a request");
    let answer = alice.send(upgrade).await.expect("answered");
    assert_eq!(answer.status(), 101);
    assert_eq!(kept.lines(), [format!("alice get {path} 101 ResponseStarted")]);
    let upgraded = hyper::upgrade::on(answer).await.expect("upgraded");
    assert!(kept.events().is_empty(), "it goes on");
    drop(upgraded);
    kept.until(|events| !events.is_empty()).await;
    assert_eq!(kept.lines(), [format!("alice get {path} 101 ResponseComplete")]);

    let log = format!("{PODS}/web/log");
    harness.get(true, &log, &[]).await;
    kept.until(|events| events.len() == 2).await;
    let both = ["ResponseStarted", "ResponseComplete"].map(|stage| format!("alice get {log} 200 {stage}"));
    assert_eq!(kept.lines(), both);
    harness.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_record() {
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    let stream = TokioIo::new(harness.connect(false, b"http/1.1").await);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<bytes::Bytes>>(stream).await.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let asked = tokio::spawn(async move { sender.send_request(request("/open/hang", &[])).await });
    let handled = async {
        while harness.handled() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, handled).await.expect("the handler has it");
    asked.abort();
    connection.abort();
    kept.until(|events| !events.is_empty()).await;
    let [event] = kept.events().try_into().expect("one record");
    assert_eq!(event.status.code, 0);
    assert!(event.annotations.iter().any(|(key, _)| key == "audit.gantry.dev/abandoned"));
    harness.stop().await;
}

#[tokio::test]
async fn a_full_queue_stops_requests_and_skips_none() {
    let kept = Kept::new(1, AuditLevel::Metadata);
    let harness = Arc::new(Harness::start_audited(Limits::default(), Some(kept.clone())).await);
    assert_eq!(harness.get(true, PODS, &[]).await.0, 200);
    let handled = harness.handled();
    let mut waiting = {
        let harness = harness.clone();
        tokio::spawn(async move { harness.get(true, PODS, &[]).await.0 })
    };
    let unanswered = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(unanswered.is_err(), "it waits");
    assert_eq!((harness.handled(), kept.events().len()), (handled, 1), "nothing is done without a place");
    kept.release();
    assert_eq!(waiting.await.expect("no panic"), 200);
    assert_eq!(kept.events().len(), 2);

    kept.fail.store(true, Ordering::SeqCst);
    let (status, body) = harness.get(true, PODS, &[]).await;
    assert_eq!((status, harness.handled()), (503, handled + 1), "{body}");
    kept.release();
    assert_eq!(harness.get(true, PODS, &[]).await.0, 200);
    Arc::into_inner(harness).expect("the only owner").stop().await;
}

#[tokio::test]
async fn large_bodies_and_streams_pass_without_being_kept() {
    let kept = Kept::new(1000, AuditLevel::RequestResponse);
    let limits = Limits { audit_body_bytes_max: 8, ..Limits::default() };
    let harness = Harness::start_audited(limits, Some(kept.clone())).await;
    let alice = Client::new(harness.door.connect_as(UserInfo::authenticated("alice", &[])), "demo");
    for (kind, want) in
        [("application/json", AuditBody::TooLarge), ("application/octet-stream", AuditBody::Opaque)]
    {
        let request = http::Request::post(PODS)
            .header("content-type", kind)
            .body(b"{\"kind\":\"Pod\"}".to_vec())
            .expect("a request");
        let answer = alice.request_text(request).await.expect("answered");
        assert!(answer.contains("alice"), "{answer}");
        let event = kept.events().pop().expect("a record");
        assert_eq!((event.request, event.response), (want, AuditBody::TooLarge));
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_recorded_answer_is_whole() {
    let kept = Kept::new(1000, AuditLevel::RequestResponse);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    let stream = TokioIo::new(harness.connect(true, b"http/1.1").await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request(PODS, &[])).await.expect("an answer");
    let length = answer.headers()["content-length"].to_str().ok().and_then(|v| v.parse::<usize>().ok());
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(length, Some(bytes.len()));
    connection.abort();
    harness.stop().await;
}
