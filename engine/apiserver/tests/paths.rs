//! The authoriser decides on the same thing that the handler then does, however a path is written.

use std::sync::Arc;

use axum::body::Body;
use gantry_apiserver::authz::RbacAuthorizer;
use gantry_apiserver::{ApiServer, Config, GIT_VERSION, ViewAuthorizer, Views, kinds};
use gantry_kube_types::{Attributes, Authorizer, RequestInfo, UserInfo};
use gantry_store::{Options, Store};
use http::Request;
use http_body_util::BodyExt as _;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// In every object that alice may not see.
const MARK: &str = "never-for-alice";
const SAMPLES: usize = 30_000;
const SEGMENTS: [&str; 34] = [
    "api",
    "apis",
    "v1",
    "namespaces",
    "namespaces",
    "demo",
    "demo",
    "other",
    "other",
    "secrets",
    "secrets",
    "s",
    "s",
    "pods",
    "status",
    "finalize",
    "watch",
    "proxy",
    "",
    ".",
    "..",
    "%2e%2e",
    "demo%2f..%2fother",
    "demo%2fsecrets",
    "other%2fsecrets%2fs",
    "%6fther",
    "%6Fther",
    "other%00",
    "OTHER",
    "%EF%BD%8Fther",
    "rbac.authorization.k8s.io",
    "clusterroles",
    "*",
    "other;",
];
const QUERIES: [&str; 9] = [
    "",
    "limit=1",
    "fieldSelector=metadata.name%3Ds",
    "fieldSelector=metadata.name%3Ddemo&fieldSelector=metadata.name%3Dother",
    "fieldSelector=metadata.namespace%3Dother",
    "field%53elector=metadata.name%3Dother",
    "fieldSelector=metadata.name%3Dother%5C",
    "namespace=other",
    "resourceVersion=0",
];

struct World {
    router: axum::Router,
    authorizer: ViewAuthorizer,
}

impl World {
    async fn new() -> Self {
        let store = Store::memory(Options::default()).expect("a store in memory");
        let rbac = Arc::new(RbacAuthorizer::new(store.clone()));
        let views = Views::new(store.clone(), rbac.clone(), vec![rbac]);
        let config = Config {
            kinds: kinds::builtin(),
            admission: Vec::new(),
            extensions: Vec::new(),
            beside: Vec::new(),
            nodes: None,
            views: Some(views.clone()),
            git_version: GIT_VERSION.to_owned(),
        };
        let world =
            Self { router: ApiServer::new(store, config).router(), authorizer: ViewAuthorizer::new(views) };
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let rules = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        let group = "rbac.authorization.k8s.io";
        for (path, object) in [
            ("/api/v1/namespaces", json!({"metadata": {"name": "demo"}})),
            ("/api/v1/namespaces", json!({"metadata": {"name": "other", "annotations": {"a": MARK}}})),
            ("/api/v1/namespaces/demo/secrets", json!({"metadata": {"name": "s"}})),
            (
                "/api/v1/namespaces/other/secrets",
                json!({"metadata": {"name": "s", "annotations": {"a": MARK}}}),
            ),
            (&format!("{rbac}/clusterroles"), json!({"metadata": {"name": "s", "annotations": {"a": MARK}}})),
            (&format!("{rbac}/namespaces/demo/roles"), json!({"metadata": {"name": "all"}, "rules": rules})),
            (
                &format!("{rbac}/namespaces/demo/rolebindings"),
                json!({
                    "metadata": {"name": "alice"},
                    "roleRef": {"apiGroup": group, "kind": "Role", "name": "all"},
                    "subjects": [{"kind": "User", "apiGroup": group, "name": "alice"}],
                }),
            ),
        ] {
            let root = UserInfo::authenticated("root", &["system:masters"]);
            let (code, text) = world.ask(&root, "POST", path, Body::from(object.to_string())).await;
            assert_eq!(code, 201, "{path}: {text}");
        }
        world
    }

