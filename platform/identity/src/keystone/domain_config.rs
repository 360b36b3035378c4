//! `/domains/{id}/config` and `/domains/config/…/default`: settings of a domain's directory, kept for Keystone's
//! clients. Sensitive options lie in the vault and are never given back.

use super::routes::Routes;
use axum::extract::Path;
use axum::routing::get;
use gantry_identity_api::KeystoneRecord;
use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, done, object, shown};
use super::errors::ApiError;
use super::records::{find, new_object, object_name};
use super::schema::Json;
use super::typed::store_change;
use crate::directory::State;
use crate::errors::IdentityError;
use crate::policy::{Act, Subject};
use crate::vault::{SecretBytes, SecretKey, SecretKind};

/// One record per domain; its id is the domain's.
pub(crate) const COLLECTION: &str = "domain_config";
/// Options that are kept in the vault.
const SENSITIVE: &[(&str, &str)] = &[("ldap", "password")];

/// The options of each group with Keystone's defaults, as JSON.
const DEFAULTS: &str = r#"{
    "identity": { "driver": "sql", "list_limit": null },
    "ldap": {
        "url": "ldap://localhost", "user": null, "suffix": "cn=example,cn=com", "query_scope": "one",
        "page_size": 0, "alias_dereferencing": "default", "debug_level": null, "chase_referrals": null,
        "user_tree_dn": null, "user_filter": null, "user_objectclass": "inetOrgPerson",
        "user_id_attribute": "cn", "user_name_attribute": "sn", "user_mail_attribute": "mail",
        "user_description_attribute": "description", "user_pass_attribute": "userPassword",
        "user_enabled_attribute": "enabled", "user_enabled_invert": false, "user_enabled_mask": 0,
        "user_enabled_default": "True", "user_attribute_ignore": ["default_project_id"],
        "user_default_project_id_attribute": null, "user_enabled_emulation": false,
        "user_enabled_emulation_dn": null, "user_enabled_emulation_use_group_config": false,
        "user_additional_attribute_mapping": [], "group_tree_dn": null, "group_filter": null,
        "group_objectclass": "groupOfNames", "group_id_attribute": "cn", "group_name_attribute": "ou",
        "group_members_are_ids": false, "group_member_attribute": "member",
        "group_desc_attribute": "description", "group_attribute_ignore": [],
        "group_additional_attribute_mapping": [], "tls_cacertfile": null, "tls_cacertdir": null,
        "use_tls": false, "tls_req_cert": "demand", "use_pool": true, "pool_size": 10, "pool_retry_max": 3,
        "pool_retry_delay": 0.1, "pool_connection_timeout": -1, "pool_connection_lifetime": 600,
        "use_auth_pool": true, "auth_pool_size": 100, "auth_pool_connection_lifetime": 60
    }
}"#;

fn defaults() -> Value {
    // A test reads it.
    serde_json::from_str(DEFAULTS).unwrap_or_default()
}

/// The routes.
pub(crate) fn routes() -> Routes {
    let config = "/domains/{domain}/config";
    Routes::new()
        .route("/domains/config/default", get(all_defaults))
        .route("/domains/config/{group}/default", get(group_defaults))
        .route("/domains/config/{group}/{option}/default", get(option_default))
        .route(config, get(show).put(replace).patch(update).delete(delete))
        .route(&format!("{config}/{{group}}"), get(show).patch(update).delete(delete))
        .route(&format!("{config}/{{group}}/{{option}}"), get(show).patch(update).delete(delete))
}

fn unsupported(what: &str) -> ApiError {
    ApiError::refused(format!("Invalid domain specific configuration: {what}."))
}

fn is_sensitive(group: &str, option: &str) -> bool {
    SENSITIVE.contains(&(group, option))
}

/// Are there such a group and option?
fn check_known(group: &str, option: Option<&str>) -> Result<(), ApiError> {
    let defaults = defaults();
    let Some(options) = defaults.get(group) else {
        return Err(unsupported(&format!(
            "Group {group} is not supported for domain specific configurations"
        )));
    };
    match option {
        Some(option) if options.get(option).is_none() && !is_sensitive(group, option) => Err(unsupported(
            &format!("Option {option} in group {group} is not supported for domain specific configurations"),
        )),
        _ => Ok(()),
    }
}

fn config(value: Value) -> Answer {
    Ok(shown(StatusCode::OK, "config", object(value)))
}

fn require_defaults(call: &Call) -> Result<(), ApiError> {
    call.require(&call.state(), Act::Read, &Subject::Private, "get_domain_config_default")
}

async fn all_defaults(call: Call) -> Answer {
    require_defaults(&call)?;
    config(defaults())
}

async fn group_defaults(call: Call, Path(group): Path<String>) -> Answer {
    require_defaults(&call)?;
    check_known(&group, None)?;
    let options = defaults()[&group].take();
    config(json!({ group: options }))
}

async fn option_default(call: Call, Path((group, option)): Path<(String, String)>) -> Answer {
    require_defaults(&call)?;
    check_known(&group, Some(&option))?;
    if is_sensitive(&group, &option) {
        let what = format!("Reading the default for option {option} in group {group} is not supported");
        return Err(unsupported(&what));
    }
    let value = defaults()[&group][&option].take();
    config(json!({ option: value }))
}

