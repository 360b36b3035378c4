//! `/users/{user}/application_credentials` and `/users/{user}/access_rules`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::routes::Routes;
use axum::extract::Path;
use axum::routing::get;
use gantry_identity_api::{ApplicationCredential, ApplicationCredentialSpec, KeystoneRecord, Role};
use gantry_kube_types::SecurityEvent;
use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, done, fresh_id, object, shown, text};
use super::errors::ApiError;
use super::records::{all, find, new_object, object_name};
use super::roles::Roles;
use super::schema::{Field, Form, Json, Shape, may, must, null};
use super::timestamps;
use super::typed::Collection;
use crate::access_rules::RULES;
use crate::directory::State;
use crate::directory::table::Entry;
use crate::login::secrets::{check_given_secret, keep_application_secret};
use crate::password::Password;
use crate::policy::{Act, Subject};

const WORD: &str = "Application Credential";
const FIELDS: &[Field] = &[
    must("name", Form::Name(255)),
    null("description", Form::Text),
    null("secret", Form::Text),
    null("expires_at", Form::Text),
    may("roles", Form::Array),
    may("unrestricted", Form::Boolean),
    may(RULES, Form::Array),
];
const NEW: Shape = Shape::open("application_credential", FIELDS);

/// The routes.
pub(crate) fn routes() -> Routes {
    let credentials = "/users/{user}/application_credentials";
    let rules = "/users/{user}/access_rules";
    Routes::new()
        .route(credentials, get(list).post(create))
        .route(&format!("{credentials}/{{application_credential}}"), get(show).delete(delete))
        .route(rules, get(list_rules))
        .route(&format!("{rules}/{{access_rule}}"), get(show_rule).delete(delete_rule))
}

/// The attributes as clients see them; never the secret.
fn full(call: &Call, state: &State, credential: &ApplicationCredential) -> Json {
    let (id, spec) = (credential.id(), &credential.spec);
    let roles = state.implied(spec.roles.iter().cloned());
    let roles: Vec<Value> = roles.iter().filter_map(|id| state.roles.get(id)).map(|r| role(r)).collect();
    let mut all = object(json!({
        "id": id,
        "name": spec.name,
        "description": Some(&spec.description).filter(|d| !d.is_empty()),
        "user_id": spec.user,
        "project_id": spec.project,
        "system": null,
        "expires_at": spec.expires_at.as_ref().map(|at| timestamps::plain(at.0)),
        "unrestricted": spec.unrestricted,
        "roles": roles,
        "links": { "self": call.url(&format!("application_credentials/{id}")) },
    }));
    if !spec.access_rules.is_empty() {
        all.insert(RULES.to_owned(), access_rules(state, credential));
    }
    all
}

fn role(role: &Role) -> Value {
    let mut all = Roles::show(role);
    all.insert("id".to_owned(), json!(role.id()));
    Value::Object(all)
}

/// The credential's access rules, as tokens carry them too.
pub(crate) fn access_rules(state: &State, credential: &ApplicationCredential) -> Value {
    let spec = &credential.spec;
    let rules = spec.access_rules.iter().filter_map(|id| find(state, RULES, Some(&spec.user), id));
    rules.map(|rule| Value::Object(rule_of(rule))).collect()
}

fn rule_of(record: &KeystoneRecord) -> Json {
    let mut all = record.spec.attributes.clone();
    all.remove("user_id");
    all.insert("id".to_owned(), json!(record.spec.id));
    all
}

fn require(call: &Call, state: &State, user: &str, act: Act, action: &str) -> Result<(), ApiError> {
    call.require(state, act, &Subject::Credential { user }, action)
}

async fn list(call: Call, Path(user): Path<String>) -> Answer {
    let items = {
        let state = call.state();
        require(&call, &state, &user, Act::Read, "list_application_credentials")?;
        let own = state.application_credentials.iter().filter(|c| c.spec.user == user);
        own.map(|c| full(&call, &state, c)).collect()
    };
    call.list("application_credentials", &["name"], items)
}

fn found(
    call: &Call,
    (user, id): &(String, String),
    act: Act,
    action: &str,
) -> Result<Arc<ApplicationCredential>, ApiError> {
    let state = call.state();
    require(call, &state, user, act, action)?;
    let found = state.application_credentials.get(id).filter(|c| c.spec.user == *user);
    found.cloned().ok_or_else(|| ApiError::not_found(WORD, id))
}

async fn show(call: Call, Path(path): Path<(String, String)>) -> Answer {
    let found = found(&call, &path, Act::Read, "get_application_credential")?;
    Ok(shown(StatusCode::OK, NEW.member, full(&call, &call.state(), &found)))
}

