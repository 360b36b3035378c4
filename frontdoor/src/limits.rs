//! Bounds on what clients may hold: connections, headers, time, requests in flight.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// What the front door allows. The defaults suit one machine; tests make them small.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open network connections; further ones wait in the kernel's accept queue.
    pub connections_max: usize,
    /// Connections of one in-process client; further requests wait for one.
    pub in_process_connections_max: usize,
    pub tls_handshake_timeout: Duration,
    /// From the first byte waited for to the end of a request's head.
    pub header_timeout: Duration,
    /// A kept-alive connection without a request for this long is closed.
    pub idle_timeout: Duration,
    /// A request body that brings nothing for this long ends in an error for its handler.
    pub body_stall_timeout: Duration,
    /// All header lines of one request together.
    pub header_bytes_max: usize,
    pub header_count_max: usize,
    /// Streams of one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// `get`, `list` and other reads at once; watches, logs and exec do not count.
    pub read_requests_max: usize,
    /// Writes at once.
    pub write_requests_max: usize,
    /// Requests of callers who are not known, at once, to handlers that decide on rights themselves. Each holds a place
    /// in the audit trail's queue (8,192) until it is answered, and can take its time with its body: those who are
    /// known must find room beside them.
    pub anonymous_requests_max: usize,
    /// Of these, from one IPv4 address or IPv6 /64.
    pub anonymous_requests_per_address_max: usize,
    /// Requests of one user, at once, to handlers that decide on rights themselves.
    pub requests_per_user_max: usize,
    /// A body with more bytes than this is not put on record.
    pub audit_body_bytes_max: usize,
    /// How long requests may go on after the shutdown began.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            in_process_connections_max: 1024,
            tls_handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(180),
            body_stall_timeout: Duration::from_secs(60),
            header_bytes_max: 64 * 1024,
            header_count_max: 128,
            http2_streams_max: 250,
            read_requests_max: 400,
            write_requests_max: 200,
            anonymous_requests_max: 1024,
            anonymous_requests_per_address_max: 256,
            requests_per_user_max: 1024,
            audit_body_bytes_max: 1 << 20,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A body that keeps `guard` until its end: what a request holds is given back when its response is
/// out, not when its handler returned.
pub(crate) struct GuardedBody<G> {
    inner: Body,
    guard: Option<G>,
}

impl<G: Send + Unpin + 'static> GuardedBody<G> {
    pub(crate) fn wrap(inner: Body, guard: G) -> Body {
        Body::new(Self { inner, guard: Some(guard) })
    }
}

impl<G: Unpin> HttpBody for GuardedBody<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.guard = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request body that fails when nothing comes for `limit`.
pub(crate) struct StallBody<B> {
    inner: B,
    limit: Duration,
    waiting: Option<Pin<Box<tokio::time::Sleep>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the request body stopped for {0:?}")]
pub(crate) struct BodyStalled(Duration);

impl<B> StallBody<B> {
    pub(crate) fn new(inner: B, limit: Duration) -> Self {
        Self { inner, limit, waiting: None }
    }
}

impl<B> HttpBody for StallBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(BodyStalled(limit).into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
