//! Streams and proxies: `pods/{log,exec,attach,portforward,proxy}`, `nodes/proxy`, `services/proxy`.
//!
//! The request is checked here and then handed on blind: whatever protocol the client and the node
//! upgrade to (WebSocket, SPDY), bytes are copied both ways until either side ends.

use std::time::Duration;

use axum::body::Body;
use gantry_kube_types::StatusError;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::admission::{Effects, Operation};
use crate::node::BoxedIo;
use crate::request::Context;
use crate::write::Write;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn serves(context: &Context) -> bool {
    context.info.group.is_empty()
        && matches!(
            (context.info.resource.as_str(), context.info.subresource.as_str()),
            ("pods", "log" | "exec" | "attach" | "portforward" | "proxy") | ("nodes" | "services", "proxy")
        )
}

/// Where a request goes on to, and as what.
enum Target {
    Node { node: String, path: String },
    Address { address: String, path: String },
}

pub(crate) async fn serve(context: Context, request: Request<Body>) -> Result<Response<Body>, StatusError> {
    let streams = matches!(context.info.subresource.as_str(), "exec" | "attach" | "portforward");
    let allowed = match context.info.subresource.as_str() {
        "log" => context.info.verb == "get",
        _ if streams => matches!(context.info.verb.as_str(), "get" | "create"),
        _ => true,
    };
    if !allowed {
        return Err(context.not_allowed());
    }
    if streams && !request.headers().contains_key(header::UPGRADE) {
        return Err(StatusError::bad_request("Upgrade request required"));
    }
    let target = target(&context, &request)?;
    if context.info.subresource != "log" {
        admit(&context).await?;
    }
    let (io, path) = open(&context, target).await?;
    forward(io, &path, request).await
}

fn target(context: &Context, request: &Request<Body>) -> Result<Target, StatusError> {
    let query = request.uri().query().unwrap_or("");
    match context.info.resource.as_str() {
        "pods" if context.info.subresource == "proxy" => pod_address(context, query),
        "pods" => pod_stream(context),
        "services" => service_address(context, query),
        _ => {
            let (_, name, _) = split_name(&context.info.name);
            context.current(name)?;
            let path = with_query(format!("/{}", proxied_path(request)), query);
            Ok(Target::Node { node: name.to_owned(), path })
        }
    }
}

async fn admit(context: &Context) -> Result<(), StatusError> {
    let reader = context.server.reader();
    let (_, name, _) = split_name(&context.info.name);
    let write = Write { context, name, operation: Operation::Connect, dry_run: false, reader: &reader };
    let old = context.server.store.snapshot().get(&context.key(name));
    let old = old.map(|object| crate::encode::decode(&context.kind, &object));
    let effects = Effects::default();
    let mut nothing = Value::Null;
    write.mutate(&mut nothing, old.as_ref(), &effects).await?;
    write.validate(&mut nothing, old.as_ref(), &effects).await
}

/// `[scheme:]name[:port]`.
fn split_name(text: &str) -> (&str, &str, &str) {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", text, ""),
    }
}

/// What follows `/proxy/`, still escaped as the client wrote it.
fn proxied_path(request: &Request<Body>) -> &str {
    let path = request.uri().path();
    path.split_once("/proxy/").map_or("", |(_, rest)| rest)
}

