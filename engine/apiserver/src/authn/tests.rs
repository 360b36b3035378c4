use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use gantry_kube_types::{Authenticator, ConnectionInfo, UserInfo};
use gantry_store::{Expect, Key, Mutation, Options, Store};
use http::{HeaderMap, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::claims::{Audiences, Bound, Claims, Private};
use super::*;
use crate::reader::Reader;

async fn put(store: &Store, resource: &str, namespace: &str, name: &str, mut object: Value) {
    object["metadata"]["name"] = name.into();
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    let bytes = Bytes::from(object.to_string());
    let key = Key::new("", resource, namespace, name);
    let put = Mutation::Put { key, expect: Expect::Any, encode: Box::new(move |_| bytes) };
    store.write(put).await.expect("the store takes it");
}

async fn delete(store: &Store, resource: &str, namespace: &str, name: &str) {
    let key = Key::new("", resource, namespace, name);
    store.write(Mutation::Delete { key, expect: Expect::Any, encode: None }).await.expect("it is there");
}

struct World {
    store: Store,
    tokens: Arc<ServiceAccountTokens>,
    directory: TempDir,
}

async fn world() -> World {
    let store = Store::memory(Options::default()).expect("a store");
    put(&store, "serviceaccounts", "demo", "web", json!({"metadata": {"uid": "sa-1"}})).await;
    put(&store, "nodes", "", "n1", json!({"metadata": {"uid": "node-1"}})).await;
    let spec = json!({"serviceAccountName": "web", "nodeName": "n1"});
    put(&store, "pods", "demo", "web-0", json!({"metadata": {"uid": "pod-1"}, "spec": spec})).await;
    put(&store, "secrets", "demo", "key", json!({"metadata": {"uid": "secret-1"}})).await;
    let directory = TempDir::new().expect("a directory");
    let tokens = open(&store, &directory);
    World { store, tokens, directory }
}

fn open(store: &Store, directory: &TempDir) -> Arc<ServiceAccountTokens> {
    let config = TokenConfig::of_cluster(directory.path().join("keys"), "cluster.local");
    Arc::new(ServiceAccountTokens::open(store.clone(), config).expect("a key"))
}

impl World {
    fn issue(&self, spec: Value) -> Result<Value, gantry_kube_types::StatusError> {
        let reader = Reader::new(self.store.snapshot());
        self.tokens.issue(&reader, "demo", "web", json!({ "spec": spec }))
    }

    fn token(&self, spec: Value) -> String {
        self.issue(spec).expect("issued")["status"]["token"].as_str().expect("a token").to_owned()
    }

    async fn user(&self, token: &str) -> Result<UserInfo, String> {
        let bearer = BearerTokenAuthenticator::new(vec![self.tokens.clone()]);
        match bearer.authenticate(&bearing(&format!("Bearer {token}")), &ConnectionInfo::default()).await {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err("nobody knows it".to_owned()),
            Err(error) => Err(error.message),
        }
    }
}

fn bearing(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(value).expect("a header"));
    headers
}

fn pod_bound() -> Value {
    json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "pod-1"}})
}

fn claims(change: impl FnOnce(&mut Claims)) -> Claims {
    let now = Timestamp::now().as_second();
    let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
    let mut claims = Claims {
        aud: Audiences::Many(vec![issuer.clone()]),
        exp: now + 600,
        iat: now,
        iss: issuer,
        jti: "1".into(),
        kubernetes: Private {
            namespace: "demo".into(),
            node: None,
            pod: None,
            secret: None,
            serviceaccount: Bound { name: "web".into(), uid: "sa-1".into() },
        },
        nbf: now,
        sub: "system:serviceaccount:demo:web".into(),
    };
    change(&mut claims);
    claims
}

#[tokio::test]
async fn a_bound_token_names_the_account_and_its_pod() {
    let world = world().await;
    let answer = world.issue(pod_bound()).expect("issued");
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    assert_eq!(answer["spec"]["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    assert_eq!(answer["metadata"]["name"], "web");
    let user = world.user(answer["status"]["token"].as_str().expect("a token")).await.expect("known");
    assert_eq!(user.username, "system:serviceaccount:demo:web");
    assert_eq!(user.uid, "sa-1");
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:demo", "system:authenticated"]
    );
    for (key, value) in
        [("pod-name", "web-0"), ("pod-uid", "pod-1"), ("node-name", "n1"), ("node-uid", "node-1")]
    {
        assert_eq!(user.extra[&format!("authentication.kubernetes.io/{key}")], [value]);
    }
}

#[tokio::test]
async fn the_key_survives_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = world().await;
    let token = world.token(json!({}));
    let again = World { tokens: open(&world.store, &world.directory), ..world };
    assert!(again.user(&token).await.is_ok(), "a token outlives a restart");
    let file = again.directory.path().join("keys/service-account.key");
    let mode = std::fs::metadata(&file).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    gantry_base::fs::write_atomic(&file, b"not a key", 0o600).expect("written");
    let config = TokenConfig::of_cluster(again.directory.path().join("keys"), "cluster.local");
    let opened = ServiceAccountTokens::open(again.store.clone(), config);
    assert!(matches!(opened, Err(KeyError::Malformed { .. })));
}

