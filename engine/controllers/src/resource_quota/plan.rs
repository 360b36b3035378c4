//! What a quota's status should say.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_kube_logic::pod_resources::Amounts;
use gantry_kube_logic::quantity::{Format, Quantity};
use gantry_kube_logic::quota::{ObjectUsage, Quota, usage};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Core resources that are limited by their own name as well as by `count/NAME`.
const COUNTED: [&str; 4] = ["configmaps", "secrets", "resourcequotas", "replicationcontrollers"];

/// What the objects use that differ in it.
pub fn measured(
    pods: &[Arc<Pod>],
    services: &[Arc<Service>],
    claims: &[Arc<PersistentVolumeClaim>],
) -> Vec<ObjectUsage> {
    let mut all = of("pods", pods);
    all.extend(of("services", services));
    all.extend(of("persistentvolumeclaims", claims));
    all
}

fn of<K: Serialize>(resource: &str, objects: &[Arc<K>]) -> Vec<ObjectUsage> {
    let values = objects.iter().filter_map(|object| serde_json::to_value(object.as_ref()).ok());
    values.map(|value| usage("", resource, &value)).collect()
}

/// The merge patch that brings `status` up to date; `None`: it is.
pub fn status_patch(
    object: &ResourceQuota,
    measured: &[ObjectUsage],
    count: &dyn Fn(&(String, String)) -> Option<i64>,
) -> Option<Value> {
    let quota = Quota::of(&serde_json::to_value(object).ok()?);
    let mut used = quota.used(measured);
    for name in quota.hard.keys() {
        let Some(resource) = counted_resource(name) else { continue };
        let Some(number) = count(&resource) else {
            // Not known yet, or never (a resource that is not served): what is shown stays.
            let shown =
                object.status.as_ref().and_then(|s| Quantity::parse(&s.used.as_ref()?.get(name)?.0).ok());
            match shown {
                Some(shown) => used.insert(name.clone(), shown),
                None => used.remove(name),
            };
            continue;
        };
        // A quota with scopes counts pods alone.
        let number = if quota.tracks(&ObjectUsage::default()) { number } else { 0 };
        used.insert(name.clone(), Quantity::from_units(number, Format::DecimalSi));
    }
    let status = object.status.as_ref();
    let hard = difference(&quota.hard, status.and_then(|s| s.hard.as_ref()));
    let used = difference(&used, status.and_then(|s| s.used.as_ref()));
    let mut patch = Map::new();
    for (field, changed) in [("hard", hard), ("used", used)] {
        if let Some(changed) = changed {
            patch.insert(field.to_owned(), changed);
        }
    }
    (!patch.is_empty()).then(|| json!({ "status": patch }))
}

/// The resource whose objects are counted under this name, unless what they use is measured.
fn counted_resource(name: &str) -> Option<(String, String)> {
    if COUNTED.contains(&name) {
        return Some((String::new(), name.to_owned()));
    }
    let counted = name.strip_prefix("count/")?;
    let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
    let measured = group.is_empty() && matches!(resource, "pods" | "services" | "persistentvolumeclaims");
    (!measured).then(|| (group.to_owned(), resource.to_owned()))
}

type Shown = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

/// What to merge to get from what is shown to what is wanted.
fn difference(wanted: &Amounts, shown: Option<&Shown>) -> Option<Value> {
    let mut changes = Map::new();
    for (name, amount) in wanted {
        let same = shown.and_then(|shown| Quantity::parse(&shown.get(name)?.0).ok());
        if same.as_ref() != Some(amount) {
            changes.insert(name.clone(), amount.to_string().into());
        }
    }
    for name in shown.into_iter().flat_map(BTreeMap::keys).filter(|name| !wanted.contains_key(*name)) {
        changes.insert(name.clone(), Value::Null);
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(spec: Value, status: Value) -> ResourceQuota {
        let object = json!({"metadata": {"name": "q"}, "spec": spec, "status": status});
        serde_json::from_value(object).expect("a quota")
    }

    fn pod(phase: &str, cpu: &str) -> Arc<Pod> {
        let resources = json!({"requests": {"cpu": cpu}});
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_status_says_what_is_used() {
        let pods = [pod("Running", "100m"), pod("Succeeded", "1"), pod("Pending", "200m")];
        let measured = measured(&pods, &[], &[]);
        let count = |resource: &(String, String)| match resource.1.as_str() {
            "configmaps" => Some(3),
            "widgets" => (resource.0 == "example.com").then_some(7),
            _ => None,
        };
        let hard = json!({"pods": "4", "requests.cpu": "2", "configmaps": "10", "count/widgets.example.com": "9", "count/pods": "5"});
        for (spec, status, want) in [
            (
                json!({"hard": hard}),
                json!({}),
                Some(json!({"status": {
                    "hard": {"pods": "4", "requests.cpu": "2", "configmaps": "10", "count/widgets.example.com": "9",
                        "count/pods": "5"},
                    "used": {"pods": "2", "requests.cpu": "300m", "configmaps": "3", "count/widgets.example.com": "7",
                        "count/pods": "3"},
                }})),
            ),
            (
                json!({"hard": {"pods": "4"}}),
                json!({"hard": {"pods": "4", "secrets": "1"}, "used": {"pods": "1", "secrets": "0"}}),
                Some(json!({"status": {"hard": {"secrets": null}, "used": {"pods": "2", "secrets": null}}})),
            ),
            (
                json!({"hard": {"requests.cpu": "2000m"}}),
                json!({"hard": {"requests.cpu": "2"}, "used": {"requests.cpu": "0.3"}}),
                None,
            ),
            // Not every list is complete yet: say nothing rather than too little.
            (
                json!({"hard": {"secrets": "1", "pods": "4"}}),
                json!({"hard": {"secrets": "1", "pods": "4"}, "used": {"pods": "1"}}),
                Some(json!({"status": {"used": {"pods": "2"}}})),
            ),
            (
                json!({"hard": {"secrets": "1"}}),
                json!({"hard": {"secrets": "1"}, "used": {"secrets": "1"}}),
                None,
            ),
            (
                json!({"hard": {"pods": "4"}, "scopes": ["BestEffort"]}),
                json!({"hard": {"pods": "4"}}),
                Some(json!({"status": {"used": {"pods": "0"}}})),
            ),
        ] {
            let got = status_patch(&quota(spec.clone(), status), &measured, &count);
            assert_eq!(got, want, "{spec}");
        }
    }
}