/// What of a domain's configuration a path is about.
struct Part {
    domain: String,
    group: Option<String>,
    option: Option<String>,
}

impl Part {
    fn of(call: &Call, path: Vec<String>, act: Act, action: &str) -> Result<Self, ApiError> {
        let mut path = path.into_iter();
        let part = Self { domain: path.next().unwrap_or_default(), group: path.next(), option: path.next() };
        let state = call.state();
        let subject = if state.domains.get(&part.domain).is_some() {
            Subject::Provider { domain: &part.domain }
        } else {
            Subject::Private
        };
        call.require(&state, act, &subject, action)?;
        if state.domains.get(&part.domain).is_none() {
            return Err(ApiError::not_found("domain", &part.domain));
        }
        if let Some(group) = &part.group {
            check_known(group, part.option.as_deref())?;
        }
        Ok(part)
    }

    fn missing(&self) -> ApiError {
        let domain = &self.domain;
        let what = match (&self.group, &self.option) {
            (Some(group), Some(option)) => format!("option {option} in group {group}"),
            (Some(group), None) => format!("group {group}"),
            _ => "any options".to_owned(),
        };
        ApiError::gone(format!("Could not find {what} in domain configuration for domain {domain}."))
    }

    /// The part of a whole configuration.
    fn pick(&self, whole: &Json) -> Option<Value> {
        let picked = match (&self.group, &self.option) {
            (Some(group), Some(option)) => json!({ option.as_str(): whole.get(group)?.get(option)? }),
            (Some(group), None) => json!({ group.as_str(): whole.get(group)? }),
            _ if whole.is_empty() => return None,
            _ => Value::Object(whole.clone()),
        };
        Some(picked)
    }

    /// The options that a body sets, as `{group: {option: value}}`; they must be of this part.
    fn read(&self, body: Json) -> Result<Json, ApiError> {
        if body.is_empty() {
            return Err(unsupported("No options specified"));
        }
        let whole = match (&self.group, &self.option) {
            (Some(group), Some(option)) => {
                let value = body.get(option).cloned().ok_or_else(|| {
                    unsupported(&format!(
                        "request to update option {option} in group {group}, but it is not given"
                    ))
                })?;
                object(json!({ group.as_str(): { option.as_str(): value } }))
            }
            (Some(group), None) => {
                if let Some(other) = body.keys().find(|name| *name != group) {
                    return Err(unsupported(&format!(
                        "request to update group {group}, but config provided contains group {other} instead"
                    )));
                }
                body
            }
            _ => body,
        };
        for (group, options) in &whole {
            check_known(group, None)?;
            let Some(options) = options.as_object() else {
                return Err(unsupported(&format!("Group {group} is no list of options")));
            };
            for option in options.keys() {
                check_known(group, Some(option))?;
            }
        }
        Ok(whole)
    }
}

fn current(state: &State, domain: &str) -> Option<Json> {
    find(state, COLLECTION, None, domain).map(|r| r.spec.attributes.clone())
}

async fn show(call: Call, Path(path): Path<Vec<String>>) -> Answer {
    let part = Part::of(&call, path, Act::Read, "get_domain_config")?;
    let whole = current(&call.state(), &part.domain).unwrap_or_default();
    config(part.pick(&whole).ok_or_else(|| part.missing())?)
}

/// Takes the sensitive options out and keeps them where nobody reads them.
async fn hide(call: &Call, domain: &str, whole: &mut Json) -> Result<(), ApiError> {
    for (group, option) in SENSITIVE {
        let taken = whole.get_mut(*group).and_then(Value::as_object_mut).and_then(|o| o.remove(*option));
        if let Some(value) = taken {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            call.core.vault.put(secret_key(domain, group, option), SecretBytes::from(value)).await?;
        }
    }
    Ok(())
}

fn secret_key(domain: &str, group: &str, option: &str) -> SecretKey {
    SecretKey::new(SecretKind::Provider, domain, &format!("{group}/{option}"))
}

/// All sensitive options of a domain.
pub(crate) fn secrets(domain: &str) -> Vec<SecretKey> {
    SENSITIVE.iter().map(|(group, option)| secret_key(domain, group, option)).collect()
}

/// `PUT /domains/{id}/config`: this and nothing else.
async fn replace(call: Call, Path(path): Path<Vec<String>>, body: Body) -> Answer {
    let part = Part::of(&call, path, Act::Create, "create_domain_config")?;
    let mut whole = part.read(body.member("config")?)?;
    hide(&call, &part.domain, &mut whole).await?;
    let existed = { current(&call.state(), &part.domain).is_some() };
    let record = new_object(COLLECTION, None, &part.domain, whole.clone());
    if existed {
        let change = |_: &State, record: &mut KeystoneRecord| {
            record.spec.attributes.clone_from(&whole);
            Ok(())
        };
        store_change(&call, &object_name(COLLECTION, None, &part.domain), change).await?;
    } else {
        call.core.objects.create(&record).await?;
    }
    let status = if existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok(shown(status, "config", whole))
}