#[tokio::test]
async fn forged_and_stale_tokens_are_refused() {
    let world = world().await;
    let sign = |claims: &Claims| world.tokens.sign(claims).expect("signed");
    assert!(world.user(&sign(&claims(|_| ()))).await.is_ok(), "the honest token is known");

    let other = TempDir::new().expect("a directory");
    let stranger = open(&world.store, &other);
    let good = sign(&claims(|_| ()));
    let parts: Vec<&str> = good.split('.').collect();
    let no_algorithm = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let hmac = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims(|_| ()),
        &jsonwebtoken::EncodingKey::from_secret(world.tokens.key.to_jwk().to_string().as_bytes()),
    )
    .expect("signed");
    let altered = {
        let body = serde_json::to_vec(&claims(|c| c.kubernetes.namespace = "kube-system".into()));
        format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(body.expect("JSON")), parts[2])
    };
    let now = Timestamp::now().as_second();
    for (what, token) in [
        ("another key", stranger.sign(&claims(|_| ())).expect("signed")),
        ("alg none", format!("{no_algorithm}.{}.", parts[1])),
        ("alg none with the signature", format!("{no_algorithm}.{}.{}", parts[1], parts[2])),
        ("an HMAC", hmac),
        ("altered claims", altered),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("another audience", sign(&claims(|c| c.aud = Audiences::One("vault".into())))),
        ("expired", sign(&claims(|c| c.exp = now - 1))),
        ("not yet valid", sign(&claims(|c| c.nbf = now + 3600))),
        ("another account's uid", sign(&claims(|c| c.kubernetes.serviceaccount.uid = "sa-0".into()))),
        ("a subject that is not the account", sign(&claims(|c| c.sub = "system:serviceaccount:a:b".into()))),
        (
            "no such account",
            sign(&claims(|c| {
                c.kubernetes.serviceaccount.name = "gone".into();
                c.sub = "system:serviceaccount:demo:gone".into();
            })),
        ),
        (
            "a pod of old",
            sign(&claims(|c| {
                c.kubernetes.pod = Some(Bound { name: "web-0".into(), uid: "pod-0".into() });
            })),
        ),
        ("a foreign issuer", sign(&claims(|c| c.iss = "https://elsewhere".into()))),
        ("too long", "x".repeat(64 << 10)),
    ] {
        assert!(world.user(&token).await.is_err(), "{what} is refused");
    }
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let world = world().await;
    let deleted_at = |ago: i64| {
        let at = Timestamp::now() - SignedDuration::from_secs(ago);
        at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    let by_pod = world.token(pod_bound());
    let secret = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "key"}});
    let by_secret = world.token(secret);
    let by_node = world.token(json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "n1"}}));
    for (ago, lives) in [(5, true), (120, false)] {
        let metadata = json!({"uid": "pod-1", "deletionTimestamp": deleted_at(ago)});
        put(&world.store, "pods", "demo", "web-0", json!({ "metadata": metadata })).await;
        assert_eq!(world.user(&by_pod).await.is_ok(), lives, "{ago} s after the delete");
    }
    put(&world.store, "pods", "demo", "web-0", json!({"metadata": {"uid": "pod-1"}})).await;
    assert!(world.user(&by_pod).await.is_ok());
    delete(&world.store, "nodes", "", "n1").await;
    assert!(world.user(&by_node).await.is_err());
    assert!(world.user(&by_pod).await.is_ok(), "a pod's node is told, not required");
    delete(&world.store, "pods", "demo", "web-0").await;
    assert!(world.user(&by_pod).await.is_err());
    delete(&world.store, "secrets", "demo", "key").await;
    assert!(world.user(&by_secret).await.is_err());
}

#[tokio::test]
async fn bad_token_requests_are_refused() {
    let world = world().await;
    let bound = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    put(&world.store, "pods", "demo", "other", json!({"spec": {"serviceAccountName": "db"}})).await;
    for (spec, code, text) in [
        (json!({"expirationSeconds": 10}), 422, "less than 10 minutes"),
        (json!({"expirationSeconds": 1_i64 << 40}), 422, "2^32"),
        (json!({"expirationSeconds": "1h"}), 422, "whole number"),
        (json!({"audiences": "vault"}), 400, "list of strings"),
        (bound("Pod", "gone", ""), 404, "\"gone\" not found"),
        (bound("Pod", "web-0", "pod-0"), 409, "does not match the UID in record"),
        (bound("Pod", "other", ""), 400, "different serviceaccount name"),
        (bound("Deployment", "web", ""), 400, "cannot bind token to object of type"),
    ] {
        let error = world.issue(spec.clone()).expect_err("refused");
        assert_eq!(error.code, code, "{spec}: {}", error.message);
        assert!(error.message.contains(text), "{spec}: {}", error.message);
    }
    let reader = Reader::new(world.store.snapshot());
    let gone = world.tokens.issue(&reader, "demo", "gone", json!({}));
    assert_eq!(gone.expect_err("no such account").code, 404);
}

