//! A server with few kinds or with all of them, and tables of requests.

pub mod node;

use std::sync::Arc;

use axum::body::Body;
use gantry_apiserver::kind::{Kind, ScalePaths, Strategy};
use gantry_apiserver::kinds::{self, AdmissionConfig, PodSecurity};
use gantry_apiserver::metrics::MetricsApi;
use gantry_apiserver::{ApiServer, Config, GIT_VERSION};
use gantry_kube_logic::schema::catalog;
use gantry_kube_types::{GroupVersionKind, RequestInfo, ResourceInfo, Scope, UserInfo};
use gantry_store::{Options, Store};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

#[derive(Clone)]
pub struct Api {
    pub server: Arc<ApiServer>,
    router: axum::Router,
}

struct Workload;

impl Strategy for Workload {
    fn scale(&self) -> Option<ScalePaths> {
        Some(ScalePaths::workload())
    }
}

/// Pods are deleted with 30 seconds of grace, and can be selected by their node.
struct Pods;

impl Strategy for Pods {
    fn deletion_grace_seconds(&self, _object: &Value, asked: Option<i64>) -> Option<i64> {
        Some(asked.unwrap_or(30))
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.nodeName", object["spec"]["nodeName"].as_str().unwrap_or("").to_owned())]
    }
}

struct Plain;

impl Strategy for Plain {}

fn kind(
    (group, version, resource, name): (&'static str, &'static str, &'static str, &'static str),
    scope: Scope,
    subresources: &[&'static str],
    strategy: Arc<dyn Strategy>,
) -> Kind {
    let info = ResourceInfo {
        group: group.into(),
        version: version.into(),
        resource: resource.into(),
        singular: name.to_lowercase().into(),
        kind: name.into(),
        list_kind: format!("{name}List").into(),
        scope,
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: subresources.iter().map(|s| (*s).into()).collect(),
    };
    let mut kind = Kind::new(info, strategy);
    kind.schema = catalog().for_kind(&GroupVersionKind::new(group, version, name));
    kind
}

fn config() -> Config {
    let pods = &["status", "log", "exec", "eviction"];
    Config {
        kinds: vec![
            kind(("", "v1", "configmaps", "ConfigMap"), Scope::Namespaced, &[], Arc::new(Plain)),
            kind(
                ("", "v1", "namespaces", "Namespace"),
                Scope::Cluster,
                &["status", "finalize"],
                Arc::new(Plain),
            ),
            kind(("", "v1", "pods", "Pod"), Scope::Namespaced, pods, Arc::new(Pods)),
            kind(
                ("apps", "v1", "deployments", "Deployment"),
                Scope::Namespaced,
                &["status", "scale"],
                Arc::new(Workload),
            ),
            kind(
                ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"),
                Scope::Cluster,
                &["status"],
                Arc::new(Plain),
            ),
        ],
        admission: Vec::new(),
        extensions: Vec::new(),
        beside: Vec::new(),
        nodes: None,
        views: None,
        git_version: GIT_VERSION.to_owned(),
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Api {
    pub fn new() -> Self {
        Self::over(Store::memory(Options::default()).expect("a store in memory"))
    }

    pub fn over(store: Store) -> Self {
        let server = ApiServer::new(store, config());
        Self { router: server.router(), server }
    }

    /// Every built-in kind with its admission, a node, and the namespace `d`.
    pub async fn builtin() -> Self {
        let store = Store::memory(Options::default()).expect("a store in memory");
        let config = AdmissionConfig {
            service_range: "10.96.0.0/16".parse().expect("a range"),
            node_ports: 30_000..=32_767,
            pod_security: PodSecurity::default(),
        };
        let admission = kinds::plugins(config, store.clone());
        let nodes = Arc::new(node::FakeNode);
        let config = Config {
            kinds: kinds::builtin(),
            admission,
            extensions: vec![MetricsApi::new(store.clone(), nodes.clone())],
            beside: Vec::new(),
            nodes: Some(nodes),
            views: None,
            git_version: GIT_VERSION.to_owned(),
        };
        let server = ApiServer::new(store, config);
        let api = Self { router: server.router(), server };
        let namespace = api.post("/api/v1/namespaces", &json!({ "metadata": { "name": "d" } })).await;
        assert_eq!(namespace.status, 201, "{}", namespace.body);
        let account = json!({ "metadata": { "name": "default" } });
        assert_eq!(api.post("/api/v1/namespaces/d/serviceaccounts", &account).await.status, 201);
        api
    }

    /// The router, as the front door calls it: with the caller and what is asked.
    pub async fn serve(&self, mut request: Request<Body>) -> Response<Body> {
        let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
        request.extensions_mut().insert(info);
        request.extensions_mut().insert(UserInfo::authenticated("tester", &[]));
        self.router.clone().oneshot(request).await.expect("the router never fails")
    }

    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.serve(request.body(body).expect("a request in the table")).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let response = self.raw(method, path, headers, body.into()).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub async fn get(&self, path: &str) -> Value {
        self.send("GET", path, &[], Body::empty()).await.body
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[], body.to_string()).await
    }

    pub async fn patch(&self, path: &str, media_type: &str, body: &str) -> Answer {
        self.send("PATCH", path, &[("content-type", media_type)], body.to_owned()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Body::empty()).await
    }

    /// Runs a table of (method, path, body, status, a part of the message or body).
    pub async fn table(&self, rows: &[(&str, &str, &str, u16, &str)]) {
        for (method, path, body, status, part) in rows {
            let media = if *method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let answer = self.send(method, path, &[("content-type", media)], (*body).to_owned()).await;
            assert_eq!(answer.status, *status, "{method} {path} {body}: {}", answer.body);
            let text = match answer.body["message"].as_str() {
                Some(message) => message.to_owned(),
                None => answer.body.to_string(),
            };
            assert!(text.contains(part), "{method} {path}: {part:?} is not in {text}");
        }
    }
}
