//! Containers: images, ports, environment, mounts, resources, handlers.

use serde_json::{Value, json};

use super::{check_quantity, exactly_one, non_negative, number_errors, relative_path};
use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{entries, field, integer, is_set, items, string, text, truth};

/// What containers are checked against.
pub(super) struct PodFacts<'a> {
    pub volumes: &'a [Value],
    pub grace_seconds: i64,
    pub host_network: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Main,
    Ephemeral,
}

pub(super) fn check_container(
    container: &Value,
    role: Role,
    pod: &PodFacts<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let image = string(container, "image");
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    } else if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    errors.one_of(&path.child("imagePullPolicy"), string(container, "imagePullPolicy"), &policies);
    if let Some(policy) = field(container, "terminationMessagePolicy").and_then(Value::as_str) {
        let supported = ["FallbackToLogsOnError", "File"];
        errors.one_of(&path.child("terminationMessagePolicy"), policy, &supported);
    }
    if role == Role::Ephemeral {
        for key in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"] {
            if is_set(container, key) {
                errors.forbidden(&path.child(key), "cannot be set for an Ephemeral Container");
            }
        }
    } else {
        check_ports(container, pod, &path.child("ports"), errors);
        check_handlers(container, role, pod, path, errors);
    }
    check_env(container, path, errors);
    check_mounts(container, pod.volumes, path, errors);
    check_devices(container, pod.volumes, path, errors);
    check_resources(&container["resources"], &path.child("resources"), errors);
    super::security::check_container(container, &path.child("securityContext"), errors);
}

fn check_ports(container: &Value, pod: &PodFacts<'_>, path: &Path, errors: &mut Errors) {
    let mut names = Vec::new();
    for (index, port) in items(container, "/ports").iter().enumerate() {
        let at = path.index(index);
        let name = string(port, "name");
        if !name.is_empty() {
            if names.contains(&name) {
                errors.duplicate(&at.child("name"), name);
            }
            errors.all(&at.child("name"), name, format::port_name(name));
            names.push(name);
        }
        let number = integer(port, "/containerPort").unwrap_or(0);
        if number == 0 {
            errors.required(&at.child("containerPort"), "");
        } else {
            number_errors(number, &at.child("containerPort"), errors);
        }
        let host = integer(port, "/hostPort").unwrap_or(0);
        if host != 0 {
            number_errors(host, &at.child("hostPort"), errors);
        }
        if pod.host_network && host != 0 && host != number {
            let detail = "must match `hostPort` when `hostNetwork` is true";
            errors.invalid(&at.child("containerPort"), number, detail);
        }
        errors.one_of(&at.child("protocol"), string(port, "protocol"), &["TCP", "UDP", "SCTP"]);
    }
}

