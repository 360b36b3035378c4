//! The plugins before a real server with a real store, as users meet them.

use std::sync::Arc;

use axum::body::Body;
use gantry_kube_types::{RequestInfo, UserInfo};
use gantry_store::{Options, Store};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{AdmissionConfig, PodSecurity, plugins, quota_plugin};
use crate::{ApiServer, Config, GIT_VERSION};

pub(super) struct Api(axum::Router);

impl Api {
    /// With the namespaces `default` and `ending` and the default service account.
    pub(super) async fn new(range: &str, node_ports: std::ops::RangeInclusive<u16>) -> Self {
        let store = Store::memory(Options::default()).expect("a store in memory");
        let rules = AdmissionConfig {
            service_range: range.parse().expect("a range"),
            node_ports,
            pod_security: PodSecurity::default(),
        };
        let mut admission = plugins(rules, store.clone());
        admission.push(quota_plugin(store.clone()));
        let server = ApiServer::new(
            store,
            Config {
                kinds: crate::kinds::builtin(),
                admission,
                extensions: Vec::new(),
                beside: Vec::new(),
                nodes: None,
                views: None,
                git_version: GIT_VERSION.to_owned(),
            },
        );
        let api = Self(server.router());
        for namespace in ["default", "ending"] {
            let (code, body) = api.post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
            assert_eq!(code, 201, "{body}");
        }
        let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]});
        let (code, body) = api.post("/api/v1/namespaces/default/serviceaccounts", account).await;
        assert_eq!(code, 201, "{body}");
        api.send("DELETE", "/api/v1/namespaces/ending", Value::Null).await;
        api
    }

    pub(super) async fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .body(Body::from(text))
            .expect("a request");
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        request.extensions_mut().insert(info);
        request.extensions_mut().insert(UserInfo::authenticated("tester", &[]));
        let (head, body) = self.answer(request).await.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        (head.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> http::Response<Body> {
        self.0.clone().oneshot(request).await.expect("a router never fails")
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, body).await
    }

    async fn service(&self, name: &str, spec: Value) -> (u16, Value) {
        let body = json!({"metadata": {"name": name}, "spec": spec});
        self.post("/api/v1/namespaces/default/services", body).await
    }

    async fn pod(&self, spec: Value) -> (u16, Value) {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "a", "image": "web"}]);
        let body = json!({"metadata": {"generateName": "p-"}, "spec": spec});
        self.post("/api/v1/namespaces/default/pods", body).await
    }
}

pub(super) async fn ordinary() -> Api {
    Api::new("10.96.0.0/24", 30000..=30063).await
}

#[tokio::test]
async fn objects_live_in_namespaces_that_exist_and_stay() {
    let api = ordinary().await;
    let table = [
        ("absent", 404, "namespaces \"absent\" not found"),
        (
            "ending",
            403,
            "configmaps \"c\" is forbidden: unable to create new content in namespace ending because it is being \
             terminated",
        ),
    ];
    for (namespace, code, message) in table {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let (found, body) = api.post(&path, json!({"metadata": {"name": "c"}})).await;
        assert_eq!((found, body["message"].as_str()), (code, Some(message)), "{body}");
    }
    let (code, body) = api.send("DELETE", "/api/v1/namespaces/default", Value::Null).await;
    let message = "namespaces \"default\" is forbidden: this namespace may not be deleted";
    assert_eq!((code, body["message"].as_str()), (403, Some(message)));
}

#[tokio::test]
async fn a_pod_gets_its_account_token_priority_and_tolerations() {
    let api = ordinary().await;
    let (code, pod) = api.pod(json!({})).await;
    assert_eq!(code, 201, "{pod}");
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    let volume = spec["volumes"][0]["name"].as_str().unwrap_or_default();
    assert!(volume.starts_with("kube-api-access-"), "{spec}");
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    assert_eq!(spec["tolerations"][0]["key"], "node.kubernetes.io/not-ready");
    assert_eq!(spec["tolerations"][1]["tolerationSeconds"], 300);
    assert_eq!(pod["status"]["qosClass"], "BestEffort");

    let (_, plain) = api.pod(json!({"automountServiceAccountToken": false})).await;
    assert!(plain["spec"].get("volumes").is_none(), "{plain}");
    let (_, system) = api.pod(json!({"priorityClassName": "system-node-critical"})).await;
    assert_eq!(system["spec"]["priority"], 2_000_001_000);
    let table = [
        (json!({"serviceAccountName": "x"}), "serviceaccount \"x\" not found"),
        (json!({"priorityClassName": "x"}), "no PriorityClass with name x was found"),
        (json!({"priority": 5}), "the integer value of priority (5) must not be provided in pod spec"),
        (json!({"ephemeralContainers": [{"name": "d", "image": "i"}]}), "cannot be set on create"),
    ];
    for (spec, part) in table {
        let (code, body) = api.pod(spec).await;
        assert!(code >= 403 && body["message"].as_str().is_some_and(|m| m.contains(part)), "{body}");
    }
}

