//! `/users`: people and programs.

use axum::Json as JsonBody;
use axum::extract::Path;
use axum::response::IntoResponse;
use gantry_identity_api::{FederatedIdentity, Group, Named, User, UserOptions, UserSpec};
use gantry_kube_types::SecurityEvent;
use serde_json::{Value, json};

use super::call::{Answer, Body, Call, Visit, done, object, text};
use super::cascade;
use super::domains::{domain_of, known_domain};
use super::errors::ApiError;
use super::groups::Groups;
use super::projects::Projects;
use super::schema::{Form, Json, Shape, bad, may, must, null, python};
use super::timestamps;
use super::typed::{Collection, find, full, list_of, unknown};
use crate::admission::{outranks, signs_in_otherwise};
use crate::core::whole_seconds;
use crate::directory::State;
use crate::directory::table::{Entry, Table};
use crate::hanging;
use crate::password::{Password, PasswordOptions};
use crate::policy::{Act, Authority, Subject};

pub(crate) struct Users;

/// Attributes with a place of their own.
const KNOWN: &[&str] = &["email", "description", "password_expires_at"];

impl Collection for Users {
    type Kind = User;
    const PLURAL: &'static str = "users";
    const NEW: Shape = Shape::open(
        "user",
        &[
            must("name", Form::Name(255)),
            null("domain_id", Form::Name(64)),
            null("password", Form::Text),
            may("enabled", Form::Boolean),
            null("default_project_id", Form::Text),
            null("description", Form::Text),
            may("options", Form::Object),
            may("federated", Form::Array),
        ],
    );
    const CHANGE: Shape = Self::NEW;
    const FILTERS: &'static [&'static str] =
        &["name", "domain_id", "enabled", "password_expires_at", "email", "default_project_id"];
    const EVENTS: Option<[SecurityEvent; 3]> =
        Some([SecurityEvent::UserCreated, SecurityEvent::RightChanged, SecurityEvent::UserDeleted]);

    fn table(state: &State) -> &Table<User> {
        &state.users
    }

    fn subject(user: &User) -> Subject<'_> {
        Subject::User { id: user.metadata.name.as_deref().unwrap_or_default(), domain: &user.spec.domain }
    }

    fn show(user: &User) -> Json {
        let spec = &user.spec;
        let expires = user.status.as_ref().and_then(|s| s.password_expires_at.as_ref());
        let mut all = spec.extra.clone();
        all.extend(object(json!({
            "name": user.display_name(),
            "domain_id": spec.domain,
            "enabled": spec.enabled,
            "options": spec.options,
            "password_expires_at": expires.map(|at| timestamps::plain(at.0)),
        })));
        let some = [
            ("default_project_id", spec.default_project.as_deref()),
            ("email", spec.email.as_deref()),
            ("description", Some(spec.description.as_str()).filter(|d| !d.is_empty())),
        ];
        for (name, value) in some {
            if let Some(value) = value {
                all.insert(name.to_owned(), json!(value));
            }
        }
        if !spec.federated.is_empty() {
            all.insert("federated".to_owned(), federated(&spec.federated));
        }
        all
    }

    fn create(call: &Call, state: &State, id: &str, body: &mut Json) -> Result<User, ApiError> {
        let domain = domain_of(call, body);
        known_domain(call, state, &domain, "create_user")?;
        let mut user = User::new(id, UserSpec { domain, enabled: true, ..UserSpec::default() });
        take(state, &mut user, body)?;
        Ok(user)
    }

    fn change(state: &State, user: &mut User, body: &Json) -> Result<(), ApiError> {
        if text(body, "domain_id").is_some_and(|id| id != user.spec.domain) {
            return Err(ApiError::invalid("Cannot change Domain ID"));
        }
        take(state, user, body)
    }

    fn listed(call: &Call, user: &User) -> Option<Json> {
        let asked = |name: &str| call.query.get(name);
        let fits = |wanted: Option<&str>, of: fn(&FederatedIdentity) -> &str| {
            wanted.is_none_or(|wanted| user.spec.federated.iter().any(|f| of(f) == wanted))
        };
        let fits = fits(asked("idp_id"), |f| &f.provider)
            && fits(asked("protocol_id"), |f| &f.protocol)
            && fits(asked("unique_id"), |f| &f.unique_id);
        fits.then(|| full::<Self>(call, user))
    }

    async fn prepare(call: &Call, user: &User, body: &mut Json) -> Result<Json, ApiError> {
        let Some(Value::String(password)) = body.remove("password") else { return Ok(Json::new()) };
        let options = PasswordOptions::from(&user.spec.options);
        let source = crate::login::source(&call.origin);
        let (id, now) = (user.id(), call.core.now());
        let set = call.core.passwords.set(&id, source, Password::new(password), options, now);
        let record = set.await.map_err(crate::core::change_error)?;
        let expires = record.current.expires.map(|at| timestamps::plain(whole_seconds(at)));
        Ok(object(json!({ "password_expires_at": expires })))
    }

    async fn finish(call: &Call, user: &User) -> Result<(), ApiError> {
        Ok(call.core.show_expiry(&user.id()).await?)
    }

    async fn prepare_change(call: &Call, user: &User, body: &mut Json) -> Result<(), ApiError> {
        {
            let state = call.state();
            let mut after = user.clone();
            take(&state, &mut after, body)?;
            if body.get("password").is_some_and(Value::is_string) || signs_in_otherwise(user, &after) {
                let over = |state: &State, who: &Authority| outranks(state, who, &user.id());
                call.within_rights(&state, over, "update_user")?;
            }
        }
        let Some(Value::String(password)) = body.remove("password") else { return Ok(()) };
        let by = call.session.info.clone();
        Ok(call.core.set_password(&user.id(), Password::new(password), by, &call.origin).await?)
    }

    async fn cascade(call: &Call, user: &User) -> Result<(), ApiError> {
        let doomed = hanging::of_user(&call.state(), &user.id());
        cascade::act(call, doomed).await?;
        call.core.vault.delete_owner(&user.id()).await?;
        Ok(())
    }
}

