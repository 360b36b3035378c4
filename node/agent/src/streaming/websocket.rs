//! The server's side of WebSocket handshakes (RFC 6455 section 4.2), on whatever transport the request came.

use axum::response::Response;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::error::Failure;

/// The largest message a client may send. kubectl sends 32 KiB, simple clients a whole file at once.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A connected WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The list header contains the token, in any case.
pub(super) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty())
}

/// The request wants to become a WebSocket.
pub(super) fn is_websocket(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET
        && has_token(headers, CONNECTION, "upgrade")
        && has_token(headers, UPGRADE, "websocket")
}

/// Sub-protocols the client offers, its favourite first.
pub(super) fn offered(headers: &HeaderMap) -> Vec<&str> {
    tokens(headers, SEC_WEBSOCKET_PROTOCOL).collect()
}

/// The `101` answer; `protocol` is the chosen sub-protocol, empty when none was offered.
pub(super) fn accept(headers: &HeaderMap, protocol: &str) -> Result<Response, Failure> {
    if !has_token(headers, SEC_WEBSOCKET_VERSION, "13") {
        return Err(Failure::bad_request("only version 13 of WebSocket is spoken here"));
    }
    let key =
        headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| Failure::bad_request("Sec-WebSocket-Key is missing"))?;
    let mut answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    if !protocol.is_empty() {
        answer = answer.header(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    answer.body(axum::body::Body::empty()).map_err(|e| Failure::internal(e.to_string()))
}

/// The socket, once the `101` answer is out.
pub(super) async fn socket(upgrade: OnUpgrade) -> Result<Socket, hyper::Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let io = TokioIo::new(upgrade.await?);
    Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
}