    /// 403 without a handler having been asked, else what the handler says.
    async fn ask(&self, user: &UserInfo, method: &str, uri: &str, body: Body) -> (u16, String) {
        let Ok(mut request) = Request::builder().method(method).uri(uri).body(body) else {
            return (400, String::new());
        };
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        if !self.authorizer.authorize(&Attributes::of(user, &info)).is_allowed() {
            return (403, String::new());
        }
        request.extensions_mut().insert(info);
        request.extensions_mut().insert(user.clone());
        let (head, body) =
            self.router.clone().oneshot(request).await.expect("the router never fails").into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        (head.status.as_u16(), String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_shows_what_is_not_theirs() {
    let world = World::new().await;
    let alice = UserInfo::authenticated("alice", &[]);
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let (mut allowed, mut answered) = (0, 0);
    for _ in 0..SAMPLES {
        let mut path = String::from(if random.random_bool(0.8) { "/api/v1" } else { "" });
        if random.random_bool(0.4) {
            path.push_str("/namespaces/demo");
        }
        for _ in 0..random.random_range(1..6) {
            path.push('/');
            path.push_str(SEGMENTS.choose(&mut random).expect("a segment"));
        }
        let query = QUERIES.choose(&mut random).expect("a query");
        let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
        // A watch goes on and on; that its attributes are those of a list is tested with the views.
        if uri.contains("/watch") {
            continue;
        }
        let (code, text) = world.ask(&alice, "GET", &uri, Body::empty()).await;
        allowed += usize::from(code != 403);
        answered += usize::from(code == 200);
        assert!(!text.contains(MARK), "{uri} shows what is not hers: {text}");
    }
    assert!(allowed > 500 && answered > 100, "the samples reach the handlers: {allowed} {answered}");
}

#[tokio::test]
async fn spellings_and_what_comes_of_them() {
    let world = World::new().await;
    let alice = UserInfo::authenticated("alice", &[]);
    for (method, path, code) in [
        ("GET", "/api/v1/namespaces/demo/secrets/s", 200),
        ("GET", "//api/v1//namespaces/demo/secrets/s/", 200),
        ("GET", "/api/v1/namespaces/%64emo/secrets/s", 200),
        ("GET", "/api/v1/namespaces/other/secrets/s", 403),
        ("GET", "/api/v1/namespaces/demo/../other/secrets/s", 404),
        ("GET", "/api/v1/namespaces/demo%2f..%2fother/secrets/s", 403),
        ("GET", "/api/v1/namespaces/demo/secrets/..%2f..%2fother%2fsecrets%2fs", 404),
        ("GET", "/api/v1/namespaces/demo%00/secrets/s", 403),
        ("GET", "/api/v1/namespaces/DEMO/secrets/s", 403),
        ("GET", "/api/v1/namespaces/demo/secrets/S", 404),
        ("GET", "/api/v1/namespaces/demo/SECRETS/s", 404),
        ("GET", "/api/v1/secrets?fieldSelector=metadata.namespace%3Ddemo", 403),
        ("GET", "/api/v1/secrets", 403),
        ("GET", "/api%2fv1/namespaces/demo/secrets", 403),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/demo/clusterroles/s", 404),
        ("GET", "/api/v1/namespaces/demo/namespaces/other", 404),
        ("DELETE", "/api/v1/namespaces/demo/namespaces/other", 404),
        ("GET", "/api/v1/namespaces/demo/namespaces", 404),
        ("POST", "/api/v1/namespaces/demo/namespaces", 404),
        ("POST", "/api/v1/namespaces/demo", 405),
        ("POST", "/api/v1/namespaces/demo/configmaps/x", 405),
        ("PUT", "/api/v1/namespaces/demo/configmaps", 405),
        ("PATCH", "/api/v1/namespaces/demo/configmaps", 405),
        ("GET", "/api/v1/namespaces/demo/nodes", 404),
        ("DELETE", "/api/v1/namespaces/other", 403),
        ("PUT", "/api/v1/namespaces/other/finalize", 403),
        ("HEAD", "/api/v1/namespaces/other/secrets/s", 403),
        ("OPTIONS", "/api/v1/namespaces/other/secrets/s", 403),
    ] {
        let (found, text) = world.ask(&alice, method, path, Body::empty()).await;
        assert_eq!(found, code, "{method} {path}: {text}");
    }
    // The namespace of the body does not stand above that of the path.
    for namespace in ["other", "OTHER", "demo/../other"] {
        let object: Value = json!({"metadata": {"name": "t", "namespace": namespace}});
        let body = Body::from(object.to_string());
        let (code, text) = world.ask(&alice, "POST", "/api/v1/namespaces/demo/configmaps", body).await;
        assert_eq!(code, 400, "{namespace}: {text}");
    }
}