/// Keystone groups a user's identities elsewhere by provider.
fn federated(identities: &[FederatedIdentity]) -> Value {
    let mut providers: Vec<(&str, Vec<Value>)> = Vec::new();
    for identity in identities {
        let protocol = json!({ "protocol_id": identity.protocol, "unique_id": identity.unique_id });
        match providers.iter_mut().find(|(provider, _)| *provider == identity.provider) {
            Some((_, protocols)) => protocols.push(protocol),
            None => providers.push((&identity.provider, vec![protocol])),
        }
    }
    providers.into_iter().map(|(id, protocols)| json!({ "idp_id": id, "protocols": protocols })).collect()
}

fn read_federated(value: &Value) -> Result<Vec<FederatedIdentity>, ApiError> {
    let wrong = |what: &str| ApiError::invalid(format!("'{what}' is a required property"));
    let mut identities = Vec::new();
    for provider in value.as_array().into_iter().flatten() {
        let id = provider.get("idp_id").and_then(Value::as_str).ok_or_else(|| wrong("idp_id"))?;
        let protocols =
            provider.get("protocols").and_then(Value::as_array).ok_or_else(|| wrong("protocols"))?;
        for protocol in protocols {
            let part = |name: &str| {
                protocol.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| wrong(name))
            };
            let (protocol, unique_id) = (part("protocol_id")?, part("unique_id")?);
            identities.push(FederatedIdentity { provider: id.to_owned(), protocol, unique_id });
        }
    }
    Ok(identities)
}

fn take(state: &State, user: &mut User, body: &Json) -> Result<(), ApiError> {
    let id = user.id();
    let spec = &mut user.spec;
    if let Some(name) = text(body, "name") {
        if state.users.by_name(Some(&spec.domain), name).is_some_and(|other| other.id() != id) {
            let detail = format!("Duplicate entry found with name {name} at domain ID {}", spec.domain);
            return Err(ApiError::conflict("user", &detail));
        }
        spec.name = Some(name.to_owned());
    }
    if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
        spec.enabled = enabled;
    }
    if let Some(project) = body.get("default_project_id") {
        let project = project.as_str().filter(|p| !p.is_empty());
        if let Some(domain) = project.filter(|p| state.domains.get(p).is_some()) {
            let message = format!("User's default project ID cannot be a domain ID: {domain}");
            return Err(ApiError::invalid(message));
        }
        spec.default_project = project.map(str::to_owned);
    }
    if let Some(description) = body.get("description") {
        spec.description = description.as_str().unwrap_or_default().to_owned();
    }
    if let Some(email) = body.get("email") {
        spec.email = email.as_str().map(str::to_owned);
    }
    if let Some(value) = body.get("federated") {
        spec.federated = read_federated(value)?;
    }
    if let Some(Value::Object(changed)) = body.get("options") {
        spec.options = changed_options(&spec.options, changed)?;
    }
    spec.extra.extend(unknown(&Users::NEW, body, KNOWN));
    Ok(())
}

/// Keystone's options by name; null takes one away.
fn changed_options(options: &UserOptions, changed: &Json) -> Result<UserOptions, ApiError> {
    const FLAGS: &[&str] = &[
        "ignore_change_password_upon_first_use",
        "ignore_password_expiry",
        "ignore_lockout_failure_attempts",
        "ignore_user_inactivity",
        "lock_password",
        "multi_factor_auth_enabled",
    ];
    const RULES: &str = "multi_factor_auth_rules";
    let mut all = object(json!(options));
    for (name, value) in changed {
        let wrong =
            |kind: &str| bad(name, value, &format!("{} is not of type '{kind}', 'null'", python(value)));
        let is_rules = |value: &Value| {
            let word = |v: &Value| v.is_string();
            let rule = |v: &Value| v.as_array().is_some_and(|words| words.iter().all(word));
            value.as_array().is_some_and(|rules| rules.iter().all(rule))
        };
        match name.as_str() {
            _ if value.is_null() => drop(all.remove(name)),
            RULES if !is_rules(value) => return Err(wrong("array")),
            flag if FLAGS.contains(&flag) && !value.is_boolean() => return Err(wrong("boolean")),
            known if known == RULES || FLAGS.contains(&known) => {
                drop(all.insert(name.clone(), value.clone()))
            }
            _ => {
                let message = format!("Additional properties are not allowed ('{name}' was unexpected)");
                return Err(bad("options", &Value::Object(changed.clone()), &message));
            }
        }
    }
    serde_json::from_value(Value::Object(all)).map_err(|error| ApiError::invalid(error.to_string()))
}

