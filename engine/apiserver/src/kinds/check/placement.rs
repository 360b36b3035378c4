//! Where a pod may run: affinity, tolerations, spreading.

use serde_json::{Value, json};

use crate::kinds::format;
use crate::kinds::report::{Errors, Path};
use crate::kinds::selector::{check_labels, check_selector};
use crate::kinds::value::{at, field, integer, items, string};

pub(super) fn check(spec: &Value, path: &Path, errors: &mut Errors) {
    check_labels(spec, "/nodeSelector", &path.child("nodeSelector"), errors);
    if let Some(affinity) = at(spec, "/affinity/nodeAffinity") {
        check_node_affinity(affinity, &path.child("affinity").child("nodeAffinity"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(affinity) = spec["affinity"].get(kind) {
            check_pod_affinity(affinity, &path.child("affinity").child(kind), errors);
        }
    }
    for (index, toleration) in items(spec, "/tolerations").iter().enumerate() {
        check_toleration(toleration, &path.child("tolerations").index(index), errors);
    }
    check_spread(items(spec, "/topologySpreadConstraints"), &path.child("topologySpreadConstraints"), errors);
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn check_weight(term: &Value, path: &Path, errors: &mut Errors) {
    let weight = integer(term, "/weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn check_node_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    if let Some(required) = field(affinity, REQUIRED) {
        check_node_selector(required, &path.child(REQUIRED), errors);
    }
    for (index, term) in items(affinity, &format!("/{PREFERRED}")).iter().enumerate() {
        let at = path.child(PREFERRED).index(index);
        check_weight(term, &at, errors);
        check_node_term(&term["preference"], &at.child("preference"), errors);
    }
}

/// A `NodeSelector`: of pods and of persistent volumes.
pub(super) fn check_node_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    let terms = items(selector, "/nodeSelectorTerms");
    let path = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        check_node_term(term, &path.index(index), errors);
    }
}

fn check_node_term(term: &Value, path: &Path, errors: &mut Errors) {
    for (index, expression) in items(term, "/matchExpressions").iter().enumerate() {
        let at = path.child("matchExpressions").index(index);
        let values = items(expression, "/values");
        match string(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                &at.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if values.len() != 1 => errors.required(
                &at.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = string(expression, "key");
        errors.all(&at.child("key"), key, format::qualified_name(key));
    }
    for (index, expression) in items(term, "/matchFields").iter().enumerate() {
        let at = path.child("matchFields").index(index);
        match string(expression, "operator") {
            "In" | "NotIn" if items(expression, "/values").len() == 1 => {}
            "In" | "NotIn" => errors.required(
                &at.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        if string(expression, "key") != "metadata.name" {
            let key = string(expression, "key");
            errors.invalid(&at.child("key"), key, "not a valid field selector key");
        }
    }
}

fn check_pod_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    for (index, term) in items(affinity, &format!("/{REQUIRED}")).iter().enumerate() {
        check_pod_term(term, &path.child(REQUIRED).index(index), errors);
    }
    for (index, term) in items(affinity, &format!("/{PREFERRED}")).iter().enumerate() {
        let at = path.child(PREFERRED).index(index);
        check_weight(term, &at, errors);
        check_pod_term(&term["podAffinityTerm"], &at.child("podAffinityTerm"), errors);
    }
}

fn check_pod_term(term: &Value, path: &Path, errors: &mut Errors) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = field(term, key) {
            check_selector(selector, &path.child(key), errors);
        }
    }
    for (index, name) in items(term, "/namespaces").iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        errors.all(&path.child("namespaces").index(index), name, format::dns1123_label(name));
    }
    let key = string(term, "topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    } else {
        errors.all(&path.child("topologyKey"), key, format::qualified_name(key));
    }
}

fn check_toleration(toleration: &Value, path: &Path, errors: &mut Errors) {
    let (key, operator) = (string(toleration, "key"), string(toleration, "operator"));
    let (value, effect) = (string(toleration, "value"), string(toleration, "effect"));
    if !key.is_empty() {
        errors.all(&path.child("key"), key, format::qualified_name(key));
    } else if operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&path.child("operator"), operator, detail);
    }
    if field(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path.child("effect"), effect, detail);
    }
    match operator {
        "Equal" | "" => errors.all(&path.child("operator"), value, format::label_value(value)),
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.invalid(&path.child("operator"), value, detail);
        }
        "Exists" => {}
        other => errors.one_of(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        check_effect(effect, path, errors);
    }
}

fn check_effect(effect: &str, path: &Path, errors: &mut Errors) {
    errors.one_of(&path.child("effect"), effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
}

/// Taints of a node.
pub(super) fn check_taints(taints: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, taint) in taints.iter().enumerate() {
        let at = path.index(index);
        let (key, value, effect) = (string(taint, "key"), string(taint, "value"), string(taint, "effect"));
        errors.all(&at.child("key"), key, format::qualified_name(key));
        errors.all(&at.child("value"), value, format::label_value(value));
        if effect.is_empty() {
            errors.required(&at.child("effect"), "");
        } else {
            check_effect(effect, &at, errors);
        }
        if seen.contains(&(key, effect)) {
            errors.duplicate(&at, taint.clone());
        }
        seen.push((key, effect));
    }
}

fn check_spread(constraints: &[Value], path: &Path, errors: &mut Errors) {
    const WHEN: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    let mut seen = Vec::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = path.index(index);
        let skew = integer(constraint, "/maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&at.child("maxSkew"), skew, "must be greater than zero");
        }
        let (key, when) = (string(constraint, "topologyKey"), string(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            errors.required(&at.child("topologyKey"), "can not be empty");
        } else {
            errors.all(&at.child("topologyKey"), key, format::qualified_name(key));
        }
        errors.one_of(&at.child("whenUnsatisfiable"), when, &WHEN);
        if seen.contains(&(key, when)) {
            errors.duplicate(
                &at.child("{topologyKey, whenUnsatisfiable}"),
                json!(format!("{{{key}, {when}}}")),
            );
        }
        seen.push((key, when));
        if let Some(domains) = integer(constraint, "/minDomains") {
            let at = at.child("minDomains");
            if domains <= 0 {
                errors.invalid(&at, domains, "must be greater than 0");
            }
            if when != WHEN[0] {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.invalid(&at, domains, detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(word) = field(constraint, policy).and_then(Value::as_str) {
                errors.one_of(&at.child(policy), word, &["Honor", "Ignore"]);
            }
        }
        if let Some(selector) = field(constraint, "labelSelector") {
            check_selector(selector, &at.child("labelSelector"), errors);
        }
    }
}
