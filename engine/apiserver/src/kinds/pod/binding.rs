//! `pods/binding`: the scheduler's word on where a pod runs.

use std::sync::Arc;

use gantry_kube_types::{FieldError, StatusError};
use gantry_store::{Expect, Key, Mutation, WriteError};
use serde_json::{Value, json};

use crate::encode;
use crate::kind::{Action, ActionRequest};
use crate::kinds::value::{at, child, entries, items, put, string, text};

/// A write lost against others this often in a row is given up.
const ATTEMPTS_MAX: usize = 10;

/// Sets `spec.nodeName` once.
pub struct PodBinding;

#[async_trait::async_trait]
impl Action for PodBinding {
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError> {
        // `POST …/bindings` names the pod in the object, `POST …/pods/NAME/binding` in the path.
        let name = match request.name {
            "" => text(&request.object, "/metadata/name").to_owned(),
            name => name.to_owned(),
        };
        let request = ActionRequest { name: &name, ..request };
        let node = text(&request.object, "/target/name").to_owned();
        let kind = text(&request.object, "/target/kind");
        let invalid = |error| Err(StatusError::invalid("", "Binding", request.name, &[error]));
        if !matches!(kind, "" | "Node") {
            return invalid(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
        }
        if node.is_empty() {
            return invalid(FieldError::required("target.name", ""));
        }
        let pods = request.server.kind("", "v1", "pods").ok_or_else(StatusError::no_such_resource)?;
        let key = Key::new("", "pods", request.namespace, request.name);
        for _ in 0..ATTEMPTS_MAX {
            let current = request
                .server
                .store()
                .snapshot()
                .get(&key)
                .ok_or_else(|| StatusError::not_found("", "pods", request.name))?;
            let mut pod = encode::decode(&pods, &current);
            bind(&mut pod, &request, &node)?;
            if request.dry_run {
                return Ok(Value::Null);
            }
            let template = encode::to_storage(&pods, &pod);
            let mutation = Mutation::Put {
                key: key.clone(),
                expect: Expect::Revision(current.revision),
                encode: Box::new(move |revision| template.fill(revision)),
            };
            match request.server.store().write(mutation).await {
                Ok(_) => return Ok(Value::Null),
                // Between our write's refusal and its visibility the snapshot may lag: yield to the writer.
                Err(WriteError::Conflict { .. }) => tokio::task::yield_now().await,
                Err(WriteError::NotFound) => return Err(StatusError::not_found("", "pods", request.name)),
                Err(error) => return Err(StatusError::internal(error)),
            }
        }
        Err(StatusError::conflict(
            "",
            "pods/binding",
            request.name,
            "the object has been modified; please try again",
        ))
    }
}

fn bind(pod: &mut Value, request: &ActionRequest<'_>, node: &str) -> Result<(), StatusError> {
    let conflict = |why: String| StatusError::conflict("", "pods/binding", request.name, why);
    let uid = text(&request.object, "/metadata/uid");
    if !uid.is_empty() && uid != text(pod, "/metadata/uid") {
        return Err(conflict(format!("precondition failed: UID in precondition: {uid}")));
    }
    if at(pod, "/metadata/deletionTimestamp").is_some() {
        return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", request.name)));
    }
    let bound = text(pod, "/spec/nodeName");
    if !bound.is_empty() {
        return Err(conflict(format!("pod {} is already assigned to node \"{bound}\"", request.name)));
    }
    if !items(pod, "/spec/schedulingGates").is_empty() {
        return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", request.name)));
    }
    if let Some(spec) = child(pod, "spec") {
        put(spec, "nodeName", node);
    }
    let extra: Vec<(String, Value)> =
        entries(&request.object, "/metadata/annotations").map(|(k, v)| (k.clone(), v.clone())).collect();
    if !extra.is_empty()
        && let Some(annotations) = child(pod, "metadata").and_then(|m| child(m, "annotations"))
    {
        for (key, value) in extra {
            put(annotations, &key, value);
        }
    }
    set_scheduled(pod);
    Ok(())
}

fn set_scheduled(pod: &mut Value) {
    let generation = pod.pointer("/metadata/generation").cloned();
    let mut conditions = items(pod, "/status/conditions").to_vec();
    conditions.retain(|c| string(c, "type") != "PodScheduled");
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let mut condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": now.to_string()});
    if let Some(generation) = generation {
        put(&mut condition, "observedGeneration", generation);
    }
    conditions.push(condition);
    if let Some(status) = child(pod, "status") {
        put(status, "conditions", conditions);
    }
}

/// The action as a kind takes it.
pub(crate) fn action() -> Arc<dyn Action> {
    Arc::new(PodBinding)
}
