//! Frames and headers, byte by byte.
//!
//! ```text
//! segment  = magic(8) header_bytes(u32) header(JSON) frame*
//! frame    = payload_bytes(u32) kind(u8) payload tag(8)
//! ```
//!
//! Numbers are little-endian. A `.seal` file has another magic and its frames in compressed blocks.

use serde::{Deserialize, Serialize};

use crate::chain::{self, Hash, TAG_BYTES};

/// Begins a `.log` file; the last character is the version.
pub const MAGIC_LOG: &[u8; 8] = b"GNTALOG1";
/// Begins a `.seal` file.
pub const MAGIC_SEAL: &[u8; 8] = b"GNTASEA1";
/// Of one payload: two bodies of a mebibyte, escaped, and what belongs to them.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Bytes of a frame beside its payload.
pub const FRAME_BYTES: usize = 4 + 1 + TAG_BYTES;
const HEADER_BYTES_MAX: usize = 64 << 10;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An `audit.k8s.io/v1` event as JSON.
    Record,
    /// A [`crate::signed::Checkpoint`].
    Checkpoint,
    /// A [`crate::signed::Tombstone`].
    Tombstone,
    /// A record that is like one before: [`crate::like::Like`].
    Like,
    /// Written by a later version.
    Other(u8),
}

impl Kind {
    pub fn byte(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Checkpoint => 2,
            Self::Tombstone => 3,
            Self::Like => 4,
            Self::Other(byte) => byte,
        }
    }

    pub fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Record,
            2 => Self::Checkpoint,
            3 => Self::Tombstone,
            4 => Self::Like,
            other => Self::Other(other),
        }
    }
}

/// The first thing in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    pub schema: u32,
    /// Counts from 1.
    pub segment: u64,
    /// The sequence number of the first frame.
    pub first_sequence: u64,
    /// The last hash of the segment before; zeros for the first one.
    pub previous_hash: String,
    pub created: String,
}

/// A header as it stands in its file: the chain covers the bytes, not the meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderBytes {
    pub header: Header,
    pub bytes: Vec<u8>,
}

/// A file that is no segment, or not of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("it is no segment of an audit trail")]
    Magic,
    #[error("its header is not readable: {0}")]
    Header(String),
    #[error("it has schema {0}, this version knows 1")]
    Schema(u32),
    #[error("its table of blocks is not readable")]
    Blocks,
    #[error("a block is not readable")]
    Block,
}

impl HeaderBytes {
    pub fn new(header: Header) -> Self {
        // Numbers and strings: nothing in it can fail.
        let bytes = serde_json::to_vec(&header).unwrap_or_default();
        Self { header, bytes }
    }

    /// Magic, length and header.
    pub fn encode(&self, magic: &[u8; 8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + self.bytes.len());
        out.extend_from_slice(magic);
        out.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Reads the beginning of a file; also how many bytes it took.
    pub fn decode(file: &[u8], magic: &[u8; 8]) -> Result<(Self, usize), FormatError> {
        if file.get(..8) != Some(magic) {
            return Err(FormatError::Magic);
        }
        let length = u32_at(file, 8).ok_or_else(|| FormatError::Header("it is cut off".to_owned()))? as usize;
        let bytes = (length <= HEADER_BYTES_MAX).then(|| file.get(12..12 + length)).flatten();
        let bytes = bytes.ok_or_else(|| FormatError::Header("it is cut off".to_owned()))?;
        let header: Header =
            serde_json::from_slice(bytes).map_err(|error| FormatError::Header(error.to_string()))?;
        if header.schema != 1 {
            return Err(FormatError::Schema(header.schema));
        }
        Ok((Self { header, bytes: bytes.to_vec() }, 12 + length))
    }

    /// The most bytes a file's beginning has before its frames.
    pub const BYTES_MAX: usize = 12 + HEADER_BYTES_MAX;

    /// What the first frame follows.
    pub fn start(&self) -> Hash {
        chain::start(&self.bytes)
    }
}

/// A frame in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub payload: &'a [u8],
    pub tag: [u8; TAG_BYTES],
}

impl<'a> Frame<'a> {
    /// Appends a frame and gives its hash, which the next one follows.
    pub fn append(out: &mut Vec<u8>, previous: &Hash, sequence: u64, kind: Kind, payload: &[u8]) -> Hash {
        let hash = chain::link(previous, sequence, kind.byte(), payload);
        out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        out.push(kind.byte());
        out.extend_from_slice(payload);
        out.extend_from_slice(&chain::tag(&hash));
        hash
    }

    /// The frame that begins at the buffer's start, or `None` where it is cut off or cannot be one.
    pub fn decode(buffer: &'a [u8]) -> Option<Self> {
        let length = u32_at(buffer, 0)? as usize;
        if length > PAYLOAD_BYTES_MAX {
            return None;
        }
        let kind = Kind::of(*buffer.get(4)?);
        let payload = buffer.get(5..5 + length)?;
        let tag = buffer.get(5 + length..FRAME_BYTES + length)?.try_into().ok()?;
        Some(Self { kind, payload, tag })
    }

    /// Bytes it takes in the file.
    pub fn len_bytes(&self) -> usize {
        FRAME_BYTES + self.payload.len()
    }

    /// Its hash after `previous`, when the tag agrees.
    pub fn check(&self, previous: &Hash, sequence: u64) -> Option<Hash> {
        let hash = chain::link(previous, sequence, self.kind.byte(), self.payload);
        (chain::tag(&hash) == self.tag).then_some(hash)
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
