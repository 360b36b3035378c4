//! Upgraded connections to the container runtime's streaming server.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::error::Failure;

/// The runtime listens on loopback: an answer that takes longer does not come.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Of a refusal's text.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Names the versions of the streams' protocol, of both kinds of streams.
pub(super) const STREAM_VERSION: &str = "x-stream-protocol-version";
/// The `Upgrade` that the runtime's server speaks.
pub(super) const SPDY: &str = "SPDY/3.1";

/// A connection that now speaks SPDY.
pub(super) struct Upstream {
    /// The runtime's `101` headers.
    pub(super) headers: HeaderMap,
    /// The bytes after them.
    pub(super) io: TokioIo<Upgraded>,
}

/// Upgrades a new connection to the one-time `url` that CRI gave, offering these protocol versions.
pub(super) async fn connect(url: &str, versions: &[HeaderValue]) -> Result<Upstream, Failure> {
    match tokio::time::timeout(ANSWER_MAX, upgrade(url, versions)).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::internal("the container runtime did not answer in time")),
    }
}

async fn upgrade(url: &str, versions: &[HeaderValue]) -> Result<Upstream, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::internal(format!("error dialing backend: {e}"));
    let uri: Uri = url.parse().map_err(|e: http::uri::InvalidUri| failed(&e))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| failed(&format!("{url} is not an http URL")))?;
    let socket = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)));
    let socket = socket.await.map_err(|e| failed(&e))?;
    // Keystrokes are small writes.
    socket.set_nodelay(true).map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        http1::handshake::<_, Body>(TokioIo::new(socket)).await.map_err(|e| failed(&e))?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY)
        .header(http::header::CONTENT_LENGTH, "0");
    for version in versions {
        request = request.header(STREAM_VERSION, version);
    }
    let request = request.body(Body::empty()).map_err(|e| failed(&e))?;
    let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let text = body.map_or_else(|_| Bytes::new(), |b| b.to_bytes());
        let message = String::from_utf8_lossy(&text).trim().to_owned();
        // A status below 400 would not look like a failure to the client.
        let status = if status.as_u16() < 400 { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        return Err(Failure { status, message });
    }
    let headers = response.headers().clone();
    let io = hyper::upgrade::on(response).await.map_err(|e| failed(&e))?;
    Ok(Upstream { headers, io: TokioIo::new(io) })
}
