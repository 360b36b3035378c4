//! Copies of bodies for the audit trail, within a bound.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use gantry_kube_types::AuditBody;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// What has passed of a body.
pub(crate) struct Tee {
    bytes: BytesMut,
    bytes_max: usize,
    too_large: bool,
}

impl Tee {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), bytes_max, too_large: false }
    }

    fn pass(&mut self, bytes: &[u8]) {
        if self.too_large || self.bytes.len() + bytes.len() > self.bytes_max {
            self.too_large = true;
            self.bytes = BytesMut::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// What the handler read. Where it read nothing there is nothing to tell.
    pub(crate) fn taken(&mut self) -> AuditBody {
        match (self.too_large, self.bytes.is_empty()) {
            (true, _) => AuditBody::TooLarge,
            (false, true) => AuditBody::Absent,
            (false, false) => AuditBody::Whole(self.bytes.split().freeze()),
        }
    }
}

/// A body that leaves a copy of what passes.
pub(crate) struct TeeBody {
    inner: Body,
    tee: Arc<Mutex<Tee>>,
}

impl TeeBody {
    pub(crate) fn new(inner: Body, tee: Arc<Mutex<Tee>>) -> Self {
        Self { inner, tee }
    }
}

impl HttpBody for TeeBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.tee.lock().unwrap_or_else(PoisonError::into_inner).pass(bytes);
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

/// Reads `body` to its end or to the bound, and gives it back as it was.
pub(crate) async fn collect(mut body: Body, bytes_max: usize) -> (AuditBody, Body) {
    let mut frames = VecDeque::new();
    let mut bytes = 0;
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let ended = !matches!(next, Some(Ok(_)));
        if let Some(Ok(frame)) = &next {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        frames.extend(next);
        if bytes > bytes_max {
            return (AuditBody::TooLarge, Body::new(Rejoined { frames, rest: Some(body) }));
        }
        if ended {
            break;
        }
    }
    let kept = joined(&frames);
    let kept = if kept.is_empty() { AuditBody::Absent } else { AuditBody::Whole(kept) };
    (kept, Body::new(Rejoined { frames, rest: None }))
}

fn joined(frames: &VecDeque<Result<Frame<Bytes>, axum::Error>>) -> Bytes {
    let mut pieces = frames.iter().filter_map(|f| f.as_ref().ok()?.data_ref());
    let first = pieces.next().cloned().unwrap_or_default();
    let Some(second) = pieces.next() else { return first };
    let mut all = BytesMut::from(first.as_ref());
    all.extend_from_slice(second);
    pieces.for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

/// The frames that were read, then the rest.
struct Rejoined {
    frames: VecDeque<Result<Frame<Bytes>, axum::Error>>,
    rest: Option<Body>,
}

impl HttpBody for Rejoined {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.frames.iter().filter_map(|f| f.as_ref().ok()?.data_ref());
        let read: u64 = read.map(|bytes| bytes.len() as u64).sum();
        match &self.rest {
            None => SizeHint::with_exact(read),
            Some(rest) => {
                let mut hint = SizeHint::new();
                hint.set_lower(read + rest.size_hint().lower());
                if let Some(upper) = rest.size_hint().upper() {
                    hint.set_upper(read + upper);
                }
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn what_is_read_for_the_record_still_reaches_the_client() {
        for (pieces, bytes_max, whole) in [(3, 64, true), (3, 12, true), (3, 11, false), (0, 11, false)] {
            let stream = futures::stream::iter((0..pieces).map(|_| Ok::<_, std::io::Error>("abcd")));
            let (kept, body) = collect(Body::from_stream(stream), bytes_max).await;
            let sent = body.collect().await.expect("the body").to_bytes();
            assert_eq!(sent, "abcd".repeat(pieces));
            let want = match (whole, pieces) {
                (true, _) => AuditBody::Whole(sent),
                (false, 0) => AuditBody::Absent,
                (false, _) => AuditBody::TooLarge,
            };
            assert_eq!(kept, want);
        }
    }
}
