//! Amounts of what pods ask for and nodes have.

use std::collections::BTreeMap;

use gantry_kube_logic::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// What a pod that asks for nothing is counted as when nodes are compared, in milli-CPU and bytes; so
/// that such pods spread too.
const SCORED_CPU_DEFAULT: i64 = 100;
const SCORED_MEMORY_DEFAULT: i64 = 200 * 1024 * 1024;

/// Amounts by resource name: `cpu` in thousandths, everything else in whole units (bytes, devices).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    pub fn of(list: Option<&BTreeMap<String, Text>>) -> Self {
        let amounts = list.into_iter().flatten().filter_map(|(name, text)| {
            let quantity = Quantity::parse(&text.0).ok()?;
            let amount = if name == "cpu" { quantity.milli_value() } else { quantity.value() };
            Some((name.clone(), amount))
        });
        Self(amounts.collect())
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            *self.0.entry(name.to_owned()).or_insert(0) += amount;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            *self.0.entry(name.to_owned()).or_insert(0) -= amount;
        }
    }

    /// Takes the larger of each amount.
    fn raise(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            let mine = self.0.entry(name.to_owned()).or_insert(0);
            *mine = (*mine).max(amount);
        }
    }

    /// The same with defaults for what was not asked for, for comparing nodes only.
    pub fn for_scoring(&self) -> (i64, i64) {
        let or = |name: &str, default: i64| if self.get(name) == 0 { default } else { self.get(name) };
        (or("cpu", SCORED_CPU_DEFAULT), or("memory", SCORED_MEMORY_DEFAULT))
    }
}

/// What a pod needs at most at one time: all containers together, or the largest init container with
/// the sidecars started before it, plus the pod's overhead. Pod-level requests take precedence.
pub fn pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let requests = |c: &Container| Resources::of(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&requests(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for init in spec.init_containers.iter().flatten() {
        let mut needed = requests(init);
        if init.restart_policy.as_deref() == Some("Always") {
            total.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        peak.raise(&needed);
    }
    total.raise(&peak);
    let whole = Resources::of(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    for (name, amount) in whole.iter() {
        total.0.insert(name.to_owned(), amount);
    }
    total.add(&Resources::of(spec.overhead.as_ref()));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_always() {
        let requests = |cpu: &str| serde_json::json!({"requests": {"cpu": cpu}});
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "initContainers": [
                {"name": "big", "resources": requests("3")},
                {"name": "side", "restartPolicy": "Always", "resources": requests("500m")},
                {"name": "late", "resources": requests("1")},
            ],
            "containers": [{"name": "a", "resources": requests("1")}, {"name": "b", "resources": requests("250m")}],
            "overhead": {"cpu": "10m"},
        }}))
        .expect("a pod");
        assert_eq!(pod_requests(&pod).get("cpu"), 3010);
    }
}
