//! A container's environment from every source.

use std::collections::BTreeMap;

use gantry_cri::KeyValue;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use super::spec;
use crate::errors::PodProblem;
use crate::quantity;
use crate::resources;
use crate::volumes::sources::{Lookup, Objects};

const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// What the environment depends on beside the pod.
pub(crate) struct EnvContext<'a> {
    pub(crate) objects: &'a Objects,
    /// Services that the pod sees: its namespace's and `default/kubernetes`.
    pub(crate) services: &'a [Service],
    pub(crate) host_ips: &'a [String],
    pub(crate) pod_ips: &'a [String],
    /// Allocatable thousandths of cores and bytes of memory of the node.
    pub(crate) allocatable: (i64, i64),
}

/// The environment in the order: service variables, `envFrom`, `env`; later ones win.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    context: &EnvContext<'_>,
) -> Result<Vec<KeyValue>, PodProblem> {
    let links = spec::pod_spec(pod).enable_service_links.unwrap_or(true);
    let services = service_variables(context.services, spec::namespace(pod), links);
    let mut explicit: Vec<(String, String)> = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let lookup = if let Some(map) = &from.config_map_ref {
            context.objects.config_map(&map.name, map.optional.unwrap_or(false))
        } else if let Some(secret) = &from.secret_ref {
            context.objects.secret(&secret.name, secret.optional.unwrap_or(false))
        } else {
            continue;
        };
        for (key, value) in data(lookup)?.iter().flat_map(|data| data.iter()) {
            // A key that cannot be a variable's name is left out, as documented for envFrom.
            if !key.contains('=')
                && let Ok(value) = std::str::from_utf8(value)
            {
                set(&mut explicit, format!("{prefix}{key}"), value.to_owned());
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => match from_source(pod, container, source, context)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => {
                let known = |name: &str| {
                    let own = explicit.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                    own.or_else(|| services.get(name).cloned())
                };
                expand(value.as_deref().unwrap_or_default(), &known)
            }
        };
        set(&mut explicit, var.name.clone(), value);
    }
    let shadowed = |name: &String| explicit.iter().any(|(n, _)| n == name);
    let mut result: Vec<KeyValue> = services
        .iter()
        .filter(|(name, _)| !shadowed(name))
        .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
        .collect();
    result.extend(explicit.into_iter().map(|(key, value)| KeyValue { key, value }));
    Ok(result)
}

fn set(list: &mut Vec<(String, String)>, name: String, value: String) {
    match list.iter_mut().find(|(n, _)| *n == name) {
        Some(entry) => entry.1 = value,
        None => list.push((name, value)),
    }
}

type Data = BTreeMap<String, Vec<u8>>;

fn data(lookup: Lookup) -> Result<Option<std::sync::Arc<Data>>, PodProblem> {
    match lookup {
        Lookup::Found(data) => Ok(Some(data)),
        Lookup::Absent => Ok(None),
        Lookup::Missing(message) => Err(PodProblem::new(CONFIG_ERROR, message)),
    }
}

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    context: &EnvContext<'_>,
) -> Result<Option<String>, PodProblem> {
    let problem = |message: String| PodProblem::new(CONFIG_ERROR, message);
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, context)
            .map(Some)
            .ok_or_else(|| problem(format!("unsupported fieldPath: {}", field.field_path)));
    }
    if let Some(field) = &source.resource_field_ref {
        let named = field.container_name.as_deref().filter(|n| !n.is_empty());
        let member = named.map_or(
            Some(spec::Member {
                kind: spec::Kind::Main,
                container: std::borrow::Cow::Borrowed(container),
                restart: spec::Restart::Always,
            }),
            |name| spec::member(pod, name),
        );
        let value = member.and_then(|m| resources::field(&m.container, &field.resource, context.allocatable));
        let value =
            value.ok_or_else(|| problem(format!("unsupported container resource : {}", field.resource)))?;
        let one = k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".into());
        return Ok(Some(quantity::divided(value, field.divisor.as_ref().unwrap_or(&one)).to_string()));
    }
    let (kind, name, key, optional, lookup) = if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional.unwrap_or(false);
        ("configmap", &r.name, &r.key, optional, context.objects.config_map(&r.name, optional))
    } else if let Some(r) = &source.secret_key_ref {
        let optional = r.optional.unwrap_or(false);
        ("secret", &r.name, &r.key, optional, context.objects.secret(&r.name, optional))
    } else {
        return Ok(None);
    };
    let Some(data) = data(lookup)? else { return Ok(None) };
    match data.get(key) {
        Some(value) => String::from_utf8(value.clone())
            .map(Some)
            .map_err(|_| problem(format!("key {key} in {kind} {}/{name} is not text", spec::namespace(pod)))),
        None if optional => Ok(None),
        None => {
            let what = if kind == "secret" { "Secret" } else { "ConfigMap" };
            Err(problem(format!("couldn't find key {key} in {what} {}/{name}", spec::namespace(pod))))
        }
    }
}

