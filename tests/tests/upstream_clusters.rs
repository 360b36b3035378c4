//! Clusters and programs that take this platform as the one that knows users: they ask by TokenReview, or verify tokens
//! by the published keys.

use gantry_testkit::Instance;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::closed::Door;
use crate::people::Person;

struct Stage {
    gantry: Instance,
    alice: Person,
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn set() -> Option<Self> {
        let gantry = Instance::builder().no_node().start()?;
        gantry.gantry(&["domain", "create", "acme"]).ok();
        gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
        gantry.gantry(&["group", "create", "acme/devs"]).ok();
        let alice = Person::signed_in(&gantry, "acme/alice");
        gantry.gantry(&["group", "add-user", "acme/devs", "acme/alice"]).ok();
        gantry.gantry(&["assign", "member", "--user", "acme/alice", "--project", "acme/web"]).ok();
        Some(Self { gantry, alice, runtime: tokio::runtime::Runtime::new().expect("a runtime") })
    }

    /// `gantry token --raw` with more.
    fn token(&self, arguments: &[&str]) -> String {
        self.alice.gantry(&[&["token", "--raw"], arguments].concat()).ok().trim().to_owned()
    }

    /// A token of one project.
    fn narrow(&self, door: &Door) -> String {
        let acme = json!({ "name": "acme" });
        let user = json!({ "name": "alice", "domain": acme, "password": self.alice.password });
        let login = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": "web", "domain": acme } },
        }});
        self.runtime.block_on(door.login(&login))
    }

    fn json(&self, door: &Door, path: &str) -> Value {
        self.runtime.block_on(async {
            let answer = door.client.get(format!("{}{path}", door.base)).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
            answer.json().await.expect("JSON")
        })
    }
}

#[test]
fn a_cluster_asks_by_token_review() {
    let Some(stage) = Stage::set() else { return };
    let gantry = &stage.gantry;
    // As a cluster elsewhere is set up: an account of its own that may ask, and no more.
    gantry.kubectl(&["create", "serviceaccount", "reviewer", "-n", "kube-system"]).ok();
    let delegator =
        ["--clusterrole=system:auth-delegator", "--serviceaccount=kube-system:reviewer", "reviewer"];
    gantry.kubectl(&[&["create", "clusterrolebinding"], &delegator[..]].concat()).ok();
    let reviewer = gantry.kubectl(&["create", "token", "reviewer", "-n", "kube-system"]).ok();
    let door = Door::of(gantry);
    let review = |asks: &str, token: &str| -> (StatusCode, Value) {
        stage.runtime.block_on(async {
            let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", door.base);
            let body = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": { "token": token },
            });
            let answer = door.client.post(url).bearer_auth(asks).json(&body).send().await.expect("an answer");
            (answer.status(), answer.json().await.expect("JSON"))
        })
    };
    let whole = stage.token(&[]);
    let (status, body) = review(reviewer.trim(), &whole);
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["status"]["authenticated"], true, "{body}");
    assert_eq!(body["status"]["user"]["username"], "acme/alice");
    let groups = body["status"]["user"]["groups"].to_string();
    assert!(groups.contains("acme/devs") && groups.contains("system:authenticated"), "{groups}");
    // Who asks would take it for all of alice.
    let narrow = stage.narrow(&door);
    let elsewhere = stage.token(&["--audience", "prod"]);
    for (what, token) in [("of a project", &narrow), ("for others", &elsewhere)] {
        let (_, body) = review(reviewer.trim(), token);
        assert_ne!(body["status"]["authenticated"], true, "{what}: {body}");
    }
    assert_eq!(review(&whole, &whole).0, StatusCode::FORBIDDEN, "not everybody asks about others' tokens");
    stage.alice.gantry(&["logout"]).ok();
    let (_, body) = review(reviewer.trim(), &whole);
    assert_ne!(body["status"]["authenticated"], true, "revoked: {body}");
}

#[test]
fn a_cluster_verifies_tokens_by_the_published_keys() {
    let Some(stage) = Stage::set() else { return };
    let door = Door::of(&stage.gantry);
    let about = stage.json(&door, "/identity/.well-known/openid-configuration");
    let issuer = about["issuer"].as_str().expect("an issuer");
    assert_eq!(issuer, format!("{}/identity", door.base));
    let keys =
        about["jwks_uri"].as_str().and_then(|uri| uri.strip_prefix(&door.base)).expect("at the issuer");
    let keys: JwkSet = serde_json::from_value(stage.json(&door, keys)).expect("RFC 7517");
    let verified = |token: &str, audience: &str| {
        let header = jsonwebtoken::decode_header(token).expect("a JWT");
        let key = keys.find(header.kid.as_deref().expect("the key's id")).expect("published");
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[audience]);
        rules.set_issuer(&[issuer]);
        jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(key).expect("usable"), &rules)
    };
    let token = stage.token(&["--audience", "prod"]);
    let claims = verified(&token, "prod").expect("good").claims;
    assert_eq!(claims["preferred_username"], "acme/alice");
    assert_eq!(claims["groups"], json!(["acme/devs"]));
    let life = claims["exp"].as_i64().zip(claims["iat"].as_f64()).map(|(exp, iat)| exp as f64 - iat);
    assert!(life.is_some_and(|seconds| seconds <= 3600.0), "{claims}");
    assert!(verified(&token, "test").is_err(), "for another one");
    // It is for others, and nothing here.
    let bearer = format!("Bearer {token}");
    let here = door.ask(Method::GET, "/api/v1/namespaces", Some(("authorization", &bearer)));
    assert_eq!(stage.runtime.block_on(here), StatusCode::UNAUTHORIZED);
    stage.alice.gantry(&["token", "--audience", "gantry-receipt"]).fails();

    // A token of one project does not become one of everything, neither for others nor here.
    let narrow = stage.narrow(&door);
    let exchange = |more: Value| {
        let mut auth = json!({ "identity": { "methods": ["token"], "token": { "id": narrow } } });
        auth.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let url = format!("{}/identity/v3/auth/tokens", door.base);
        stage.runtime.block_on(async {
            let answer =
                door.client.post(url).json(&json!({ "auth": auth })).send().await.expect("an answer");
            (answer.status(), answer.json::<Value>().await.expect("JSON"))
        })
    };
    assert_eq!(exchange(json!({ "scope": "unscoped", "audiences": ["prod"] })).0, StatusCode::FORBIDDEN);
    assert_eq!(exchange(json!({ "scope": { "system": { "all": true } } })).0, StatusCode::FORBIDDEN);
    for same in [json!({}), json!({ "scope": "unscoped" })] {
        let (status, body) = exchange(same);
        assert_eq!(status, StatusCode::CREATED, "{body}");
        assert_eq!(body["token"]["project"]["name"], "web", "{body}");
    }
}
