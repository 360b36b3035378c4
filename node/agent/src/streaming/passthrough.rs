//! Clients that speak SPDY themselves: bytes go through, as the runtime speaks the same.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::error::Failure;
use super::upstream::{self, SPDY, STREAM_VERSION};
use super::websocket::{self, Socket};

/// Bytes of one piece that is carried over.
const PIECE_BYTES: usize = 32 << 10;
/// How long a client may take to end its side after the runtime ended.
const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Refuses what is no upgrade to SPDY.
pub(super) fn check(request: &Request) -> Result<(), Failure> {
    let headers = request.headers();
    if websocket::has_token(headers, CONNECTION, "upgrade") && websocket::has_token(headers, UPGRADE, SPDY) {
        return Ok(());
    }
    Err(Failure::bad_request("Upgrade request required"))
}

/// Upgrades the client's connection with the versions it offers and those that the runtime chose.
pub(super) async fn spdy(mut request: Request, url: &str) -> Result<Response, Failure> {
    let versions: Vec<HeaderValue> = request.headers().get_all(STREAM_VERSION).iter().cloned().collect();
    let upstream = upstream::connect(url, &versions).await?;
    let mut answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in &upstream.headers {
        if *name == CONNECTION || *name == UPGRADE || name.as_str() == STREAM_VERSION {
            answer = answer.header(name, value);
        }
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let mut far = upstream.io;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(near) => {
                // Either side's break ends the session; there is nobody left to tell.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut far).await;
            }
            Err(error) => tracing::debug!(%error, "a client left during its upgrade"),
        }
    });
    answer.body(Body::empty()).map_err(|e| Failure::internal(e.to_string()))
}

/// Carries SPDY bytes in the messages of a WebSocket (`SPDY/3.1+portforward.k8s.io`).
pub(super) async fn tunnel(
    mut request: Request,
    url: &str,
    version: HeaderValue,
    protocol: &str,
) -> Result<Response, Failure> {
    let answer = websocket::accept(request.headers(), protocol)?;
    let upstream = upstream::connect(url, &[version]).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match websocket::socket(upgrade).await {
            Ok(socket) => carry(socket, upstream.io).await,
            Err(error) => tracing::debug!(%error, "a client left during its upgrade"),
        }
    });
    Ok(answer)
}

async fn carry(socket: Socket, io: TokioIo<Upgraded>) {
    let (mut read, mut write) = tokio::io::split(io);
    let (mut sink, mut stream) = socket.split();
    let up = async {
        let mut broken = false;
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(bytes) if !broken => {
                    broken = write.write_all(&bytes).await.is_err() || write.flush().await.is_err();
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    let down = async {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(count) = read.read(&mut piece).await {
            if count == 0 {
                break;
            }
            if sink.send(Message::binary(piece[..count].to_vec())).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    tokio::pin!(up);
    tokio::select! {
        () = &mut up => {}
        () = down => {
            let _ = tokio::time::timeout(DRAIN_MAX, up).await;
        }
    }
}
