//! Streams and proxies: `pods/{log,exec,attach,portforward,proxy}`, `nodes/proxy`, `services/proxy`.
//!
//! The request is checked here and then handed on blind: whatever protocol the client and the node
//! upgrade to (WebSocket, SPDY), bytes are copied both ways until either side ends.

use std::net::{IpAddr, SocketAddr};
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

/// `api/v1/nodes/NAME/proxy`.
const NODE_SEGMENTS: usize = 5;
/// `api/v1/namespaces/NAMESPACE/pods/NAME/proxy`.
const NAMESPACED_SEGMENTS: usize = 7;
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
    let segments = if context.namespace().is_empty() { NODE_SEGMENTS } else { NAMESPACED_SEGMENTS };
    let path = with_query(format!("/{}", proxied_path(request.uri().path(), segments)), query);
    match context.info.resource.as_str() {
        "pods" if context.info.subresource == "proxy" => pod_address(context, path),
        "pods" => pod_stream(context),
        "services" => service_address(context, path),
        _ => {
            let (_, name, _) = split_name(&context.info.name);
            context.current(name)?;
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

/// What follows so many segments and a slash, still escaped as the client wrote it. Counted as
/// [`gantry_kube_types::RequestInfo`] counts: the part rights were decided on never goes on.
fn proxied_path(path: &str, segments: usize) -> &str {
    let mut rest = path;
    for _ in 0..segments {
        rest = rest.trim_start_matches('/');
        rest = rest.find('/').map_or("", |at| &rest[at..]);
    }
    rest.strip_prefix('/').unwrap_or(rest)
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

/// The address to connect to. Who may write endpoints or the status of pods must not reach, through this
/// server, what listens on its own host for its own host alone.
fn socket(ip: &str, port: &str) -> Result<String, StatusError> {
    let refuse = || StatusError::bad_request("address not allowed");
    let ip: IpAddr = ip.parse().map_err(|_| refuse())?;
    let port: u16 = port.parse().map_err(|_| refuse())?;
    let ip = ip.to_canonical();
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Err(refuse());
    }
    Ok(SocketAddr::new(ip, port).to_string())
}

fn pod_address(context: &Context, path: String) -> Result<Target, StatusError> {
    let (_, name, port) = split_name(&context.info.name);
    let pod = crate::encode::decode(&context.kind, &*context.current(name)?);
    let ip = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty());
    let ip = ip.ok_or_else(|| StatusError::service_unavailable(format!("pod {name} has no address yet")))?;
    let first = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64();
    let port = match port {
        "" => first.map_or_else(|| "80".to_owned(), |p| p.to_string()),
        port => port.to_owned(),
    };
    Ok(Target::Address { address: socket(ip, &port)?, path })
}

fn service_address(context: &Context, path: String) -> Result<Target, StatusError> {
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
            return Ok(Target::Address { address: socket(ip, &port.to_string())?, path });
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

    #[test]
    fn only_what_follows_the_subresource_goes_on() {
        for (path, segments, want) in [
            ("/api/v1/nodes/n1/proxy/stats/summary", NODE_SEGMENTS, "stats/summary"),
            ("/api/v1/nodes/n1/proxy", NODE_SEGMENTS, ""),
            ("/api/v1/nodes/n1/proxy/", NODE_SEGMENTS, ""),
            ("//api//v1/nodes/n1/%70roxy/a%2fb", NODE_SEGMENTS, "a%2fb"),
            ("/api/v1/namespaces/proxy/pods/p/proxy/x/proxy/y", NAMESPACED_SEGMENTS, "x/proxy/y"),
        ] {
            assert_eq!(proxied_path(path, segments), want, "{path}");
        }
    }

    #[test]
    fn the_servers_own_host_is_not_proxied_to() {
        for ip in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "fe80::1",
            "x",
            "",
        ] {
            assert!(socket(ip, "80").is_err(), "{ip}");
        }
        assert_eq!(socket("10.0.0.7", "80").ok().as_deref(), Some("10.0.0.7:80"));
        assert_eq!(socket("fd00::7", "80").ok().as_deref(), Some("[fd00::7]:80"));
        assert!(socket("10.0.0.7", "http").is_err() && socket("10.0.0.7", "99999").is_err());
    }
}
