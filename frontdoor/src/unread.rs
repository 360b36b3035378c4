//! What a handler leaves of a request's body.
//!
//! On HTTP/1.1 the next request stands behind the body of this one. A handler that refuses early does not
//! read it; hyper then closes the connection after the answer, without having said so in it, and a client
//! that sends its next request at that moment finds the connection gone. So a short rest is read before the
//! answer goes out, and with a long one the answer says `Connection: close`.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

/// More than this is not worth reading for the sake of a connection.
const REST_BYTES_MAX: usize = 256 << 10;
/// A client that has not sent its rest by then does not wait for the answer to its head either.
const REST_TIME_MAX: Duration = Duration::from_millis(500);

type Slot<B> = Arc<Mutex<Option<B>>>;

/// A body that is given back where it is dropped before its end.
pub(crate) struct Lent<B: HttpBody + Unpin> {
    body: Option<B>,
    back: Slot<B>,
}

/// Where the rest of a [`Lent`] body arrives.
pub(crate) struct Unread<B>(Slot<B>);

pub(crate) fn lend<B: HttpBody + Unpin>(body: B) -> (Lent<B>, Unread<B>) {
    let back = Slot::default();
    (Lent { body: Some(body), back: back.clone() }, Unread(back))
}

impl<B: HttpBody<Data = Bytes> + Unpin> Unread<B> {
    /// Reads what was given back, within bounds. False: there is more, and the connection is of no use to
    /// a next request.
    pub(crate) async fn drain(self) -> bool {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = rest else { return true };
        if body.size_hint().lower() > REST_BYTES_MAX as u64 {
            return false;
        }
        let read = async {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > REST_BYTES_MAX {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(REST_TIME_MAX, read).await.unwrap_or(false)
    }
}

impl<B: HttpBody + Unpin> Drop for Lent<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take_if(|body| !body.is_end_stream()) {
            *self.back.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            // It ended, or it broke off: nothing of it is left.
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
