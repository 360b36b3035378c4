//! Nobody may grant what they do not hold: does one set of rules cover another?

use gantry_kube_types::UserInfo;

use super::PolicyRule;
use super::compact::{compact, describe};
use super::matching::{covers_path, list};

/// Do `owner`'s rules together cover all of `requested`? If not: the parts they do not, each rule
/// reduced to one verb, group, resource and name.
pub fn covers(owner: &[PolicyRule], requested: &[PolicyRule]) -> Result<(), Vec<PolicyRule>> {
    let uncovered: Vec<PolicyRule> = requested
        .iter()
        .flat_map(break_down)
        .filter(|part| !owner.iter().any(|rule| covers_part(rule, part)))
        .collect();
    if uncovered.is_empty() { Ok(()) } else { Err(uncovered) }
}

/// [`covers`], with the sentence upstream refuses an escalation with. `resolution_errors` are those
/// met while `owner` was collected.
pub fn confirm_no_escalation(
    user: &UserInfo,
    owner: &[PolicyRule],
    requested: &[PolicyRule],
    resolution_errors: &[String],
) -> Result<(), String> {
    let Err(uncovered) = covers(owner, requested) else { return Ok(()) };
    let mut missing: Vec<String> = compact(&uncovered).iter().map(describe).collect();
    missing.sort();
    missing.dedup();
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let mut message = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.username,
        groups.join(" "),
        missing.join("\n"),
    );
    if !resolution_errors.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", resolution_errors.join(", ")));
    }
    Err(message)
}

/// Rules as parts of one verb on one resource (and name) or one URL each.
pub fn parts(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    rules.iter().flat_map(break_down).collect()
}

/// A rule as parts of one verb on one resource (and name) or one URL each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for url in list(&rule.non_resource_urls) {
            parts.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: Some(vec![url.clone()]),
                ..PolicyRule::default()
            });
        }
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let part = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => parts.push(part),
                    names => {
                        parts.extend(names.iter().map(|name| PolicyRule {
                            resource_names: Some(vec![name.clone()]),
                            ..part.clone()
                        }))
                    }
                }
            }
        }
    }
    parts
}

fn covers_part(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let has_all = |granted: &[String], wanted: &[String]| {
        granted.iter().any(|g| g == "*") || wanted.iter().all(|w| granted.contains(w))
    };
    let owner_names = list(&owner.resource_names);
    let part_names = list(&part.resource_names);
    let names = owner_names.is_empty()
        || (!part_names.is_empty() && part_names.iter().all(|name| owner_names.contains(name)));
    names
        && has_all(&owner.verbs, &part.verbs)
        && has_all(list(&owner.api_groups), list(&part.api_groups))
        && list(&part.resources).iter().all(|resource| covers_resource(list(&owner.resources), resource))
        && list(&part.non_resource_urls)
            .iter()
            .all(|url| list(&owner.non_resource_urls).iter().any(|granted| covers_path(granted, url)))
}

fn covers_resource(granted: &[String], resource: &str) -> bool {
    granted.iter().any(|g| {
        g == "*"
            || g == resource
            || resource.split_once('/').is_some_and(|(_, sub)| g.strip_prefix("*/") == Some(sub))
    })
}
