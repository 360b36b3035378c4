//! What decides where and how long pods run: priority, tolerations, taints of new nodes.

use gantry_kube_types::StatusError;
use serde_json::{Value, json};

use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::kinds::value::{child, default_to, integer, items, put, string, text, truth};

pub(super) struct Priority;

#[async_trait::async_trait]
impl AdmissionPlugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let asked = text(request.object, "/spec/priorityClassName").to_owned();
        let class = match asked.as_str() {
            "system-node-critical" => Some(json!({"metadata": {"name": asked}, "value": 2_000_001_000})),
            "system-cluster-critical" => Some(json!({"metadata": {"name": asked}, "value": 2_000_000_000})),
            "" => request
                .reader
                .list::<Value>("scheduling.k8s.io", "priorityclasses", None)
                .filter(|c| truth(c, "/globalDefault"))
                .min_by_key(|c| integer(c, "/value")),
            name => match request.reader.get("scheduling.k8s.io", "priorityclasses", "", name) {
                Some(class) => Some(class),
                None => return Err(request.forbidden(format!("no PriorityClass with name {name} was found"))),
            },
        };
        let class = class.unwrap_or(Value::Null);
        let value = integer(&class, "/value").unwrap_or(0);
        if integer(request.object, "/spec/priority").is_some_and(|given| given != value) {
            return Err(request.forbidden(format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name",
                request.object["spec"]["priority"]
            )));
        }
        let Some(spec) = child(request.object, "spec") else { return Ok(()) };
        if !text(&class, "/metadata/name").is_empty() {
            put(spec, "priorityClassName", text(&class, "/metadata/name"));
        }
        put(spec, "priority", value);
        let policy = text(&class, "/preemptionPolicy");
        default_to(spec, "preemptionPolicy", if policy.is_empty() { "PreemptLowerPriority" } else { policy });
        Ok(())
    }
}

pub(super) struct DefaultTolerationSeconds;

#[async_trait::async_trait]
impl AdmissionPlugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let mut tolerations = items(request.object, "/spec/tolerations").to_vec();
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerated = tolerations.iter().any(|t| {
                (string(t, "key") == key || string(t, "key").is_empty())
                    && matches!(string(t, "effect"), "NoExecute" | "")
            });
            if !tolerated {
                tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 300}));
            }
        }
        if let Some(spec) = child(request.object, "spec") {
            put(spec, "tolerations", tolerations);
        }
        Ok(())
    }
}

/// A new node gets no pods before the node controller has seen it ready.
pub(super) struct TaintNodes;

#[async_trait::async_trait]
impl AdmissionPlugin for TaintNodes {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        const NOT_READY: &str = "node.kubernetes.io/not-ready";
        if !request.is("", "nodes") || request.operation != Operation::Create {
            return Ok(());
        }
        let mut taints = items(request.object, "/spec/taints").to_vec();
        if !taints.iter().any(|t| string(t, "key") == NOT_READY && string(t, "effect") == "NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        if let Some(spec) = child(request.object, "spec") {
            put(spec, "taints", taints);
        }
        Ok(())
    }
}
