//! The node's HTTP API, with the kubelet's paths: logs, sessions, ports, statistics, pods.
//!
//! Whoever serves the router has authenticated and authorised the caller; nothing here does.

mod channels;
pub(crate) mod error;
mod logs;
mod passthrough;
mod port_forward;
mod recording;
mod remote;
mod spdy;
mod upstream;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use gantry_kube_types::SessionRecorder;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

use crate::api::AgentApi;

/// Everything a node answers: `/containerLogs`, `/exec`, `/attach`, `/portForward`, `/stats/summary`,
/// `/metrics/resource`, `/pods`, `/healthz`.
///
/// The connection it is served on must allow upgrades (`with_upgrades`, or axum's own server).
pub fn router(api: AgentApi) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::handle))
        .route("/exec/{namespace}/{pod}/{container}", any(remote::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(remote::attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward::handle))
        .route("/pods", get(pods))
        .route("/healthz", get(async || "ok"))
        .with_state(api.clone())
        .merge(crate::stats::router(api))
}

/// The same, with sessions recorded as `recorder` wants them.
pub fn recorded(router: Router, recorder: Arc<dyn SessionRecorder>) -> Router {
    router.layer(axum::Extension(recording::Recorder(recorder)))
}

/// The pods of this node as a `PodList`, by namespace and name.
async fn pods(State(api): State<AgentApi>) -> Response {
    let mut items: Vec<Pod> = api.pods.list().iter().map(|r| (*r.pod).clone()).collect();
    items.sort_by(|a, b| {
        (&a.metadata.namespace, &a.metadata.name).cmp(&(&b.metadata.namespace, &b.metadata.name))
    });
    axum::Json(List { items, ..List::<Pod>::default() }).into_response()
}
