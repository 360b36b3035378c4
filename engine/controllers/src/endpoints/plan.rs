//! Which addresses a Service has: values in, values out.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as CoreEndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod,
    Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// As upstream's default; a slice is rewritten whole, so it is bounded.
const ENDPOINTS_PER_SLICE_MAX: usize = 100;
/// The most addresses an Endpoints object carries; beyond it readers must use slices.
const ENDPOINTS_ADDRESSES_MAX: usize = 1000;

/// A change of a pod that no Service can tell is no reason to work.
pub fn matters(old: Option<&Pod>, new: Option<&Pod>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let seen = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            pod.labels().clone(),
            pod.meta().deletion_timestamp.is_some(),
            addresses(pod),
            is_ready(pod),
            is_finished(pod),
            spec.and_then(|s| s.node_name.clone()),
            spec.and_then(|s| s.hostname.clone()),
        )
    };
    seen(old) != seen(new)
}

/// Has an address and has not ended.
pub fn is_endpoint(pod: &Pod) -> bool {
    !addresses(pod).is_empty() && !is_finished(pod)
}

fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let many: Vec<String> =
        status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.clone()).collect();
    if many.is_empty() { status.and_then(|s| s.pod_ip.clone()).into_iter().collect() } else { many }
}

fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The port of `pod` a service port leads to: `None` when the pod declares no port of that name.
fn target_port(port: &k8s_openapi::api::core::v1::ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(if *number == 0 { port.port } else { *number }),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let spec = pod.spec.as_ref()?;
            let init = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let all = spec.containers.iter().chain(init);
            let ports = all.flat_map(|c| c.ports.iter().flatten());
            let mut named = ports.filter(|p| p.name.as_deref() == Some(name));
            named.find(|p| p.protocol.as_deref().unwrap_or("TCP") == protocol).map(|p| p.container_port)
        }
    }
}

/// The ports by which `service` reaches `pod`; pods that differ in them go to different slices.
fn ports_for(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false)
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: Some(pod.name_any()),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

/// A host name of its own, where the pod asks for one under this service.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let same = spec.subdomain.as_deref() == Some(service.name_any().as_str());
    spec.hostname.clone().filter(|_| same)
}

fn endpoint(service: &Service, pod: &Pod, zone: Option<String>) -> Endpoint {
    let leaving = pod.meta().deletion_timestamp.is_some();
    let serving = is_ready(pod);
    Endpoint {
        addresses: addresses(pod).into_iter().take(1).collect(),
        conditions: Some(EndpointConditions {
            ready: Some(publishes_unready(service) || (serving && !leaving)),
            serving: Some(serving),
            terminating: Some(leaving),
        }),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
        target_ref: Some(pod_reference(pod)),
        zone,
        ..Endpoint::default()
    }
}

/// The slices `service` should have, without names: what is there is reused by [`diff`].
pub fn slices(
    service: &Service,
    pods: &[Arc<Pod>],
    manager: &str,
    zone_of: impl Fn(&str) -> Option<String>,
) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for pod in pods {
        let ports = ports_for(service, pod);
        let group = serde_json::to_string(&ports).unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        let entry = groups.entry(group).or_insert_with(|| (ports, Vec::new()));
        entry.1.push(endpoint(service, pod, node.and_then(&zone_of)));
    }
    if groups.is_empty() {
        // An empty slice says "nothing there", which is not the same as "not looked at yet".
        groups.insert(String::new(), (Vec::new(), Vec::new()));
    }
    let mut slices = Vec::new();
    for (ports, mut endpoints) in groups.into_values() {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        let mut chunks: Vec<Vec<Endpoint>> =
            endpoints.chunks(ENDPOINTS_PER_SLICE_MAX).map(<[Endpoint]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        slices.extend(chunks.into_iter().map(|chunk| slice(service, manager, ports.clone(), chunk)));
    }
    slices
}

fn slice(
    service: &Service,
    manager: &str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), manager.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: service.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
    }
}

#[derive(Debug, PartialEq)]
pub enum SliceChange {
    Create(EndpointSlice),
    Replace(EndpointSlice),
    Delete(String),
}

/// The fewest writes from what is to what should be: slices with the same ports are reused, those that
/// are right already are left alone.
pub fn diff(now: &[Arc<EndpointSlice>], wanted: Vec<EndpointSlice>) -> Vec<SliceChange> {
    let mut left: Vec<&Arc<EndpointSlice>> =
        now.iter().filter(|s| s.meta().deletion_timestamp.is_none()).collect();
    let mut changes = Vec::new();
    let mut unmatched = Vec::new();
    for want in wanted {
        match left.iter().position(|have| is_same(have, &want)) {
            Some(at) => drop(left.swap_remove(at)),
            None => unmatched.push(want),
        }
    }
    for want in unmatched {
        let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
        let reusable = left.iter().position(|have| ports(have) == ports(&want));
        match reusable.or(if left.is_empty() { None } else { Some(0) }) {
            Some(at) => {
                let have = left.swap_remove(at);
                let mut next = want;
                next.metadata.generate_name = None;
                next.metadata.name = Some(have.name_any());
                next.metadata.resource_version = have.resource_version();
                changes.push(SliceChange::Replace(next));
            }
            None => changes.push(SliceChange::Create(want)),
        }
    }
    changes.extend(left.into_iter().map(|have| SliceChange::Delete(have.name_any())));
    changes
}

