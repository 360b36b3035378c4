//! Requests and limits of a pod as cgroup values.

use gantry_cri::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pods::spec::{self, Kind};
use crate::quantity;

/// Period of CPU quotas in microseconds.
const CPU_PERIOD_US: i64 = 100_000;
/// The smallest quota the kernel takes.
const CPU_QUOTA_MIN_US: i64 = 1_000;
/// The smallest share value of the kernel.
const CPU_SHARES_MIN: i64 = 2;
const CPU_SHARES_MAX: i64 = 262_144;

/// Quality of service: how a pod fares when the node runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Qos {
    BestEffort,
    Burstable,
    Guaranteed,
}

impl Qos {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// The named resource in a requirement's map.
fn get<'a>(resources: Option<&'a ResourceRequirements>, limits: bool, name: &str) -> Option<&'a Quantity> {
    let resources = resources?;
    let map = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() };
    map?.get(name)
}

/// Request, or the limit where there is no request, as the API server defaults it.
fn request<'a>(resources: Option<&'a ResourceRequirements>, name: &str) -> Option<&'a Quantity> {
    get(resources, false, name).or_else(|| get(resources, true, name))
}

fn limit<'a>(resources: Option<&'a ResourceRequirements>, name: &str) -> Option<&'a Quantity> {
    get(resources, true, name)
}

/// The pod's class by its containers' CPU and memory.
pub(crate) fn qos(pod: &Pod) -> Qos {
    let containers = || spec::init_members(pod).chain(spec::main_members(pod));
    let zero = |q: Option<&Quantity>| q.is_none_or(|q| quantity::nanos(&q.0).unwrap_or(0) == 0);
    let none = |member: spec::Member<'_>| {
        let resources = member.container.resources.as_ref();
        ["cpu", "memory"].iter().all(|n| zero(request(resources, n)) && zero(limit(resources, n)))
    };
    let full = |member: spec::Member<'_>| {
        let resources = member.container.resources.as_ref();
        ["cpu", "memory"].iter().all(|name| {
            let (request, limit) = (request(resources, name), limit(resources, name));
            !zero(limit) && request.map(|q| quantity::nanos(&q.0)) == limit.map(|q| quantity::nanos(&q.0))
        })
    };
    if containers().all(none) {
        Qos::BestEffort
    } else if containers().all(full) {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// Thousandths of a core to cgroup shares.
pub(crate) fn cpu_shares(millis: i64) -> i64 {
    (millis.saturating_mul(1024) / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// Thousandths of a core to a quota per [`CPU_PERIOD_US`]; 0 for none.
pub(crate) fn cpu_quota(millis: i64) -> i64 {
    if millis <= 0 { 0 } else { (millis.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_MIN_US) }
}

/// `oom_score_adj` of a container: who is killed first when the host runs out of memory. The runtime clamps
/// negative values where the process may not set them.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    match qos(pod) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let memory = request(container.resources.as_ref(), "memory").map_or(0, quantity::units);
            let share = i128::from(memory) * 1000 / i128::from(memory_capacity.max(1));
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// CRI's resources of one container.
pub(crate) fn container_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let limit_millis = limit(resources, "cpu").map_or(0, quantity::millis);
    LinuxContainerResources {
        cpu_period: CPU_PERIOD_US,
        cpu_quota: cpu_quota(limit_millis),
        cpu_shares: cpu_shares(request(resources, "cpu").map_or(0, quantity::millis)),
        memory_limit_in_bytes: limit(resources, "memory").map_or(0, quantity::units),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        ..Default::default()
    }
}

/// Sums over a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodResources {
    pub(crate) cpu_request_millis: i64,
    pub(crate) memory_request_bytes: i64,
    /// `None` where some container has no limit.
    pub(crate) cpu_limit_millis: Option<i64>,
    pub(crate) memory_limit_bytes: Option<i64>,
}

/// What the pod needs: its containers and sidecars together, or its largest init container.
pub(crate) fn pod_resources(pod: &Pod) -> PodResources {
    let sum = |name: &str, of: fn(&Quantity) -> i64| -> i64 {
        let value = |c: &Container| request(c.resources.as_ref(), name).map_or(0, of);
        let mut sidecars = 0;
        let mut peak = 0;
        for member in spec::init_members(pod) {
            let need = value(&member.container);
            if member.kind == Kind::Sidecar {
                sidecars += need;
                peak = peak.max(sidecars);
            } else {
                peak = peak.max(sidecars + need);
            }
        }
        let mains: i64 = spec::main_members(pod).map(|m| value(&m.container)).sum();
        let overhead = spec::pod_spec(pod).overhead.as_ref().and_then(|o| o.get(name)).map_or(0, of);
        peak.max(mains + sidecars) + overhead
    };
    let cap = |name: &str, of: fn(&Quantity) -> i64| -> Option<i64> {
        let mut total = 0;
        let mut peak = 0;
        for member in spec::init_members(pod).chain(spec::main_members(pod)) {
            let value = limit(member.container.resources.as_ref(), name).map(of).filter(|v| *v > 0)?;
            if member.kind == Kind::Init { peak = peak.max(value) } else { total += value }
        }
        Some(total.max(peak))
    };
    PodResources {
        cpu_request_millis: sum("cpu", quantity::millis),
        memory_request_bytes: sum("memory", quantity::units),
        cpu_limit_millis: cap("cpu", quantity::millis),
        memory_limit_bytes: cap("memory", quantity::units),
    }
}

/// The value of a container's `resourceFieldRef` in billionths; unset limits fall back to the node's allocatable.
pub(crate) fn field(container: &Container, resource: &str, allocatable: (i64, i64)) -> Option<i128> {
    let (section, name) = resource.split_once('.')?;
    let resources = container.resources.as_ref();
    let set = match section {
        "limits" => limit(resources, name),
        "requests" => request(resources, name),
        _ => return None,
    };
    if let Some(quantity) = set {
        return quantity::nanos(&quantity.0);
    }
    Some(match (section, name) {
        ("limits", "cpu") => i128::from(allocatable.0) * 1_000_000,
        ("limits", "memory") => i128::from(allocatable.1) * 1_000_000_000,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: &[Value]) -> Pod {
        let containers: Vec<Value> =
            resources.iter().map(|r| json!({"name": "c", "image": "i", "resources": r})).collect();
        serde_json::from_value(json!({"spec": {"containers": containers}})).expect("a pod")
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let full =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let some = json!({"requests": {"cpu": "1"}});
        for (resources, want) in [
            (vec![json!({})], Qos::BestEffort),
            (vec![full.clone(), limits.clone()], Qos::Guaranteed),
            (vec![full, json!({})], Qos::Burstable),
            (vec![some], Qos::Burstable),
        ] {
            assert_eq!(qos(&pod(&resources)), want, "{resources:?}");
        }
    }

    #[test]
    fn cgroup_values() {
        assert_eq!((cpu_shares(0), cpu_shares(1), cpu_shares(1000)), (2, 2, 1024));
        assert_eq!((cpu_quota(0), cpu_quota(1), cpu_quota(500)), (0, 1000, 50_000));
        let two =
            pod(&[json!({"limits": {"cpu": "1", "memory": "1Gi"}}), json!({"requests": {"cpu": "250m"}})]);
        let sums = pod_resources(&two);
        assert_eq!((sums.cpu_request_millis, sums.memory_request_bytes), (1250, 1 << 30));
        assert_eq!(sums.cpu_limit_millis, None);
    }
}
