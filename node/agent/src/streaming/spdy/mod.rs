//! A small SPDY/3.1 client: opens streams to the container runtime and carries their bytes.

pub(super) mod frame;

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::frame::{Control, HEADER_BYTES, Head, HeaderWriter};

/// Bytes of one piece of a stream, in either direction.
pub(super) const PIECE_BYTES: usize = 32 << 10;
/// A control frame of the runtime is a few dozen bytes; more than this is not one.
const CONTROL_BYTES_MAX: usize = 64 << 10;

/// The sending half.
pub(super) struct Writer<W> {
    io: W,
    headers: HeaderWriter,
    next: u32,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(io: W) -> Self {
        Self { io, headers: HeaderWriter::default(), next: 1 }
    }

    /// Opens a stream; gives its id.
    pub(super) async fn open(&mut self, headers: &[(&str, &str)]) -> io::Result<u32> {
        let stream = self.next;
        // A client's streams have odd numbers.
        self.next += 2;
        let mut out = Vec::new();
        self.headers.syn_stream(&mut out, stream, headers);
        self.io.write_all(&out).await?;
        Ok(stream)
    }

    /// Sends bytes on a stream. Waits while the far side does not take them.
    pub(super) async fn send(&mut self, stream: u32, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.io.write_all(&frame::data_head(stream, false, piece.len())).await?;
            self.io.write_all(piece).await?;
        }
        self.io.flush().await
    }

    /// Says that nothing more comes on a stream.
    pub(super) async fn finish(&mut self, stream: u32) -> io::Result<()> {
        self.io.write_all(&frame::data_head(stream, true, 0)).await?;
        self.io.flush().await
    }

    /// Answers a ping.
    pub(super) async fn pong(&mut self, id: u32) -> io::Result<()> {
        let mut out = Vec::new();
        frame::ping(&mut out, id);
        self.io.write_all(&out).await?;
        self.io.flush().await
    }
}

/// Something the runtime sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Bytes of a stream, at most [`PIECE_BYTES`].
    Data(u32, Vec<u8>),
    /// A stream's far end sends nothing more.
    Finished(u32),
    /// A stream was refused or broken off, with SPDY's status code.
    Reset(u32, u32),
    /// A ping to be answered.
    Ping(u32),
}

/// The receiving half.
pub(super) struct Reader<R> {
    io: R,
    /// Stream and bytes left of the data frame that is being read, and whether it is the stream's last.
    open: Option<(u32, usize, bool)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, open: None }
    }

    /// The next thing. `None` when the connection ended. Not to be cancelled: a frame would be lost half-way.
    pub(super) async fn next(&mut self) -> io::Result<Option<Received>> {
        loop {
            if let Some((stream, left, fin)) = self.open.take() {
                if left > 0 {
                    let mut piece = vec![0; left.min(PIECE_BYTES)];
                    self.io.read_exact(&mut piece).await?;
                    self.open = Some((stream, left - piece.len(), fin));
                    return Ok(Some(Received::Data(stream, piece)));
                }
                if fin {
                    return Ok(Some(Received::Finished(stream)));
                }
            }
            let mut head = [0; HEADER_BYTES];
            match self.io.read_exact(&mut head).await {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                other => other?,
            };
            match Head::parse(head).ok_or_else(|| io::Error::other("not a SPDY/3.1 frame"))? {
                Head::Data { stream, fin, len } => self.open = Some((stream, len, fin)),
                Head::Control { kind, flags, len } => {
                    if let Some(received) = self.control(kind, flags, len).await? {
                        return Ok(Some(received));
                    }
                }
            }
        }
    }

    async fn control(&mut self, kind: u16, flags: u8, len: usize) -> io::Result<Option<Received>> {
        if len > CONTROL_BYTES_MAX {
            return Err(io::Error::other(format!("a SPDY control frame of {len} bytes")));
        }
        let mut payload = vec![0; len];
        self.io.read_exact(&mut payload).await?;
        let control = Control::parse(kind, flags, &payload);
        Ok(match control.ok_or_else(|| io::Error::other("a SPDY control frame is too short"))? {
            Control::Reset { stream, status } => Some(Received::Reset(stream, status)),
            Control::Reply { stream, fin: true } => Some(Received::Finished(stream)),
            Control::Ping(id) => Some(Received::Ping(id)),
            Control::Reply { .. } | Control::GoAway | Control::Other => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_ends_and_pings_come_out_in_order() {
        let mut wire = Vec::new();
        wire.extend([0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1]);
        wire.extend(frame::data_head(3, true, PIECE_BYTES + 1));
        wire.extend(vec![7; PIECE_BYTES + 1]);
        frame::ping(&mut wire, 9);
        wire.extend([0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 3]);
        wire.extend(frame::data_head(5, false, 0));
        wire.extend([0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0]);
        let mut reader = Reader::new(&wire[..]);
        let mut got = Vec::new();
        while let Some(received) = reader.next().await.expect("well formed") {
            got.push(received);
        }
        let want = vec![
            Received::Data(3, vec![7; PIECE_BYTES]),
            Received::Data(3, vec![7]),
            Received::Finished(3),
            Received::Ping(9),
            Received::Reset(1, 3),
        ];
        assert_eq!(got, want);
    }

    #[tokio::test]
    async fn hostile_frames_are_errors() {
        for wire in [
            &[0x80, 2, 0, 1, 0, 0, 0, 0][..],
            &[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff],
            &[0x80, 3, 0, 6, 0, 0, 0, 1, 0],
            &[0, 0, 0, 1, 0, 0, 0, 9, 1],
        ] {
            assert!(Reader::new(wire).next().await.is_err(), "{wire:?}");
        }
    }
}
