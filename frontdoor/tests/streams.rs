//! What goes on for long ends when what it was opened with is gone.

use std::sync::Arc;
use std::time::Duration;

use gantry_frontdoor::Limits;
use gantry_kube_types::{AuditLevel, AuditStage};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::audit::Kept;
use crate::harness::{Harness, request};

const PODS: &str = "/api/v1/namespaces/demo/pods";
const WATCH: &str = "/api/v1/namespaces/demo/pods?watch=1";
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than two looks.
const A_WHILE: Duration = Duration::from_millis(700);

type Sender = SendRequest<http_body_util::Full<bytes::Bytes>>;

async fn sender(harness: &Harness, certified: bool) -> Sender {
    let stream = TokioIo::new(harness.connect(certified, b"http/1.1").await);
    let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
    tokio::spawn(connection.with_upgrades());
    sender
}

/// An answer that has begun and goes on.
async fn opened(harness: &Harness, certified: bool, path: &str, headers: &[(&str, &str)]) -> Incoming {
    let mut sender = sender(harness, certified).await;
    let answer = sender.send_request(request(path, headers)).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path}");
    let mut body = answer.into_body();
    let first = body.frame().await.expect("a frame").expect("sent").into_data().expect("data");
    assert_eq!(first, "begun");
    // The connection lives as long as its sender.
    std::mem::forget(sender);
    body
}

/// Breaks off, which is not an end.
async fn breaks_off(body: &mut Incoming) {
    let next = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time");
    assert!(matches!(next, Some(Err(_))), "{next:?}");
}

async fn goes_on(body: &mut Incoming) {
    let next = tokio::time::timeout(A_WHILE, body.frame()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test]
async fn a_revoked_credential_ends_what_it_opened_and_nothing_else() {
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    let bob = ("authorization", "Bearer bob-token");
    let mut watch = opened(&harness, true, WATCH, &[("x-answer", "begin")]).await;
    let mut follows = opened(&harness, false, "/members/x", &[bob, ("x-answer", "go on")]).await;
    let mut open = opened(&harness, false, "/open/x", &[bob, ("x-answer", "go on")]).await;
    let mut download = opened(&harness, false, "/open/x", &[bob, ("x-answer", "begin")]).await;
    goes_on(&mut watch).await;
    harness.revoked.add("bob");
    breaks_off(&mut follows).await;
    breaks_off(&mut open).await;
    // What the front door is not told of is as before: a download comes to its end.
    goes_on(&mut download).await;
    goes_on(&mut watch).await;
    harness.revoked.add("alice");
    breaks_off(&mut watch).await;
    kept.until(|events| ended(events) == ["alice", "bob", "bob"]).await;
    drop(download);
    harness.stop().await;
}

/// Whose streams were ended, by the records.
fn ended(events: &[gantry_kube_types::AuditEvent]) -> Vec<String> {
    let is = |e: &&gantry_kube_types::AuditEvent| {
        e.stage == AuditStage::ResponseComplete
            && e.annotations.iter().any(|(key, _)| key == gantry_kube_types::audit_annotations::ENDED)
    };
    let mut all: Vec<String> = events.iter().filter(is).map(|e| e.user.username.clone()).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_what_it_opened() {
    let harness = Harness::start(Limits::default()).await;
    let mut watch = opened(&harness, true, WATCH, &[("x-answer", "begin")]).await;
    let mut open = opened(&harness, true, "/open/x", &[("x-answer", "go on")]).await;
    // Granted by something else now.
    harness.rules.change(Some("another binding"));
    goes_on(&mut watch).await;
    harness.rules.leave_alice_out(true);
    breaks_off(&mut watch).await;
    // Its handler decides on that.
    goes_on(&mut open).await;
    drop(open);
    harness.stop().await;
}

#[tokio::test]
async fn who_may_not_act_as_somebody_any_more_sees_no_more_of_theirs() {
    let harness = Harness::start(Limits::default()).await;
    let as_bob = [("impersonate-user", "bob"), ("x-answer", "begin")];
    let nodes = "/api/v1/nodes?watch=1";
    let mut watch = opened(&harness, true, nodes, &as_bob).await;
    harness.rules.forbid("impersonate");
    breaks_off(&mut watch).await;
    let mut watch = {
        harness.rules.forbid("");
        opened(&harness, true, nodes, &as_bob).await
    };
    // The credential is the caller's, and not bob's.
    harness.revoked.add("bob");
    goes_on(&mut watch).await;
    harness.revoked.add("alice");
    breaks_off(&mut watch).await;
    harness.stop().await;
}

#[tokio::test]
async fn a_terminal_ends_with_its_credential_while_nobody_types() {
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let harness = Harness::start_audited(Limits::default(), Some(kept.clone())).await;
    let mut sender = sender(&harness, true).await;
    let headers = [("connection", "upgrade"), ("upgrade", "echo")];
    let answer = sender.send_request(request(PODS, &headers)).await.expect("an answer");
    assert_eq!(answer.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.expect("upgraded"));
    stream.write_all(b"ls").await.expect("sent");
    let mut echo = [0; 2];
    stream.read_exact(&mut echo).await.expect("echoed");
    harness.revoked.add("alice");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time");
    assert!(!matches!(read, Ok(n) if n > 0), "{rest:?}");
    kept.until(|events| ended(events) == ["alice"]).await;
    harness.stop().await;
}

#[tokio::test]
async fn streams_of_one_http2_connection_end_each_for_itself() {
    let harness = Arc::new(Harness::start(Limits::default()).await);
    let stream = TokioIo::new(harness.connect(true, b"h2").await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let watch = format!("https://{}{WATCH}", harness.address);
    let answer = sender.send_request(request(&watch, &[("x-answer", "begin")])).await.expect("an answer");
    let mut body = answer.into_body();
    body.frame().await.expect("a frame").expect("sent");
    harness.rules.leave_alice_out(true);
    breaks_off(&mut body).await;
    // The connection serves on.
    let pods = format!("https://{}{PODS}", harness.address);
    assert_eq!(sender.send_request(request(&pods, &[])).await.expect("an answer").status(), 403);
    connection.abort();
}
