//! From the body of `POST /auth/tokens` to what is shown and asked for.

use http::StatusCode;
use serde_json::{Value, json};

use crate::keystone::errors::ApiError;
use crate::keystone::schema::Json;
use crate::login::{CredentialRef, DomainRef, LoginRequest, Method, ProjectRef, ScopeRequest, UserRef};
use crate::password::Password;

/// The methods that can be asked for, in Keystone's words.
pub(crate) const METHODS: &[&str] = &["password", "token", "application_credential", "totp"];

const AUDIENCES_MAX: usize = 8;
const AUDIENCE_BYTES_MAX: usize = 256;

/// Reads the member `auth`.
pub(crate) fn parse(auth: &Json) -> Result<LoginRequest, ApiError> {
    let required = |name: &str| ApiError::invalid(format!("'{name}' is a required property"));
    let identity = auth.get("identity").and_then(Value::as_object).ok_or_else(|| required("identity"))?;
    let methods = identity.get("methods").and_then(Value::as_array).ok_or_else(|| required("methods"))?;
    let methods = methods.iter().map(|name| method(identity, name)).collect::<Result<Vec<_>, _>>()?;
    if methods.is_empty() {
        return Err(ApiError::expecting("methods", "identity"));
    }
    let scope = auth.get("scope").map_or(Ok(ScopeRequest::Default), scope)?;
    let audiences = auth.get("audiences").map_or(Ok(Vec::new()), audiences)?;
    Ok(LoginRequest { methods, scope, receipt: None, audiences })
}

