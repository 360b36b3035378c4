//! What is kept of a decision, as an object beside the pod: `gantry why pod/NAME` prints it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::decide::Decision;

pub const GROUP: &str = "scheduling.gantry.dev";
pub const VERSION: &str = "v1alpha1";
pub const KIND: &str = "SchedulingExplanation";
pub const PLURAL: &str = "schedulingexplanations";
/// An explanation of a thousand nodes is still read by a person; of more, the best and the first
/// refusals are kept.
const NODES_MAX: usize = 1000;

/// The CustomResourceDefinition of the kind; the same on the embedded engine and on upstream clusters.
pub fn definition() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let number =
        |description: &str| json!({"type": "integer", "format": "int64", "description": description});
    let score = json!({"type": "object", "properties": {
        "plugin": text("Name of the plugin."),
        "score": number("What the plugin gave, 0 to 100."),
        "weight": number("How much it counts."),
    }});
    let node = json!({"type": "object", "properties": {
        "name": text("Name of the node."),
        "fits": {"type": "boolean", "description": "Whether the pod could run here."},
        "score": number("Weighted sum of all plugins; only of nodes that fit."),
        "reasons": {"type": "array", "description": "Why it could not.", "items": {"type": "string"}},
        "scores": {"type": "array", "description": "What each plugin gave.", "items": score},
    }});
    let status = json!({"type": "object", "properties": {
        "time": text("When it was decided, RFC 3339."),
        "attempt": number("How often the pod was looked at."),
        "node": text("Where the pod was placed; absent when nowhere."),
        "message": text("Why it was placed nowhere."),
        "nodes": {"type": "array", "description": "What was said of every node.", "items": node},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": PLURAL, "singular": "schedulingexplanation", "kind": KIND, "shortNames": ["why"]},
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "additionalPrinterColumns": [
                    {"name": "Node", "type": "string", "jsonPath": ".status.node"},
                    {"name": "Attempt", "type": "integer", "jsonPath": ".status.attempt"},
                    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "Why the scheduler placed a pod where it did, or nowhere.",
                    "properties": {"status": status},
                }},
            }],
        },
    })
}

/// The object for one decision about the pod that `owner` names.
pub fn object(
    namespace: &str,
    owner: &OwnerReference,
    decision: &Decision,
    attempt: u64,
    now: jiff::Timestamp,
) -> Value {
    let mut verdicts: Vec<_> = decision.nodes.iter().collect();
    verdicts.sort_by(|a, b| {
        (!a.reasons.is_empty(), -a.score, &a.name).cmp(&(!b.reasons.is_empty(), -b.score, &b.name))
    });
    let nodes: Vec<Value> = verdicts
        .into_iter()
        .take(NODES_MAX)
        .map(|node| {
            let scores =
                node.scores.iter().map(|s| json!({"plugin": s.plugin, "score": s.score, "weight": s.weight}));
            let fits = node.reasons.is_empty();
            json!({
                "name": node.name,
                "fits": fits,
                "score": if fits { json!(node.score) } else { Value::Null },
                "reasons": node.reasons,
                "scores": scores.collect::<Vec<_>>(),
            })
        })
        .map(without_nulls)
        .collect();
    let mut status = json!({
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "attempt": attempt,
        "node": decision.node,
        "nodes": nodes,
    });
    if decision.node.is_none() {
        status["message"] = json!(decision.message());
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": KIND,
        "metadata": {"name": owner.name, "namespace": namespace, "ownerReferences": [owner]},
        "status": without_nulls(status),
    })
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, v| !v.is_null());
    }
    value
}
