//! As much of an API server as a watcher needs: lists and watches of two kinds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    watches: Vec<(&'static str, mpsc::UnboundedSender<Bytes>)>,
}

/// Objects that a test sets and the code under test watches.
#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<State>>);

pub const SERVICES: &str = "services";
pub const SLICES: &str = "endpointslices";

impl Api {
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = api.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        kube::Client::new(service, "default")
    }

    pub fn set(&self, kind: &'static str, mut object: Value) {
        let mut state = self.0.lock().expect("no test panics with the lock");
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let key = (kind, format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]));
        let event = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        let line = Bytes::from(format!("{}\n", json!({ "type": event, "object": object })));
        state.objects.insert(key, object);
        state.watches.retain(|(watched, sender)| *watched != kind || sender.send(line.clone()).is_ok());
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let kind = if request.uri().path().ends_with(SLICES) { SLICES } else { SERVICES };
        let mut state = self.0.lock().expect("no test panics with the lock");
        if request.uri().query().unwrap_or_default().contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel();
            state.watches.push((kind, sender));
            let lines = futures::stream::unfold(receiver, |mut receiver| async move {
                let line = receiver.recv().await?;
                Some((Ok(http_body::Frame::data(line)), receiver))
            });
            return Response::new(StreamBody::new(lines.boxed()).boxed_unsync());
        }
        let items: Vec<_> =
            state.objects.iter().filter(|((k, _), _)| *k == kind).map(|(_, object)| object).collect();
        let (version, list) = if kind == SERVICES {
            ("v1", "ServiceList")
        } else {
            ("discovery.k8s.io/v1", "EndpointSliceList")
        };
        let metadata = json!({ "resourceVersion": state.version.to_string() });
        let list = json!({ "apiVersion": version, "kind": list, "metadata": metadata, "items": items });
        Response::new(Full::new(Bytes::from(list.to_string())).boxed_unsync())
    }
}

/// A service of namespace `default`; `spec` holds what differs.
pub fn service(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": spec,
    })
}

/// The slice of a service: ready addresses and one port.
pub fn slice(service: &str, addresses: &[String], protocol: &str, port: u16) -> Value {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({ "addresses": [address], "conditions": { "ready": true }, "nodeName": "here" }))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"), "namespace": "default",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "", "protocol": protocol, "port": port }],
    })
}