/// Ours beside Keystone's: names of others that the token is for.
fn audiences(asked: &Value) -> Result<Vec<String>, ApiError> {
    let plain = |name: &&str| {
        (1..=AUDIENCE_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            // Ours: receipts are tokens, too.
            && !name.to_ascii_lowercase().starts_with("gantry")
    };
    let names = asked.as_array().filter(|names| (1..=AUDIENCES_MAX).contains(&names.len()));
    let names = names.map(|names| names.iter().map(|name| name.as_str().filter(plain).map(str::to_owned)));
    names.and_then(Iterator::collect).ok_or_else(|| {
        ApiError::invalid(
            "'audiences' is a list of names; those that begin with 'gantry' are the platform's own.",
        )
    })
}

fn method(identity: &Json, name: &Value) -> Result<Method, ApiError> {
    let name = name.as_str().unwrap_or_default();
    if !METHODS.contains(&name) {
        let error =
            ApiError::new(StatusCode::UNAUTHORIZED, "Attempted to authenticate with an unsupported method.");
        return Err(error.with("identity", json!({ "methods": METHODS })));
    }
    let shown = identity.get(name).and_then(Value::as_object);
    let shown = shown.ok_or_else(|| ApiError::expecting(name, "identity"))?;
    let text = |object: &Json, attribute: &str, target: &str| {
        let value = object.get(attribute).and_then(Value::as_str).map(str::to_owned);
        value.ok_or_else(|| ApiError::expecting(attribute, target))
    };
    let in_user = |attribute: &str| {
        let user =
            shown.get("user").and_then(Value::as_object).ok_or_else(|| ApiError::expecting("user", name))?;
        Ok::<_, ApiError>((self::user(user)?, text(user, attribute, "user")?))
    };
    match name {
        "token" => Ok(Method::Token { token: text(shown, "id", "token")? }),
        "totp" => {
            let (user, passcode) = in_user("passcode")?;
            Ok(Method::Totp { user, passcode })
        }
        "application_credential" => {
            let credential = match shown.get("id").and_then(Value::as_str) {
                Some(id) => CredentialRef::Id(id.to_owned()),
                None => {
                    let owner = shown.get("user").and_then(Value::as_object);
                    let owner = owner.ok_or_else(|| ApiError::expecting("user", name))?;
                    CredentialRef::Name { name: text(shown, "name", name)?, user: user(owner)? }
                }
            };
            Ok(Method::ApplicationCredential {
                credential,
                secret: Password::new(text(shown, "secret", name)?),
            })
        }
        _ => {
            let (user, password) = in_user("password")?;
            Ok(Method::Password { user, password: Password::new(password) })
        }
    }
}

fn user(user: &Json) -> Result<UserRef, ApiError> {
    match (user.get("id").and_then(Value::as_str), user.get("name").and_then(Value::as_str)) {
        (Some(id), _) => Ok(UserRef::Id(id.to_owned())),
        (None, Some(name)) => {
            Ok(UserRef::Name { name: name.to_owned(), domain: domain(user.get("domain"), "user")? })
        }
        (None, None) => Err(ApiError::expecting("id or name", "user")),
    }
}

fn domain(domain: Option<&Value>, target: &str) -> Result<DomainRef, ApiError> {
    let domain = domain.and_then(Value::as_object).ok_or_else(|| ApiError::expecting("domain", target))?;
    match (domain.get("id").and_then(Value::as_str), domain.get("name").and_then(Value::as_str)) {
        (Some(id), _) => Ok(DomainRef::Id(id.to_owned())),
        (None, Some(name)) => Ok(DomainRef::Name(name.to_owned())),
        (None, None) => Err(ApiError::expecting("id or name", "domain")),
    }
}

/// Reads the member `scope`.
pub(crate) fn scope(scope: &Value) -> Result<ScopeRequest, ApiError> {
    if scope.as_str() == Some("unscoped") {
        return Ok(ScopeRequest::Unscoped);
    }
    let scope = scope.as_object().ok_or_else(|| ApiError::expecting("project, domain or system", "scope"))?;
    let mut wanted = scope.iter();
    let (Some((kind, value)), None) = (wanted.next(), wanted.next()) else {
        return Err(ApiError::invalid("Scope to one of project, domain, system or trust."));
    };
    match kind.as_str() {
        "unscoped" => Ok(ScopeRequest::Unscoped),
        "system" if value.get("all") == Some(&Value::Bool(true)) => Ok(ScopeRequest::System),
        "domain" => Ok(ScopeRequest::Domain(domain(Some(value), "scope")?)),
        "project" => Ok(ScopeRequest::Project(project(value)?)),
        "OS-TRUST:trust" => match value.get("id").and_then(Value::as_str) {
            Some(id) => Ok(ScopeRequest::Trust(id.to_owned())),
            None => Err(ApiError::expecting("trust_id", "trust")),
        },
        _ => Err(ApiError::expecting("project, domain or system", "scope")),
    }
}

fn project(project: &Value) -> Result<ProjectRef, ApiError> {
    match (project.get("id").and_then(Value::as_str), project.get("name").and_then(Value::as_str)) {
        (Some(id), _) => Ok(ProjectRef::Id(id.to_owned())),
        (None, Some(name)) => {
            let domain = domain(project.get("domain"), "project")?;
            Ok(ProjectRef::Name { name: name.to_owned(), domain })
        }
        (None, None) => Err(ApiError::expecting("id or name", "project")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(identity: Value, scope: Option<Value>) -> Result<LoginRequest, String> {
        let mut auth = json!({ "identity": identity });
        if let Some(scope) = scope {
            auth["scope"] = scope;
        }
        parse(auth.as_object().expect("an object")).map_err(|error| error.message().to_owned())
    }

    fn expecting(attribute: &str, target: &str) -> String {
        ApiError::expecting(attribute, target).message().to_owned()
    }

    #[test]
    fn every_method_is_read() {
        let by_name = json!({"name": "alice", "domain": {"name": "acme"}, "password": "p", "passcode": "1"});
        let identity = json!({
            "methods": ["password", "totp", "token", "application_credential"],
            "password": {"user": by_name},
            "totp": {"user": {"id": "1", "passcode": "123456"}},
            "token": {"id": "t"},
            "application_credential": {"name": "ci", "user": {"id": "1"}, "secret": "s"},
        });
        let request = read(identity, None).expect("a request");
        let words: Vec<&str> = request.methods.iter().map(Method::word).collect();
        assert_eq!(words, ["password", "totp", "token", "application_credential"]);
        let acme = DomainRef::Name("acme".to_owned());
        let Method::Password { user, .. } = &request.methods[0] else { panic!("a password") };
        assert_eq!(*user, UserRef::Name { name: "alice".to_owned(), domain: acme });
        assert_eq!(request.scope, ScopeRequest::Default);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (identity, want) in [
            (json!({}), "'methods' is a required property".to_owned()),
            (json!({"methods": []}), expecting("methods", "identity")),
            (json!({"methods": ["password"]}), expecting("password", "identity")),
            (json!({"methods": ["password"], "password": {}}), expecting("user", "password")),
            (json!({"methods": ["password"], "password": {"user": {}}}), expecting("id or name", "user")),
            (
                json!({"methods": ["password"], "password": {"user": {"name": "x"}}}),
                expecting("domain", "user"),
            ),
            (
                json!({"methods": ["password"], "password": {"user": {"id": "x"}}}),
                expecting("password", "user"),
            ),
            (json!({"methods": ["token"], "token": {}}), expecting("id", "token")),
            (
                json!({"methods": ["application_credential"], "application_credential": {"name": "x"}}),
                expecting("user", "application_credential"),
            ),
            (
                json!({"methods": ["quux"]}),
                "Attempted to authenticate with an unsupported method.".to_owned(),
            ),
        ] {
            assert_eq!(read(identity.clone(), None).err(), Some(want), "{identity}");
        }
    }

    #[test]
    fn scopes_are_read() {
        let identity = json!({"methods": ["token"], "token": {"id": "t"}});
        let name = |name: &str| name.to_owned();
        for (scope, want) in [
            (json!("unscoped"), Some(ScopeRequest::Unscoped)),
            (json!({"unscoped": {}}), Some(ScopeRequest::Unscoped)),
            (json!({"system": {"all": true}}), Some(ScopeRequest::System)),
            (json!({"system": {"all": false}}), None),
            (json!({"domain": {"id": "d"}}), Some(ScopeRequest::Domain(DomainRef::Id(name("d"))))),
            (json!({"domain": {"name": "d"}}), Some(ScopeRequest::Domain(DomainRef::Name(name("d"))))),
            (json!({"project": {"id": "p"}}), Some(ScopeRequest::Project(ProjectRef::Id(name("p"))))),
            (
                json!({"project": {"name": "p", "domain": {"id": "d"}}}),
                Some(ScopeRequest::Project(ProjectRef::Name {
                    name: name("p"),
                    domain: DomainRef::Id(name("d")),
                })),
            ),
            (json!({"project": {"name": "p"}}), None),
            (json!({"OS-TRUST:trust": {"id": "t"}}), Some(ScopeRequest::Trust(name("t")))),
            (json!({"project": {"id": "p"}, "domain": {"id": "d"}}), None),
            (json!({}), None),
            (json!({"bogus": {}}), None),
            (json!(4), None),
        ] {
            assert_eq!(read(identity.clone(), Some(scope.clone())).ok().map(|r| r.scope), want, "{scope}");
        }
    }
}
