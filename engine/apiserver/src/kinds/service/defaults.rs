//! Defaults of services that need no allocation (upstream `SetDefaults_Service`).

use serde_json::Value;

use crate::kinds::value::{child, default_string, default_to, items_mut, remove, string};

pub(crate) fn default_service(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    default_string(spec, "sessionAffinity", "None");
    if string(spec, "sessionAffinity") == "None" {
        remove(spec, "sessionAffinityConfig");
    }
    if string(spec, "sessionAffinity") == "ClientIP"
        && let Some(client) =
            child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP"))
    {
        default_to(client, "timeoutSeconds", 10_800);
    }
    default_string(spec, "type", "ClusterIP");
    for port in items_mut(spec, "/ports") {
        default_string(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            let missing = port.get("targetPort").is_none_or(|target| {
                target.is_null() || target.as_i64() == Some(0) || target.as_str() == Some("")
            });
            if missing {
                crate::kinds::value::put(port, "targetPort", number);
            }
        }
    }
    match string(spec, "type") {
        "NodePort" => default_string(spec, "externalTrafficPolicy", "Cluster"),
        "LoadBalancer" => {
            default_string(spec, "externalTrafficPolicy", "Cluster");
            default_to(spec, "allocateLoadBalancerNodePorts", true);
        }
        _ => {}
    }
    if string(spec, "type") != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    child(object, "status").and_then(|status| child(status, "loadBalancer"));
}
