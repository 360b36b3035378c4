//! What one object counts towards quotas.

use serde_json::Value;

use crate::meta;
use crate::pod_resources::{
    Amounts, Side, add, amounts, containers, of_container, of_pod_with_overhead, raise,
};
use crate::quantity::{Format, Quantity};

/// Compute resources that every container of a tracked pod must name.
const NAMED_BY_CONTAINERS: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// What an object uses, and what scopes look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectUsage {
    /// By the names quotas limit: `pods`, `requests.cpu`, `count/deployments.apps`, …
    pub amounts: Amounts,
    pod: Option<PodTraits>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PodTraits {
    terminating: bool,
    best_effort: bool,
    priority_class: String,
    cross_namespace_affinity: bool,
}

impl ObjectUsage {
    /// Takes the larger of each amount: what the object uses before or after a write.
    pub fn raise(&mut self, other: &Self) {
        raise(&mut self.amounts, &other.amounts);
        if self.pod.is_none() {
            self.pod.clone_from(&other.pod);
        }
    }

    /// Does the object lie in a scope? Only pods lie in any.
    pub(super) fn is_in(&self, scope: &str, operator: &str, values: &[String]) -> bool {
        let Some(pod) = &self.pod else { return false };
        match scope {
            "Terminating" => pod.terminating,
            "NotTerminating" => !pod.terminating,
            "BestEffort" => pod.best_effort,
            "NotBestEffort" => !pod.best_effort,
            "CrossNamespacePodAffinity" => pod.cross_namespace_affinity,
            "PriorityClass" => {
                let named = !pod.priority_class.is_empty();
                let listed = values.contains(&pod.priority_class);
                match operator {
                    "In" => named && listed,
                    "NotIn" => !listed,
                    "DoesNotExist" => !named,
                    "Exists" => named,
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

/// The name under which the number of objects of a resource is limited: `count/deployments.apps`.
pub fn counted_as(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

fn one() -> Quantity {
    Quantity::from_units(1, Format::DecimalSi)
}

/// What an object of this resource counts as.
pub fn usage(group: &str, resource: &str, object: &Value) -> ObjectUsage {
    let mut used = ObjectUsage::default();
    used.amounts.insert(counted_as(group, resource), one());
    match (group, resource) {
        ("", "pods") => pod(object, &mut used),
        ("", "services") => service(object, &mut used.amounts),
        ("", "persistentvolumeclaims") => claim(object, &mut used.amounts),
        ("", "configmaps" | "secrets" | "resourcequotas" | "replicationcontrollers") => {
            used.amounts.insert(resource.to_owned(), one());
        }
        _ => {}
    }
    used
}

fn pod(object: &Value, used: &mut ObjectUsage) {
    let spec = &object["spec"];
    used.pod = Some(PodTraits {
        terminating: spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0),
        best_effort: is_best_effort(spec),
        priority_class: spec["priorityClassName"].as_str().unwrap_or_default().to_owned(),
        cross_namespace_affinity: crosses_namespaces(&spec["affinity"]),
    });
    // An ended pod holds nothing; its object still counts as an object.
    if matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return;
    }
    used.amounts.insert("pods".to_owned(), one());
    let requests = of_pod_with_overhead(spec, Side::Requests);
    let limits = of_pod_with_overhead(spec, Side::Limits);
    add(&mut used.amounts, &compute(&requests, &limits));
}

/// The names under which quotas limit compute resources.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                used.insert(name.clone(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            name if name.starts_with("hugepages-") => {
                used.insert(name.to_owned(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            // Extended resources (`example.com/gpu`) are limited by request alone.
            name if name.contains('/') => {
                used.insert(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

fn is_best_effort(spec: &Value) -> bool {
    let set = |holder: &Value, side| {
        let found = of_container(holder, side);
        ["cpu", "memory"].iter().any(|name| found.get(*name).is_some_and(|amount| !amount.is_zero()))
    };
    let any = |holder: &Value| set(holder, Side::Requests) || set(holder, Side::Limits);
    !any(spec) && !containers(spec).any(any)
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|list| !list.is_empty())
            || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let list = |field: &str| affinity[*kind][field].as_array().into_iter().flatten();
        list("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || list("preferredDuringSchedulingIgnoredDuringExecution")
                .any(|term| crosses(&term["podAffinityTerm"]))
    })
}

fn service(object: &Value, used: &mut Amounts) {
    let spec = &object["spec"];
    let ports = || spec["ports"].as_array().into_iter().flatten();
    let number =
        |count: usize| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi);
    let (balancers, node_ports) = match spec["type"].as_str() {
        Some("NodePort") => (0, ports().count()),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => {
            (1, ports().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count())
        }
        Some("LoadBalancer") => (1, ports().count()),
        _ => (0, 0),
    };
    used.insert("services".to_owned(), one());
    used.insert("services.loadbalancers".to_owned(), number(balancers));
    used.insert("services.nodeports".to_owned(), number(node_ports));
}

fn claim(object: &Value, used: &mut Amounts) {
    let spec = &object["spec"];
    let asked = amounts(&spec["resources"]["requests"]).remove("storage");
    // What is being given was asked for once: a smaller wish frees nothing before the volume is smaller.
    let given = amounts(&object["status"]["allocatedResources"]).remove("storage");
    let storage = asked.into_iter().chain(given).max();
    let beta = meta::annotation(object, "volume.beta.kubernetes.io/storage-class");
    let class = beta.or_else(|| spec["storageClassName"].as_str()).unwrap_or_default();
    used.insert("persistentvolumeclaims".to_owned(), one());
    if !class.is_empty() {
        used.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one());
    }
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            used.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
}

/// What containers of a pod must name and do not, where these names are limited: the sentence upstream
/// says after `failed quota: NAME: `.
pub fn missing_for_containers<'a>(
    limited: impl IntoIterator<Item = &'a str>,
    pod: &Value,
) -> Result<(), String> {
    let spec = &pod["spec"];
    let whole = compute(&of_container(spec, Side::Requests), &of_container(spec, Side::Limits));
    let mut parts = Vec::new();
    let mut limited: Vec<&str> = limited.into_iter().filter(|n| NAMED_BY_CONTAINERS.contains(n)).collect();
    limited.sort_unstable();
    // What the pod names as a whole, its containers need not.
    for name in limited.into_iter().filter(|name| !whole.contains_key(*name)) {
        let mut without: Vec<&str> = containers(spec)
            .filter(|container| {
                let (requests, limits) =
                    (of_container(container, Side::Requests), of_container(container, Side::Limits));
                !compute(&requests, &limits).contains_key(name)
            })
            .map(|container| container["name"].as_str().unwrap_or_default())
            .collect();
        without.sort_unstable();
        without.dedup();
        if !without.is_empty() {
            parts.push(format!("{name} for: {}", without.join(",")));
        }
    }
    if parts.is_empty() { Ok(()) } else { Err(format!("must specify {}", parts.join("; "))) }
}
