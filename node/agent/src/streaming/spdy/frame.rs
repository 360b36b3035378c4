//! Frames of SPDY/3.1, as far as a client of a container runtime needs them.
//!
//! Source: SPDY Protocol, draft 3.1, sections 2.2 (framing) and 2.6 (control frames).

/// Version in every control frame.
const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
/// Flag of the last frame of a stream's direction.
const FLAG_FIN: u8 = 1;
/// Bytes before every frame's payload.
pub(crate) const HEADER_BYTES: usize = 8;

/// What a frame's first eight bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// `len` bytes for a stream follow.
    Data { stream: u32, fin: bool, len: usize },
    /// A control frame of `len` payload bytes follows.
    Control { kind: u16, flags: u8, len: usize },
}

impl Head {
    /// Reads the first eight bytes. `None` for a control frame of another protocol version.
    pub(crate) fn parse(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [a, b, c, d, flags, len @ ..] = bytes;
        let len = u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize;
        if a & 0x80 == 0 {
            return Some(Self::Data {
                stream: u32::from_be_bytes([a, b, c, d]),
                fin: flags & FLAG_FIN != 0,
                len,
            });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        (version == VERSION).then_some(Self::Control { kind: u16::from_be_bytes([c, d]), flags, len })
    }
}

/// A control frame of the peer that matters to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// A stream was accepted; `fin`: its far end sends nothing.
    Reply { stream: u32, fin: bool },
    /// A stream was refused or broken off.
    Reset { stream: u32, status: u32 },
    /// To be sent back as it is.
    Ping(u32),
    /// The peer takes no new streams; data may still follow.
    GoAway,
    /// Settings, windows (nobody in this use sends within windows), headers.
    Other,
}

impl Control {
    /// Reads a control frame's payload. `None` when it is too short.
    pub(crate) fn parse(kind: u16, flags: u8, payload: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        Some(match kind {
            SYN_REPLY => Self::Reply { stream: word(0)? & 0x7fff_ffff, fin: flags & FLAG_FIN != 0 },
            RST_STREAM => Self::Reset { stream: word(0)? & 0x7fff_ffff, status: word(4)? },
            PING => Self::Ping(word(0)?),
            GOAWAY => Self::GoAway,
            _ => Self::Other,
        })
    }
}

fn control(out: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    out.extend_from_slice(&(VERSION | 0x8000).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    // No flags; the length of what we send is far below 24 bits.
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends a frame that answers a ping.
pub(crate) fn ping(out: &mut Vec<u8>, id: u32) {
    control(out, PING, &id.to_be_bytes());
}

/// The head of a data frame with `len` bytes, which must be below 16 MiB.
pub(crate) fn data_head(stream: u32, fin: bool, len: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(len < 1 << 24, "a frame's length has 24 bits");
    let stream = (stream & 0x7fff_ffff).to_be_bytes();
    let len = u32::try_from(len).unwrap_or(0).to_be_bytes();
    [stream[0], stream[1], stream[2], stream[3], u8::from(fin), len[1], len[2], len[3]]
}

/// Writes header blocks. A connection has one for its whole life, as all its blocks are one zlib stream.
#[derive(Debug, Default)]
pub(crate) struct HeaderWriter {
    begun: bool,
}

impl HeaderWriter {
    /// Appends a `SYN_STREAM` frame. Names in lower case.
    pub(crate) fn syn_stream(&mut self, out: &mut Vec<u8>, stream: u32, headers: &[(&str, &str)]) {
        let mut payload = Vec::with_capacity(128);
        payload.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
        // No associated stream, highest priority, no slot.
        payload.extend_from_slice(&[0; 6]);
        self.block(&mut payload, headers);
        control(out, SYN_STREAM, &payload);
    }

    /// A zlib stream need not compress: each block goes out as one stored deflate block, then an empty one, which
    /// makes the reader give out what it has (RFC 1951 section 3.2.4, zlib's "sync flush"). The stream names no
    /// preset dictionary, so the reader uses none.
    fn block(&mut self, out: &mut Vec<u8>, headers: &[(&str, &str)]) {
        let mut text = Vec::with_capacity(96);
        let word = |text: &mut Vec<u8>, n: usize| {
            text.extend_from_slice(&u32::try_from(n).unwrap_or(0).to_be_bytes());
        };
        word(&mut text, headers.len());
        for (name, value) in headers {
            word(&mut text, name.len());
            text.extend_from_slice(name.as_bytes());
            word(&mut text, value.len());
            text.extend_from_slice(value.as_bytes());
        }
        if !self.begun {
            out.extend_from_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        for chunk in text.chunks(usize::from(u16::MAX)).chain([&[][..]]) {
            let len = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
            out.push(0);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&(!len).to_le_bytes());
            out.extend_from_slice(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn frames_are_told_apart() {
        for (bytes, want) in [
            ([0, 0, 0, 5, 1, 0, 1, 2], Some(Head::Data { stream: 5, fin: true, len: 258 })),
            (
                [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
                Some(Head::Data { stream: 0x7fff_ffff, fin: false, len: 0 }),
            ),
            ([0x80, 3, 0, 2, 1, 0, 0, 4], Some(Head::Control { kind: 2, flags: 1, len: 4 })),
            ([0x80, 2, 0, 2, 0, 0, 0, 4], None),
        ] {
            assert_eq!(Head::parse(bytes), want);
        }
        assert_eq!(
            Head::parse(data_head(7, true, 70_000)),
            Some(Head::Data { stream: 7, fin: true, len: 70_000 })
        );
    }

    #[test]
    fn control_frames_are_read() {
        for (kind, flags, payload, want) in [
            (SYN_REPLY, 1, &[0, 0, 0, 3, 9][..], Some(Control::Reply { stream: 3, fin: true })),
            (RST_STREAM, 0, &[0, 0, 0, 3, 0, 0, 0, 8], Some(Control::Reset { stream: 3, status: 8 })),
            (RST_STREAM, 0, &[0, 0, 0, 3], None),
            (PING, 0, &[0, 0, 1, 0], Some(Control::Ping(256))),
            (PING, 0, &[], None),
            (GOAWAY, 0, &[], Some(Control::GoAway)),
            (9, 0, &[], Some(Control::Other)),
        ] {
            assert_eq!(Control::parse(kind, flags, payload), want);
        }
        let mut out = Vec::new();
        ping(&mut out, 2);
        assert_eq!(out, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2]);
    }

    /// The blocks of several frames, put together, are what zlib reads back.
    #[test]
    fn header_blocks_are_one_zlib_stream() {
        let mut writer = HeaderWriter::default();
        let mut blocks = Vec::new();
        for (stream, kind) in [(1, "error"), (3, "stdout")] {
            let mut frame = Vec::new();
            writer.syn_stream(&mut frame, stream, &[("streamtype", kind)]);
            let head = Head::parse(frame[..8].try_into().expect("eight bytes")).expect("a head");
            assert_eq!(head, Head::Control { kind: SYN_STREAM, flags: 0, len: frame.len() - 8 });
            blocks.extend_from_slice(&frame[18..]);
        }
        let mut decoder = flate2::write::ZlibDecoder::new(Vec::new());
        decoder.write_all(&blocks).expect("zlib");
        decoder.flush().expect("zlib");
        let mut want = Vec::new();
        for kind in ["error", "stdout"] {
            want.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 10]);
            want.extend_from_slice(b"streamtype");
            want.extend_from_slice(&u32::try_from(kind.len()).expect("short").to_be_bytes());
            want.extend_from_slice(kind.as_bytes());
        }
        assert_eq!(decoder.get_ref(), &want);
    }
}
