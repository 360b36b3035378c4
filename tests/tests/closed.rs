//! Nothing on any port answers without knowing who asks: every route of every service, walked through with no
//! credential and with every kind of bad one. The routes are those the server lists itself, so a new one is tried
//! from its first day.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_testkit::Instance;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// What `GET` of a Kubernetes resource list is for an anonymous caller, and what a bad token always is.
const REFUSED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

/// The port of an instance, for plain requests.
pub struct Door {
    pub client: Client,
    pub base: String,
}

impl Door {
    pub fn of(gantry: &Instance) -> Self {
        // Another test of this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = std::fs::read(gantry.data_dir().join("pki/ca.crt")).expect("the instance's authority");
        let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
        let client = Client::builder().tls_certs_only([ca]).build().expect("a client");
        Self { client, base: format!("https://127.0.0.1:{}", gantry.port()) }
    }

    pub async fn ask(&self, method: Method, path: &str, token: Option<(&str, &str)>) -> StatusCode {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base));
        if let Some((header, value)) = token {
            request = request.header(header, value);
        }
        if matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            request = request.header("content-type", "application/json").body("{}");
        }
        request.send().await.unwrap_or_else(|e| panic!("{method} {path}: {e}")).status()
    }

    async fn json(&self, path: &str, token: &str) -> Value {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(token);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Signs in; gives the token.
    pub async fn login(&self, body: &Value) -> String {
        let request = self.client.post(format!("{}/identity/v3/auth/tokens", self.base)).json(body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
        let token = answer.headers()["x-subject-token"].to_str().expect("text");
        token.to_owned()
    }
}

fn admin_login(gantry: &Instance) -> Value {
    let password = std::fs::read_to_string(gantry.data_dir().join("identity/admin-password"));
    let password = password.expect("the first administrator's password").trim().to_owned();
    json!({ "auth": {
        "identity": {
            "methods": ["password"],
            "password": { "user": { "name": "admin", "domain": { "id": "default" }, "password": password } },
        },
        "scope": { "system": { "all": true } },
    }})
}

/// Tokens that look like ours and are not.
fn forged(good: &str) -> Vec<(&'static str, String)> {
    let mut parts = good.split('.');
    let (header, payload, signature) =
        (parts.next().expect("header"), parts.next().expect("payload"), parts.next().expect("signature"));
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("claims");
    let own: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64")).expect("header");
    let with = |key: &str, value: Value| {
        let mut changed = claims.clone();
        changed[key] = value;
        format!("{header}.{}.{signature}", encode(&changed))
    };
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let foreign = jsonwebtoken::EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).expect("a key");
    let mut es256 = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    es256.kid = own["kid"].as_str().map(str::to_owned);
    let signed = |header: &jsonwebtoken::Header, key: &jsonwebtoken::EncodingKey| {
        jsonwebtoken::encode(header, &claims, key).expect("encoded")
    };
    let mut hs256 = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    hs256.kid = es256.kid.clone();
    vec![
        ("no algorithm", format!("{}.{payload}.", encode(&json!({ "alg": "none", "kid": own["kid"] })))),
        ("no algorithm, old signature", {
            format!("{}.{payload}.{signature}", encode(&json!({ "alg": "none" })))
        }),
        ("another's key under our key's name", signed(&es256, &foreign)),
        ("a shared secret", signed(&hs256, &jsonwebtoken::EncodingKey::from_secret(b"secret"))),
        ("another user", with("sub", json!("0000"))),
        ("another audience", with("aud", json!("elsewhere"))),
        ("a longer life", with("exp", json!(4_000_000_000_i64))),
        ("another scope", with("scp", json!({ "prj": "other" }))),
        ("cut", good[..good.len() - 2].to_owned()),
        ("nonsense", "x.y.z".to_owned()),
    ]
}

