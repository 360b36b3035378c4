//! The node's own check of a pod before it starts anything for it: pure.

use k8s_openapi::api::core::v1::Pod;

use super::{security, spec};
use crate::errors::PodProblem;
use crate::resources;

/// The node as pods see it.
pub(crate) struct NodeView<'a> {
    /// Pods that hold resources now, this one not among them.
    pub(crate) others: &'a [std::sync::Arc<Pod>],
    pub(crate) cpu_millis: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) pods_max: u32,
    pub(crate) labels: &'a std::collections::BTreeMap<String, String>,
}

/// Host ports of the pod as (address, port, protocol).
fn host_ports(pod: &Pod) -> Vec<(String, i32, String)> {
    let ports = spec::members(pod).flat_map(|m| m.container.ports.clone().unwrap_or_default());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|port| *port > 0)?;
            Some((p.host_ip.unwrap_or_default(), port, p.protocol.unwrap_or_else(|| "TCP".into())))
        })
        .collect()
}

fn conflict(a: &(String, i32, String), b: &(String, i32, String)) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(&a.0) || any(&b.0))
}

/// Refuses a pod that cannot run here, with the reasons kubectl users know.
pub(crate) fn admit(pod: &Pod, node: &NodeView<'_>) -> Result<(), PodProblem> {
    if let Some(name) = security::unsafe_sysctl(pod) {
        let text = format!("forbidden sysctl: \"{name}\" not allowlisted");
        return Err(PodProblem::new("SysctlForbidden", text));
    }
    let wanted = spec::pod_spec(pod).node_selector.iter().flatten();
    if wanted.into_iter().any(|(key, value)| node.labels.get(key) != Some(value)) {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(PodProblem::new("NodeAffinity", text));
    }
    let ports = host_ports(pod);
    let taken = node.others.iter().flat_map(|other| host_ports(other));
    if taken.into_iter().any(|t| ports.iter().any(|p| conflict(p, &t))) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(PodProblem::new("NodePorts", text));
    }
    let need = resources::pod_resources(pod);
    let used = node.others.iter().map(|other| resources::pod_resources(other));
    let (cpu, memory) =
        used.fold((0, 0), |sum, r| (sum.0 + r.cpu_request_millis, sum.1 + r.memory_request_bytes));
    let out_of = |what: &'static str, reason: &'static str, need: i64, used: i64, capacity: i64| {
        let text = format!(
            "Node didn't have enough resource: {what}, requested: {need}, used: {used}, capacity: {capacity}"
        );
        Err(PodProblem::new(reason, text))
    };
    let pods = i64::try_from(node.others.len()).unwrap_or(i64::MAX);
    if pods + 1 > i64::from(node.pods_max) {
        return out_of("pods", "OutOfpods", 1, pods, i64::from(node.pods_max));
    }
    if need.cpu_request_millis > 0 && cpu + need.cpu_request_millis > node.cpu_millis {
        return out_of("cpu", "OutOfcpu", need.cpu_request_millis, cpu, node.cpu_millis);
    }
    if need.memory_request_bytes > 0 && memory + need.memory_request_bytes > node.memory_bytes {
        return out_of("memory", "OutOfmemory", need.memory_request_bytes, memory, node.memory_bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let pod = |spec: Value| -> Pod { serde_json::from_value(json!({"spec": spec})).expect("a pod") };
        let with = |cpu: &str, port: i32| {
            pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}},
                "ports": [{"containerPort": 1, "hostPort": port}]}]}))
        };
        let others = [Arc::new(with("1500m", 80))];
        let labels = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
        let node =
            NodeView { others: &others, cpu_millis: 2000, memory_bytes: 1, pods_max: 10, labels: &labels };
        let selector = |os: &str| pod(json!({"nodeSelector": {"kubernetes.io/os": os}, "containers": []}));
        let sysctl = |name: &str| {
            pod(json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}))
        };
        for (pod, want) in [
            (with("500m", 81), None),
            (with("501m", 81), Some("OutOfcpu")),
            (with("0", 80), Some("NodePorts")),
            (selector("linux"), None),
            (selector("plan9"), Some("NodeAffinity")),
            (sysctl("net.ipv4.tcp_syncookies"), None),
            (sysctl("kernel.msgmax"), Some("SysctlForbidden")),
        ] {
            assert_eq!(admit(&pod, &node).err().map(|p| p.reason), want);
        }
    }
}