fn is_same(have: &EndpointSlice, want: &EndpointSlice) -> bool {
    have.endpoints.clone().unwrap_or_default() == want.endpoints.clone().unwrap_or_default()
        && have.ports.clone().unwrap_or_default() == want.ports.clone().unwrap_or_default()
        && have.labels() == want.labels()
}

/// The Endpoints object of `service`: subsets by port, ready and not ready apart.
pub fn endpoints(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let mut subsets: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().take(ENDPOINTS_ADDRESSES_MAX) {
        // Leaving pods stand in slices only, as serving and terminating.
        if pod.meta().deletion_timestamp.is_some() && !publishes_unready(service) {
            continue;
        }
        let ports: Vec<CoreEndpointPort> = ports_for(service, pod)
            .into_iter()
            .map(|p| CoreEndpointPort {
                name: p.name.filter(|n| !n.is_empty()),
                port: p.port.unwrap_or_default(),
                protocol: p.protocol,
                app_protocol: p.app_protocol,
            })
            .collect();
        let declared = service.spec.as_ref().and_then(|s| s.ports.as_ref()).is_some_and(|p| !p.is_empty());
        if ports.is_empty() && declared {
            continue;
        }
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let subset = subsets.entry(key).or_default();
        subset.ports = Some(ports).filter(|p| !p.is_empty());
        let address = EndpointAddress {
            ip: addresses(pod).into_iter().next().unwrap_or_default(),
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
            target_ref: Some(pod_reference(pod)),
        };
        let list = if is_ready(pod) || publishes_unready(service) {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = subsets.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
    }
    let mut labels = service.labels().clone();
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert("endpoints.kubernetes.io/managed-by".to_owned(), "endpoint-controller".to_owned());
    Endpoints {
        metadata: ObjectMeta {
            name: Some(service.name_any()),
            namespace: service.namespace(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|s| !s.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "u"},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"},
                     "ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
        }))
        .expect("a service")
    }

    fn pod(name: &str, ip: &str, ready: bool, leaving: bool, port: i32) -> Arc<Pod> {
        let deletion = leaving.then_some("2026-01-01T00:00:00Z");
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}, "deletionTimestamp": deletion},
                "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                           "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .expect("a pod"),
        )
    }

    #[test]
    fn readiness_and_leaving_are_told_apart() {
        let pods = [
            pod("a", "10.0.0.2", true, false, 8080),
            pod("b", "10.0.0.3", false, false, 8080),
            pod("c", "10.0.0.4", true, true, 8080),
        ];
        let [slice] = &slices(&service(), &pods, "m", |_| None)[..] else { panic!("one slice") };
        let states: Vec<_> = slice
            .endpoints
            .iter()
            .flatten()
            .map(|e| e.conditions.as_ref().map(|c| (c.ready, c.serving, c.terminating)).expect("conditions"))
            .collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(states, [(yes, yes, no), (no, no, no), (no, yes, yes)]);
        let legacy = endpoints(&service(), &pods).subsets.expect("subsets");
        assert_eq!(legacy[0].addresses.as_ref().map(Vec::len), Some(1));
        assert_eq!(legacy[0].not_ready_addresses.as_ref().map(Vec::len), Some(1));
        assert_eq!(legacy[0].ports.as_ref().map(|p| p[0].port), Some(8080));
    }

    #[test]
    fn pods_with_other_ports_have_their_own_slice_and_right_slices_stay() {
        let pods = [pod("a", "10.0.0.2", true, false, 8080), pod("b", "10.0.0.3", true, false, 9090)];
        let wanted = slices(&service(), &pods, "m", |_| None);
        assert_eq!(wanted.len(), 2);
        let mut kept = wanted[0].clone();
        kept.metadata.name = Some("web-1".to_owned());
        kept.metadata.generate_name = None;
        let changes = diff(&[Arc::new(kept.clone())], wanted.clone());
        assert_eq!(changes, [SliceChange::Create(wanted[1].clone())]);
        let changes = diff(&[Arc::new(kept)], slices(&service(), &[], "m", |_| None));
        assert!(
            matches!(&changes[..], [SliceChange::Replace(s)] if s.endpoints.as_ref().is_none_or(Vec::is_empty) && s.name_any() == "web-1")
        );
    }
}
