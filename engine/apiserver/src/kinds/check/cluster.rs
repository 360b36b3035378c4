//! Configuration, rights, autoscaling, budgets and the other small kinds.

use serde_json::Value;

use super::{check_quantity, int_or_percent, non_negative, placement, required};
use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::value::{at, entries, field, integer, items, same, string, text, truth};

const DATA_BYTES_MAX: usize = 1024 * 1024;

fn check_keys(object: &Value, pointers: &[&str], errors: &mut Errors) {
    let mut bytes = 0;
    for pointer in pointers {
        for (key, value) in entries(object, pointer) {
            errors.all(&Path::new(&pointer[1..]).key(key), key, format::config_map_key(key));
            bytes += value.as_str().map_or(0, str::len);
        }
    }
    if bytes > DATA_BYTES_MAX {
        errors.too_long(&Path::default(), DATA_BYTES_MAX);
    }
}

pub(crate) fn config_map(object: &Value, errors: &mut Errors) {
    check_keys(object, &["/data", "/binaryData"], errors);
    for (key, _) in entries(object, "/binaryData").filter(|(k, _)| object["data"].get(k.as_str()).is_some()) {
        let detail = "duplicate of key present in binaryData";
        errors.invalid(&Path::new("data").key(key), key.as_str(), detail);
    }
}

