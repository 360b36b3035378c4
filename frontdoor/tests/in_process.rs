//! Components inside the process.

use gantry_frontdoor::Limits;
use gantry_kube_types::UserInfo;
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::Harness;

fn get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).expect("a request")
}

#[tokio::test]
async fn a_kube_client_has_its_identity_and_its_rights() {
    let harness = Harness::start(Limits::default()).await;
    let alice = Client::new(harness.door.connect_as(UserInfo::authenticated("alice", &[])), "demo");
    let body = alice.request_text(get("/api/v1/namespaces/demo/pods")).await.expect("answered");
    assert!(body.contains("\"user\":\"alice\""), "{body}");
    let refused = alice.request_text(get("/api/v1/nodes")).await.expect_err("refused");
    let kube::Error::Api(status) = refused else { panic!("a Status, not {refused}") };
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    // A credential in the request does not change who the caller is.
    let mut request = get("/api/v1/nodes");
    request.headers_mut().insert("authorization", "Bearer bob-token".parse().expect("a value"));
    assert!(alice.request_text(request).await.is_err());
    harness.stop().await;
}

#[tokio::test]
async fn a_connection_in_the_process_can_be_upgraded() {
    let harness = Harness::start(Limits::default()).await;
    let alice = Client::new(harness.door.connect_as(UserInfo::authenticated("alice", &[])), "demo");
    let request = http::Request::get("/api/v1/namespaces/demo/pods/web/exec")
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(kube::client::Body::empty())
        .expect("a request");
    let answer = alice.send(request).await.expect("answered");
    assert_eq!(answer.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.expect("upgraded"));
    let sent = vec![7_u8; 200_000];
    let (mut from, mut to) = tokio::io::split(&mut stream);
    let write = async {
        to.write_all(&sent).await.expect("written");
        to.shutdown().await.expect("shut down");
    };
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut got), write);
    read.expect("read");
    assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
    harness.stop().await;
}
