//! Defaults of pods and pod templates (upstream `pkg/apis/core/v1/defaults.go`).

use serde_json::{Value, json};

use crate::kinds::value::{
    at, child, child_if, default_number, default_string, default_to, field, is_set, items_mut, put, string,
    text, truth,
};

/// Fills a Pod as it is created: the template's defaults and those of a pod alone.
pub(crate) fn default_pod(pod: &mut Value) {
    let Some(spec) = child(pod, "spec") else { return };
    for list in ["/initContainers", "/containers"] {
        for container in items_mut(spec, list) {
            default_requests_from_limits(container);
        }
    }
    default_to(spec, "enableServiceLinks", true);
    default_pod_spec(spec);
    if truth(spec, "/hostNetwork") {
        default_host_ports(spec);
    }
}

/// Fills a pod template (`spec.template` of workloads).
pub(crate) fn default_template(template: &mut Value) {
    child(template, "metadata");
    if let Some(spec) = child(template, "spec") {
        default_pod_spec(spec);
    }
}

fn default_pod_spec(spec: &mut Value) {
    default_string(spec, "dnsPolicy", "ClusterFirst");
    default_string(spec, "restartPolicy", "Always");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "securityContext", json!({}));
    default_string(spec, "schedulerName", "default-scheduler");
    default_service_account(spec);
    for list in ["/initContainers", "/containers", "/ephemeralContainers"] {
        for container in items_mut(spec, list) {
            default_container(container, list == "/ephemeralContainers");
        }
    }
    for volume in items_mut(spec, "/volumes") {
        default_volume(volume);
    }
}

/// `serviceAccount` is the deprecated twin of `serviceAccountName`: both are kept and agree.
fn default_service_account(spec: &mut Value) {
    let named = string(spec, "serviceAccountName").to_owned();
    let deprecated = string(spec, "serviceAccount").to_owned();
    match (named.is_empty(), deprecated.is_empty()) {
        (true, false) => put(spec, "serviceAccountName", deprecated),
        (false, _) => put(spec, "serviceAccount", named),
        (true, true) => {}
    }
}

fn default_container(container: &mut Value, ephemeral: bool) {
    if !is_set(container, "imagePullPolicy") {
        put(container, "imagePullPolicy", pull_policy(string(container, "image")));
    }
    default_string(container, "terminationMessagePath", "/dev/termination-log");
    default_string(container, "terminationMessagePolicy", "File");
    default_to(container, "resources", json!({}));
    for port in items_mut(container, "/ports") {
        default_string(port, "protocol", "TCP");
    }
    for env in items_mut(container, "/env") {
        if let Some(source) = child_if(env, "valueFrom") {
            if let Some(reference) = child_if(source, "fieldRef") {
                default_string(reference, "apiVersion", "v1");
            }
            if let Some(reference) = child_if(source, "fileKeyRef") {
                default_to(reference, "optional", false);
            }
            if let Some(reference) = child_if(source, "resourceFieldRef") {
                default_divisor(reference);
            }
        }
    }
    if ephemeral {
        return;
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child_if(container, probe) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(action) = container.pointer_mut(&format!("/lifecycle/{hook}/httpGet")) {
            default_http_get(action);
        }
    }
}

/// `Always` for the tag `latest` (or none), `IfNotPresent` for every other reference.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(name, digest)| (name, digest));
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map_or("", |(_, tag)| tag);
    if tag == "latest" || tag.is_empty() && digest.is_empty() { "Always" } else { "IfNotPresent" }
}

fn default_probe(probe: &mut Value) {
    default_number(probe, "timeoutSeconds", 1);
    default_number(probe, "periodSeconds", 10);
    default_number(probe, "successThreshold", 1);
    default_number(probe, "failureThreshold", 3);
    if let Some(action) = child_if(probe, "httpGet") {
        default_http_get(action);
    }
    if let Some(action) = child_if(probe, "grpc") {
        default_to(action, "service", "");
    }
}

fn default_http_get(action: &mut Value) {
    default_string(action, "path", "/");
    default_string(action, "scheme", "HTTP");
}

fn default_divisor(reference: &mut Value) {
    default_to(reference, "divisor", "0");
}

