//! Defaults of the small core kinds (upstream `pkg/apis/core/v1/defaults.go`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::kinds::pod::default_network_volume;
use crate::kinds::value::{
    child, child_if, default_number, default_string, default_to, entries, items_mut, put, remove, string,
    text,
};

/// `stringData` is written into `data` and forgotten; the type is `Opaque` unless said.
pub(crate) fn default_secret(object: &mut Value) {
    default_string(object, "type", "Opaque");
    let plain: Vec<(String, String)> = entries(object, "/stringData")
        .filter_map(|(key, value)| Some((key.clone(), BASE64.encode(value.as_str()?))))
        .collect();
    remove(object, "stringData");
    if plain.is_empty() {
        return;
    }
    if let Some(data) = child(object, "data") {
        for (key, value) in plain {
            put(data, &key, value);
        }
    }
}

pub(crate) fn default_namespace(object: &mut Value) {
    let name = text(object, "/metadata/name").to_owned();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = child(object, "metadata").and_then(|metadata| child(metadata, "labels")) {
        put(labels, "kubernetes.io/metadata.name", name);
    }
}

pub(crate) fn default_endpoints(object: &mut Value) {
    for subset in items_mut(object, "/subsets") {
        for port in items_mut(subset, "/ports") {
            default_string(port, "protocol", "TCP");
        }
    }
}

pub(crate) fn default_node(object: &mut Value) {
    child(object, "spec");
    let Some(status) = child_if(object, "status") else { return };
    if status.get("allocatable").is_none_or(Value::is_null)
        && let Some(capacity) = status.get("capacity").cloned()
    {
        put(status, "allocatable", capacity);
    }
}

pub(crate) fn default_event(object: &mut Value) {
    child(object, "involvedObject");
    child(object, "source");
    for time in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        default_null(object, time);
    }
    default_to(object, "reportingComponent", "");
    default_to(object, "reportingInstance", "");
}

/// The typed API prints these even when they are empty.
fn default_null(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.entry(key).or_insert(Value::Null);
    }
}

