//! Answers of the node that are not what was asked for: plain text, as the kubelet's.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use gantry_cri::CriError;
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;

use crate::api::{AgentApi, PodRecord};

/// A refused or failed request: the HTTP status and one line for the user.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }
}

impl From<CriError> for Failure {
    fn from(error: CriError) -> Self {
        let status = match () {
            () if error.is_not_found() => StatusCode::NOT_FOUND,
            () if error.is_unavailable() => StatusCode::SERVICE_UNAVAILABLE,
            () => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: error.to_string() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, self.message).into_response()
    }
}

/// The pod, when it is on this node.
pub(super) fn find_pod(api: &AgentApi, namespace: &str, name: &str) -> Result<Arc<PodRecord>, Failure> {
    api.pods.get(namespace, name).ok_or_else(|| Failure::not_found(format!("pod {name:?} does not exist")))
}

/// The pod's spec names such a container.
pub(super) fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    spec.containers.iter().chain(init).any(|c| c.name == name)
        || ephemeral.into_iter().any(|c| c.name == name)
}
