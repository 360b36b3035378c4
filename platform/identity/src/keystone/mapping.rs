//! The rules of a federation mapping: what a provider says of a user, and who the user is then here.

use serde_json::Value;

use super::errors::ApiError;
use super::schema::{Json, python};

/// What a condition on a remote attribute can be; one of them at most.
const CONDITIONS: &[&str] = &["any_one_of", "not_any_of"];
const FILTERS: &[&str] = &["blacklist", "whitelist"];
/// Members of a local identity.
const LOCAL: &[&str] = &["user", "group", "groups", "group_ids", "domain", "projects"];

/// Checks `rules`; says what JSON Schema would say.
pub(crate) fn check(mapping: &Json) -> Result<(), ApiError> {
    let Some(rules) = mapping.get("rules") else { return Err(missing("rules")) };
    for rule in filled(rules)? {
        let rule = object(rule)?;
        only(rule, &["local", "remote"])?;
        for name in ["local", "remote"] {
            rule.get(name).ok_or_else(|| missing(name))?;
        }
        for local in list(&rule["local"])? {
            check_local(object(local)?)?;
        }
        for remote in filled(&rule["remote"])? {
            check_remote(remote)?;
        }
    }
    Ok(())
}

fn check_local(local: &Json) -> Result<(), ApiError> {
    only(local, LOCAL)?;
    for (name, value) in local {
        match name.as_str() {
            "user" => {
                let user = object(value)?;
                only(user, &["id", "name", "email", "domain", "type"])?;
                if let Some(kind) =
                    user.get("type").filter(|kind| !matches!(kind.as_str(), Some("ephemeral" | "local")))
                {
                    return Err(says(format!("{} is not one of ['ephemeral', 'local']", python(kind))));
                }
                user.get("domain").map_or(Ok(()), check_domain)?;
            }
            "group" => check_group(object(value)?, value)?,
            "groups" | "group_ids" if value.is_string() => {}
            "domain" => check_domain(value)?,
            "projects" => check_projects(value)?,
            _ => return Err(says(format!("{} is not of type 'string'", python(value)))),
        }
    }
    Ok(())
}

/// A group is known by its id, or by its name and domain.
fn check_group(group: &Json, whole: &Value) -> Result<(), ApiError> {
    let by_id = group.len() == 1 && group.get("id").is_some_and(Value::is_string);
    let by_name = group.len() == 2
        && group.get("name").is_some_and(Value::is_string)
        && group.get("domain").is_some_and(|domain| check_domain(domain).is_ok());
    if by_id || by_name { Ok(()) } else { Err(fits_nothing(whole)) }
}

fn check_domain(domain: &Value) -> Result<(), ApiError> {
    let domain = object(domain)?;
    only(domain, &["id", "name"])
}

fn check_projects(projects: &Value) -> Result<(), ApiError> {
    for project in list(projects)? {
        let members = object(project)?;
        only(members, &["name", "domain", "roles"])?;
        let roles = members.get("roles").ok_or_else(|| missing("roles"))?;
        members.get("name").ok_or_else(|| missing("name"))?;
        for role in list(roles)? {
            let role = object(role)?;
            only(role, &["name", "domain"])?;
            role.get("name").ok_or_else(|| missing("name"))?;
        }
    }
    Ok(())
}

fn check_remote(remote: &Value) -> Result<(), ApiError> {
    let members = object(remote)?;
    let conditions =
        members.keys().filter(|k| CONDITIONS.contains(&k.as_str()) || FILTERS.contains(&k.as_str()));
    let has_lists = members.iter().all(|(name, value)| match name.as_str() {
        "type" => value.is_string(),
        "regex" => value.is_boolean(),
        name if CONDITIONS.contains(&name) || FILTERS.contains(&name) => value.is_array(),
        _ => false,
    });
    let regex_alone = members.contains_key("regex") && members.len() == 2;
    if !members.contains_key("type") || conditions.count() > 1 || !has_lists || regex_alone {
        return Err(fits_nothing(remote));
    }
    Ok(())
}

fn object(value: &Value) -> Result<&Json, ApiError> {
    value.as_object().ok_or_else(|| says(format!("{} is not of type 'object'", python(value))))
}

fn list(value: &Value) -> Result<&Vec<Value>, ApiError> {
    value.as_array().ok_or_else(|| says(format!("{} is not of type 'array'", python(value))))
}

fn filled(value: &Value) -> Result<&Vec<Value>, ApiError> {
    let items = list(value)?;
    if items.is_empty() { Err(says("[] should be non-empty".to_owned())) } else { Ok(items) }
}

fn only(object: &Json, known: &[&str]) -> Result<(), ApiError> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(says(format!("Additional properties are not allowed ('{name}' was unexpected)"))),
        None => Ok(()),
    }
}

fn missing(name: &str) -> ApiError {
    says(format!("'{name}' is a required property"))
}

fn fits_nothing(value: &Value) -> ApiError {
    says(format!("{} is not valid under any of the given schemas", python(value)))
}

/// Keystone ends each with a new line.
fn says(message: String) -> ApiError {
    ApiError::invalid(format!("{message}\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_checked_as_keystone_checks_them() {
        let local = json!([{"user": {"name": "{0}"}}]);
        let remote = json!([{"type": "UserName"}]);
        let rule = |local: &Value, remote: &Value| json!({"rules": [{"local": local, "remote": remote}]});
        for (mapping, want) in [
            (rule(&local, &remote), "ok"),
            (rule(&json!([]), &remote), "ok"),
            (
                rule(
                    &json!([{"user": {"name": "{0}", "domain": {"id": "d"}}}, {"group": {"id": "g"}}]),
                    &remote,
                ),
                "ok",
            ),
            (rule(&json!([{"group": {"name": "g", "domain": {"name": "d"}}}]), &remote), "ok"),
            (rule(&json!([{"groups": "{1}", "domain": {"id": "d"}}]), &remote), "ok"),
            (rule(&json!([{"projects": [{"name": "p", "roles": [{"name": "member"}]}]}]), &remote), "ok"),
            (rule(&local, &json!([{"type": "a", "any_one_of": ["x"], "regex": true}])), "ok"),
            (rule(&local, &json!([{"type": "a", "whitelist": ["x"]}])), "ok"),
            (json!({}), "'rules' is a required property"),
            (json!({"rules": []}), "[] should be non-empty"),
            (json!({"rules": [{"local": []}]}), "'remote' is a required property"),
            (rule(&local, &json!([])), "[] should be non-empty"),
            (
                rule(&json!([{"bogus": 1}]), &remote),
                "Additional properties are not allowed ('bogus' was unexpected)",
            ),
            (
                rule(&local, &json!([{"type": "a", "any_one_of": ["x"], "not_any_of": ["y"]}])),
                "{'type': 'a', 'any_one_of': ['x'], 'not_any_of': ['y']} is not valid under any of the given schemas",
            ),
            (
                rule(&local, &json!([{"kind": "a"}])),
                "{'kind': 'a'} is not valid under any of the given schemas",
            ),
            (
                rule(&json!([{"group": {"name": "g"}}]), &remote),
                "{'name': 'g'} is not valid under any of the given schemas",
            ),
            (
                rule(&json!([{"user": {"name": "x", "type": "odd"}}]), &remote),
                "'odd' is not one of ['ephemeral', 'local']",
            ),
        ] {
            let done = check(mapping.as_object().expect("an object"));
            let said = done.err().map_or_else(|| "ok".to_owned(), |e| e.message().trim_end().to_owned());
            assert_eq!(said, want, "{mapping}");
        }
    }
}