/// The ids of the roles asked for, out of those the caller has.
fn roles_of(own: &[Arc<Role>], asked: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let Some(asked) = asked.and_then(Value::as_array).filter(|asked| !asked.is_empty()) else {
        return Ok(own.iter().map(|role| role.id()).collect());
    };
    let unassigned = || {
        let message =
            "Invalid application credential: Cannot create an application credential with unassigned role";
        ApiError::invalid(message)
    };
    let find = |asked: &Value| {
        let by = |name: &str| asked.get(name).and_then(Value::as_str);
        let is = |role: &&Arc<Role>| match (by("id"), by("name")) {
            (Some(id), _) => role.id() == id,
            (None, Some(name)) => gantry_identity_api::Named::display_name(role.as_ref()) == name,
            (None, None) => false,
        };
        own.iter().find(is).map(|role| role.id()).ok_or_else(unassigned)
    };
    let roles: BTreeSet<String> = asked.iter().map(find).collect::<Result<_, _>>()?;
    Ok(roles.into_iter().collect())
}

/// When it expires, which must be later than now.
pub(crate) fn expiry(body: &Json, now: Timestamp) -> Result<Option<Time>, ApiError> {
    let Some(given) = text(body, "expires_at") else { return Ok(None) };
    let at =
        timestamps::parse(given).ok_or_else(|| ApiError::malformed("Timestamp not in expected format."))?;
    if at <= now {
        return Err(ApiError::malformed("The 'expires_at' must not be before now."));
    }
    Ok(Some(Time(at)))
}

/// The rules asked for: the user's own where they are the same, else new ones.
fn rules_of(
    state: &State,
    user: &str,
    asked: Option<&Value>,
) -> Result<(Vec<String>, Vec<KeystoneRecord>), ApiError> {
    let (mut ids, mut new) = (Vec::new(), Vec::new());
    for asked in asked.and_then(Value::as_array).into_iter().flatten() {
        if let Some(id) = asked.get("id").and_then(Value::as_str) {
            find(state, RULES, Some(user), id).ok_or_else(|| ApiError::not_found("Access Rule", id))?;
            ids.push(id.to_owned());
            continue;
        }
        let part = |name: &str| {
            let value = asked.get(name).and_then(Value::as_str);
            value.ok_or_else(|| ApiError::invalid(format!("'{name}' is a required property")))
        };
        let (path, method, service) = (part("path")?, part("method")?, part("service")?);
        if !path.starts_with('/') || !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&method) {
            return Err(ApiError::invalid(format!(
                "{method} {path} is no rule: METHOD and /path are expected"
            )));
        }
        let attributes =
            object(json!({ "path": path, "method": method, "service": service, "user_id": user }));
        let same = all(state, RULES, Some(user)).find(|r| r.spec.attributes == attributes);
        let id = same.map_or_else(fresh_id, |rule| rule.spec.id.clone());
        if same.is_none() {
            new.push(new_object(RULES, Some(user), &id, attributes));
        }
        ids.push(id);
    }
    Ok((ids, new))
}

async fn create(call: Call, Path(user): Path<String>, body: Body) -> Answer {
    let action = "create_application_credential";
    let mut body = body.new_object(&NEW)?;
    let given = match body.remove("secret") {
        Some(Value::String(secret)) => Some(Password::new(secret)),
        _ => None,
    };
    given.as_ref().map_or(Ok(()), check_given_secret)?;
    let (spec, rules) = {
        let state = call.state();
        require(&call, &state, &user, Act::Create, action)?;
        // Nobody makes credentials for another, whatever rights they have.
        if user != call.user() {
            return Err(ApiError::forbidden(action));
        }
        let project = call.session.project.as_ref().ok_or_else(|| {
            ApiError::invalid("Invalid application credential: the token must be scoped to a project")
        })?;
        let name = text(&body, "name").unwrap_or_default();
        if state.application_credentials.by_name(Some(&user), name).is_some() {
            let detail = format!("Duplicate entry found with name {name}");
            return Err(ApiError::conflict("application_credential", &detail));
        }
        let (access_rules, rules) = rules_of(&state, &user, body.get(RULES))?;
        let spec = ApplicationCredentialSpec {
            name: name.to_owned(),
            user: user.clone(),
            project: project.id(),
            description: text(&body, "description").unwrap_or_default().to_owned(),
            roles: roles_of(&call.session.roles, body.get("roles"))?,
            expires_at: expiry(&body, call.core.now())?,
            unrestricted: body.get("unrestricted") == Some(&Value::Bool(true)),
            access_rules,
        };
        (spec, rules)
    };
    for rule in &rules {
        call.core.objects.create(rule).await?;
    }
    let id = fresh_id();
    let secret = keep_application_secret(&call.core.vault, &call.core.passwords, &id, given).await?;
    let made = call.core.objects.create(&ApplicationCredential::new(&id, spec)).await;
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            call.core.vault.delete_owner(&id).await?;
            return Err(error.into());
        }
    };
    call.record(SecurityEvent::CredentialCreated, "applicationcredentials", &id).await?;
    let mut all = full(&call, &call.state(), &made);
    all.insert("secret".to_owned(), json!(secret.expose()));
    Ok(shown(StatusCode::CREATED, NEW.member, all))
}