pub(crate) fn default_claim(object: &mut Value) {
    if let Some(spec) = child(object, "spec") {
        default_to(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = child(object, "status") {
        default_string(status, "phase", "Pending");
    }
}

pub(crate) fn default_volume(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_string(spec, "persistentVolumeReclaimPolicy", "Retain");
    default_to(spec, "volumeMode", "Filesystem");
    if let Some(source) = child_if(spec, "hostPath") {
        default_to(source, "type", "");
    }
    if let Some(source) = child_if(spec, "iscsi") {
        default_string(source, "iscsiInterface", "default");
    }
    default_network_volume(spec);
    if let Some(claim) = child_if(spec, "claimRef") {
        default_string(claim, "kind", "PersistentVolumeClaim");
        default_string(claim, "apiVersion", "v1");
    }
    if let Some(status) = child(object, "status") {
        default_string(status, "phase", "Pending");
    }
}

pub(crate) fn default_limit_range(object: &mut Value) {
    for item in items_mut(object, "/spec/limits") {
        if string(item, "type") != "Container" {
            continue;
        }
        // default ← max, defaultRequest ← default, then min (upstream SetDefaults_LimitRangeItem).
        for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
        {
            let Some(from) = item.get(source).filter(|v| v.is_object()).cloned() else { continue };
            if let Some(to) = child(item, target) {
                for (name, quantity) in entries(&from, "") {
                    default_to(to, name, quantity.clone());
                }
            }
        }
    }
}

pub(crate) fn default_role_ref_subjects(object: &mut Value) {
    const RBAC: &str = "rbac.authorization.k8s.io";
    if let Some(reference) = child(object, "roleRef") {
        default_string(reference, "apiGroup", RBAC);
    }
    for subject in items_mut(object, "/subjects") {
        if matches!(string(subject, "kind"), "User" | "Group") {
            default_string(subject, "apiGroup", RBAC);
        }
    }
}

pub(crate) fn default_role(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.entry("rules").or_insert(Value::Null);
    }
}

pub(crate) fn default_endpoint_slice(object: &mut Value) {
    for port in items_mut(object, "/ports") {
        default_to(port, "name", "");
        default_to(port, "protocol", "TCP");
    }
    if let Some(map) = object.as_object_mut() {
        map.entry("endpoints").or_insert(Value::Null);
        map.entry("ports").or_insert(Value::Null);
    }
}

pub(crate) fn default_network_policy(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    child(spec, "podSelector");
    for rules in ["/ingress", "/egress"] {
        for rule in items_mut(spec, rules) {
            for port in items_mut(rule, "/ports") {
                default_to(port, "protocol", "TCP");
            }
        }
    }
    if crate::kinds::value::items(spec, "/policyTypes").is_empty() {
        let mut types = vec![json!("Ingress")];
        if !crate::kinds::value::items(spec, "/egress").is_empty() {
            types.push(json!("Egress"));
        }
        put(spec, "policyTypes", types);
    }
}

pub(crate) fn default_storage_class(object: &mut Value) {
    default_to(object, "reclaimPolicy", "Delete");
    default_to(object, "volumeBindingMode", "Immediate");
}

pub(crate) fn default_csi_driver(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_to(spec, "attachRequired", true);
    default_to(spec, "podInfoOnMount", false);
    default_to(spec, "storageCapacity", false);
    default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        put(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
    default_to(spec, "requiresRepublish", false);
    default_to(spec, "seLinuxMount", false);
}

pub(crate) fn default_priority_class(object: &mut Value) {
    default_to(object, "preemptionPolicy", "PreemptLowerPriority");
    default_to(object, "value", 0);
}

pub(crate) fn default_webhooks(object: &mut Value) {
    let mutating = string(object, "kind") == "MutatingWebhookConfiguration";
    for hook in items_mut(object, "/webhooks") {
        default_to(hook, "failurePolicy", "Fail");
        default_to(hook, "matchPolicy", "Equivalent");
        default_to(hook, "namespaceSelector", json!({}));
        default_to(hook, "objectSelector", json!({}));
        default_to(hook, "timeoutSeconds", 10);
        if mutating {
            default_to(hook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = hook.pointer_mut("/clientConfig/service") {
            default_to(service, "port", 443);
        }
        for rule in items_mut(hook, "/rules") {
            default_to(rule, "scope", "*");
        }
    }
}

pub(crate) fn default_admission_policy(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_to(spec, "failurePolicy", "Fail");
    if let Some(constraints) = child_if(spec, "matchConstraints") {
        default_match_resources(constraints);
    }
}

pub(crate) fn default_admission_binding(object: &mut Value) {
    if let Some(resources) = object.pointer_mut("/spec/matchResources") {
        default_match_resources(resources);
    }
}

fn default_match_resources(resources: &mut Value) {
    default_to(resources, "matchPolicy", "Equivalent");
    default_to(resources, "namespaceSelector", json!({}));
    default_to(resources, "objectSelector", json!({}));
    for list in ["/resourceRules", "/excludeResourceRules"] {
        for rule in items_mut(resources, list) {
            default_to(rule, "scope", "*");
        }
    }
}

pub(crate) fn default_crd(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    if let Some(names) = child(spec, "names") {
        let kind = string(names, "kind").to_owned();
        if !kind.is_empty() {
            default_string(names, "singular", &kind.to_lowercase());
            default_string(names, "listKind", &format!("{kind}List"));
        }
    }
    if let Some(conversion) = child(spec, "conversion") {
        default_string(conversion, "strategy", "None");
        if let Some(service) = conversion.pointer_mut("/webhook/clientConfig/service") {
            default_to(service, "port", 443);
        }
    }
}

pub(crate) fn default_api_service(object: &mut Value) {
    if let Some(service) = object.pointer_mut("/spec/service") {
        default_to(service, "port", 443);
    }
}

/// An autoscaler of `autoscaling/v2`, the version that is stored.
pub(crate) fn default_autoscaler(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_to(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        put(
            spec,
            "metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        );
    }
    let Some(behavior) = child_if(spec, "behavior") else { return };
    if let Some(up) = child(behavior, "scaleUp") {
        default_to(up, "stabilizationWindowSeconds", 0);
        default_to(up, "selectPolicy", "Max");
        let policies = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15}
        ]);
        default_to(up, "policies", policies);
    }
    if let Some(down) = child(behavior, "scaleDown") {
        default_to(down, "selectPolicy", "Max");
        default_to(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}

pub(crate) fn default_ingress_class(object: &mut Value) {
    if let Some(parameters) = object.pointer_mut("/spec/parameters") {
        default_to(parameters, "scope", "Cluster");
    }
}

pub(crate) fn default_flow_schema(object: &mut Value) {
    if let Some(spec) = child(object, "spec") {
        default_number(spec, "matchingPrecedence", 1000);
    }
}

pub(crate) fn default_priority_level(object: &mut Value) {
    let Some(limited) = object.pointer_mut("/spec/limited") else { return };
    default_to(limited, "nominalConcurrencyShares", 30);
    default_to(limited, "lendablePercent", 0);
    if let Some(response) = child_if(limited, "limitResponse")
        && let Some(queuing) = child_if(response, "queuing")
    {
        default_number(queuing, "handSize", 8);
        default_number(queuing, "queues", 64);
        default_number(queuing, "queueLengthLimit", 50);
    }
}

pub(crate) fn default_signing_request(object: &mut Value) {
    if let Some(spec) = child(object, "spec")
        && spec.get("usages").and_then(Value::as_array).is_none_or(Vec::is_empty)
    {
        put(spec, "usages", json!(["digital signature", "key encipherment"]));
    }
}

/// A namespace begins active, held by the finalizer of the namespace controller.
pub(crate) fn prepare_namespace(object: &mut Value) {
    put(object, "status", json!({"phase": "Active"}));
    if let Some(spec) = child(object, "spec") {
        let mut finalizers = crate::kinds::value::items(spec, "/finalizers").to_vec();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            finalizers.push(json!("kubernetes"));
        }
        put(spec, "finalizers", finalizers);
    }
}