/// The value of a `fieldRef` of an environment variable.
fn field_value(pod: &Pod, path: &str, context: &EnvContext<'_>) -> Option<String> {
    Some(match path {
        "status.hostIP" => context.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => context.host_ips.join(","),
        "status.podIP" => context.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => context.pod_ips.join(","),
        other => return pod_field(pod, other),
    })
}

/// Fields of a pod that both variables and downward files can show.
pub(crate) fn pod_field(pod: &Pod, path: &str) -> Option<String> {
    if let Some((head, key)) = spec::split_subscript(path) {
        let map = match head {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return None,
        };
        return Some(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let spec = spec::pod_spec(pod);
    Some(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        _ => return None,
    })
}

/// `key="value"` lines, quoted as Go quotes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    quoted.collect::<Vec<_>>().join("\n")
}

/// Replaces `$(NAME)` by what `known` says; `$$` is a dollar sign, and unknown names stay as they are.
pub(crate) fn expand(text: &str, known: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match known(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// `NAME_SERVICE_HOST` and the link variables of services with a cluster address.
fn service_variables(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let (name, home) =
            (service.metadata.name.as_deref().unwrap_or_default(), service.metadata.namespace.as_deref());
        let kubernetes = name == "kubernetes" && home == Some("default");
        if !(kubernetes || links && home == Some(namespace)) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let upper = name.replace('-', "_").to_ascii_uppercase();
        out.insert(format!("{upper}_SERVICE_HOST"), ip.to_owned());
        out.insert(format!("{upper}_SERVICE_PORT"), first.port.to_string());
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in ports.iter().enumerate() {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.replace('-', "_").to_ascii_uppercase();
                out.insert(format!("{upper}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_ascii_lowercase(), port.port);
            if index == 0 {
                out.insert(format!("{upper}_PORT"), url.clone());
            }
            let prefix = format!("{upper}_PORT_{}_{protocol}", port.port);
            out.insert(format!("{prefix}_PROTO"), protocol.to_ascii_lowercase());
            out.insert(format!("{prefix}_PORT"), port.port.to_string());
            out.insert(format!("{prefix}_ADDR"), ip.to_owned());
            out.insert(prefix, url);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_expand() {
        let known = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, want) in
            [("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("100$", "100$"), ("$(A", "$(A"), ("a$b", "a$b")]
        {
            assert_eq!(expand(text, &known), want, "{text}");
        }
    }

    #[test]
    fn later_variables_win_and_see_earlier_ones() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}, "env": [
                {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(WEB_SERVICE_HOST)"},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "WEB_SERVICE_PORT", "value": "mine"}]}]}}))
        .expect("a pod");
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "web", "namespace": "n"}, "spec": {"clusterIP": "10.1.0.1", "ports": [{"port": 80, "name": "http"}]}},
            {"metadata": {"name": "other", "namespace": "m"}, "spec": {"clusterIP": "10.1.0.2", "ports": [{"port": 80}]}},
            {"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.1.0.3", "ports": [{"port": 443}]}},
            {"metadata": {"name": "none", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}]))
        .expect("services");
        let context = EnvContext {
            objects: &Objects::default(),
            services: &services,
            host_ips: &["10.9.9.9".into()],
            pod_ips: &["10.2.0.5".into()],
            allocatable: (2000, 1 << 30),
        };
        let env = environment(&pod, &spec::pod_spec(&pod).containers[0], &context).expect("valid");
        let get = |name: &str| env.iter().find(|v| v.key == name).map(|v| v.value.as_str());
        assert_eq!(get("B"), Some("110.1.0.1"));
        assert_eq!(get("L"), Some("x"));
        assert_eq!(get("IP"), Some("10.2.0.5"));
        assert_eq!((get("M"), get("CPU")), (Some("64"), Some("2")));
        assert_eq!(get("WEB_SERVICE_PORT"), Some("mine"));
        assert_eq!(get("WEB_PORT_80_TCP"), Some("tcp://10.1.0.1:80"));
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.1.0.3"));
        assert_eq!((get("OTHER_SERVICE_HOST"), get("NONE_SERVICE_HOST")), (None, None));
    }

    #[test]
    fn missing_keys_are_named() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}]}}))
        .expect("a pod");
        let context = EnvContext {
            objects: &Objects::default(),
            services: &[],
            host_ips: &[],
            pod_ips: &[],
            allocatable: (0, 0),
        };
        let error = environment(&pod, &spec::pod_spec(&pod).containers[0], &context).expect_err("missing");
        assert_eq!(error.reason, "CreateContainerConfigError");
        assert_eq!(error.message, "configmap \"cm\" not found");
    }
}