/// A request that is not given is its limit (pods only; templates keep what was written).
fn default_requests_from_limits(container: &mut Value) {
    let Some(Value::Object(limits)) = at(container, "/resources/limits").cloned() else { return };
    let Some(resources) = child(container, "resources") else { return };
    let Some(requests) = child(resources, "requests") else { return };
    for (name, limit) in limits {
        default_to(requests, &name, limit);
    }
}

fn default_host_ports(spec: &mut Value) {
    for list in ["/initContainers", "/containers"] {
        for container in items_mut(spec, list) {
            for port in items_mut(container, "/ports") {
                if let Some(number) = port.get("containerPort").and_then(Value::as_i64) {
                    default_number(port, "hostPort", number);
                }
            }
        }
    }
}

const VOLUME_SOURCES_WITH_MODE: [&str; 4] = ["secret", "configMap", "downwardAPI", "projected"];

fn default_volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|v| v.iter().any(|(k, v)| k != "name" && !v.is_null()));
    if !has_source {
        put(volume, "emptyDir", json!({}));
    }
    for source in VOLUME_SOURCES_WITH_MODE {
        if let Some(source) = child_if(volume, source) {
            default_to(source, "defaultMode", 0o644);
        }
    }
    for item in items_mut(volume, "/downwardAPI/items") {
        default_downward_item(item);
    }
    for source in items_mut(volume, "/projected/sources") {
        if let Some(token) = child_if(source, "serviceAccountToken") {
            default_to(token, "expirationSeconds", 3600);
        }
        for item in items_mut(source, "/downwardAPI/items") {
            default_downward_item(item);
        }
    }
    if let Some(source) = child_if(volume, "hostPath") {
        default_to(source, "type", "");
    }
    if let Some(image) = child_if(volume, "image")
        && !is_set(image, "pullPolicy")
    {
        put(image, "pullPolicy", pull_policy(string(image, "reference")));
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        default_to(claim, "volumeMode", "Filesystem");
    }
    default_network_volume(volume);
}

fn default_downward_item(item: &mut Value) {
    if let Some(reference) = child_if(item, "fieldRef") {
        default_string(reference, "apiVersion", "v1");
    }
    if let Some(reference) = child_if(item, "resourceFieldRef") {
        default_divisor(reference);
    }
}

/// Defaults of the block and file volume sources that persistent volumes share with pods.
pub(crate) fn default_network_volume(volume: &mut Value) {
    if let Some(source) = child_if(volume, "iscsi") {
        default_string(source, "iscsiInterface", "default");
    }
    if let Some(source) = child_if(volume, "rbd") {
        default_string(source, "pool", "rbd");
        default_string(source, "user", "admin");
        default_string(source, "keyring", "/etc/ceph/keyring");
    }
    if let Some(source) = child_if(volume, "azureDisk") {
        default_to(source, "cachingMode", "ReadWrite");
        default_to(source, "kind", "Shared");
        default_to(source, "fsType", "ext4");
        default_to(source, "readOnly", false);
    }
    if let Some(source) = child_if(volume, "scaleIO") {
        default_string(source, "storageMode", "ThinProvisioned");
        default_string(source, "fsType", "xfs");
    }
}

/// The quality-of-service class of a pod spec: `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let containers: Vec<&Value> = ["/initContainers", "/containers"]
        .iter()
        .flat_map(|list| crate::kinds::value::items(spec, list))
        .collect();
    let mut guaranteed = !containers.is_empty();
    let mut any = false;
    let pod_level = field(spec, "resources");
    let sources: Vec<&Value> = match pod_level {
        Some(resources) => vec![resources],
        None => containers.iter().filter_map(|c| field(c, "resources")).collect(),
    };
    if pod_level.is_none() && sources.len() != containers.len() {
        guaranteed = false;
    }
    for resources in sources {
        for name in ["cpu", "memory"] {
            let limit = amount(resources, "limits", name);
            let request = amount(resources, "requests", name).or(limit);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A positive quantity, in nano-units.
fn amount(resources: &Value, list: &str, name: &str) -> Option<i128> {
    crate::kinds::format::quantity_of(resources.get(list)?.get(name)?).filter(|q| *q > 0)
}

/// Seconds a pod is given to end, as its spec says.
pub(crate) fn grace_period(pod: &Value) -> i64 {
    at(pod, "/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30)
}

/// Has every container ended for good?
pub(crate) fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}