pub(crate) fn secret(object: &Value, errors: &mut Errors) {
    check_keys(object, &["/data"], errors);
    let needed: &[&str] = match string(object, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed.iter().filter(|key| object["data"].get(**key).is_none()) {
        errors.required(&Path::new("data").key(key), "");
    }
}

/// `immutable: true` freezes the data and itself.
pub(crate) fn immutable_data(new: &Value, old: &Value, errors: &mut Errors) {
    if !truth(old, "/immutable") {
        return;
    }
    if !truth(new, "/immutable") {
        errors.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for key in ["data", "binaryData"] {
        if !same(field(new, key), field(old, key)) {
            errors.forbidden(&Path::new(key), "field is immutable when `immutable` is set");
        }
    }
}

pub(crate) fn secret_update(new: &Value, old: &Value, errors: &mut Errors) {
    errors.immutable(&Path::new("type"), field(new, "type"), field(old, "type"));
    immutable_data(new, old, errors);
}

pub(crate) fn role(object: &Value, errors: &mut Errors) {
    for (index, rule) in items(object, "/rules").iter().enumerate() {
        let at = Path::new("rules").index(index);
        if items(rule, "/verbs").is_empty() {
            errors.required(&at.child("verbs"), "verbs must contain at least one value");
        }
        if items(rule, "/nonResourceURLs").is_empty() {
            if items(rule, "/apiGroups").is_empty() {
                errors.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
            }
            if items(rule, "/resources").is_empty() {
                errors.required(&at.child("resources"), "resource rules must supply at least one resource");
            }
        } else if string(object, "kind") == "Role" {
            errors.invalid(
                &at.child("nonResourceURLs"),
                rule["nonResourceURLs"].clone(),
                "namespaced rules cannot apply to non-resource URLs",
            );
        }
    }
}

pub(crate) fn binding(object: &Value, errors: &mut Errors) {
    let kinds: &[&str] = if string(object, "kind") == "ClusterRoleBinding" {
        &["ClusterRole"]
    } else {
        &["ClusterRole", "Role"]
    };
    errors.one_of(&Path::new("roleRef").child("kind"), text(object, "/roleRef/kind"), kinds);
    if text(object, "/roleRef/name").is_empty() {
        errors.required(&Path::new("roleRef").child("name"), "");
    }
    for (index, subject) in items(object, "/subjects").iter().enumerate() {
        let at = Path::new("subjects").index(index);
        if string(subject, "name").is_empty() {
            errors.required(&at.child("name"), "");
        }
        let kinds = ["Group", "ServiceAccount", "User"];
        errors.one_of(&at.child("kind"), string(subject, "kind"), &kinds);
        if string(subject, "kind") == "ServiceAccount" && string(subject, "namespace").is_empty() {
            errors.required(&at.child("namespace"), "");
        }
    }
}

pub(crate) fn binding_update(new: &Value, old: &Value, errors: &mut Errors) {
    if !same(field(new, "roleRef"), field(old, "roleRef")) {
        errors.invalid(&Path::new("roleRef"), new["roleRef"].clone(), "cannot change roleRef");
    }
}

pub(crate) fn crd(object: &Value, errors: &mut Errors) {
    let (group, plural) = (text(object, "/spec/group"), text(object, "/spec/names/plural"));
    let wanted = format!("{plural}.{group}");
    if text(object, "/metadata/name") != wanted {
        let name = text(object, "/metadata/name");
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(&Path::new("metadata").child("name"), name, detail);
    }
    let versions = items(object, "/spec/versions");
    if versions.iter().filter(|v| truth(v, "/storage")).count() != 1 {
        let value = object["spec"]["versions"].clone();
        let detail = "must have exactly one version marked as storage version";
        errors.invalid(&Path::new("spec").child("versions"), value, detail);
    }
}

pub(crate) fn disruption_budget(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    if field(spec, "minAvailable").is_some() && field(spec, "maxUnavailable").is_some() {
        errors.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for key in ["minAvailable", "maxUnavailable"] {
        if field(spec, key).is_some() {
            int_or_percent(spec, key, true, &path, errors);
        }
    }
    if let Some(selector) = field(spec, "selector") {
        crate::kinds::selector::check_selector(selector, &path.child("selector"), errors);
    }
    if let Some(policy) = field(spec, "unhealthyPodEvictionPolicy").and_then(Value::as_str) {
        let at = path.child("unhealthyPodEvictionPolicy");
        errors.one_of(&at, policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

/// An autoscaler of either version; metrics are those of v2.
pub(crate) fn autoscaler(object: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), &object["spec"]);
    let least = integer(spec, "/minReplicas");
    if let Some(least) = least.filter(|n| *n < 1) {
        errors.invalid(&path.child("minReplicas"), least, "must be greater than or equal to 1");
    }
    let most = integer(spec, "/maxReplicas").unwrap_or(0);
    if most < 1 {
        errors.invalid(&path.child("maxReplicas"), most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.invalid(&path.child("maxReplicas"), most, detail);
    }
    for key in ["kind", "name"] {
        required(&spec["scaleTargetRef"], key, &path.child("scaleTargetRef"), errors);
    }
    for (index, metric) in items(spec, "/metrics").iter().enumerate() {
        check_metric(metric, &path.child("metrics").index(index), errors);
    }
}

fn check_metric(metric: &Value, path: &Path, errors: &mut Errors) {
    const KINDS: [(&str, &str); 5] = [
        ("ContainerResource", "containerResource"),
        ("External", "external"),
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
    ];
    let kind = string(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
        return;
    }
    let Some((_, key)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        errors.one_of(&path.child("type"), kind, &KINDS.map(|(name, _)| name));
        return;
    };
    let at = path.child(key);
    let Some(source) = field(metric, key) else {
        errors.required(&at, "must populate information for the given metric source");
        return;
    };
    let target = &source["target"];
    let at = at.child("target");
    errors.one_of(&at.child("type"), string(target, "type"), &["AverageValue", "Utilization", "Value"]);
    if let Some(percent) = integer(target, "/averageUtilization").filter(|n| *n < 1) {
        errors.invalid(&at.child("averageUtilization"), percent, "must be greater than 0");
    }
    for key in ["value", "averageValue"] {
        if let Some(amount) = field(target, key)
            && check_quantity(amount, &at.child(key), errors) == Some(0)
        {
            errors.invalid(&at.child(key), amount.clone(), "must be positive");
        }
    }
}

const PRIORITY_MAX: i64 = 1_000_000_000;

pub(crate) fn priority_class(object: &Value, errors: &mut Errors) {
    let (name, value) = (text(object, "/metadata/name"), integer(object, "/value").unwrap_or(0));
    let system = matches!(
        (name, value),
        ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
    );
    if name.starts_with("system-") && !system {
        let detail = "priority class names with 'system-' prefix are reserved for system use only";
        errors.forbidden(&Path::new("metadata").child("name"), detail);
    } else if value > PRIORITY_MAX && !system {
        let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        errors.forbidden(&Path::new("value"), detail);
    }
    let policies = ["Never", "PreemptLowerPriority"];
    errors.one_of(&Path::new("preemptionPolicy"), string(object, "preemptionPolicy"), &policies);
}

pub(crate) fn priority_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if integer(new, "/value") != integer(old, "/value") {
        errors.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    let policy = "preemptionPolicy";
    errors.immutable(&Path::new(policy), field(new, policy), field(old, policy));
}

pub(crate) fn lease(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    if let Some(seconds) = integer(object, "/spec/leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    non_negative(&object["spec"], "leaseTransitions", &path, errors);
}

pub(crate) fn node(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    placement::check_taints(items(object, "/spec/taints"), &path.child("taints"), errors);
    for (index, range) in items(object, "/spec/podCIDRs").iter().enumerate() {
        let range = range.as_str().unwrap_or_default();
        errors.all(&path.child("podCIDRs").index(index), range, format::cidr(range));
    }
}

pub(crate) fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    if !items(old, "/spec/podCIDRs").is_empty() && !same(at(new, "/spec/podCIDRs"), at(old, "/spec/podCIDRs"))
    {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&path.child("podCIDRs"), detail);
    }
    let provider = text(old, "/spec/providerID");
    if !provider.is_empty() && provider != text(new, "/spec/providerID") {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&path.child("providerID"), detail);
    }
}

/// `spec.finalizers` of a namespace.
pub(crate) fn namespace(object: &Value, errors: &mut Errors) {
    for (index, finalizer) in items(object, "/spec/finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let at = Path::new("spec").child("finalizers").index(index);
        errors.all(&at, name, format::qualified_name(name));
    }
}

pub(crate) fn resource_quota(object: &Value, errors: &mut Errors) {
    for (name, amount) in entries(object, "/spec/hard") {
        let at = Path::new("spec").child("hard").key(name);
        errors.all(&at, name, format::qualified_name(name));
        check_quantity(amount, &at, errors);
    }
}

pub(crate) fn limit_range(object: &Value, errors: &mut Errors) {
    for (index, item) in items(object, "/spec/limits").iter().enumerate() {
        let path = Path::new("spec").child("limits").index(index);
        required(item, "type", &path, errors);
        for list in ["max", "min", "default", "defaultRequest"] {
            for (name, amount) in entries(item, &format!("/{list}")) {
                check_quantity(amount, &path.child(list).key(name), errors);
            }
        }
        for (name, least) in entries(item, "/min") {
            let (Some(low), Some(high)) =
                (format::quantity_of(least), item["max"].get(name).and_then(format::quantity_of))
            else {
                continue;
            };
            if low > high {
                let shown = |v: &Value| v.as_str().map_or(v.to_string(), str::to_owned);
                let (low, high) = (shown(least), shown(&item["max"][name]));
                let detail = format!("min value {low} is greater than max value {high}");
                errors.invalid(&path.child("min").key(name), least.clone(), detail);
            }
        }
    }
}