async fn update(call: Call, Path(path): Path<Vec<String>>, body: Body) -> Answer {
    let part = Part::of(&call, path, Act::Update, "update_domain_config")?;
    let mut changed = part.read(body.member("config")?)?;
    {
        let whole = current(&call.state(), &part.domain).unwrap_or_default();
        let group = Part { domain: part.domain.clone(), group: part.group.clone(), option: None };
        group.pick(&whole).ok_or_else(|| group.missing())?;
    }
    hide(&call, &part.domain, &mut changed).await?;
    let change = |_: &State, record: &mut KeystoneRecord| {
        merge(&mut record.spec.attributes, &changed);
        Ok(())
    };
    let name = object_name(COLLECTION, None, &part.domain);
    let stored: KeystoneRecord = store_change(&call, &name, change).await?;
    config(Value::Object(stored.spec.attributes))
}

fn merge(whole: &mut Json, changed: &Json) {
    for (group, options) in changed {
        let known = whole.entry(group.clone()).or_insert_with(|| json!({}));
        if let (Some(known), Some(options)) = (known.as_object_mut(), options.as_object()) {
            known.extend(options.clone());
        }
    }
}

/// Takes the part out; groups without options go too.
fn without(whole: &mut Json, part: &Part) {
    match (&part.group, &part.option) {
        (Some(group), Some(option)) => {
            if let Some(options) = whole.get_mut(group).and_then(Value::as_object_mut) {
                options.remove(option);
            }
        }
        (Some(group), None) => drop(whole.remove(group)),
        _ => whole.clear(),
    }
    whole.retain(|_, options| options.as_object().is_none_or(|o| !o.is_empty()));
}

async fn delete(call: Call, Path(path): Path<Vec<String>>) -> Answer {
    let part = Part::of(&call, path, Act::Delete, "delete_domain_config")?;
    let mut whole = { current(&call.state(), &part.domain).unwrap_or_default() };
    part.pick(&whole).ok_or_else(|| part.missing())?;
    for (group, option) in SENSITIVE {
        let of = part.group.as_deref().is_none_or(|g| g == *group)
            && part.option.as_deref().is_none_or(|o| o == *option);
        if of {
            call.core.vault.delete(secret_key(&part.domain, group, option)).await?;
        }
    }
    without(&mut whole, &part);
    let name = object_name(COLLECTION, None, &part.domain);
    if whole.is_empty() {
        match call.core.objects.delete::<KeystoneRecord>(&name).await {
            Ok(()) | Err(IdentityError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    } else {
        let change = |_: &State, record: &mut KeystoneRecord| {
            without(&mut record.spec.attributes, &part);
            Ok(())
        };
        store_change(&call, &name, change).await?;
    }
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(group: Option<&str>, option: Option<&str>) -> Part {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Part { domain: "d".to_owned(), group: own(group), option: own(option) }
    }

    #[test]
    fn the_defaults_are_json() {
        assert_eq!(defaults()["ldap"]["url"], json!("ldap://localhost"));
        assert_eq!(defaults()["identity"]["driver"], json!("sql"));
    }

    #[test]
    fn only_known_options_are_taken() {
        for (group, option, body, good) in [
            (
                None,
                None,
                json!({"ldap": {"url": "x", "password": "p"}, "identity": {"driver": "ldap"}}),
                true,
            ),
            (None, None, json!({}), false),
            (None, None, json!({"bogus": {"a": 1}}), false),
            (None, None, json!({"ldap": {"bogus": 1}}), false),
            (None, None, json!({"ldap": 4}), false),
            (Some("ldap"), None, json!({"ldap": {"url": "x"}}), true),
            (Some("ldap"), None, json!({"identity": {"driver": "x"}}), false),
            (Some("ldap"), Some("url"), json!({"url": "x"}), true),
            (Some("ldap"), Some("url"), json!({"user": "x"}), false),
        ] {
            let read = part(group, option).read(object(body.clone()));
            assert_eq!(read.is_ok(), good, "{group:?} {option:?} {body}");
        }
    }

    #[test]
    fn parts_are_picked_and_taken_out() {
        let whole = || object(json!({"ldap": {"url": "x", "user": "u"}, "identity": {"driver": "ldap"}}));
        assert_eq!(part(Some("ldap"), Some("url")).pick(&whole()), Some(json!({"url": "x"})));
        assert_eq!(
            part(Some("identity"), None).pick(&whole()),
            Some(json!({"identity": {"driver": "ldap"}}))
        );
        assert_eq!(part(None, None).pick(&Json::new()), None);
        assert_eq!(part(Some("ldap"), Some("suffix")).pick(&whole()), None);
        let mut left = whole();
        without(&mut left, &part(Some("identity"), Some("driver")));
        assert_eq!(Value::Object(left.clone()), json!({"ldap": {"url": "x", "user": "u"}}));
        merge(&mut left, &object(json!({"ldap": {"url": "y"}, "identity": {"driver": "sql"}})));
        assert_eq!(
            Value::Object(left),
            json!({"ldap": {"url": "y", "user": "u"}, "identity": {"driver": "sql"}})
        );
    }
}