/// Every path with its parameters filled in.
async fn routes(door: &Door, token: &str) -> (Vec<String>, BTreeSet<String>) {
    let listed = door.json("/gantry/routes", token).await;
    let texts = |key: &str| -> Vec<String> {
        let list = listed[key].as_array().unwrap_or_else(|| panic!("{key} in {listed}"));
        list.iter().map(|v| v.as_str().expect("a path").to_owned()).collect()
    };
    let mut paths: Vec<String> = texts("routes").iter().map(|path| filled(path)).collect();
    for resource in ["records", "records/x", "sessions/x", "checkpoints", "keys", "export", "verify"] {
        paths.push(format!("/apis/audit.gantry.dev/v1alpha1/{resource}"));
    }
    paths.extend(kubernetes_paths(door, token).await);
    assert!(paths.len() > 200, "{} routes are not all there are", paths.len());
    (paths, texts("open").iter().map(|path| filled(path)).collect())
}

fn filled(template: &str) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        path.push('x');
        rest = after.split_once('}').map_or("", |(_, tail)| tail);
    }
    path + rest
}

/// Every resource and subresource of every group, as discovery tells.
async fn kubernetes_paths(door: &Door, token: &str) -> Vec<String> {
    let mut groups = vec!["/api/v1".to_owned()];
    let listed = door.json("/apis", token).await;
    for group in listed["groups"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            groups.push(format!("/apis/{}", version["groupVersion"].as_str().expect("a version")));
        }
    }
    let mut paths =
        vec!["/api".to_owned(), "/apis".to_owned(), "/openapi/v2".to_owned(), "/openapi/v3".to_owned()];
    for group in groups {
        let resources = door.json(&group, token).await;
        for resource in resources["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().expect("a name");
            let base = if resource["namespaced"] == json!(true) {
                format!("{group}/namespaces/x")
            } else {
                group.clone()
            };
            match name.split_once('/') {
                Some((plural, subresource)) => paths.push(format!("{base}/{plural}/x/{subresource}")),
                None => paths.extend([format!("{base}/{name}"), format!("{base}/{name}/x")]),
            }
        }
        paths.push(group);
    }
    paths
}

#[test]
fn no_route_answers_without_a_good_credential() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let door = Door::of(&gantry);
        let login = admin_login(&gantry);
        let good = door.login(&login).await;
        let revoked = door.login(&login).await;
        let gone = door.client.delete(format!("{}/identity/v3/auth/tokens", door.base));
        let gone = gone.header("x-auth-token", &good).header("x-subject-token", &revoked).send().await;
        assert_eq!(gone.expect("an answer").status(), StatusCode::NO_CONTENT);
        let (paths, open) = routes(&door, &good).await;
        let mut answered = Vec::new();
        let mut bad = forged(&good);
        bad.push(("revoked", revoked));
        let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        for path in paths.iter().filter(|path| !open.contains(*path)) {
            for method in &methods {
                let status = door.ask(method.clone(), path, None).await;
                // A method that a path does not have tells nothing.
                if !REFUSED.contains(&status) && status != StatusCode::METHOD_NOT_ALLOWED {
                    answered.push(format!("{method} {path} without a credential: {status}"));
                }
            }
        }
        // Recognising tokens is one thing for all routes: each bad one on one route of each service.
        for path in [
            "/api/v1/namespaces",
            "/identity/v3/users",
            "/v2/_catalog",
            "/gantry/health",
            "/apis/audit.gantry.dev/v1alpha1/records",
            "/apis/identity.gantry.dev/v1alpha1/users",
            "/version",
        ] {
            for (what, token) in &bad {
                let bearer = format!("Bearer {token}");
                for shown in [("authorization", bearer.as_str()), ("x-auth-token", token.as_str())] {
                    let status = door.ask(Method::GET, path, Some(shown)).await;
                    if !REFUSED.contains(&status) {
                        answered.push(format!("GET {path} with {} of {what}: {status}", shown.0));
                    }
                }
            }
            let basic =
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("default/admin:wrong"));
            let status = door.ask(Method::GET, path, Some(("authorization", basic.as_str()))).await;
            if !(REFUSED.contains(&status) || status == StatusCode::TOO_MANY_REQUESTS) {
                answered.push(format!("GET {path} with a wrong password: {status}"));
            }
        }
        assert!(answered.is_empty(), "{} answered:\n{}", answered.len(), answered.join("\n"));
        assert!(
            door.ask(Method::GET, "/api/v1/namespaces", Some(("x-auth-token", &good))).await.is_success()
        );
    });
}