/// `POST /users/{id}/password`: their own, also an expired one, and so without a token.
pub(crate) async fn change_password(visit: Visit, Path(id): Path<String>, body: Body) -> Answer {
    let body = body.member("user")?;
    let part = |name: &str| match text(&body, name) {
        Some(password) => Ok(Password::new(password)),
        None => Err(ApiError::invalid(format!("'{name}' is a required property"))),
    };
    let (original, new) = (part("original_password")?, part("password")?);
    visit.core.change_password(&id, original, new, &visit.origin).await?;
    done()
}

/// `GET /users/{id}/projects`: where the user has roles.
pub(crate) async fn list_projects(call: Call, Path(id): Path<String>) -> Answer {
    let projects = {
        let state = call.state();
        let user = find::<Users>(&call, &state, &id, Act::Read, "list_user_projects")?;
        let grants = state.grants(&user);
        grants.projects.keys().filter_map(|id| state.projects.get(id).cloned()).collect()
    };
    list_of::<Projects>(&call, projects)
}

/// `GET /users/{id}/groups`
pub(crate) async fn list_groups(call: Call, Path(id): Path<String>) -> Answer {
    let items = {
        let state = call.state();
        let user = find::<Users>(&call, &state, &id, Act::Read, "list_groups_for_user")?;
        let item = |group: &std::sync::Arc<Group>| {
            let mut all = full::<Groups>(&call, group);
            all.insert("membership_expires_at".to_owned(), Value::Null);
            all
        };
        state.groups_of(&user).map(item).collect()
    };
    call.list("groups", Groups::FILTERS, items)
}

/// `{"id", "name", "domain": {"id", "name"}}`, as users stand in tokens and in lists with names.
pub(crate) fn brief(state: &State, user: &User) -> Value {
    json!({ "id": user.id(), "name": user.display_name(), "domain": domain_brief(state, &user.spec.domain) })
}

pub(crate) fn domain_brief(state: &State, id: &str) -> Value {
    json!({ "id": id, "name": state.domains.get(id).map(|d| d.display_name()) })
}

/// An answer that is not of a collection.
pub(crate) fn plain(value: Value) -> Answer {
    Ok(JsonBody(value).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_keystones() {
        let start = UserOptions { lock_password: Some(true), ..UserOptions::default() };
        for (change, want) in [
            (json!({"lock_password": null}), Ok(UserOptions::default())),
            (
                json!({"multi_factor_auth_rules": [["password", "totp"]], "lock_password": false}),
                Ok(UserOptions {
                    lock_password: Some(false),
                    multi_factor_auth_rules: Some(vec![vec!["password".to_owned(), "totp".to_owned()]]),
                    ..UserOptions::default()
                }),
            ),
            (
                json!({"lock_password": "x"}),
                Err(
                    "Invalid input for field/attribute lock_password. Value: x. 'x' is not of type 'boolean', 'null'",
                ),
            ),
            (
                json!({"bogus": 1}),
                Err(
                    "Invalid input for field/attribute options. Value: {'bogus': 1}. Additional properties are not \
                     allowed ('bogus' was unexpected)",
                ),
            ),
            (
                json!({"multi_factor_auth_rules": ["password"]}),
                Err(
                    "Invalid input for field/attribute multi_factor_auth_rules. Value: ['password']. ['password'] is \
                     not of type 'array', 'null'",
                ),
            ),
        ] {
            let done = changed_options(&start, &object(change.clone()));
            let done = done.map_err(|error| error.message().to_owned());
            assert_eq!(done, want.map_err(str::to_owned), "{change}");
        }
    }

    #[test]
    fn identities_elsewhere_are_grouped_by_provider_and_read_back() {
        let of = |provider: &str, protocol: &str| FederatedIdentity {
            provider: provider.to_owned(),
            protocol: protocol.to_owned(),
            unique_id: "u".to_owned(),
        };
        let all = [of("a", "saml2"), of("b", "openid"), of("a", "openid")];
        let shown = federated(&all);
        assert_eq!(shown[0]["protocols"].as_array().map(Vec::len), Some(2));
        let read = read_federated(&shown).expect("what was shown is understood");
        assert_eq!(read, [of("a", "saml2"), of("a", "openid"), of("b", "openid")]);
        assert!(read_federated(&json!([{"idp_id": "x"}])).is_err());
    }
}
