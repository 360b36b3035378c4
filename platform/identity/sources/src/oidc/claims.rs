//! From claims to a person. Pure.

use serde_json::{Map, Value};

use super::config::OidcClaims;
use crate::{ExternalUser, Named, SourceError};

/// The person that verified claims describe.
pub(super) fn user(
    claims: &Map<String, Value>,
    config: &OidcClaims,
    issuer: &str,
) -> Result<ExternalUser, SourceError> {
    let text = |path: &[String]| at(claims, path).and_then(Value::as_str).filter(|t| !t.is_empty());
    let missing = |path: &[String]| {
        let why = format!("its tokens lack the claim {}; is a scope missing?", path.join("."));
        SourceError::misconfigured(issuer, why)
    };
    let id = text(&["sub".to_owned()]).ok_or_else(|| missing(&["sub".to_owned()]))?;
    let name = text(&config.name).ok_or_else(|| missing(&config.name))?;
    let verified = config.unverified_email || claims.get("email_verified") == Some(&Value::Bool(true));
    let email = text(&config.email).filter(|_| verified).map(str::to_owned);
    let groups = match &config.groups {
        None => Vec::new(),
        Some(path) => groups(at(claims, path), config, issuer)?,
    };
    let user = ExternalUser {
        id: id.to_owned(),
        name: name.to_owned(),
        display_name: text(&config.display_name).map(str::to_owned),
        email,
        domain: None,
        enabled: true,
        groups,
        grants: Vec::new(),
    };
    Ok(user.ordered())
}

fn at<'a>(claims: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, name| value.get(name))
}

fn groups(value: Option<&Value>, config: &OidcClaims, issuer: &str) -> Result<Vec<Named>, SourceError> {
    let names: Vec<&str> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        Some(_) => {
            let why = "its groups claim is neither a list of texts nor a text";
            return Err(SourceError::misconfigured(issuer, why));
        }
    };
    if names.len() > config.groups_max {
        let (source_name, max) = (issuer.to_owned(), config.groups_max);
        return Err(SourceError::TooLarge { source_name, what: "groups of one person", max });
    }
    let names = names.into_iter().filter(|name| !name.is_empty());
    let prefixed = names.map(|name| format!("{}{name}", config.groups_prefix));
    Ok(prefixed.map(|name| Named { id: name.clone(), name }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(claims: Value, change: impl FnOnce(&mut OidcClaims)) -> Result<ExternalUser, SourceError> {
        let mut config = OidcClaims::default();
        change(&mut config);
        user(claims.as_object().expect("an object"), &config, "https://idp")
    }

    #[test]
    fn groups_are_found_where_the_path_leads() {
        let path = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
        let claims = json!({"sub": "1", "preferred_username": "a", "groups": ["x", "y", "x", 7, ""],
            "https://e.org/g": "only", "realm": {"roles": ["r"]}, "odd": {"a": 1}});
        let cases = [
            (path(&["groups"]), Some(vec!["p:x", "p:y"])),
            (path(&["https://e.org/g"]), Some(vec!["p:only"])),
            (path(&["realm", "roles"]), Some(vec!["p:r"])),
            (path(&["realm", "nothing"]), Some(vec![])),
            (path(&["groups", "roles"]), Some(vec![])),
            (path(&["odd"]), None),
            (None, Some(vec![])),
        ];
        for (groups, expected) in cases {
            let shown = format!("{groups:?}");
            let user = read(claims.clone(), |c| (c.groups, c.groups_prefix) = (groups, "p:".into()));
            let names = user.ok().map(|u| u.groups.into_iter().map(|g| g.name).collect::<Vec<_>>());
            let expected = expected.map(|e| e.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(names, expected, "{shown}");
        }
        let many = read(claims, |c| (c.groups, c.groups_max) = (path(&["groups"]), 2));
        assert!(matches!(many, Err(SourceError::TooLarge { max: 2, .. })));
    }

    #[test]
    fn an_address_counts_when_it_is_verified() {
        let claims = |verified: Value| json!({"sub": "1", "preferred_username": "a", "email": "a@b", "email_verified": verified});
        let email = |verified, trust| {
            read(claims(verified), |c| c.unverified_email = trust).ok().and_then(|u| u.email)
        };
        assert_eq!(email(json!(true), false).as_deref(), Some("a@b"));
        for unverified in [json!(false), json!("true"), json!(null)] {
            assert_eq!(email(unverified.clone(), false), None);
            assert_eq!(email(unverified, true).as_deref(), Some("a@b"));
        }
    }

    #[test]
    fn a_token_without_a_name_is_a_matter_of_configuration() {
        let error = read(json!({"sub": "1"}), |_| {}).expect_err("no name");
        assert!(error.to_string().contains("preferred_username"), "{error}");
    }
}
