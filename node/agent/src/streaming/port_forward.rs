//! `/portForward`: connections to ports of a pod.

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use gantry_cri::PortForwardRequest;
use http::HeaderValue;

use super::channels::{Protocol, Route, Session};
use super::error::{Failure, find_pod};
use super::recording::Recording;
use super::spdy::{Reader, Writer};
use super::upstream::{self, Upstream};
use super::{passthrough, remote, websocket};
use crate::api::AgentApi;

/// What the runtime speaks.
const RUNTIME_PROTOCOL: HeaderValue = HeaderValue::from_static("portforward.k8s.io");
/// SPDY inside WebSocket messages, as kubectl speaks it.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Pairs of channels, as kube-rs and other WebSocket clients speak it.
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "portforward.k8s.io"];
/// Ports in one request; channel numbers have a byte, and two belong to each port.
const PORTS_MAX: usize = 64;

pub(super) async fn handle(
    State(api): State<AgentApi>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    serve(&api, &namespace, &pod, &query, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn serve(
    api: &AgentApi,
    namespace: &str,
    pod: &str,
    query: &[(String, String)],
    request: Request,
) -> Result<Response, Failure> {
    let record = find_pod(api, namespace, pod)?;
    let sandbox = record.sandbox_id.clone();
    let pod_sandbox_id =
        sandbox.ok_or_else(|| Failure::internal(format!("pod {pod:?} has no sandbox yet")))?;
    let url = async |port| -> Result<String, Failure> {
        Ok(api.runtime.port_forward(PortForwardRequest { pod_sandbox_id, port }).await?.url)
    };
    if !websocket::is_websocket(request.method(), request.headers()) {
        passthrough::check(&request)?;
        return passthrough::spdy(request, &url(Vec::new()).await?).await;
    }
    let offered = websocket::offered(request.headers());
    if offered.iter().any(|o| o.eq_ignore_ascii_case(TUNNEL)) {
        return passthrough::tunnel(request, &url(Vec::new()).await?, RUNTIME_PROTOCOL, TUNNEL).await;
    }
    let known = CHANNELS.into_iter().find(|c| offered.contains(c));
    let name = known.or(offered.is_empty().then_some(""));
    let name = name.ok_or_else(|| {
        Failure::bad_request(format!(
            "unable to upgrade: none of the subprotocols {offered:?} is spoken here"
        ))
    })?;
    let ports = ports(query)?;
    let url = url(ports.iter().map(|p| i32::from(*p)).collect()).await?;
    channels(request, &url, Protocol::port_forward(name), &ports).await
}

/// The ports asked for, in order: `port` or `ports`, repeated or separated by commas.
fn ports(query: &[(String, String)]) -> Result<Vec<u16>, Failure> {
    let mut ports = Vec::new();
    for (_, value) in query.iter().filter(|(name, _)| name == "port" || name == "ports") {
        for text in value.split(',') {
            let port = text.trim().parse().ok().filter(|p| *p > 0);
            ports.push(port.ok_or_else(|| Failure::bad_request(format!("invalid port {text:?}")))?);
        }
    }
    if ports.is_empty() {
        return Err(Failure::bad_request("query parameter \"port\" is required"));
    }
    if ports.len() > PORTS_MAX {
        return Err(Failure::bad_request(format!("at most {PORTS_MAX} ports can be forwarded at once")));
    }
    Ok(ports)
}

/// Channel 2n carries the data of the n-th port, 2n + 1 its errors; both begin with the port's number.
async fn channels(
    mut request: Request,
    url: &str,
    protocol: Protocol,
    ports: &[u16],
) -> Result<Response, Failure> {
    let answer = websocket::accept(request.headers(), protocol.name)?;
    let Upstream { io, .. } = upstream::connect(url, &[RUNTIME_PROTOCOL]).await?;
    let (read, write) = tokio::io::split(io);
    let mut writer = Writer::new(write);
    let (mut routes, mut greeting) = (Vec::new(), Vec::new());
    for (index, port) in (0u8..).zip(ports) {
        let (text, id) = (port.to_string(), index.to_string());
        let kinds = [("error", index * 2 + 1, false), ("data", index * 2, true)];
        for (kind, channel, data) in kinds {
            let headers = [("streamtype", kind), ("port", text.as_str()), ("requestid", id.as_str())];
            let stream = writer.open(&headers).await;
            let stream = stream.map_err(|e| Failure::internal(format!("error dialing backend: {e}")))?;
            routes.push(Route { channel, stream, up: data, awaited: data });
            greeting.push((channel, port.to_le_bytes().to_vec()));
        }
    }
    let reader = Reader::new(read);
    let recording = Recording::default();
    let session = Session { protocol, routes, error_channel: None, reader, writer, greeting, recording };
    remote::spawn(&mut request, session);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_either_name() {
        let parse = |pairs: &[(&str, &str)]| {
            ports(&pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[("port", "80"), ("ports", "81,82"), ("x", "1")]), Ok(vec![80, 81, 82]));
        for bad in [&[][..], &[("port", "0")], &[("port", "70000")], &[("ports", "1,,2")], &[("port", "x")]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&[("ports", &vec!["1"; 65].join(","))]).is_err());
    }
}
