//! Microseconds per request through the router, without a network: `cargo bench -p gantry-apiserver`.

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use gantry_apiserver::kinds::{self, AdmissionConfig, PodSecurity};
use gantry_apiserver::{ApiServer, Config, GIT_VERSION};
use gantry_kube_types::{RequestInfo, UserInfo};
use gantry_store::{Options, Store};
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

const OBJECTS: u32 = 10_000;
const LISTS: u32 = 50;
const WRITERS: u32 = 64;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::main]
async fn main() {
    let store = Store::memory(Options::default()).expect("a store in memory");
    let config = AdmissionConfig {
        service_range: "10.96.0.0/16".parse().expect("a range"),
        node_ports: 30_000..=32_767,
        pod_security: PodSecurity::default(),
    };
    let server = ApiServer::new(
        store.clone(),
        Config {
            kinds: kinds::builtin(),
            admission: kinds::plugins(config, store),
            extensions: Vec::new(),
            beside: Vec::new(),
            nodes: None,
            views: None,
            git_version: GIT_VERSION.to_owned(),
        },
    );
    let router = server.router();
    send(&router, "POST", "/api/v1/namespaces", r#"{"metadata":{"name":"default"}}"#).await;
    measure("create, one after another", OBJECTS / 4, 1, &router, |index| {
        ("POST", MAPS.to_owned(), map(&format!("one-{index}")))
    })
    .await;
    measure("create, 64 at a time", OBJECTS, WRITERS, &router, |index| {
        ("POST", MAPS.to_owned(), map(&format!("map-{index}")))
    })
    .await;
    measure("get", OBJECTS, 1, &router, |index| ("GET", format!("{MAPS}/map-{index}"), String::new())).await;
    measure("update", OBJECTS / 4, 1, &router, |index| {
        ("PUT", format!("{MAPS}/map-{index}"), map(&format!("map-{index}")).replace("value", "other"))
    })
    .await;
    measure("list 500", LISTS, 1, &router, |_| ("GET", format!("{MAPS}?limit=500"), String::new())).await;
    measure("list 12500", LISTS, 1, &router, |_| ("GET", MAPS.to_owned(), String::new())).await;
    measure("list 12500 by label", LISTS, 1, &router, |_| {
        ("GET", format!("{MAPS}?labelSelector=app%3Dnone"), String::new())
    })
    .await;
    heartbeats(&router).await;
}

/// Status updates of a node of ordinary size, as its agent sends them.
async fn heartbeats(router: &Router) {
    let images: Vec<String> = (1..51)
        .map(|i| format!(r#"{{"names":["registry.example.com/team/image-{i}:1"],"sizeBytes":{i}00000}}"#))
        .collect();
    let node = |beat: u32| {
        format!(
            r#"{{"metadata":{{"name":"n1"}},"status":{{"capacity":{{"cpu":"2","memory":"8Gi"}},
            "conditions":[{{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:{:02}:{:02}Z"}}],
            "images":[{}]}}}}"#,
            beat / 60 % 60,
            beat % 60,
            images.join(",")
        )
    };
    send(router, "POST", "/api/v1/nodes", r#"{"metadata":{"name":"n1"}}"#).await;
    measure("node status", OBJECTS / 10, 1, router, |index| {
        ("PUT", "/api/v1/nodes/n1/status".to_owned(), node(index))
    })
    .await;
}

fn map(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"app":"bench"}}}},"data":{{"key":"value","more":"{}"}}}}"#,
        "x".repeat(200)
    )
}

async fn send(router: &Router, method: &str, path: &str, body: &str) -> usize {
    let request = Request::builder().method(method).uri(path).header("user-agent", "bench/1");
    let mut request = request.body(Body::from(body.to_owned())).expect("a request");
    let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
    request.extensions_mut().insert(info);
    request.extensions_mut().insert(UserInfo::authenticated("bench", &[]));
    let response = router.clone().oneshot(request).await.expect("the router never fails");
    assert!(response.status().is_success(), "{method} {path}: {}", response.status());
    response.into_body().collect().await.expect("a body").to_bytes().len()
}

async fn measure(
    what: &str,
    count: u32,
    at_once: u32,
    router: &Router,
    make: impl Fn(u32) -> (&'static str, String, String),
) {
    let requests: Vec<_> = (0..count).map(make).collect();
    let begin = Instant::now();
    for chunk in requests.chunks(at_once as usize) {
        let sent = chunk.iter().map(|(method, path, body)| send(router, method, path, body));
        futures::future::join_all(sent).await;
    }
    let micros = begin.elapsed().as_secs_f64() * 1e6 / f64::from(count);
    println!("{what:<28} {micros:>9.1} µs");
}
