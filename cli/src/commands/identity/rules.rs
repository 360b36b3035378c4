//! Rights on a command line: `pods,pods/log:get,list`, `registry.gantry.dev/repositories:pull`.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::PolicyRule;

/// Groups of Kubernetes whose names have no dot, and so look like the name of a resource.
const UNDOTTED_GROUPS: [&str; 6] = ["apps", "autoscaling", "batch", "extensions", "policy", "core"];

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("{0:?} is no rule: write RESOURCES:VERBS, as in pods,pods/log:get,list")]
    Shape(String),
    #[error("{rule:?} names no {what} between two commas")]
    Empty { rule: String, what: &'static str },
    #[error("{0:?} mixes paths and resources: give two rules")]
    Mixed(String),
}

/// Reads `[GROUP/]RESOURCE[/SUBRESOURCE],…:VERB,…`, or `/PATH,…:VERB,…` for what is no resource. The group is
/// core where it is absent; `*` alone is every resource of every group. One rule for each group.
pub fn parse(text: &str) -> Result<Vec<PolicyRule>, RuleError> {
    let (objects, verbs) = text.rsplit_once(':').ok_or_else(|| RuleError::Shape(text.to_owned()))?;
    let verbs = list(text, verbs, "verb")?;
    let objects = list(text, objects, "resource")?;
    let paths = objects.iter().filter(|o| o.starts_with('/')).count();
    if paths == objects.len() {
        return Ok(vec![PolicyRule { non_resource_urls: Some(objects), verbs, ..PolicyRule::default() }]);
    }
    if paths > 0 {
        return Err(RuleError::Mixed(text.to_owned()));
    }
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for object in &objects {
        let (group, resource) = split(object);
        if resource.is_empty() || resource.split('/').any(str::is_empty) {
            return Err(RuleError::Shape(text.to_owned()));
        }
        groups.entry(group).or_default().push(resource.to_owned());
    }
    let rule = |(group, resources): (&str, Vec<String>)| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources),
        verbs: verbs.clone(),
        ..PolicyRule::default()
    };
    Ok(groups.into_iter().map(rule).collect())
}

fn list(rule: &str, text: &str, what: &'static str) -> Result<Vec<String>, RuleError> {
    let words: Vec<String> = text.split(',').map(|word| word.trim().to_owned()).collect();
    if words.iter().any(String::is_empty) {
        return Err(RuleError::Empty { rule: rule.to_owned(), what });
    }
    Ok(words)
}

fn split(object: &str) -> (&str, &str) {
    match object.split_once('/') {
        None if object == "*" => ("*", "*"),
        Some(("core", resource)) => ("", resource),
        Some((group, resource))
            if group.contains('.') || group == "*" || UNDOTTED_GROUPS.contains(&group) =>
        {
            (group, resource)
        }
        _ => ("", object),
    }
}

/// The rule as [`parse`] reads it.
pub fn show(rule: &PolicyRule) -> String {
    let verbs = rule.verbs.join(",");
    if let Some(paths) = rule.non_resource_urls.as_ref().filter(|paths| !paths.is_empty()) {
        return format!("{}:{verbs}", paths.join(","));
    }
    let mut objects = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            objects.push(match (group.as_str(), resource.as_str()) {
                ("*", "*") => "*".to_owned(),
                ("", resource) => resource.to_owned(),
                (group, resource) => format!("{group}/{resource}"),
            });
        }
    }
    let mut text = format!("{}:{verbs}", objects.join(","));
    if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
        text.push_str(&format!(" (only {})", names.join(",")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_shown_alike() {
        for (text, shown) in [
            ("pods:get,list", "pods:get,list"),
            ("pods, pods/log : get", "pods,pods/log:get"),
            ("registry.gantry.dev/repositories:pull", "registry.gantry.dev/repositories:pull"),
            ("apps/deployments,apps/deployments/scale:*", "apps/deployments,apps/deployments/scale:*"),
            ("pods,apps/deployments:get", "pods:get; apps/deployments:get"),
            ("core/secrets:get", "secrets:get"),
            ("*:get", "*:get"),
            ("*/*:get", "*:get"),
            ("batch/*:create", "batch/*:create"),
            ("/metrics,/healthz/*:get", "/metrics,/healthz/*:get"),
        ] {
            let rules = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(rules.iter().map(show).collect::<Vec<_>>().join("; "), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "pods",
            "pods:",
            ":get",
            "pods,:get",
            "pods:get,",
            "pods,/metrics:get",
            "apps/:get",
            "pods//log:get",
        ] {
            assert!(parse(text).is_err(), "{text:?} was read");
        }
    }
}
