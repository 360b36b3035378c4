//! Pods: defaults, what the server decides at creation, graceful deletion, binding.

mod binding;
mod defaults;

use serde_json::{Value, json};

pub use binding::PodBinding;
pub(crate) use binding::action as binding_action;
pub(crate) use defaults::{default_network_volume, default_pod, default_template, qos_class};

use crate::kinds::value::{put, text, truth};

/// A new pod is pending; its quality of service follows from its resources for good.
pub(crate) fn prepare_create(pod: &mut Value) {
    let class = defaults::qos_class(pod.get("spec").unwrap_or(&Value::Null));
    put(pod, "status", json!({"phase": "Pending", "qosClass": class}));
}

/// Seconds until a deleted pod is removed: none where no node runs it or its containers have ended.
pub(crate) fn grace(pod: &Value, asked: Option<i64>) -> Option<i64> {
    let wanted = asked.unwrap_or_else(|| defaults::grace_period(pod)).max(0);
    // A node that never took the pod, or is done with it, has nothing to end.
    if text(pod, "/spec/nodeName").is_empty() || defaults::is_finished(pod) {
        return None;
    }
    (wanted > 0).then_some(wanted)
}

pub(crate) fn fields(pod: &Value) -> Vec<(&'static str, String)> {
    const FIELDS: [(&str, &str); 7] = [
        ("spec.nodeName", "/spec/nodeName"),
        ("spec.restartPolicy", "/spec/restartPolicy"),
        ("spec.schedulerName", "/spec/schedulerName"),
        ("spec.serviceAccountName", "/spec/serviceAccountName"),
        ("status.phase", "/status/phase"),
        ("status.podIP", "/status/podIP"),
        ("status.nominatedNodeName", "/status/nominatedNodeName"),
    ];
    let mut all: Vec<_> = FIELDS.iter().map(|(name, at)| (*name, text(pod, at).to_owned())).collect();
    all.push(("spec.hostNetwork", truth(pod, "/spec/hostNetwork").to_string()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_ones_users_see() {
        let mut pod = json!({"spec": {"hostNetwork": true, "containers": [{
            "name": "a", "image": "localhost:5000/web", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "readinessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "x"}}]}});
        default_pod(&mut pod);
        prepare_create(&mut pod);
        let once = pod.clone();
        default_pod(&mut pod);
        assert_eq!(pod, once, "defaulting twice changes nothing");
        let table = [
            ("/spec/restartPolicy", json!("Always")),
            ("/spec/dnsPolicy", json!("ClusterFirst")),
            ("/spec/terminationGracePeriodSeconds", json!(30)),
            ("/spec/enableServiceLinks", json!(true)),
            ("/spec/securityContext", json!({})),
            ("/spec/containers/0/imagePullPolicy", json!("Always")),
            ("/spec/containers/0/ports/0", json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80})),
            ("/spec/containers/0/resources/requests", json!({"cpu": "1", "memory": "1Gi"})),
            ("/spec/containers/0/readinessProbe/httpGet/path", json!("/")),
            ("/spec/containers/0/readinessProbe/failureThreshold", json!(3)),
            ("/spec/volumes/0/emptyDir", json!({})),
            ("/spec/volumes/1/configMap/defaultMode", json!(420)),
            ("/status/qosClass", json!("Guaranteed")),
        ];
        for (pointer, expected) in table {
            assert_eq!(pod.pointer(pointer), Some(&expected), "{pointer}");
        }
    }

    #[test]
    fn a_pod_no_node_runs_goes_at_once() {
        assert_eq!(grace(&json!({"spec": {}}), None), None);
        let bound = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        assert_eq!(grace(&bound, None), Some(5));
        assert_eq!(grace(&bound, Some(0)), None);
    }
}
