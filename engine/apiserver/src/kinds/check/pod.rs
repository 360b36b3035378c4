//! Pods and pod templates.

use serde_json::Value;

use super::container::{PodFacts, Role, check_container, check_host_ports, check_resources};
use super::{placement, range, security, volume};
use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{field, integer, is_set, items, items_mut, put, remove, same, string, text, truth};

const NAMESERVERS_MAX: usize = 3;

pub(crate) fn pod(pod: &Value, errors: &mut Errors) {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let path = Path::new("spec");
    check_pod_spec(spec, &path, errors);
    let gated = !items(spec, "/schedulingGates").is_empty();
    if gated && is_set(spec, "nodeName") {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&path.child("nodeName"), detail);
    }
}

/// The spec of a pod or of a template.
pub(super) fn check_pod_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    volume::check_volumes(items(spec, "/volumes"), &path.child("volumes"), errors);
    check_containers(spec, path, errors);
    errors.one_of(
        &path.child("restartPolicy"),
        string(spec, "restartPolicy"),
        &["Always", "Never", "OnFailure"],
    );
    check_dns(spec, path, errors);
    super::non_negative(spec, "terminationGracePeriodSeconds", path, errors);
    range(spec, "activeDeadlineSeconds", 1, i64::from(i32::MAX), path, errors);
    check_names(spec, path, errors);
    placement::check(spec, path, errors);
    security::check_pod(spec, path, errors);
    if let Some(resources) = field(spec, "resources") {
        check_resources(resources, &path.child("resources"), errors);
    }
    for (index, gate) in items(spec, "/readinessGates").iter().enumerate() {
        let kind = string(gate, "conditionType");
        let at = path.child("readinessGates").index(index).child("conditionType");
        errors.all(&at, kind, format::qualified_name(kind));
    }
    for (index, gate) in items(spec, "/schedulingGates").iter().enumerate() {
        let name = string(gate, "name");
        let at = path.child("schedulingGates").index(index);
        errors.all(&at, name, format::qualified_name(name));
        if items(spec, "/schedulingGates")[..index].contains(gate) {
            errors.duplicate(&at.child("name"), name);
        }
    }
    for (index, alias) in items(spec, "/hostAliases").iter().enumerate() {
        let at = path.child("hostAliases").index(index);
        errors.all(&at.child("ip"), string(alias, "ip"), format::ip(string(alias, "ip")));
        for (number, name) in items(alias, "/hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            errors.all(&at.child("hostnames").index(number), name, format::dns1123_subdomain(name));
        }
    }
    if let Some(os) = field(spec, "os") {
        errors.one_of(&path.child("os").child("name"), string(os, "name"), &["linux", "windows"]);
    }
}

fn check_containers(spec: &Value, path: &Path, errors: &mut Errors) {
    if items(spec, "/containers").is_empty() {
        errors.required(&path.child("containers"), "");
    }
    let facts = PodFacts {
        volumes: items(spec, "/volumes"),
        grace_seconds: integer(spec, "/terminationGracePeriodSeconds").unwrap_or(30),
        host_network: truth(spec, "/hostNetwork"),
    };
    let lists = [
        ("initContainers", Role::Init),
        ("containers", Role::Main),
        ("ephemeralContainers", Role::Ephemeral),
    ];
    let mut names: Vec<&str> = Vec::new();
    for (list, role) in lists {
        for (index, container) in items(spec, &format!("/{list}")).iter().enumerate() {
            let at = path.child(list).index(index);
            let name = string(container, "name");
            if name.is_empty() {
                errors.required(&at.child("name"), "");
            } else if names.contains(&name) {
                errors.duplicate(&at.child("name"), name);
            } else {
                errors.all(&at.child("name"), name, format::dns1123_label(name));
            }
            names.push(name);
            check_container(container, role, &facts, &at, errors);
        }
    }
    for list in ["initContainers", "containers"] {
        check_host_ports(items(spec, &format!("/{list}")), &path.child(list), errors);
    }
}

fn check_dns(spec: &Value, path: &Path, errors: &mut Errors) {
    let policy = string(spec, "dnsPolicy");
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    errors.one_of(&path.child("dnsPolicy"), policy, &policies);
    let at = path.child("dnsConfig");
    let servers = items(spec, "/dnsConfig/nameservers");
    if policy == "None" {
        if field(spec, "dnsConfig").is_none() {
            errors.required(&at, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&at.child("nameservers"), detail);
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.invalid(&at.child("nameservers"), Value::from(servers), detail);
    }
    for (index, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        errors.all(&at.child("nameservers").index(index), server, format::ip(server));
    }
}

fn check_names(spec: &Value, path: &Path, errors: &mut Errors) {
    for key in ["hostname", "subdomain"] {
        if is_set(spec, key) {
            errors.all(&path.child(key), string(spec, key), format::dns1123_label(string(spec, key)));
        }
    }
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        if is_set(spec, key) {
            errors.all(&path.child(key), string(spec, key), format::dns1123_subdomain(string(spec, key)));
        }
    }
}

/// Of a pod's spec only images, deadlines, tolerations (more of them) and the grace of a kill may change.
/// Ephemeral containers have a subresource, and an admission plugin that keeps to it.
pub(crate) fn pod_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (new_spec, old_spec) = (&new["spec"], &old["spec"]);
    check_deadline(new_spec, old_spec, &path, errors);
    check_more_tolerations(new_spec, old_spec, &path, errors);
    check_gates(new_spec, old_spec, &path, errors);
    let grace = |s: &Value| integer(s, "/terminationGracePeriodSeconds");
    let grace_fits = grace(new_spec) == grace(old_spec)
        || (grace(old_spec).is_some_and(|s| s < 0) && grace(new_spec) == Some(1));
    let gated = !items(old_spec, "/schedulingGates").is_empty();
    if !same(Some(&fixed(new_spec, gated)), Some(&fixed(old_spec, gated))) || !grace_fits {
        errors.forbidden(
            &path,
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)",
        );
    }
}

/// The spec without what may change; a pod that waits at a gate may also narrow where it runs.
fn fixed(spec: &Value, gated: bool) -> Value {
    let mut spec = spec.clone();
    for list in ["/containers", "/initContainers"] {
        for container in items_mut(&mut spec, list) {
            remove(container, "image");
        }
    }
    let free = [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "ephemeralContainers",
    ];
    for key in free {
        remove(&mut spec, key);
    }
    if gated {
        remove(&mut spec, "nodeSelector");
        if let Some(affinity) = spec.get_mut("affinity") {
            put(affinity, "nodeAffinity", Value::Null);
        }
    }
    spec
}

fn check_deadline(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let at = path.child("activeDeadlineSeconds");
    match (integer(new, "/activeDeadlineSeconds"), integer(old, "/activeDeadlineSeconds")) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(&at, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.invalid(&at, Value::Null, detail);
        }
        _ => {}
    }
}

fn check_more_tolerations(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let now: Vec<Value> = items(new, "/tolerations").iter().map(timeless).collect();
    let kept = |t: &Value| now.iter().any(|n| same(Some(n), Some(&timeless(t))));
    if !items(old, "/tolerations").iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&path.child("tolerations"), detail);
    }
}

fn check_gates(new: &Value, old: &Value, path: &Path, errors: &mut Errors) {
    let known = items(old, "/schedulingGates");
    for gate in items(new, "/schedulingGates").iter().filter(|g| !known.contains(g)) {
        let detail =
            format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "/name"));
        errors.forbidden(&path.child("schedulingGates"), detail);
    }
}
