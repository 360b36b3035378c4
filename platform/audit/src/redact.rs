//! Secrets do not go on record: what is removed from bodies and addresses.
//!
//! A body is read as a tree; what is known to be secret by its kind (`Secret`), by its name (`password`,
//! `token`, …) or by its look (a private key) is replaced. What cannot be read is not recorded at all.

use std::borrow::Cow;

use gantry_kube_types::AuditObject;
use serde_json::Value;

const REMOVED: &str = "REMOVED";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Names whose text is secret, in lower case and without `-` and `_`.
const SECRET_NAMES: &[&str] = &[
    "password",
    "passwd",
    "originalpassword",
    "newpassword",
    "adminpass",
    "userpassword",
    "bindpassword",
    "passcode",
    "secret",
    "clientsecret",
    "oauthtokensecret",
    "sharedsecret",
    "token",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "bearertoken",
    "authtoken",
    "assertion",
    "authorization",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "secretaccesskey",
    "sessiontoken",
    "receipt",
    "blob",
    "totpseed",
    "seed",
    "passphrase",
    "dockerconfigjson",
    "signature",
];

/// Parts of names of variables (`DB_PASSWORD`) whose value is secret.
const SECRET_PARTS: &[&str] =
    &["password", "passwd", "secret", "token", "apikey", "privatekey", "credential"];

/// The body as JSON text without secrets, or why it is not recorded.
pub(crate) fn body(
    bytes: &[u8],
    about: &AuditObject,
    omit_managed_fields: bool,
) -> Result<String, &'static str> {
    let json = serde_json::from_slice(bytes).ok();
    // kubectl sends some kinds as protobuf, and server-side apply sends YAML.
    let value: Option<Value> = json.or_else(|| gantry_kube_logic::protobuf::decode(bytes)).or_else(|| {
        let text = std::str::from_utf8(bytes).ok()?;
        serde_saphyr::from_str(text).ok()
    });
    let mut value = value.ok_or("it is neither JSON nor YAML")?;
    let secrets = about.group.is_empty() && about.resource == "secrets";
    walk(&mut value, secrets, omit_managed_fields);
    Ok(value.to_string())
}

fn walk(value: &mut Value, in_secret: bool, omit_managed_fields: bool) {
    match value {
        Value::Object(map) => {
            let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
            let in_secret = in_secret || kind == "Secret" || kind == "SecretList";
            if let Some(Value::String(path)) = map.get("path")
                && map.contains_key("op")
                && (in_secret || path.rsplit('/').next().is_some_and(is_secret_name))
                && let Some(value) = map.get_mut("value")
            {
                remove(value);
            }
            if let Some(Value::String(name)) = map.get("name")
                && is_secret_variable(name)
                && let Some(value @ Value::String(_)) = map.get_mut("value")
            {
                remove(value);
            }
            if omit_managed_fields && let Some(Value::Object(metadata)) = map.get_mut("metadata") {
                metadata.shift_remove("managedFields");
            }
            for (name, value) in map.iter_mut() {
                if in_secret && (name == "data" || name == "stringData") {
                    remove(value);
                } else if name == LAST_APPLIED {
                    applied(value, in_secret);
                } else if is_secret_name(name) {
                    secret(value, in_secret, omit_managed_fields);
                } else {
                    walk(value, in_secret, omit_managed_fields);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, in_secret, omit_managed_fields)),
        Value::String(text) if text.contains("PRIVATE KEY-----") => remove(value),
        _ => {}
    }
}

/// A text under a secret name is secret. A structure there is looked through: `secret: {secretName: x}` is
/// none, but `token: {id: x}` is Keystone's way to show one.
fn secret(value: &mut Value, in_secret: bool, omit_managed_fields: bool) {
    match value {
        Value::Object(map) => {
            if let Some(id @ Value::String(_)) = map.get_mut("id") {
                remove(id);
            }
            walk(value, in_secret, omit_managed_fields);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| secret(item, in_secret, omit_managed_fields)),
        Value::Null | Value::Bool(_) => {}
        Value::String(_) | Value::Number(_) => remove(value),
    }
}

/// The object as it was applied last, in an annotation of the object.
fn applied(value: &mut Value, in_secret: bool) {
    let inner = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    match inner {
        Some(mut inner) => {
            walk(&mut inner, in_secret, true);
            *value = Value::String(inner.to_string());
        }
        None => remove(value),
    }
}

/// Keeps the names of a map: that a key of a Secret was changed is worth knowing.
fn remove(value: &mut Value) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(_, value)| *value = Value::from(REMOVED)),
        Value::Null => {}
        _ => *value = Value::from(REMOVED),
    }
}

fn squeezed(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_' | '.')).flat_map(char::to_lowercase).collect()
}

fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.contains(&squeezed(name).as_str())
}

