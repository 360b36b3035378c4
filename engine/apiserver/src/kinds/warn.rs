//! Sentences for `Warning` headers: what is accepted and will surprise (upstream
//! `pkg/api/*/warnings.go`).

use serde_json::Value;

use crate::kinds::value::{field, items, string, text};

pub(crate) fn pod(object: &Value) -> Vec<String> {
    let mut found = name(object);
    found.extend(pod_spec(&object["spec"], "spec"));
    found
}

/// A kind with `spec.template`.
pub(crate) fn workload(object: &Value) -> Vec<String> {
    let mut found = name(object);
    found.extend(pod_spec(&object["spec"]["template"]["spec"], "spec.template.spec"));
    found
}

pub(crate) fn cron_job(object: &Value) -> Vec<String> {
    pod_spec(
        &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        "spec.jobTemplate.spec.template.spec",
    )
}

pub(crate) fn endpoints(_object: &Value) -> Vec<String> {
    vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
}

/// Pods take their host names from such names.
fn name(object: &Value) -> Vec<String> {
    let problems = crate::kinds::format::dns1123_label(text(object, "/metadata/name"));
    if problems.is_empty() {
        return Vec::new();
    }
    let listed = problems.join(" ");
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
         label is recommended: [{listed}]"
    )]
}

fn pod_spec(spec: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in items(spec, &format!("/{list}")).iter().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            let env = items(container, "/env");
            for (number, variable) in env.iter().enumerate() {
                let name = string(variable, "name");
                if env[..number].iter().any(|v| string(v, "name") == name) {
                    found.push(format!(
                        "{at}.env[{number}]: hides previous definition of \"{name}\", which may be dropped when using \
                         apply"
                    ));
                }
            }
            let ports = items(container, "/ports");
            for (number, port) in ports.iter().enumerate() {
                let same = |other: &Value| {
                    ["containerPort", "protocol", "hostPort", "hostIP"]
                        .iter()
                        .all(|key| field(other, key) == field(port, key))
                };
                if let Some(first) = ports[..number].iter().position(same) {
                    found.push(format!(
                        "{at}.ports[{number}]: duplicate port definition with {at}.ports[{first}]"
                    ));
                }
            }
        }
    }
    found
}
