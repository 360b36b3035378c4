//! A node's HTTP API at the other end of a pipe: it says what it was asked and echoes what it is sent.

use axum::body::Body;
use gantry_apiserver::node::{BoxedIo, NodeConnector};
use gantry_kube_types::StatusError;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

const PIPE_BYTES: usize = 64 << 10;

pub const SUMMARY: &str = r#"{
    "node": { "nodeName": "n1", "cpu": { "usageNanoCores": 250000000 }, "memory": { "workingSetBytes": 2097152 } },
    "pods": [{ "podRef": { "name": "web", "namespace": "d" }, "containers": [
        { "name": "c", "cpu": { "usageNanoCores": 1000000 }, "memory": { "workingSetBytes": 1048576 } }] }]
}"#;

pub struct FakeNode;

#[async_trait::async_trait]
impl NodeConnector for FakeNode {
    async fn connect(&self, node: &str) -> Result<BoxedIo, StatusError> {
        if node != "n1" {
            return Err(StatusError::service_unavailable(format!("node {node:?} is not here")));
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let connection = http1::Builder::new().serve_connection(TokioIo::new(theirs), service_fn(answer));
        // Ends with the caller's end of the pipe.
        tokio::spawn(connection.with_upgrades());
        Ok(Box::new(ours))
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
    if request.uri().path() == "/stats/summary" {
        return Ok(Response::new(Body::from(SUMMARY)));
    }
    let asked = request.uri().to_string();
    let Some(protocol) = request.headers().get(header::UPGRADE).cloned() else {
        let authorised = request.headers().contains_key(header::AUTHORIZATION);
        return Ok(Response::new(Body::from(format!("{asked} authorization={authorised}"))));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
            // The client's end closes this one.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::UPGRADE, protocol);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert("x-asked", HeaderValue::from_str(&asked).expect("a path"));
    Ok(response)
}
