//! What a node may write (upstream `plugin/pkg/admission/noderestriction`).

use gantry_kube_logic::meta;
use gantry_kube_types::{StatusError, UserInfo};
use serde_json::Value;

use super::node::node_of;
use super::node_graph::{Referent, references};
use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::reader::Reader;

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const RESTRICTED_PREFIX: &str = "node-restriction.kubernetes.io";
/// Labels in `kubernetes.io` and `k8s.io` that a node may set on itself.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_LABEL_PREFIXES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// A node changes its own Node, its own lease and the status of its own pods, and gives itself no
/// labels or taints that decide what is placed on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeRestriction;

#[async_trait::async_trait]
impl AdmissionPlugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        let Some(node) = node_of(request.user) else { return Ok(()) };
        let checked = match (request.kind.info.group.as_ref(), request.kind.info.resource.as_ref()) {
            ("", "pods") => check_pod(request, node),
            ("", "nodes") => check_node(request, node),
            ("coordination.k8s.io", "leases") => check_lease(request, node),
            ("storage.k8s.io", "csinodes") if request.name != node => {
                Err("can only access CSINode with the same name as the requesting node".to_owned())
            }
            _ => Ok(()),
        };
        checked.map_err(|why| request.forbidden(why))
    }
}

fn node_name(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or("")
}

fn check_pod(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    let own = |what: &str, pod: Option<&Value>| match pod {
        Some(pod) if node_name(pod) == node => Ok(()),
        _ => Err(format!("node {node:?} can only {what} pods with spec.nodeName set to itself")),
    };
    match (request.operation, request.subresource) {
        (Operation::Create, "") => check_mirror(request.object, node),
        (Operation::Delete, "") => own("delete", request.old_object),
        (Operation::Update, "status") => {
            own("update pod status for", request.old_object)?;
            let labels = |pod: &Value| pod["metadata"]["labels"].clone();
            if request.old_object.map(labels) != Some(labels(request.object)) {
                return Err(format!("node {node:?} cannot update labels through pod status"));
            }
            Ok(())
        }
        (Operation::Create, "eviction") => {
            own("evict", request.reader.get("", "pods", request.namespace, request.name).as_ref())
        }
        (operation, subresource) => {
            Err(format!("unexpected operation {operation:?} of pods/{subresource} by a node"))
        }
    }
}

/// The mirror of a pod that runs from a file of the node needs nothing of the API.
fn check_mirror(pod: &Value, node: &str) -> Result<(), String> {
    if meta::annotation(pod, MIRROR_ANNOTATION).is_none() {
        return Err(format!(
            "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if node_name(pod) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let named = |what| match what {
        Referent::Secret => "secrets",
        Referent::ConfigMap => "configmaps",
        Referent::Claim => "persistentvolumeclaims",
        Referent::ServiceAccount => "serviceaccounts",
    };
    references(pod).first().map_or(Ok(()), |(what, _)| {
        Err(format!("node {node:?} can not create pods that reference {}", named(*what)))
    })
}

fn check_node(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    if request.name != node {
        return Err(format!("node {node:?} is not allowed to modify node {:?}", request.name));
    }
    if request.operation == Operation::Delete {
        return Ok(());
    }
    let none = Value::Null;
    let old = request.old_object.unwrap_or(&none);
    if request.operation == Operation::Update {
        if request.object["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
            return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
        if request.subresource.is_empty() && request.object["spec"]["taints"] != old["spec"]["taints"] {
            return Err(format!("node {node:?} is not allowed to modify taints"));
        }
    }
    let mut forbidden = changed_labels(request.object, old);
    forbidden.retain(|label| !may_set(label));
    if forbidden.is_empty() {
        return Ok(());
    }
    forbidden.sort_unstable();
    let verb = if request.operation == Operation::Create { "set" } else { "modify" };
    Err(format!("is not allowed to {verb} the following labels: {}", forbidden.join(", ")))
}

fn changed_labels<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let (new, old) = (meta::labels(new), meta::labels(old));
    let value =
        |labels: Option<&'a serde_json::Map<String, Value>>, key: &str| labels.and_then(|l| l.get(key));
    let mut keys: Vec<&str> =
        new.into_iter().flatten().chain(old.into_iter().flatten()).map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| value(new, key) != value(old, key));
    keys
}

fn may_set(label: &str) -> bool {
    let prefix = label.split_once('/').map_or("", |(prefix, _)| prefix);
    let below = |domain: &str| {
        prefix == domain || prefix.strip_suffix(domain).is_some_and(|head| head.ends_with('.'))
    };
    if below(RESTRICTED_PREFIX) {
        return false;
    }
    let reserved = below("kubernetes.io") || below("k8s.io");
    !reserved || OWN_LABELS.contains(&label) || OWN_LABEL_PREFIXES.iter().any(|domain| below(domain))
}

fn check_lease(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    if request.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    if request.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

/// A node gets tokens only for pods that run on it (NodeRestriction on `serviceaccounts/token`).
pub fn check_token_request(
    user: &UserInfo,
    reader: &Reader,
    namespace: &str,
    request: &Value,
) -> Result<(), StatusError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let forbidden = |why: &str| Err(StatusError::forbidden("", "serviceaccounts", meta::name(request), why));
    let bound = &request["spec"]["boundObjectRef"];
    let text = |field: &str| bound[field].as_str().unwrap_or("");
    if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        return forbidden("node requested token not bound to a pod");
    }
    if text("uid").is_empty() {
        return forbidden("node requested token with a pod binding without a uid");
    }
    match reader.get("", "pods", namespace, text("name")) {
        Some(pod) if meta::uid(&pod) != text("uid") => {
            forbidden("the UID in the bound object reference does not match the UID in record")
        }
        Some(pod) if node_name(&pod) == node => Ok(()),
        Some(_) => forbidden("node requested token bound to a pod scheduled on a different node"),
        None => Err(StatusError::not_found("", "pods", text("name"))),
    }
}
