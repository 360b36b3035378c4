//! What one rule grants. The wildcards are upstream's: `*` alone, `*/SUBRESOURCE`, and a trailing `*`
//! in non-resource URLs; `pods/*` is not one.
//!
//! One thing upstream does not have: the virtual resource `logs` of `logs.gantry.dev`. A rule for `get` on it grants
//! what one for `get` on `pods/log` does, its names being those of pods. It is here, where rules are read, so that
//! decisions, explanations and narrowed credentials cannot differ on it.

use gantry_kube_types::Attributes;

use super::PolicyRule;

const ALL: &str = "*";
/// Group of the virtual resource that stands for the logs of pods.
const LOGS_GROUP: &str = "logs.gantry.dev";
/// Its plural.
pub(super) const LOGS: &str = "logs";

/// Does the rule grant what is asked for?
pub fn allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    if !allows_verb(rule, &attributes.verb) {
        return false;
    }
    if !attributes.is_resource_request {
        return allows_path(rule, &attributes.path);
    }
    let upstream = allows_group(rule, &attributes.group)
        && allows_resource(rule, &attributes.resource, &attributes.subresource);
    let logs = || reads_logs(attributes) && allows_group(rule, LOGS_GROUP) && allows_resource(rule, LOGS, "");
    (upstream || logs()) && allows_name(rule, &attributes.name)
}

/// Is it the logs of pods that are asked for?
pub(super) fn reads_logs(attributes: &Attributes) -> bool {
    attributes.subresource == "log"
        && attributes.resource == "pods"
        && attributes.group.is_empty()
        && attributes.verb == "get"
}

pub fn allows_verb(rule: &PolicyRule, verb: &str) -> bool {
    rule.verbs.iter().any(|v| v == ALL || v == verb)
}

pub fn allows_group(rule: &PolicyRule, group: &str) -> bool {
    list(&rule.api_groups).iter().any(|g| g == ALL || g == group)
}

pub fn allows_resource(rule: &PolicyRule, resource: &str, subresource: &str) -> bool {
    list(&rule.resources).iter().any(|granted| {
        if granted == ALL {
            return true;
        }
        if subresource.is_empty() {
            return granted == resource;
        }
        granted
            .split_once('/')
            .is_some_and(|(main, sub)| sub == subresource && (main == ALL || main == resource))
    })
}

/// An empty list grants every name; a request without a name is granted by no list.
pub fn allows_name(rule: &PolicyRule, name: &str) -> bool {
    let names = list(&rule.resource_names);
    names.is_empty() || names.iter().any(|n| n == name)
}

pub fn allows_path(rule: &PolicyRule, path: &str) -> bool {
    list(&rule.non_resource_urls).iter().any(|granted| covers_path(granted, path))
}

/// Does the URL pattern `granted` cover `path` (itself possibly a pattern)?
pub fn covers_path(granted: &str, path: &str) -> bool {
    granted == path || (granted.ends_with('*') && path.starts_with(granted.trim_end_matches('*')))
}

pub(super) fn list(values: &Option<Vec<String>>) -> &[String] {
    values.as_deref().unwrap_or_default()
}