fn with_query(path: String, query: &str) -> String {
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

fn pod_stream(context: &Context) -> Result<Target, StatusError> {
    let (name, namespace) = (context.info.name.as_str(), context.namespace());
    let pod = crate::encode::decode(&context.kind, &*context.current(name)?);
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("");
    let what = context.info.subresource.as_str();
    let container = match what {
        "portforward" => String::new(),
        _ => choose_container(context.query.text("container"), &pod)?,
    };
    if node.is_empty() {
        return Err(StatusError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    if what != "log" && matches!(phase, "Succeeded" | "Failed") {
        return Err(StatusError::bad_request(format!(
            "cannot {what} into a container in a completed pod; current phase is {phase}"
        )));
    }
    let (route, container) = match what {
        "log" => ("containerLogs", format!("/{container}")),
        "portforward" => ("portForward", container),
        what => (what, format!("/{container}")),
    };
    let path = with_query(format!("/{route}/{namespace}/{name}{container}"), &node_query(context));
    Ok(Target::Node { node: node.to_owned(), path })
}

/// The node's names for the stream options; everything else goes through as it is.
fn node_query(context: &Context) -> String {
    let mut out = String::new();
    for (name, value) in context.query.pairs() {
        let name = match name {
            "container" => continue,
            "stdin" => "input",
            "stdout" => "output",
            "stderr" => "error",
            other => other,
        };
        let value = match (name, value) {
            ("input" | "output" | "error" | "tty", "true") => "1",
            ("input" | "output" | "error" | "tty", "false") => continue,
            (_, value) => value,
        };
        if !out.is_empty() {
            out.push('&');
        }
        escape(&mut out, name);
        out.push('=');
        escape(&mut out, value);
    }
    out
}

fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// The container asked for, or the only one.
fn choose_container(asked: &str, pod: &Value) -> Result<String, StatusError> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (main, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or("");
    if !asked.is_empty() {
        let known = main.iter().chain(&init).chain(&ephemeral).any(|n| *n == asked);
        let unknown =
            || StatusError::bad_request(format!("container {asked} is not valid for pod {pod_name}"));
        return known.then(|| asked.to_owned()).ok_or_else(unknown);
    }
    if let [only] = main.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut message =
        format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
    if !init.is_empty() {
        message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    if !ephemeral.is_empty() {
        message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
    }
    Err(StatusError::bad_request(message))
}

/// An IPv6 address needs brackets before its port.
fn socket(ip: &str, port: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn pod_address(context: &Context, query: &str) -> Result<Target, StatusError> {
    let (_, name, port) = split_name(&context.info.name);
    let pod = crate::encode::decode(&context.kind, &*context.current(name)?);
    let ip = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty());
    let ip = ip.ok_or_else(|| StatusError::service_unavailable(format!("pod {name} has no address yet")))?;
    let first = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64();
    let port = match port {
        "" => first.map_or_else(|| "80".to_owned(), |p| p.to_string()),
        port => port.to_owned(),
    };
    let path = with_query(format!("/{}", context.info.subresource_path), query);
    Ok(Target::Address { address: socket(ip, &port), path })
}

fn service_address(context: &Context, query: &str) -> Result<Target, StatusError> {
    let (_, name, port) = split_name(&context.info.name);
    context.current(name)?;
    let unavailable =
        || StatusError::service_unavailable(format!("no endpoints available for service {name:?}"));
    let reader = context.server.reader();
    let endpoints = reader.get("", "endpoints", context.namespace(), name).ok_or_else(unavailable)?;
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        let ports = subset["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = ports.iter().find(|p| {
            p["name"].as_str().unwrap_or("") == port
                || p["port"].as_u64().is_some_and(|n| n.to_string() == port)
        });
        let chosen = if port.is_empty() { ports.first() } else { found };
        if let (Some(ip), Some(port)) =
            (subset["addresses"][0]["ip"].as_str(), chosen.and_then(|p| p["port"].as_u64()))
        {
            let path = with_query(format!("/{}", context.info.subresource_path), query);
            return Ok(Target::Address { address: socket(ip, &port.to_string()), path });
        }
    }
    Err(unavailable())
}

async fn open(context: &Context, target: Target) -> Result<(BoxedIo, String), StatusError> {
    let late = |what: &str| StatusError::timeout(format!("no answer from {what} in time"));
    match target {
        Target::Node { node, path } => {
            let unavailable = || StatusError::service_unavailable("this server reaches no nodes");
            let nodes = context.server.nodes.as_ref().ok_or_else(unavailable)?;
            let io = tokio::time::timeout(CONNECT_TIMEOUT, nodes.connect(&node)).await;
            Ok((io.map_err(|_| late(&format!("node {node:?}")))??, path))
        }
        Target::Address { address, path } => {
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await;
            let stream = stream.map_err(|_| late(&address))?.map_err(|error| {
                StatusError::service_unavailable(format!("error trying to reach service: {address}: {error}"))
            })?;
            Ok((Box::new(stream), path))
        }
    }
}

/// Headers that are about the client's connection or rights and not about the request.
const DROPPED: [header::HeaderName; 4] =
    [header::AUTHORIZATION, header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

async fn forward(io: BoxedIo, path: &str, mut request: Request<Body>) -> Result<Response<Body>, StatusError> {
    let broken = |error: &dyn std::fmt::Display| {
        StatusError::service_unavailable(format!("error trying to reach service: {error}"))
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|e| broken(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let upgrading = request.headers().contains_key(header::UPGRADE);
    let client = upgrading.then(|| hyper::upgrade::on(&mut request));
    let uri: Uri = path.parse().map_err(|_| StatusError::bad_request("the path cannot be passed on"))?;
    let mut onward = Request::new(Body::empty());
    *onward.method_mut() = request.method().clone();
    *onward.uri_mut() = uri;
    *onward.headers_mut() = onward_headers(request.headers(), upgrading);
    if !upgrading {
        *onward.body_mut() = request.into_body();
    }
    let mut response = sender.send_request(onward).await.map_err(|e| broken(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let mut response = response.map(Body::new);
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            response.headers_mut().remove(name);
        }
        return Ok(response);
    }
    let node = hyper::upgrade::on(&mut response);
    let client = client.ok_or_else(|| StatusError::internal("an upgrade nobody asked for"))?;
    tokio::spawn(async move {
        match tokio::try_join!(client, node) {
            Ok((client, node)) => {
                let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
                    tracing::debug!(%error, "a stream ended");
                }
            }
            Err(error) => tracing::debug!(%error, "a stream was not upgraded"),
        }
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response.headers().clone();
    Ok(answer)
}

fn onward_headers(headers: &HeaderMap, upgrading: bool) -> HeaderMap {
    let mut onward = headers.clone();
    for name in DROPPED {
        onward.remove(name);
    }
    if !upgrading {
        onward.remove(header::CONNECTION);
    }
    onward.insert(header::HOST, HeaderValue::from_static("node"));
    onward
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen_as_kubectl_users_know() {
        let one = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "a" }] } });
        let two = json!({ "metadata": { "name": "p" }, "spec": {
            "containers": [{ "name": "a" }, { "name": "b" }], "initContainers": [{ "name": "i" }] } });
        for (pod, asked, want) in [
            (&one, "", "a"),
            (&two, "i", "i"),
            (
                &two,
                "",
                "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
            ),
            (&two, "x", "container x is not valid for pod p"),
        ] {
            let got = choose_container(asked, pod).unwrap_or_else(|e| e.message);
            assert_eq!(got, want);
        }
    }
}
