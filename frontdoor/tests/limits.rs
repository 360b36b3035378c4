//! What a hostile or broken client may cost.

use std::time::Duration;

use gantry_frontdoor::Limits;
use gantry_kube_types::AuditLevel;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::audit::Kept;
use crate::harness::{Harness, read, request};

/// Far above every limit set here, far below a hang.
const PATIENCE: Duration = Duration::from_secs(20);
const PODS: &str = "/api/v1/namespaces/demo/pods";

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let harness = Harness::start(limits).await;
    let (mut from, mut to) = tokio::io::split(harness.connect(true, b"http/1.1").await);
    to.write_all(b"GET /api/v1/namespaces/demo/pods HTTP/1.1\r\nhost: gantry\r\nx-slow: ")
        .await
        .expect("sent");
    let drip = async {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            if to.write_all(b"a").await.is_err() || to.flush().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    let mut got = Vec::new();
    let ended = async {
        tokio::select! {
            // Closed with or without a TLS goodbye.
            _ = from.read_to_end(&mut got) => {}
            never = drip => never,
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the connection is closed");
    assert_eq!(harness.handled(), 0);
    // The server still serves others.
    assert_eq!(harness.get(true, PODS, &[]).await.0, 200);
    harness.stop().await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_off() {
    let limits = Limits { tls_handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let harness = Harness::start(limits).await;
    let mut stream = tokio::net::TcpStream::connect(harness.address).await.expect("connected");
    stream.write_all(&[0x16, 0x03, 0x01]).await.expect("sent");
    let mut byte = [0];
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.expect("closed in time");
    assert!(!matches!(ended, Ok(n) if n > 0), "nothing is answered");
    harness.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let limits = Limits { header_bytes_max: 16 << 10, header_count_max: 32, ..Limits::default() };
    let harness = Harness::start(limits).await;
    let large = "a".repeat(24 << 10);
    let many: Vec<String> = (0..64).map(|i| format!("x-{i}")).collect();
    let large = vec![("x-large", large.as_str())];
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
    for headers in [large, many] {
        let stream = TokioIo::new(harness.connect(true, b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
        let connection = tokio::spawn(connection);
        // The refusal can be lost with the connection, when the rest of the head is still on its way.
        if let Ok(answer) = sender.send_request(request(PODS, &headers)).await {
            assert_eq!(read(answer).await.0, 431);
        }
        connection.abort();
    }
    assert_eq!(harness.handled(), 0, "no handler saw either");
    assert_eq!(harness.get(true, PODS, &[]).await.0, 200);
    harness.stop().await;
}

/// A request head as HTTP/1.1 writes it; the handler of the path answers without a look at the body.
fn refused(length: usize) -> String {
    format!("POST /open/refusal HTTP/1.1\r\nhost: gantry\r\ncontent-length: {length}\r\n\r\n")
}

/// Status line and headers of the next answer; its body is read over.
async fn answer(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    let (_, length) = head.split_once("content-length: ").expect("a length");
    let length = length.split_once("\r\n").expect("a line").0.parse().expect("a number");
    from.read_exact(&mut vec![0; length]).await.expect("the body");
    head
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_cost_the_connection() {
    let harness = Harness::start(Limits::default()).await;
    let (mut from, mut to) = tokio::io::split(harness.connect(true, b"http/1.1").await);
    // The body comes after its head has been answered, as far as the handler is concerned.
    for _ in 0..50 {
        to.write_all(refused(20_000).as_bytes()).await.expect("sent");
        to.flush().await.expect("sent");
        while harness.handled() == 0 {
            tokio::task::yield_now().await;
        }
        to.write_all(&[b'x'; 20_000]).await.expect("the connection is open");
        let head = answer(&mut from).await;
        assert!(head.starts_with("http/1.1 400") && !head.contains("connection: close"), "{head}");
        harness.handled.store(0, std::sync::atomic::Ordering::SeqCst);
    }
    // Who does not send the rest, or has too much of it, is told that this was the last answer.
    to.write_all(refused(20_000).as_bytes()).await.expect("sent");
    let head = tokio::time::timeout(PATIENCE, answer(&mut from)).await.expect("not for ever");
    assert!(head.contains("connection: close"), "{head}");
    let (mut from, mut to) = tokio::io::split(harness.connect(true, b"http/1.1").await);
    to.write_all(refused(1 << 30).as_bytes()).await.expect("sent");
    assert!(answer(&mut from).await.contains("connection: close"));
    assert_eq!(from.read(&mut [0]).await.unwrap_or(0), 0, "and it was");
    harness.stop().await;
}

/// A request whose body never comes, sent over a connection of its own.
async fn slow(harness: &Harness, certified: bool) -> (impl tokio::io::AsyncRead + Unpin, impl Sized) {
    let (from, mut to) = tokio::io::split(harness.connect(certified, b"http/1.1").await);
    to.write_all(b"POST /open/x HTTP/1.1\r\nhost: gantry\r\ncontent-length: 100\r\n\r\nbeginning")
        .await
        .expect("sent");
    to.flush().await.expect("sent");
    (from, to)
}

#[tokio::test]
async fn slow_strangers_leave_room_in_the_trail() {
    // Strangers may hold 8 places of the trail's, 6 of them from one address.
    let kept = Kept::new(1000, AuditLevel::Metadata);
    let limits = Limits {
        anonymous_requests_max: 8,
        anonymous_requests_per_address_max: 6,
        requests_per_user_max: 3,
        ..Limits::default()
    };
    let harness = Harness::start_audited(limits, Some(kept.clone())).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(slow(&harness, false).await);
    }
    while harness.handled() < 6 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        let (mut from, _to) = slow(&harness, false).await;
        let head = tokio::time::timeout(PATIENCE, answer(&mut from)).await.expect("at once");
        assert!(head.starts_with("http/1.1 429") && head.contains("retry-after: 1"), "{head}");
    }
    // Who is known has places too, and no more than a share of them.
    for _ in 0..3 {
        held.push(slow(&harness, true).await);
    }
    while harness.handled() < 9 {
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.get(true, "/open/x", &[]).await.0, 429);
    // The rest of the platform is not concerned.
    assert_eq!(harness.get(true, PODS, &[]).await.0, 200);
    let refused = kept.events().iter().filter(|event| event.status.code == 429).count();
    assert_eq!(refused, 21, "each refusal is on record");
    drop(held);
    while harness.get(false, "/open/x", &[]).await.0 != 200 {
        tokio::task::yield_now().await;
    }
    harness.stop().await;
}
