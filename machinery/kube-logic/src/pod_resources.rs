//! What a pod asks for and is limited to, as quotas and limit ranges count it (upstream
//! `k8s.io/component-helpers/resource`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Which of the two lists of `resources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Requests,
    Limits,
}

impl Side {
    /// The field's name.
    pub fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// The amounts of a map of quantities; what does not parse is left out (validation refuses it).
pub fn amounts(map: &Value) -> Amounts {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
}

/// `resources.requests` or `resources.limits` of a container (or pod spec).
pub fn of_container(container: &Value, side: Side) -> Amounts {
    amounts(&container["resources"][side.field()])
}

/// Adds `more` to `total`; a sum past the largest amount stays there.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = match total.get(name) {
            Some(have) => have.checked_add(amount).unwrap_or(*have),
            None => *amount,
        };
        total.insert(name.clone(), sum);
    }
}

/// Takes the larger of each amount.
pub fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if total.get(name).is_none_or(|have| have < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// What the pod needs at most at one time: its containers and sidecars together, or the largest init
/// container with the sidecars before it. Pod-level amounts take precedence. Overhead is not counted.
pub fn of_pod(spec: &Value, side: Side) -> Amounts {
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    let mut total = Amounts::new();
    for container in list("containers") {
        add(&mut total, &of_container(container, side));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for init in list("initContainers") {
        let mut needed = of_container(init, side);
        if init["restartPolicy"] == "Always" {
            add(&mut total, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut peak, &needed);
    }
    raise(&mut total, &peak);
    total.extend(of_container(spec, side));
    total
}

/// [`of_pod`] with the overhead of its runtime class: always on requests, on limits only of resources
/// that are limited.
pub fn of_pod_with_overhead(spec: &Value, side: Side) -> Amounts {
    let mut total = of_pod(spec, side);
    let mut overhead = amounts(&spec["overhead"]);
    if side == Side::Limits {
        overhead.retain(|name, _| total.contains_key(name));
    }
    add(&mut total, &overhead);
    total
}

/// Every container of the pod that has a place for resources: init containers first.
pub fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    list("initContainers").chain(list("containers"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_counts_by_its_peak() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}, "limits": {"cpu": amount}});
        let spec = json!({
            "initContainers": [
                {"name": "big", "resources": cpu("3")},
                {"name": "side", "restartPolicy": "Always", "resources": cpu("500m")},
                {"name": "late", "resources": cpu("1")},
            ],
            "containers": [{"name": "a", "resources": cpu("1")}, {"name": "b", "resources": cpu("250m")}],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        });
        let shown = |all: Amounts| all.iter().map(|(n, q)| format!("{n}={q}")).collect::<Vec<_>>().join(",");
        assert_eq!(shown(of_pod(&spec, Side::Requests)), "cpu=3");
        assert_eq!(shown(of_pod_with_overhead(&spec, Side::Requests)), "cpu=3010m,memory=1Mi");
        assert_eq!(shown(of_pod_with_overhead(&spec, Side::Limits)), "cpu=3010m");
        let mut whole = spec;
        whole["resources"] = json!({"requests": {"cpu": "7"}});
        assert_eq!(shown(of_pod(&whole, Side::Requests)), "cpu=7");
    }
}