#[tokio::test]
async fn tokens_of_memory_and_their_reviews() {
    let world = world().await;
    let joining = Arc::new(StaticTokens::new(world.tokens.audiences().to_vec()));
    let bob = UserInfo::authenticated("bob", &["system:bootstrappers"]);
    assert!(joining.add("abc.def", bob.clone(), None));
    assert!(!joining.add("", bob.clone(), None), "an empty token names nobody");
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    assert!(joining.add("old", bob.clone(), Some(past)));
    let all: Vec<Arc<dyn TokenAuthenticator>> = vec![world.tokens.clone(), joining.clone()];
    let (bearer, basic) =
        (BearerTokenAuthenticator::new(all.clone()), BasicTokenAuthenticator::new(all.clone()));
    let connection = ConnectionInfo::default();
    let registry = |token: &str| format!("Basic {}", STANDARD.encode(format!("any:{token}")));
    assert_eq!(
        basic.authenticate(&bearing(&registry("abc.def")), &connection).await.ok(),
        Some(Some(bob.clone()))
    );
    let account = basic.authenticate(&bearing(&registry(&world.token(json!({})))), &connection).await;
    assert_eq!(account.expect("good").expect("known").username, "system:serviceaccount:demo:web");
    assert_eq!(bearer.authenticate(&bearing("bearer abc.def"), &connection).await.ok(), Some(Some(bob)));
    assert_eq!(bearer.authenticate(&bearing(&registry("abc.def")), &connection).await.ok(), Some(None));
    assert_eq!(bearer.authenticate(&bearing("Bearer nobody"), &connection).await.ok(), Some(None));
    assert!(bearer.authenticate(&bearing("Bearer old"), &connection).await.is_err(), "expired");
    assert!(basic.authenticate(&bearing("Basic ***"), &connection).await.is_err());

    let ask = async |spec: Value| token_review(json!({ "spec": spec }), &all).await;
    let known = ask(json!({"token": "abc.def"})).await.expect("reviewed");
    assert_eq!(known["status"]["user"]["username"], "bob");
    assert_eq!(known["status"]["authenticated"], true);
    assert_eq!(known["spec"], json!({}), "the token is not said again");
    let vault = world.token(json!({"audiences": ["vault"]}));
    let wrong = ask(json!({"token": vault})).await.expect("reviewed");
    assert!(wrong["status"].get("authenticated").is_none() && wrong["status"]["error"].is_string());
    let right = ask(json!({"token": vault, "audiences": ["vault", "x"]})).await.expect("reviewed");
    assert_eq!(right["status"]["audiences"], json!(["vault"]));
    assert_eq!(ask(json!({})).await.expect_err("no token").code, 400);
    joining.remove("abc.def");
    let gone = ask(json!({"token": "abc.def"})).await.expect("reviewed");
    assert_eq!(gone["status"], json!({"user": {}}));
}

#[tokio::test]
async fn a_client_certificate_names_the_user() {
    let directory = TempDir::new().expect("a directory");
    let authority = gantry_base::pki::CertificateAuthority::open(directory.path(), "clients").expect("a CA");
    let der = |made: &gantry_base::pki::KeyedCertificate| {
        let chain = gantry_base::pki::certificates(&made.certificate_pem).expect("PEM");
        chain.iter().map(|c| c.as_ref().to_vec()).collect::<Vec<_>>()
    };
    let node = authority.client_certificate("node", "system:node:n1", &["system:nodes"]).expect("signed");
    let good = ConnectionInfo { client_certificates: der(&node), ..ConnectionInfo::default() };
    let user = ClientCertificates.authenticate(&HeaderMap::new(), &good).await.expect("good").expect("known");
    assert_eq!(user, UserInfo::authenticated("system:node:n1", &["system:nodes"]));
    let none = ClientCertificates.authenticate(&HeaderMap::new(), &ConnectionInfo::default()).await;
    assert_eq!(none.ok(), Some(None));
    let mut longer = der(&node);
    longer[0].push(0);
    let nameless = authority.client_certificate("nameless", "", &["system:masters"]).expect("signed");
    for (what, chain) in [
        ("bytes behind the certificate", longer),
        ("garbage", vec![vec![1, 2, 3]]),
        ("no common name", der(&nameless)),
    ] {
        let bad = ConnectionInfo { client_certificates: chain, ..ConnectionInfo::default() };
        assert!(ClientCertificates.authenticate(&HeaderMap::new(), &bad).await.is_err(), "{what}");
    }
}
