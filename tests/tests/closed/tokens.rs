//! Tokens that look good and are not: of a stranger's making, and of the instance's own keys, which lie in its data.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gantry_testkit::{Instance, eventually_some};
use reqwest::{Method, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::Door;
use crate::support::SOON;

/// Services that take the registry's own tokens.
pub const OF_REGISTRY: [&str; 3] = ["/v2", "/token", "/registry"];

/// A token, what is wrong with it, and where it is good all the same.
pub struct Bad {
    pub what: &'static str,
    pub token: String,
    pub good_at: &'static [&'static str],
}

impl Bad {
    fn new(what: &'static str, token: String) -> Self {
        Self { what, token, good_at: &[] }
    }
}

/// A token in its parts.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    claims: Value,
    key_id: Value,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else { panic!("a token has three parts") };
        let decoded = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
        };
        let key_id = decoded(header)["kid"].clone();
        Self { header, payload, signature, claims: decoded(payload), key_id }
    }

    fn changed(&self, changes: Value) -> Value {
        let mut claims = self.claims.clone();
        for (key, value) in changes.as_object().expect("claims") {
            claims[key] = value.clone();
        }
        claims
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The key that the instance signs with, as somebody has it who has its data.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn of(gantry: &Instance, key_id: &Value) -> Self {
        let folder = std::fs::read_dir(gantry.data_dir().join("pki/tokens")).expect("the folder of keys");
        let ending = format!("-{}.key", key_id.as_str().expect("the name of a key"));
        let mut paths = folder.map(|entry| entry.expect("an entry").path());
        let path = paths.find(|path| path.to_string_lossy().ends_with(&ending)).expect("the key that signs");
        let pem = std::fs::read_to_string(path).expect("our own instance's key");
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body).expect("base64");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new());
        Self(key.expect("a key"))
    }

    fn sign(&self, header: &str, claims: &Value) -> String {
        let signed = format!("{header}.{}", encoded(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Made of `good`, which is an administrator's, by somebody who has not the instance's keys.
fn forged(good: &Parts<'_>, public_key: &[u8]) -> Vec<Bad> {
    let &Parts { header, payload, signature, ref claims, ref key_id } = good;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let foreign = jsonwebtoken::EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).expect("a key");
    let signed = |algorithm, key: &jsonwebtoken::EncodingKey| {
        let mut header = jsonwebtoken::Header::new(algorithm);
        header.kid = key_id.as_str().map(str::to_owned);
        jsonwebtoken::encode(&header, claims, key).expect("encoded")
    };
    let secret = |secret: &[u8]| {
        signed(jsonwebtoken::Algorithm::HS256, &jsonwebtoken::EncodingKey::from_secret(secret))
    };
    let none = encoded(&json!({ "alg": "none", "kid": key_id }));
    let with = |changes: Value| format!("{header}.{}.{signature}", encoded(&good.changed(changes)));
    vec![
        Bad::new("alg=none", format!("{none}.{payload}.")),
        Bad::new("alg=none with the old signature", format!("{none}.{payload}.{signature}")),
        Bad::new("no signature", format!("{header}.{payload}.")),
        Bad::new("another's key under our key's name", signed(jsonwebtoken::Algorithm::ES256, &foreign)),
        Bad::new("a shared secret", secret(b"secret")),
        Bad::new("the public key as a shared secret", secret(public_key)),
        Bad::new("another user under the old signature", with(json!({ "sub": "0000" }))),
        Bad::new("a longer life under the old signature", with(json!({ "exp": 4_000_000_000_i64 }))),
        Bad::new("another scope under the old signature", with(json!({ "scp": { "prj": "other" } }))),
        Bad::new("cut", format!("{header}.{payload}.{}", &signature[..signature.len() - 2])),
        Bad::new("nonsense", "x.y.z".to_owned()),
    ]
}

/// Signed by the instance's own key, as it writes its header: only what the claims say can be wrong.
fn signed(good: &Parts<'_>, signer: &Signer) -> Vec<Bad> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let of = |changes: Value| signer.sign(good.header, &good.changed(changes));
    let times =
        |from: u64, to: u64| json!({ "iat": from, "nbf": from, "exp": to, "jti": "made-by-the-test" });
    let other_key = encoded(&json!({ "alg": "ES256", "kid": "not-there", "typ": "JWT" }));
    vec![
        Bad::new("expired an hour ago", of(times(now - 7200, now - 3600))),
        Bad::new("expired this second", of(times(now - 7200, now))),
        Bad::new("not good yet", of(times(now + 3600, now + 7200))),
        Bad::new("for another audience", of(json!({ "aud": "elsewhere", "jti": "made-by-the-test" }))),
        Bad::new("for the registry's audience", of(json!({ "aud": "gantry-registry" }))),
        Bad::new("of another issuer", of(json!({ "iss": "https://elsewhere.test/identity" }))),
        Bad::new("of a user who is not there", of(json!({ "sub": "0000", "jti": "made-by-the-test" }))),
        Bad::new("of a key that is not there", signer.sign(&other_key, &good.claims)),
    ]
}

/// A service account's, by `kubectl create token`.
fn service_accounts(gantry: &Instance, more: &[&str]) -> String {
    eventually_some("the default service account has a token", SOON, || {
        let out = gantry.kubectl(&[&["create", "token", "default"], more].concat());
        if out.succeeded() { Ok(out.stdout.trim().to_owned()) } else { Err(out.stderr) }
    })
}

/// Every kind of bad token. What makes each of them is shown to make good ones.
pub async fn all(gantry: &Instance, door: &Door, login: &Value) -> Vec<Bad> {
    let good = door.login(login).await;
    let parts = Parts::of(&good);
    let signer = Signer::of(gantry, &parts.key_id);
    let made = signer.sign(parts.header, &parts.changed(json!({ "jti": "made-by-the-test-and-good" })));
    let services = service_accounts(gantry, &[]);
    let revoked = door.login(login).await;
    let path = "/token?service=gantry&scope=registry:catalog:*&scope=repository:a/b:pull,push,delete";
    let registrys = door.json(path, &good).await["token"].as_str().expect("a token").to_owned();
    for (what, token, path) in [
        ("the same key", &made, "/api/v1/namespaces"),
        ("the same key", &made, "/identity/v3/users"),
        ("no audience", &services, "/apis"),
        ("not revoked yet", &revoked, "/api/v1/namespaces"),
        ("the registry's", &registrys, "/v2/_catalog"),
    ] {
        let bearer = format!("Bearer {token}");
        let status = door.ask(Method::GET, path, Some(("authorization", &bearer))).await;
        assert_eq!(status, StatusCode::OK, "{path} with a good token: {what}");
    }
    let gone = door.client.delete(format!("{}/identity/v3/auth/tokens", door.base));
    let gone = gone.header("x-auth-token", &good).header("x-subject-token", &revoked).send().await;
    assert_eq!(gone.expect("an answer").status(), StatusCode::NO_CONTENT);
    let mut bad = forged(&parts, signer.0.public_key().as_ref());
    bad.extend(signed(&parts, &signer));
    bad.push(Bad::new("revoked", revoked));
    let elsewhere = service_accounts(gantry, &["--audience", "elsewhere"]);
    bad.push(Bad::new("a service account's for another audience", elsewhere));
    bad.push(Bad { what: "the registry's", token: registrys, good_at: &OF_REGISTRY });
    bad
}
