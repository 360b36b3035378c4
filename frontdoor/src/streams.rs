//! Answers that go on for long end when what they were opened with is gone.
//!
//! A request is decided once, at its head. A watch, a followed log or a terminal goes on for hours, and meanwhile
//! its credential may be revoked and its right taken away. So while answers of this kind are open, both are asked
//! again soon after anything about them has changed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use gantry_kube_types::{Attributes, Authorizer, Standing, UserInfo};
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::connection::Connection;

/// How often the versions of what everything hangs on are compared, while a stream is open. The versions are sums
/// of several parts' counters, and looking at them costs less than being told by each.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// One answer that goes on.
pub(crate) struct Stream {
    /// Who showed the credential, before anything was looked up of it.
    caller: UserInfo,
    since: Timestamp,
    /// What has to stay allowed.
    asked: Vec<Attributes>,
    seen: Mutex<Seen>,
    end: CancellationToken,
}

/// What was so at the last look.
#[derive(Default)]
struct Seen {
    standing: Option<u64>,
    decisions: Option<u64>,
    /// It was refused then.
    refused: bool,
}

impl Stream {
    pub(crate) fn new(caller: UserInfo, since: Timestamp, asked: Vec<Attributes>) -> Arc<Self> {
        let (seen, end) = (Mutex::default(), CancellationToken::new());
        Arc::new(Self { caller, since, asked, seen, end })
    }

    /// Was it ended here, rather than by who reads or who writes it?
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_cancelled()
    }

    fn may_go_on(&self, standing: Option<&dyn Standing>, authorizer: &dyn Authorizer) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = standing {
            let version = standing.version();
            if seen.standing != Some(version) {
                seen.standing = Some(version);
                if !standing.is_good(&self.caller, self.since) {
                    return false;
                }
            }
        }
        let versions = self.asked.iter().map(|asked| authorizer.decisions_version(&asked.user));
        let version: Option<u64> = versions.sum();
        if version.is_some() && version == seen.decisions && !seen.refused {
            return true;
        }
        seen.decisions = version;
        let refused = !self.asked.iter().all(|asked| authorizer.authorize(asked).is_allowed());
        // A binding that is replaced is away for a moment: what is refused at two looks is refused.
        let was_refused = std::mem::replace(&mut seen.refused, refused);
        !(refused && was_refused)
    }
}

/// The streams that are open.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<Vec<Weak<Stream>>>,
    opened: Notify,
}

impl Streams {
    /// Ends this one when it may not go on, for as long as [`Streams::look_after`] runs.
    pub(crate) fn add(&self, stream: &Arc<Stream>) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(stream));
        self.opened.notify_one();
    }

    /// Ends the streams that may not go on. Never returns.
    pub(crate) async fn look_after(&self, standing: Option<&dyn Standing>, authorizer: &dyn Authorizer) -> ! {
        loop {
            if self.is_empty() {
                self.opened.notified().await;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.look(standing, authorizer);
        }
    }

    fn is_empty(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn look(&self, standing: Option<&dyn Standing>, authorizer: &dyn Authorizer) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            let goes_on = stream.may_go_on(standing, authorizer);
            if !goes_on {
                tracing::info!(
                    user = stream.caller.username,
                    "a stream ends: its credential or its right is gone"
                );
                stream.end.cancel();
            }
            goes_on
        });
    }
}

/// Binds what is left of an answer to its stream.
pub(crate) fn bind(stream: Arc<Stream>, response: Response<Body>, connection: &Connection) -> Response<Body> {
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        connection.becomes(stream);
        return response;
    }
    response.map(|body| Body::new(Bound { inner: body, end: End::of(stream) }))
}

#[derive(Debug, thiserror::Error)]
#[error("the credential or the right that this was opened with is gone")]
pub(crate) struct StreamEnded;

impl From<StreamEnded> for io::Error {
    fn from(ended: StreamEnded) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, ended)
    }
}

/// Ready when the stream has to end.
pub(crate) struct End {
    stream: Arc<Stream>,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl End {
    pub(crate) fn of(stream: Arc<Stream>) -> Self {
        let wait = Box::pin(stream.end.clone().cancelled_owned());
        Self { stream, wait }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StreamEnded> {
        if self.stream.has_ended() || self.wait.as_mut().poll(cx).is_ready() {
            return Poll::Ready(StreamEnded);
        }
        Poll::Pending
    }
}

/// A body that breaks off with its stream: who reads it must not take that for its end.
struct Bound {
    inner: Body,
    end: End,
}

impl HttpBody for Bound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(ended) = self.end.poll(cx) {
            return Poll::Ready(Some(Err(axum::Error::new(ended))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
