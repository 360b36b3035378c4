//! Limit ranges without I/O: the defaults they give and the bounds they set, for containers, pods and
//! claims. Wording is upstream's (`plugin/pkg/admission/limitranger`).

use serde_json::{Map, Value};

use crate::meta;
use crate::pod_resources::{Amounts, Side, amounts, containers, of_container, of_pod};
use crate::quantity::Quantity;

/// Says which defaults a pod got.
pub const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn items<'a>(range: &'a Value, of: &'a str) -> impl Iterator<Item = &'a Value> {
    let items = range["spec"]["limits"].as_array().into_iter().flatten();
    items.filter(move |item| item["type"] == of)
}

/// Gives the pod's containers the requests and limits that the range names and they do not.
pub fn default_pod(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for item in items(range, "Container") {
        requests.extend(item["defaultRequest"].as_object().cloned().unwrap_or_default());
        limits.extend(item["default"].as_object().cloned().unwrap_or_default());
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (field, word) in [("containers", "container"), ("initContainers", "init container")] {
        let list = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (side, defaults, what) in
                [(Side::Requests, &requests, "request"), (Side::Limits, &limits, "limit")]
            {
                let set = fill(container, side, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod["metadata"]["annotations"][ANNOTATION] = text.into();
    }
}

/// Sets what is absent; gives the names that were set, in order.
fn fill(container: &mut Value, side: Side, defaults: &Map<String, Value>) -> Vec<String> {
    let Some(container) = container.as_object_mut() else { return Vec::new() };
    let resources = container.entry("resources").or_insert(Value::Null);
    if resources.is_null() {
        *resources = Value::Object(Map::new());
    }
    let Some(resources) = resources.as_object_mut() else { return Vec::new() };
    let have = resources.get(side.field()).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut set: Vec<String> = defaults.keys().filter(|name| !have.contains_key(*name)).cloned().collect();
    if set.is_empty() {
        return set;
    }
    let mut merged = have;
    for name in &set {
        merged.insert(name.clone(), defaults[name].clone());
    }
    resources.insert(side.field().to_owned(), Value::Object(merged));
    set.sort();
    set
}

/// What of a pod is out of the range's bounds.
pub fn check_pod(range: &Value, pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut errors = Vec::new();
    for item in items(range, "Container") {
        for container in containers(spec) {
            let (requests, limits) =
                (of_container(container, Side::Requests), of_container(container, Side::Limits));
            check(item, "Container", &requests, &limits, &mut errors);
        }
    }
    for item in items(range, "Pod") {
        check(item, "Pod", &of_pod(spec, Side::Requests), &of_pod(spec, Side::Limits), &mut errors);
    }
    errors
}

/// What of a PersistentVolumeClaim is out of the range's bounds.
pub fn check_claim(range: &Value, claim: &Value) -> Vec<String> {
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let mut errors = Vec::new();
    for item in items(range, "PersistentVolumeClaim") {
        for (name, least) in amounts(&item["min"]) {
            errors.extend(below(&name, "PersistentVolumeClaim", &least, requests.get(&name), None));
        }
        for (name, most) in amounts(&item["max"]) {
            let bound = format!("maximum {name} usage per PersistentVolumeClaim is {most}");
            errors.extend(match requests.get(&name) {
                None => Some(format!("{bound}.  No request is specified")),
                Some(asked) if *asked > most => Some(format!("{bound}, but request is {asked}")),
                Some(_) => None,
            });
        }
    }
    errors
}

fn check(item: &Value, of: &str, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    for (name, least) in amounts(&item["min"]) {
        errors.extend(below(&name, of, &least, requests.get(&name), limits.get(&name)));
    }
    for (name, most) in amounts(&item["max"]) {
        errors.extend(above(&name, of, &most, requests.get(&name), limits.get(&name)));
    }
    for (name, ratio) in amounts(&item["maxLimitRequestRatio"]) {
        errors.extend(wide(&name, of, &ratio, requests.get(&name), limits.get(&name)));
    }
}

fn below(
    name: &str,
    of: &str,
    least: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("minimum {name} usage per {of} is {least}");
    match (request, limit) {
        (None, _) => Some(format!("{bound}.  No request is specified")),
        (Some(request), _) if request < least => Some(format!("{bound}, but request is {request}")),
        (_, Some(limit)) if limit < least => Some(format!("{bound}, but limit is {limit}")),
        _ => None,
    }
}

fn above(
    name: &str,
    of: &str,
    most: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("maximum {name} usage per {of} is {most}");
    match (request, limit) {
        (_, None) => Some(format!("{bound}.  No limit is specified")),
        (_, Some(limit)) if limit > most => Some(format!("{bound}, but limit is {limit}")),
        (Some(request), _) if request > most => Some(format!("{bound}, but request is {request}")),
        _ => None,
    }
}

fn wide(
    name: &str,
    of: &str,
    most: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let bound = format!("{name} max limit to request ratio per {of} is {most}");
    let Some(request) = request.filter(|amount| !amount.is_zero()) else {
        return Some(format!("{bound}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|amount| !amount.is_zero()) else {
        return Some(format!("{bound}, but no limit is specified or limit is 0"));
    };
    // Amounts are at most 2^63 units: as floating point they are exact enough to compare ratios.
    let ratio = limit.nano() as f64 / request.nano() as f64;
    let most = most.nano() as f64 / 1e9;
    (ratio > most).then(|| format!("{bound}, but provided ratio is {ratio:.6}"))
}

/// Several complaints as upstream joins them: one as it is, more in brackets.
pub fn joined(mut errors: Vec<String>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.len() {
        0 => None,
        1 => errors.pop(),
        _ => Some(format!("[{}]", errors.join(", "))),
    }
}

/// The pod's annotation about defaults, if it has one.
pub fn annotation(pod: &Value) -> Option<&str> {
    meta::annotation(pod, ANNOTATION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn what_is_not_said_is_given() {
        let range = range(json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"}}));
        let mut made = pod(json!({"limits": {"cpu": "2"}}));
        made["spec"]["initContainers"] = json!([{"name": "i"}]);
        default_pod(&range, &mut made);
        assert_eq!(
            made["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            annotation(&made),
            Some(
                "LimitRanger plugin set: cpu request for container c; memory limit for container c; cpu request \
                 for init container i; cpu, memory limit for init container i"
            )
        );
        let before = made.clone();
        default_pod(&range, &mut made);
        assert_eq!(made, before, "twice is the same as once");
    }

    #[test]
    fn bounds_are_told_in_upstreams_words() {
        let container = |bounds: Value| {
            let mut item = bounds;
            item["type"] = "Container".into();
            range(item)
        };
        let cpu = |request: Value, limit: Value| {
            let mut made = json!({});
            for (side, value) in [("requests", request), ("limits", limit)] {
                if !value.is_null() {
                    made[side] = json!({"cpu": value});
                }
            }
            pod(made)
        };
        let none = || Value::Null;
        for (bounds, pod, want) in [
            (json!({"min": {"cpu": "1"}}), cpu(json!("1"), none()), None),
            (
                json!({"min": {"cpu": "1"}}),
                cpu(none(), none()),
                Some("minimum cpu usage per Container is 1.  No request is specified"),
            ),
            (
                json!({"min": {"cpu": "1"}}),
                cpu(json!("500m"), none()),
                Some("minimum cpu usage per Container is 1, but request is 500m"),
            ),
            (
                json!({"max": {"cpu": "1"}}),
                cpu(json!("1"), none()),
                Some("maximum cpu usage per Container is 1.  No limit is specified"),
            ),
            (
                json!({"max": {"cpu": "1"}}),
                cpu(json!("1"), json!("2")),
                Some("maximum cpu usage per Container is 1, but limit is 2"),
            ),
            (json!({"maxLimitRequestRatio": {"cpu": "2"}}), cpu(json!("1"), json!("2")), None),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                cpu(json!("500m"), json!("1500m")),
                Some("cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"),
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                cpu(none(), json!("1")),
                Some(
                    "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
                ),
            ),
        ] {
            let got = joined(check_pod(&container(bounds.clone()), &pod));
            assert_eq!(got.as_deref(), want, "{bounds} {pod}");
        }
        let whole = range(json!({"type": "Pod", "max": {"cpu": "1", "memory": "1Gi"}}));
        let mut two = cpu(json!("600m"), json!("600m"));
        two["spec"]["containers"] = json!([two["spec"]["containers"][0], two["spec"]["containers"][0]]);
        assert_eq!(
            joined(check_pod(&whole, &two)).as_deref(),
            Some(
                "[maximum cpu usage per Pod is 1, but limit is 1200m, maximum memory usage per Pod is 1Gi.  No limit \
                 is specified]"
            )
        );
        let claims = range(
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}),
        );
        for (asked, want) in [
            ("1Gi", None),
            ("512Mi", Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi")),
            ("3Gi", Some("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")),
        ] {
            let claim = json!({"spec": {"resources": {"requests": {"storage": asked}}}});
            assert_eq!(joined(check_claim(&claims, &claim)).as_deref(), want, "{asked}");
        }
    }
}