#[tokio::test]
async fn ephemeral_containers_come_through_their_subresource_only() {
    let api = ordinary().await;
    let (_, pod) = api.pod(json!({})).await;
    let path =
        format!("/api/v1/namespaces/default/pods/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
    let more = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "tools"}]}});
    let (code, body) = api.send("PATCH", &path, more.clone()).await;
    assert_eq!(code, 422, "{body}");
    let (code, body) = api.send("PATCH", &format!("{path}/ephemeralcontainers"), more).await;
    assert_eq!((code, &body["spec"]["ephemeralContainers"][0]["name"]), (200, &json!("debug")), "{body}");
    let none = json!({"spec": {"ephemeralContainers": null}});
    let (code, body) = api.send("PATCH", &format!("{path}/ephemeralcontainers"), none).await;
    assert_eq!(code, 422, "{body}");
    assert!(body["message"].as_str().is_some_and(|m| m.contains("may not be removed")), "{body}");
}

#[tokio::test]
async fn concurrent_services_never_share_an_address_or_port() {
    // 32 addresses: network, broadcast and the API server's first are not given: 29 are.
    let api = Arc::new(Api::new("10.96.0.0/27", 30000..=30063).await);
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..40 {
        let api = api.clone();
        tasks.spawn(async move {
            api.service(&format!("s{index}"), json!({"type": "NodePort", "ports": [{"port": 80}]})).await
        });
    }
    let (mut addresses, mut ports) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let mut refused = 0;
    while let Some(done) = tasks.join_next().await {
        let (code, body) = done.expect("no panic");
        if code == 201 {
            assert!(addresses.insert(body["spec"]["clusterIP"].to_string()), "{body}");
            assert!(ports.insert(body["spec"]["ports"][0]["nodePort"].as_u64()), "{body}");
        } else {
            assert!(body["message"].as_str().is_some_and(|m| m.contains("range is full")), "{body}");
            refused += 1;
        }
    }
    assert_eq!((addresses.len(), refused), (29, 11));
}

#[tokio::test]
async fn addresses_come_back_from_deleted_failed_and_dry_writes() {
    let api = ordinary().await;
    let fixed =
        json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]});
    let path = "/api/v1/namespaces/default/services";
    let dry = json!({"metadata": {"name": "dry"}, "spec": fixed});
    assert_eq!(api.post(&format!("{path}?dryRun=All"), dry).await.0, 201);
    // Refused by validation after it got its address.
    let mut bad = fixed.clone();
    bad["sessionAffinity"] = json!("x");
    assert_eq!(api.service("bad", bad).await.0, 422);
    assert_eq!(api.service("one", fixed.clone()).await.0, 201);
    let (code, body) = api.service("two", fixed.clone()).await;
    assert_eq!(code, 422);
    assert!(
        body["message"].as_str().is_some_and(|m| m.contains("provided IP is already allocated")),
        "{body}"
    );
    let other = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]});
    let (_, body) = api.service("two", other).await;
    assert!(
        body["message"].as_str().is_some_and(|m| m.contains("provided port is already allocated")),
        "{body}"
    );
    assert_eq!(api.send("DELETE", &format!("{path}/one"), Value::Null).await.0, 200);
    assert_eq!(api.service("two", fixed).await.0, 201, "what a deleted service held is free");
}

#[tokio::test]
async fn updates_keep_and_change_what_services_hold() {
    let api = ordinary().await;
    let (_, made) = api.service("web", json!({"type": "NodePort", "ports": [{"port": 80}]})).await;
    let path = "/api/v1/namespaces/default/services/web";
    let plain = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let (code, kept) = api.send("PUT", path, plain).await;
    assert_eq!(code, 200, "{kept}");
    for pointer in ["/spec/clusterIP", "/spec/ports/0/nodePort"] {
        assert_eq!(kept.pointer(pointer), made.pointer(pointer), "{pointer}");
    }
    let moved = json!({"spec": {"clusterIP": "10.96.0.77"}});
    let (code, body) = api.send("PATCH", path, moved).await;
    assert_eq!(code, 422);
    assert!(body["message"].as_str().is_some_and(|m| m.contains("may not change once set")), "{body}");
    let inner = json!({"spec": {"type": "ClusterIP"}});
    let (code, body) = api.send("PATCH", path, inner).await;
    assert_eq!((code, body["spec"]["ports"][0].get("nodePort")), (200, None), "{body}");
    let (_, api_service) = api.service("kubernetes", json!({"ports": [{"port": 443}]})).await;
    assert_eq!(api_service["spec"]["clusterIP"], "10.96.0.1");
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let (_, balancer) = api.service("lb", local).await;
    assert!(balancer["spec"]["healthCheckNodePort"].as_u64().is_some_and(|p| p >= 30000), "{balancer}");
    let (_, headless) = api.service("db", json!({"clusterIP": "None", "ports": [{"port": 1}]})).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
}