fn check_env(container: &Value, path: &Path, errors: &mut Errors) {
    for (index, env) in items(container, "/env").iter().enumerate() {
        let at = path.child("env").index(index);
        if string(env, "name").is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.all(&at.child("name"), string(env, "name"), format::env_name(string(env, "name")));
        }
        let Some(source) = field(env, "valueFrom") else { continue };
        let at = at.child("valueFrom");
        if is_set(env, "value") {
            errors.invalid(&at, "", "may not be specified when `value` is not empty");
            continue;
        }
        let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        match exactly_one(source, &kinds) {
            Ok(kind) => check_env_source(&source[kind], kind, &at.child(kind), errors),
            Err(0) => errors.invalid(
                &at,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            ),
            Err(_) => errors.invalid(&at, "", "may not have more than one field specified at a time"),
        }
    }
    for (index, from) in items(container, "/envFrom").iter().enumerate() {
        let at = path.child("envFrom").index(index);
        let prefix = string(from, "prefix");
        if !prefix.is_empty() {
            errors.all(&at.child("prefix"), prefix, format::env_name(prefix));
        }
        match exactly_one(from, &["configMapRef", "secretRef"]) {
            Ok(kind) => check_name(&from[kind], &at.child(kind), errors),
            Err(0) => errors.invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`"),
            Err(_) => errors.invalid(&at, "", "may not have more than one field specified at a time"),
        }
    }
}

fn check_name(reference: &Value, path: &Path, errors: &mut Errors) {
    let name = string(reference, "name");
    errors.all(&path.child("name"), name, format::dns1123_subdomain(name));
}

fn check_env_source(source: &Value, kind: &str, path: &Path, errors: &mut Errors) {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    match kind {
        "fieldRef" => check_field_ref(source, &FIELDS, path, errors),
        "resourceFieldRef" => check_resource_ref(source, false, path, errors),
        "configMapKeyRef" | "secretKeyRef" => {
            check_name(source, path, errors);
            let key = string(source, "key");
            if key.is_empty() {
                errors.required(&path.child("key"), "");
            } else {
                errors.all(&path.child("key"), key, format::config_map_key(key));
            }
        }
        _ => {}
    }
}

/// A downward reference to a field of the pod; labels and annotations may be named one by one.
pub(super) fn check_field_ref(reference: &Value, supported: &[&str], path: &Path, errors: &mut Errors) {
    let wanted = string(reference, "fieldPath");
    let subscript = ["metadata.annotations['", "metadata.labels['"]
        .iter()
        .find_map(|prefix| wanted.strip_prefix(prefix)?.strip_suffix("']"));
    if wanted.is_empty() {
        errors.required(&path.child("fieldPath"), "");
    } else if let Some(key) = subscript {
        errors.all(path, key, format::qualified_name(key));
    } else {
        errors.one_of(&path.child("fieldPath"), wanted, supported);
    }
}

pub(super) fn check_resource_ref(reference: &Value, in_volume: bool, path: &Path, errors: &mut Errors) {
    const RESOURCES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    if in_volume && string(reference, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    }
    let resource = string(reference, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !huge {
        errors.one_of(&path.child("resource"), resource, &RESOURCES);
    }
}

fn check_mounts(container: &Value, volumes: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    let devices: Vec<&str> =
        items(container, "/volumeDevices").iter().map(|d| string(d, "devicePath")).collect();
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let at = path.child("volumeMounts").index(index);
        let name = string(mount, "name");
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if !volumes.iter().any(|v| string(v, "name") == name) {
            errors.not_found(&at.child("name"), name);
        }
        let target = string(mount, "mountPath");
        if target.is_empty() {
            errors.required(&at.child("mountPath"), "");
        } else if seen.contains(&target) {
            errors.invalid(&at.child("mountPath"), target, "must be unique");
        } else if devices.contains(&target) {
            errors.invalid(&at.child("mountPath"), target, "must not already exist in volumeDevices");
        }
        seen.push(target);
        let (sub, expression) = (string(mount, "subPath"), string(mount, "subPathExpr"));
        relative_path(sub, &at.child("subPath"), errors);
        relative_path(expression, &at.child("subPathExpr"), errors);
        if !sub.is_empty() && !expression.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&at.child("subPathExpr"), expression, detail);
        }
        check_mount_options(mount, container, &at, errors);
    }
}

fn check_mount_options(mount: &Value, container: &Value, at: &Path, errors: &mut Errors) {
    if let Some(mode) = field(mount, "mountPropagation").and_then(Value::as_str) {
        let path = at.child("mountPropagation");
        errors.one_of(&path, mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode == "Bidirectional" && !truth(container, "/securityContext/privileged") {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&path, detail);
        }
    }
    if let Some(mode) = field(mount, "recursiveReadOnly").and_then(Value::as_str) {
        let path = at.child("recursiveReadOnly");
        errors.one_of(&path, mode, &["Disabled", "Enabled", "IfPossible"]);
        if mode != "Disabled" && !truth(mount, "/readOnly") {
            errors.forbidden(&path, "may only be specified when readOnly is true");
        }
    }
}

fn check_devices(container: &Value, volumes: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, device) in items(container, "/volumeDevices").iter().enumerate() {
        let at = path.child("volumeDevices").index(index);
        let name = string(device, "name");
        match volumes.iter().find(|v| string(v, "name") == name) {
            _ if name.is_empty() => errors.required(&at.child("name"), ""),
            None => errors.not_found(&at.child("name"), name),
            Some(v) if !is_set(v, "persistentVolumeClaim") && !is_set(v, "ephemeral") => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim/Ephemeral for block mode";
                errors.invalid(&at.child("name"), name, detail);
            }
            Some(_) => {}
        }
        let target = string(device, "devicePath");
        if target.is_empty() {
            errors.required(&at.child("devicePath"), "");
        } else if seen.contains(&target) {
            errors.invalid(&at.child("devicePath"), target, "must be unique");
        } else if target.split('/').any(|p| p == "..") {
            errors.invalid(&at.child("devicePath"), target, "can not contain backsteps ('..')");
        }
        seen.push(target);
    }
}

/// `limits` and `requests` of a container, or of a whole pod.
pub(super) fn check_resources(resources: &Value, path: &Path, errors: &mut Errors) {
    for list in ["limits", "requests"] {
        let at = path.child(list);
        for (name, value) in entries(resources, &format!("/{list}")) {
            let key = at.key(name);
            errors.all(&key, name, format::qualified_name(name));
            let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-");
            if !name.contains('/') && !standard {
                errors.invalid(&key, name.as_str(), "must be a standard resource for containers");
            }
            let amount = check_quantity(value, &key, errors);
            if !standard && amount.is_some_and(|a| a % 1_000_000_000 != 0) {
                errors.invalid(&key, value.clone(), "must be an integer");
            }
            if list == "requests" {
                check_limit(name, value, resources, standard, &at, errors);
            }
        }
    }
}

fn check_limit(
    name: &str,
    request: &Value,
    resources: &Value,
    standard: bool,
    at: &Path,
    errors: &mut Errors,
) {
    let exact = !standard || name.starts_with("hugepages-");
    let Some(limit) = resources["limits"].get(name) else {
        if exact {
            errors.required(
                &Path::new(at.to_string().trim_end_matches(".requests")).child("limits"),
                "Limit must be set for non overcommitable resources",
            );
        }
        return;
    };
    let (Some(asked), Some(most)) = (format::quantity_of(request), format::quantity_of(limit)) else {
        return;
    };
    let shown = limit.as_str().map_or(limit.to_string(), str::to_owned);
    if exact && asked != most {
        errors.invalid(at, request.clone(), format!("must be equal to {name} limit of {shown}"));
    } else if asked > most {
        errors.invalid(at, request.clone(), format!("must be less than or equal to {name} limit of {shown}"));
    }
}

fn check_handlers(container: &Value, role: Role, pod: &PodFacts<'_>, path: &Path, errors: &mut Errors) {
    let sidecar = string(container, "restartPolicy") == "Always";
    if is_set(container, "restartPolicy") {
        let at = path.child("restartPolicy");
        if role == Role::Init {
            errors.one_of(&at, string(container, "restartPolicy"), &["Always"]);
        } else {
            errors.forbidden(&at, "may not be set for non-init containers");
        }
    }
    if role == Role::Init && !sidecar {
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if is_set(container, key) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(&path.child(key), detail);
            }
        }
        return;
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container["lifecycle"].get(hook).filter(|h| !h.is_null()) {
            let at = path.child("lifecycle").child(hook);
            check_handler(handler, &["exec", "httpGet", "tcpSocket", "sleep"], pod, &at, errors);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = field(container, probe) {
            check_probe(value, probe, pod, &path.child(probe), errors);
        }
    }
}

fn check_probe(probe: &Value, name: &str, pod: &PodFacts<'_>, path: &Path, errors: &mut Errors) {
    check_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], pod, path, errors);
    for key in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        non_negative(probe, key, path, errors);
    }
    if name != "readinessProbe" && integer(probe, "/successThreshold").is_some_and(|n| n != 1) {
        errors.invalid(&path.child("successThreshold"), probe["successThreshold"].clone(), "must be 1");
    }
    if let Some(seconds) = integer(probe, "/terminationGracePeriodSeconds") {
        let at = path.child("terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            errors.invalid(&at, seconds, "must not be set for readinessProbes");
        } else if seconds <= 0 {
            errors.invalid(&at, seconds, "must be greater than 0");
        }
    }
}

/// Exactly one of the handlers, and it is whole.
fn check_handler(value: &Value, kinds: &[&str], pod: &PodFacts<'_>, path: &Path, errors: &mut Errors) {
    let mut given = kinds.iter().filter(|k| field(value, k).is_some());
    let Some(kind) = given.next() else {
        errors.required(path, "must specify a handler type");
        return;
    };
    for more in given {
        errors.forbidden(&path.child(more), "may not specify more than 1 handler type");
    }
    let (handler, at) = (&value[*kind], path.child(kind));
    match *kind {
        "exec" if items(handler, "/command").is_empty() => errors.required(&at.child("command"), ""),
        "httpGet" => {
            if string(handler, "path").is_empty() {
                errors.required(&at.child("path"), "");
            }
            check_port(&handler["port"], &at.child("port"), errors);
            errors.one_of(&at.child("scheme"), string(handler, "scheme"), &["HTTP", "HTTPS"]);
        }
        "tcpSocket" => check_port(&handler["port"], &at.child("port"), errors),
        "grpc" => number_errors(integer(handler, "/port").unwrap_or(0), &at.child("port"), errors),
        "sleep" => {
            let seconds = integer(handler, "/seconds").unwrap_or(0);
            if !(0..=pod.grace_seconds).contains(&seconds) {
                let detail = format!(
                    "must be non-negative and less than terminationGracePeriodSeconds ({})",
                    pod.grace_seconds
                );
                errors.invalid(&at.child("seconds"), json!(seconds), detail);
            }
        }
        _ => {}
    }
}

/// A port by number or by name.
pub(super) fn check_port(port: &Value, path: &Path, errors: &mut Errors) {
    match port {
        Value::String(name) => errors.all(path, name, format::port_name(name)),
        other => number_errors(other.as_i64().unwrap_or(0), path, errors),
    }
}

/// No two containers want the same port of the host.
pub(super) fn check_host_ports(containers: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        for (number, port) in items(container, "/ports").iter().enumerate() {
            let Some(host) = integer(port, "/hostPort").filter(|h| *h != 0) else { continue };
            let key = format!("{}/{}/{host}", string(port, "protocol"), text(port, "/hostIP"));
            if seen.contains(&key) {
                let at = path.index(index).child("ports").index(number).child("hostPort");
                errors.duplicate(&at, key.as_str());
            }
            seen.push(key);
        }
    }
}
