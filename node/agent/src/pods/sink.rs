//! Where pod statuses go: the API server, as the smallest patch that tells what changed.

use std::future::Future;
use std::pin::Pin;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use super::spec;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The pod is gone, or another of the same name took its place. Nothing is left to tell.
    #[error("the pod no longer exists")]
    Gone,
    /// The API server does not take it, and would not take it again.
    #[error("refused: {0}")]
    Refused(String),
    /// Anything else: try again.
    #[error("{0}")]
    Failed(String),
}

/// A boxed future of a sink's call.
pub type SinkFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// Takes what the agent has to say of a pod. The API server in production, memory in tests of the runtime side.
pub trait PodSink: Send + Sync {
    /// Writes the status, given the one last known to be stored.
    fn status<'a>(&'a self, pod: &'a Pod, before: &'a PodStatus, status: &'a PodStatus) -> SinkFuture<'a>;
    /// Removes the object of a pod of which nothing runs any more.
    fn delete<'a>(&'a self, pod: &'a Pod) -> SinkFuture<'a>;
}

/// The API server.
pub(crate) struct ApiSink(pub(crate) Client);

fn sink_error(error: kube::Error) -> SinkError {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => SinkError::Gone,
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            SinkError::Refused(status.message.clone())
        }
        other => SinkError::Failed(other.to_string()),
    }
}

impl PodSink for ApiSink {
    fn status<'a>(&'a self, pod: &'a Pod, before: &'a PodStatus, status: &'a PodStatus) -> SinkFuture<'a> {
        Box::pin(async move {
            let Some(patch) = patch(before, status) else { return Ok(()) };
            let body = json!({"metadata": {"uid": spec::uid(pod)}, "status": patch});
            let api: Api<Pod> = Api::namespaced(self.0.clone(), spec::namespace(pod));
            let params = PatchParams::default();
            match api.patch_status(spec::name(pod), &params, &Patch::Strategic(body)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(sink_error(error)),
            }
        })
    }

    fn delete<'a>(&'a self, pod: &'a Pod) -> SinkFuture<'a> {
        Box::pin(async move {
            let api: Api<Pod> = Api::namespaced(self.0.clone(), spec::namespace(pod));
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
                ..Default::default()
            };
            api.delete(spec::name(pod), &params).await.map(|_| ()).map_err(sink_error)
        })
    }
}

/// The fields that changed, as a strategic merge patch; `None` when nothing did. Conditions merge by their type,
/// so those of others are never touched.
fn patch(before: &PodStatus, status: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(before), object(status));
    let mut out = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match (key.as_str(), value, old.get(key)) {
            ("conditions", Value::Array(new), Some(Value::Array(old))) => {
                Value::Array(new.iter().filter(|c| !old.contains(c)).map(|c| cleared(c, old)).collect())
            }
            // These merge by address: the old ones have to go.
            ("podIPs" | "hostIPs", Value::Array(new), Some(_)) => {
                Value::Array(new.iter().cloned().chain([json!({"$patch": "replace"})]).collect())
            }
            _ => value.clone(),
        };
        // Another order of the same conditions is no change.
        if key == "conditions" && value.as_array().is_some_and(Vec::is_empty) {
            continue;
        }
        out.insert(key.clone(), value);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        out.insert(key.clone(), Value::Null);
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// A condition with its old fields that are gone now set to null, as merging would keep them.
fn cleared(condition: &Value, old: &[Value]) -> Value {
    let mut result = condition.clone();
    let before = old.iter().find(|c| c.get("type") == condition.get("type"));
    if let (Some(Value::Object(before)), Value::Object(map)) = (before, &mut result) {
        for key in before.keys() {
            map.entry(key.clone()).or_insert(Value::Null);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_sent() {
        let status = |v: Value| -> PodStatus { serde_json::from_value(v).expect("a status") };
        let before = status(json!({"phase": "Pending", "reason": "x", "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False", "reason": "R"}]}));
        assert_eq!(patch(&before, &before), None);
        let after = status(json!({"phase": "Running", "conditions": [
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]}));
        let turned = status(json!({"phase": "Pending", "reason": "x", "conditions": [
            {"type": "Ready", "status": "False", "reason": "R"}, {"type": "PodScheduled", "status": "True"}]}));
        assert_eq!(patch(&before, &turned), None);
        let want = json!({"phase": "Running", "reason": null,
            "conditions": [{"type": "Ready", "status": "True", "reason": null}]});
        assert_eq!(patch(&before, &after), Some(want));
    }
}
