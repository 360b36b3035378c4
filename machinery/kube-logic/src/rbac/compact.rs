//! Rules for people to read: verbs on the same resource together, in the notation of upstream.

use super::PolicyRule;
use super::matching::list;

/// Joins the verbs of rules about the same single resource; other rules stay as they are.
pub(super) fn compact(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut compacted: Vec<PolicyRule> = Vec::with_capacity(rules.len());
    for rule in rules {
        let same = compacted.iter_mut().find(|seen| {
            seen.non_resource_urls.is_none()
                && rule.non_resource_urls.is_none()
                && seen.api_groups == rule.api_groups
                && seen.resources == rule.resources
                && seen.resource_names == rule.resource_names
        });
        match same {
            Some(seen) => seen.verbs.extend(rule.verbs.iter().cloned()),
            None => compacted.push(rule.clone()),
        }
    }
    compacted
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
pub(super) fn describe(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    let mut part = |name: &str, values: &[String]| {
        if !values.is_empty() {
            let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
            parts.push(format!("{name}:[{}]", quoted.join(" ")));
        }
    };
    part("APIGroups", list(&rule.api_groups));
    part("Resources", list(&rule.resources));
    part("NonResourceURLs", list(&rule.non_resource_urls));
    part("ResourceNames", list(&rule.resource_names));
    part("Verbs", &rule.verbs);
    format!("{{{}}}", parts.join(", "))
}
