//! Streams to containers, evictions and metrics, with a node behind.

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::Api;

const PODS: &str = "/api/v1/namespaces/d/pods";

/// A pod bound to the node.
async fn with_pod() -> Api {
    let api = Api::builtin().await;
    api.post("/api/v1/nodes", &json!({ "metadata": { "name": "n1" } })).await;
    let spec = json!({ "containers": [{ "name": "c", "image": "i" }], "nodeName": "n1" });
    let pod = json!({ "metadata": { "name": "web", "labels": { "app": "web" } }, "spec": spec });
    let made = api.post(PODS, &pod).await;
    assert_eq!(made.status, 201, "{}", made.body);
    api
}

#[tokio::test]
async fn logs_come_from_the_node_without_the_callers_credentials() {
    let api = with_pod().await;
    let headers = [("authorization", "Bearer secret")];
    let path = format!("{PODS}/web/log?follow=true&tailLines=5");
    let response = api.raw("GET", &path, &headers, Body::empty()).await;
    assert_eq!(response.status(), 200);
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(text, "/containerLogs/d/web/c?follow=true&tailLines=5 authorization=false".as_bytes());
    api.table(&[
        ("GET", &format!("{PODS}/none/log"), "", 404, "pods \"none\" not found"),
        ("GET", &format!("{PODS}/web/log?container=x"), "", 400, "container x is not valid for pod web"),
        ("POST", &format!("{PODS}/web/exec?command=ls"), "", 400, "Upgrade request required"),
        ("GET", &format!("{PODS}/web/eviction"), "", 405, "does not allow this method"),
    ])
    .await;
}

#[tokio::test]
async fn exec_carries_bytes_both_ways() {
    let api = with_pod().await;
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let api = api.clone();
        async move { Ok::<_, std::convert::Infallible>(api.serve(request.map(Body::new)).await) }
    });
    let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
    tokio::spawn(server.with_upgrades());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.expect("a connection");
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(format!("{PODS}/web/exec?command=cat&stdin=true&stdout=true"))
        .header(header::HOST, "api")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .body(Empty::<bytes::Bytes>::new())
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let asked = response.headers()["x-asked"].to_str().expect("text").to_owned();
    assert!(asked.starts_with("/exec/d/web/c?") && asked.contains("command=cat"), "{asked}");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.expect("an upgrade"));
    stream.write_all(b"hello").await.expect("written");
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.expect("echoed");
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn metrics_are_what_the_nodes_measure() {
    let api = with_pod().await;
    let nodes = api.get("/apis/metrics.k8s.io/v1beta1/nodes").await;
    assert_eq!(nodes["items"][0]["usage"], json!({ "cpu": "250000000n", "memory": "2048Ki" }), "{nodes}");
    let pod = api.get("/apis/metrics.k8s.io/v1beta1/namespaces/d/pods/web").await;
    assert_eq!(pod["containers"][0]["usage"]["memory"], "1024Ki", "{pod}");
    assert_eq!(api.get("/apis/metrics.k8s.io/v1beta1/namespaces/d/pods/none").await["code"], 404);
    let inside = api.get("/apis/metrics.k8s.io/v1beta1/namespaces/d/nodes").await;
    assert_eq!(inside["code"], 404, "rights in a namespace show no nodes");
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let api = with_pod().await;
    let merge = "application/merge-patch+json";
    let running = api.patch(&format!("{PODS}/web/status"), merge, r#"{"status":{"phase":"Running"}}"#).await;
    assert_eq!(running.status, 200, "{}", running.body);
    let budgets = "/apis/policy/v1/namespaces/d/poddisruptionbudgets";
    let spec = json!({ "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } });
    assert_eq!(api.post(budgets, &json!({ "metadata": { "name": "b" }, "spec": spec })).await.status, 201);
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "web" } });
    let refused = api.post(&format!("{PODS}/web/eviction"), &eviction).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "DisruptionBudget");
    let allowed = r#"{"status":{"disruptionsAllowed":1}}"#;
    assert_eq!(api.patch(&format!("{budgets}/b/status"), merge, allowed).await.status, 200);
    assert_eq!(api.post(&format!("{PODS}/web/eviction"), &eviction).await.status, 201);
    assert!(api.get(&format!("{PODS}/web")).await["metadata"]["deletionTimestamp"].is_string());
}