async fn delete(call: Call, Path(path): Path<(String, String)>) -> Answer {
    let found = found(&call, &path, Act::Delete, "delete_application_credential")?;
    let id = found.id();
    call.core.objects.remove::<ApplicationCredential>(&id).await?;
    call.core.vault.delete_owner(&id).await?;
    call.record(SecurityEvent::CredentialDeleted, "applicationcredentials", &id).await?;
    done()
}

fn rule_full(call: &Call, record: &KeystoneRecord) -> Json {
    let mut all = rule_of(record);
    all.insert("links".to_owned(), json!({ "self": call.url(&format!("access_rules/{}", record.spec.id)) }));
    all
}

async fn list_rules(call: Call, Path(user): Path<String>) -> Answer {
    let items = {
        let state = call.state();
        require(&call, &state, &user, Act::Read, "list_access_rules")?;
        all(&state, RULES, Some(&user)).map(|r| rule_full(&call, r)).collect()
    };
    call.list(RULES, &["service", "path", "method"], items)
}

async fn show_rule(call: Call, Path((user, id)): Path<(String, String)>) -> Answer {
    let state = call.state();
    require(&call, &state, &user, Act::Read, "get_access_rule")?;
    let found =
        find(&state, RULES, Some(&user), &id).ok_or_else(|| ApiError::not_found("Access Rule", &id))?;
    Ok(shown(StatusCode::OK, "access_rule", rule_full(&call, found)))
}

async fn delete_rule(call: Call, Path((user, id)): Path<(String, String)>) -> Answer {
    {
        let state = call.state();
        require(&call, &state, &user, Act::Delete, "delete_access_rule")?;
        find(&state, RULES, Some(&user), &id).ok_or_else(|| ApiError::not_found("Access Rule", &id))?;
        let mut own = state.application_credentials.iter().filter(|c| c.spec.user == user);
        if own.any(|c| c.spec.access_rules.contains(&id)) {
            return Err(ApiError::refused("May not delete access rule in use"));
        }
    }
    call.core.objects.delete::<KeystoneRecord>(&object_name(RULES, Some(&user), &id)).await?;
    done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{put, two_organisations};

    #[test]
    fn a_credential_has_no_role_that_its_user_does_not_have() {
        let state = two_organisations();
        let own: Vec<Arc<Role>> =
            ["member", "reader"].iter().filter_map(|id| state.roles.get(id).cloned()).collect();
        let roles = |asked: Option<Value>| roles_of(&own, asked.as_ref()).ok();
        assert_eq!(roles(None), Some(vec!["member".to_owned(), "reader".to_owned()]));
        assert_eq!(roles(Some(json!([]))), roles(None));
        assert_eq!(roles(Some(json!([{"name": "reader"}]))), Some(vec!["reader".to_owned()]));
        assert_eq!(
            roles(Some(json!([{"id": "member"}, {"name": "member"}]))),
            Some(vec!["member".to_owned()])
        );
        assert_eq!(roles(Some(json!([{"name": "admin"}]))), None);
        assert_eq!(roles(Some(json!([{}]))), None);
    }

    #[test]
    fn the_same_rule_is_kept_once() {
        let mut state = two_organisations();
        let rule = json!([{"path": "/v2/servers", "method": "GET", "service": "compute"}]);
        let (ids, new) = rules_of(&state, "alice", Some(&rule)).expect("a rule");
        assert_eq!((ids.len(), new.len()), (1, 1));
        put(&mut state, new[0].clone());
        let (again, new) = rules_of(&state, "alice", Some(&rule)).expect("a rule");
        assert_eq!((again, new.len()), (ids.clone(), 0));
        assert!(rules_of(&state, "bob", Some(&json!([{ "id": ids[0] }]))).is_err(), "another's");
        for bad in [json!([{"path": "x", "method": "GET", "service": "c"}]), json!([{"path": "/x"}])] {
            assert!(rules_of(&state, "alice", Some(&bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_to_come_are_taken() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let at = |text: &str| expiry(&object(json!({ "expires_at": text })), now);
        assert!(at("2030-01-01T00:00:00").is_ok_and(|at| at.is_some()));
        assert!(at("2001-01-01T00:00:00").is_err());
        assert!(at("bogus").is_err());
        assert!(expiry(&Json::new(), now).is_ok_and(|at| at.is_none()));
    }
}
