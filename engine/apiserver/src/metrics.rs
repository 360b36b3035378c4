//! `metrics.k8s.io/v1beta1`, which `kubectl top` reads: computed on request from each node's
//! `/stats/summary`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use futures::future::join_all;
use gantry_kube_logic::meta;
use gantry_kube_logic::negotiate::Output;
use gantry_kube_types::{RequestInfo, ResourceInfo, Scope, StatusError};
use gantry_store::Store;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::encode;
use crate::node::NodeConnector;
use crate::objects::timestamp;
use crate::query::{Query, Selectors};
use crate::reader::Reader;
use crate::registry::ResourceExtension;
use crate::respond;

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const SUMMARY_BYTES_MAX: usize = 16 << 20;
const NODE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a sample says it covers where the node does not say.
const WINDOW: &str = "10s";

/// Give it to [`crate::Config::extensions`].
#[derive(Clone)]
pub struct MetricsApi {
    store: Store,
    nodes: Arc<dyn NodeConnector>,
}

impl MetricsApi {
    pub fn new(store: Store, nodes: Arc<dyn NodeConnector>) -> Arc<Self> {
        Arc::new(Self { store, nodes })
    }
}

impl ResourceExtension for MetricsApi {
    fn group(&self) -> &str {
        GROUP
    }

    fn version(&self) -> &str {
        VERSION
    }

    fn resources(&self) -> Vec<(ResourceInfo, Vec<&'static str>)> {
        let info = |resource: &'static str, kind: &'static str, list: &'static str, scope| ResourceInfo {
            group: GROUP.into(),
            version: VERSION.into(),
            resource: resource.into(),
            singular: "".into(),
            kind: kind.into(),
            list_kind: list.into(),
            scope,
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
        };
        vec![
            (info("nodes", "NodeMetrics", "NodeMetricsList", Scope::Cluster), vec!["get", "list"]),
            (info("pods", "PodMetrics", "PodMetricsList", Scope::Namespaced), vec!["get", "list"]),
        ]
    }

    fn router(&self) -> Router {
        Router::new().fallback(handle).with_state(self.clone())
    }
}

async fn handle(State(api): State<MetricsApi>, request: Request<Body>) -> Response<Body> {
    // The body goes unread: it is not `Sync` and would not live across the wait.
    let (head, _) = request.into_parts();
    serve(&api, &head).await.unwrap_or_else(|error| respond::failure(&error))
}

async fn serve(api: &MetricsApi, request: &http::request::Parts) -> Result<Response<Body>, StatusError> {
    let info = request
        .extensions
        .get::<RequestInfo>()
        .cloned()
        .unwrap_or_else(|| RequestInfo::parse(&request.method, request.uri.path(), request.uri.query()));
    let query = Query::parse(request.uri.query());
    let output = Output::of(&request.headers, query.flag("pretty"))?;
    if !matches!(info.verb.as_str(), "get" | "list") {
        return Err(StatusError::method_not_supported(GROUP, &info.resource, &info.verb));
    }
    let selectors = Selectors::of(&query)?;
    let reader = Reader::new(api.store.snapshot());
    let (mut items, list) = match info.resource.as_str() {
        // Inside a namespace the authoriser was asked about that namespace alone.
        "nodes" if info.namespace.is_empty() => {
            (api.node_metrics(&reader, &info, &selectors).await, "NodeMetricsList")
        }
        "pods" => (api.pod_metrics(&reader, &info, &selectors).await, "PodMetricsList"),
        _ => return Err(StatusError::no_such_resource()),
    };
    let answer = if info.name.is_empty() {
        json!({ "kind": list, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items })
    } else {
        items.pop().ok_or_else(|| StatusError::not_found(GROUP, &info.resource, &info.name))?
    };
    respond::success(StatusCode::OK, encode::to_bytes(&answer), output)
}

fn wanted(object: &Value, info: &RequestInfo, selectors: &Selectors) -> bool {
    (info.name.is_empty() || meta::name(object) == info.name)
        && selectors.labels.matches(meta::labels(object))
}

