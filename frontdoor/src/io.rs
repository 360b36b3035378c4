//! Byte streams as hyper takes them, that keep a connection's place as long as they live (also after
//! an upgrade, when hyper hands the stream to the handler).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::connection::Connection as Kept;
use crate::listener::Activity;
use crate::streams::{End, StreamEnded};

/// A stream, the place it takes, and what is to happen when it ends or has to.
pub(crate) struct Held<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
    kept: Kept,
    /// Once a request has made something else of the connection.
    end: Option<End>,
}

impl<S> Held<S> {
    pub(crate) fn new(stream: S, place: OwnedSemaphorePermit, kept: Kept) -> Self {
        Self { stream, _place: place, kept, end: None }
    }

    /// Fails when what became of the connection may not go on; else `cx` is told when it may not any more.
    fn goes_on(&mut self, cx: &mut Context<'_>) -> Result<(), StreamEnded> {
        let Some(stream) = self.kept.stream() else { return Ok(()) };
        match self.end.get_or_insert_with(|| End::of(stream.clone())).poll(cx) {
            Poll::Ready(ended) => Err(ended),
            Poll::Pending => Ok(()),
        }
    }

    /// [`Held::goes_on`] without waiting for it: whoever reads does that.
    fn has_not_ended(&self) -> Result<(), StreamEnded> {
        if self.kept.stream().is_some_and(|stream| stream.has_ended()) { Err(StreamEnded) } else { Ok(()) }
    }
}

impl<S> Drop for Held<S> {
    fn drop(&mut self) {
        self.kept.ended();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.goes_on(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.has_not_ended()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_not_ended()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S> Connection for Held<S> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// A stream that notes when bytes come.
pub(crate) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