fn is_secret_variable(name: &str) -> bool {
    let name = squeezed(name);
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Path and query, with the values of secret parameters replaced.
pub(crate) fn uri(uri: &http::Uri) -> Cow<'_, str> {
    let whole = uri.path_and_query().map_or("/", |p| p.as_str());
    let Some(query) = uri.query() else { return Cow::Borrowed(whole) };
    let is_secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        is_secret_name(name) || matches!(name, "code" | "state" | "samlresponse" | "X-Auth-Token")
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(whole);
    }
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(pair) => Cow::Owned(format!("{name}={REMOVED}")),
        _ => Cow::Borrowed(pair),
    });
    let pairs: Vec<Cow<'_, str>> = pairs.collect();
    Cow::Owned(format!("{}?{}", uri.path(), pairs.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_stay() {
        let secrets = AuditObject::new("", "secrets", "s");
        let other = AuditObject::new("", "pods", "p");
        for (about, text) in [
            (&secrets, r#"{"kind":"Secret","data":{"a":"SEKRIT"},"stringData":{"b":"SEKRIT"}}"#),
            (&other, r#"{"kind":"List","items":[{"kind":"Secret","data":{"a":"SEKRIT"}}]}"#),
            (&secrets, r#"{"kind":"SecretList","items":[{"data":{"a":"SEKRIT"}}]}"#),
            (&secrets, r#"{"data":{"a":"SEKRIT"}}"#),
            (&secrets, r#"[{"op":"replace","path":"/data/a","value":"SEKRIT"}]"#),
            (&secrets, r#"[{"op":"add","path":"","value":{"x":"SEKRIT"}}]"#),
            (&other, r#"[{"op":"add","path":"/spec/password","value":"SEKRIT"}]"#),
            (
                &secrets,
                r#"{"kind":"Secret","metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"kind\":\"Secret\",\"data\":{\"a\":\"SEKRIT\"}}"}}}"#,
            ),
            (&other, r#"{"kind":"TokenReview","spec":{"token":"SEKRIT"}}"#),
            (&other, r#"{"kind":"TokenRequest","status":{"token":"SEKRIT"}}"#),
            (
                &other,
                r#"{"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"u","password":"SEKRIT"}}}}}"#,
            ),
            (&other, r#"{"auth":{"identity":{"methods":["token"],"token":{"id":"SEKRIT"}}}}"#),
            (&other, r#"{"auth":{"identity":{"application_credential":{"id":"a","secret":"SEKRIT"}}}}"#),
            (&other, r#"{"auth":{"identity":{"totp":{"user":{"id":"u","passcode":"SEKRIT"}}}}}"#),
            (&other, r#"{"user":{"password":"SEKRIT","original_password":"SEKRIT"}}"#),
            (&other, r#"{"user":"alice","password":"SEKRIT","newPassword":"SEKRIT","receipt":"SEKRIT"}"#),
            (&other, r#"{"credential":{"type":"ec2","blob":"{\"access\":\"x\",\"secret\":\"SEKRIT\"}"}}"#),
            (&other, r#"{"spec":{"containers":[{"env":[{"name":"DB_PASSWORD","value":"SEKRIT"}]}]}}"#),
            (&other, r#"{"x":"-----BEGIN EC PRIVATE KEY-----SEKRIT"}"#),
            (&secrets, "kind: Secret\nstringData:\n  a: SEKRIT\n"),
            (&other, r#"{"spec":{"ldap":{"bindPassword":"SEKRIT"},"clientSecret":"SEKRIT"}}"#),
        ] {
            let kept = body(text.as_bytes(), about, true).expect("readable");
            assert!(!kept.contains("SEKRIT") && kept.contains(REMOVED), "{text} -> {kept}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let about = AuditObject::new("", "pods", "p");
        let text = r#"{"kind":"Pod","spec":{"volumes":[{"secret":{"secretName":"tls"}}],"containers":[{"env":[{"name":"MODE","value":"fast"}]}]}}"#;
        assert_eq!(body(text.as_bytes(), &about, false).expect("readable"), text);
        let managed = r#"{"metadata":{"name":"a","managedFields":[{"manager":"kubectl"}]}}"#;
        assert_eq!(body(managed.as_bytes(), &about, true).expect("readable"), r#"{"metadata":{"name":"a"}}"#);
        assert_eq!(body(managed.as_bytes(), &about, false).expect("readable"), managed);
        assert!(body(b"\xff\xfe", &about, true).is_err());
    }

    #[test]
    fn addresses_lose_their_credentials() {
        for (given, want) in [
            ("/a?limit=5&continue=x", "/a?limit=5&continue=x"),
            ("/a?access_token=SEKRIT&b=1", "/a?access_token=REMOVED&b=1"),
            ("/cb?code=SEKRIT&state=SEKRIT", "/cb?code=REMOVED&state=REMOVED"),
            ("/a", "/a"),
        ] {
            let parsed: http::Uri = given.parse().expect("a URI");
            assert_eq!(uri(&parsed), want);
        }
    }
}