impl MetricsApi {
    async fn node_metrics(&self, reader: &Reader, info: &RequestInfo, selectors: &Selectors) -> Vec<Value> {
        let nodes: Vec<Value> =
            reader.list::<Value>("", "nodes", None).filter(|n| wanted(n, info, selectors)).collect();
        let summaries = join_all(nodes.iter().map(|node| self.summary(meta::name(node)))).await;
        let measured = nodes.iter().zip(summaries);
        measured
            .filter_map(|(node, summary)| {
                let usage = usage(&summary?["node"])?;
                Some(sample("NodeMetrics", node, json!({ "usage": usage })))
            })
            .collect()
    }

    async fn pod_metrics(&self, reader: &Reader, info: &RequestInfo, selectors: &Selectors) -> Vec<Value> {
        let namespace = (!info.namespace.is_empty()).then_some(info.namespace.as_str());
        let pods: Vec<Value> =
            reader.list::<Value>("", "pods", namespace).filter(|p| wanted(p, info, selectors)).collect();
        let mut nodes: Vec<&str> = pods.iter().filter_map(|p| p["spec"]["nodeName"].as_str()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut measured: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
        for summary in join_all(nodes.into_iter().map(|node| self.summary(node))).await.into_iter().flatten()
        {
            for pod in summary["pods"].as_array().into_iter().flatten() {
                let text = |field: &str| pod["podRef"][field].as_str().unwrap_or("").to_owned();
                let containers = pod["containers"].as_array().into_iter().flatten();
                let used = containers
                    .filter_map(|c| Some(json!({ "name": c["name"], "usage": usage(c)? })))
                    .collect();
                measured.insert((text("namespace"), text("name")), used);
            }
        }
        pods.iter()
            .filter_map(|pod| {
                let key = (meta::namespace(pod).to_owned(), meta::name(pod).to_owned());
                let containers = measured.get(&key).filter(|c| !c.is_empty())?;
                Some(sample("PodMetrics", pod, json!({ "containers": containers })))
            })
            .collect()
    }

    /// `None` where the node does not answer: its objects are left out, as metrics-server does.
    async fn summary(&self, node: &str) -> Option<Value> {
        match tokio::time::timeout(NODE_TIMEOUT, self.fetch(node)).await {
            Ok(Ok(summary)) => Some(summary),
            Ok(Err(error)) => {
                tracing::warn!(node, %error, "cannot read the node's statistics");
                None
            }
            Err(_) => {
                tracing::warn!(node, "the node's statistics did not come in time");
                None
            }
        }
    }

    async fn fetch(&self, node: &str) -> Result<Value, StatusError> {
        let io = self.nodes.connect(node).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(StatusError::internal)?;
        // Ends with the sender, which lives as long as this call.
        tokio::spawn(connection);
        let mut request = Request::new(Empty::<bytes::Bytes>::new());
        *request.uri_mut() = http::Uri::from_static("/stats/summary");
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("node"));
        let response = sender.send_request(request).await.map_err(StatusError::internal)?;
        if !response.status().is_success() {
            return Err(StatusError::internal(format!("the node answered {}", response.status())));
        }
        let body = Limited::new(response.into_body(), SUMMARY_BYTES_MAX).collect().await;
        let body = body.map_err(StatusError::internal)?.to_bytes();
        serde_json::from_slice(&body).map_err(StatusError::internal)
    }
}

/// `None` until both have been measured.
fn usage(stats: &Value) -> Option<Value> {
    let cpu = stats["cpu"]["usageNanoCores"].as_u64()?;
    let memory = stats["memory"]["workingSetBytes"].as_u64()?;
    Some(json!({ "cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024) }))
}

fn sample(kind: &str, object: &Value, content: Value) -> Value {
    let now = timestamp(Timestamp::now());
    let mut metadata = json!({ "name": object["metadata"]["name"], "creationTimestamp": now });
    for field in ["namespace", "labels"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut sample = json!({
        "kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata, "timestamp": now,
        "window": WINDOW,
    });
    for (field, value) in content.as_object().into_iter().flatten() {
        sample[field] = value.clone();
    }
    sample
}
