//! Reading segments, open (`.log`) and closed (`.seal`) ones alike.
//!
//! A place in a segment is the distance from its first frame in bytes of the uncompressed frames, so it
//! stays the same when the segment is closed.
//!
//! ```text
//! seal  = magic(8) header_bytes(u32) header block* table footer
//! block = zstd of whole frames
//! table = (file_offset(u64) compressed_bytes(u32) raw_bytes(u32))*
//! footer = table_offset(u64) blocks(u32) frames(u32) magic(8)
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::frame::{FormatError, Frame, HeaderBytes, Kind, MAGIC_LOG, MAGIC_SEAL, u32_at, u64_at};
use crate::like::Like;

/// Ends a `.seal` file.
pub const MAGIC_END: &[u8; 8] = b"GNTAEND1";
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 24;
/// Bytes of an entry in the table of blocks.
pub const BLOCK_ENTRY_BYTES: usize = 16;
/// Uncompressed bytes of a block, until a frame passes it.
pub const BLOCK_BYTES: usize = 128 << 10;
/// A block's bound: one frame of the largest size may pass the mark.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + crate::frame::PAYLOAD_BYTES_MAX + crate::frame::FRAME_BYTES;
/// Frames of an open segment are read in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// Records that are kept because others are like them.
const BASES_MAX: usize = 256;

/// A segment that can be read.
pub struct Segment {
    file: File,
    header: HeaderBytes,
    form: Form,
    /// The piece read last and where it begins: neighbours are read from it.
    piece: (u64, Vec<u8>),
    /// Records that others are like, by their place.
    bases: HashMap<u64, Vec<u8>>,
    /// The record made last.
    made: Vec<u8>,
}

/// A frame's content, with what it has from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// [`Kind::Record`] also where it is like another; [`Kind::Like`] only where that one is not there.
    pub kind: Kind,
    pub payload: &'a [u8],
    /// Bytes that the frame takes in the file.
    pub len_bytes: u64,
}

enum Form {
    /// Where the frames begin.
    Log {
        at: u64,
    },
    Seal(Vec<Block>),
}

#[derive(Clone, Copy)]
struct Block {
    file_offset: u64,
    compressed_bytes: u32,
    raw_bytes: u32,
    /// The place of its first frame.
    place: u64,
}

/// Why a segment is not read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Format { path: PathBuf, source: FormatError },
}

impl Segment {
    /// Opens a segment by its file.
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        let io = |source| SegmentError::Io { path: path.to_owned(), source };
        let format = |source| SegmentError::Format { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mut beginning = vec![0; HeaderBytes::BYTES_MAX];
        let count = read_up_to(&file, &mut beginning, 0).map_err(io)?;
        beginning.truncate(count);
        let sealed = beginning.get(..8) == Some(MAGIC_SEAL);
        let magic = if sealed { MAGIC_SEAL } else { MAGIC_LOG };
        let (header, at) = HeaderBytes::decode(&beginning, magic).map_err(format)?;
        let form = if sealed {
            Form::Seal(read_table(&file, at as u64).map_err(io)?.ok_or_else(|| format(FormatError::Blocks))?)
        } else {
            Form::Log { at: at as u64 }
        };
        Ok(Self { file, header, form, piece: (0, Vec::new()), bases: HashMap::new(), made: Vec::new() })
    }

    pub fn header(&self) -> &HeaderBytes {
        &self.header
    }

    /// Whether it is a closed, compressed one.
    pub fn is_sealed(&self) -> bool {
        matches!(self.form, Form::Seal(_))
    }

    /// The frame at a place, or `None` at the end and where there is no whole frame.
    pub fn frame_at(&mut self, place: u64) -> io::Result<Option<Frame<'_>>> {
        let within = |piece: &(u64, Vec<u8>)| {
            let skip = usize::try_from(place.checked_sub(piece.0)?).ok()?;
            Frame::decode(piece.1.get(skip..)?).map(|_| skip)
        };
        let skip = match within(&self.piece) {
            Some(skip) => skip,
            None => {
                if !self.load(place)? {
                    return Ok(None);
                }
                match within(&self.piece) {
                    Some(skip) => skip,
                    None => return Ok(None),
                }
            }
        };
        Ok(Frame::decode(&self.piece.1[skip..]))
    }

    /// What the frame at a place says, as [`Segment::frame_at`] finds it.
    pub fn entry_at(&mut self, place: u64) -> io::Result<Option<Entry<'_>>> {
        let Some(frame) = self.frame_at(place)? else { return Ok(None) };
        let (kind, len_bytes) = (frame.kind, frame.len_bytes() as u64);
        if kind == Kind::Like {
            // Few bytes; the piece that has them may make way for the one that has the other record.
            let own = frame.payload.to_vec();
            if self.make(place, &own)? {
                return Ok(Some(Entry { kind: Kind::Record, payload: &self.made, len_bytes }));
            }
        }
        let frame = self.frame_at(place)?;
        Ok(frame.map(|frame| Entry { kind, payload: frame.payload, len_bytes }))
    }

    /// Makes the record whose own part is in a frame at `place`; false where it is like nothing.
    fn make(&mut self, place: u64, own: &[u8]) -> io::Result<bool> {
        let Some(like) = Like::decode(own) else { return Ok(false) };
        let Some(base) = place.checked_sub(u64::from(like.back)) else { return Ok(false) };
        if !self.bases.contains_key(&base) {
            let Some(frame) = self.frame_at(base)? else { return Ok(false) };
            if frame.kind != Kind::Record {
                return Ok(false);
            }
            let payload = frame.payload.to_vec();
            if self.bases.len() >= BASES_MAX {
                self.bases.clear();
            }
            self.bases.insert(base, payload);
        }
        Ok(self.bases.get(&base).is_some_and(|base| like.expand(base, &mut self.made)))
    }

    /// Bytes from `place` to the end of the file, for an open segment whose last frame is cut off.
    pub fn bytes_after(&self, place: u64) -> io::Result<u64> {
        match &self.form {
            Form::Log { at } => Ok(self.file.metadata()?.len().saturating_sub(at + place)),
            Form::Seal(blocks) => {
                let end = blocks.last().map_or(0, |b| b.place + u64::from(b.raw_bytes));
                Ok(end.saturating_sub(place))
            }
        }
    }

    /// Where a place of an open segment is in its file.
    pub fn file_offset(&self, place: u64) -> u64 {
        match &self.form {
            Form::Log { at } => at + place,
            Form::Seal(_) => place,
        }
    }

    /// Makes the piece hold what begins at `place`; false at the end.
    fn load(&mut self, place: u64) -> io::Result<bool> {
        match &self.form {
            Form::Log { at } => {
                let offset = at + place;
                let mut bytes = std::mem::take(&mut self.piece.1);
                bytes.resize(PIECE_BYTES, 0);
                let mut count = read_up_to(&self.file, &mut bytes, offset)?;
                // A frame that is longer than a piece.
                if let Some(length) = u32_at(&bytes[..count], 0) {
                    let whole =
                        (length as usize).min(crate::frame::PAYLOAD_BYTES_MAX) + crate::frame::FRAME_BYTES;
                    if whole > count && count == PIECE_BYTES {
                        bytes.resize(whole, 0);
                        count = read_up_to(&self.file, &mut bytes, offset)?;
                    }
                }
                bytes.truncate(count);
                self.piece = (place, bytes);
                Ok(count > 0)
            }
            Form::Seal(blocks) => {
                let found = blocks.partition_point(|b| b.place <= place).checked_sub(1);
                let Some(block) = found.map(|i| blocks[i]) else { return Ok(false) };
                if place >= block.place + u64::from(block.raw_bytes) {
                    return Ok(false);
                }
                let mut compressed = vec![0; block.compressed_bytes as usize];
                self.file.read_exact_at(&mut compressed, block.file_offset)?;
                let raw = zstd::bulk::decompress(&compressed, block.raw_bytes as usize)?;
                self.piece = (block.place, raw);
                Ok(true)
            }
        }
    }
}

fn read_table(file: &File, after: u64) -> io::Result<Option<Vec<Block>>> {
    let length = file.metadata()?.len();
    let Some(footer_at) = length.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= after) else {
        return Ok(None);
    };
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, footer_at)?;
    let (Some(table_at), Some(count)) = (u64_at(&footer, 0), u32_at(&footer, 8)) else { return Ok(None) };
    let table_bytes = u64::from(count) * BLOCK_ENTRY_BYTES as u64;
    if &footer[16..] != MAGIC_END || table_at.checked_add(table_bytes) != Some(footer_at) || table_at < after
    {
        return Ok(None);
    }
    let mut table = vec![0; usize::try_from(table_bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut table, table_at)?;
    let mut place = 0;
    let mut blocks = Vec::with_capacity(count as usize);
    for entry in table.chunks_exact(BLOCK_ENTRY_BYTES) {
        let (Some(file_offset), Some(compressed_bytes), Some(raw_bytes)) =
            (u64_at(entry, 0), u32_at(entry, 8), u32_at(entry, 12))
        else {
            return Ok(None);
        };
        let ends = file_offset.checked_add(u64::from(compressed_bytes));
        let fits = ends.is_some_and(|end| file_offset >= after && end <= table_at);
        if !fits || raw_bytes as usize > BLOCK_BYTES_MAX {
            return Ok(None);
        }
        blocks.push(Block { file_offset, compressed_bytes, raw_bytes, place });
        place += u64::from(raw_bytes);
    }
    Ok(Some(blocks))
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A segment's files in the folder of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPath {
    pub number: u64,
    pub path: PathBuf,
    pub sealed: bool,
}

/// The name of a segment's file.
pub fn file_name(number: u64, extension: &str) -> String {
    format!("{number:012}.{extension}")
}

/// The segments of a folder by number. Where a crash left a segment in both forms, the closed one counts.
pub fn list(directory: &Path) -> io::Result<Vec<SegmentPath>> {
    let mut found: Vec<SegmentPath> = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let sealed = match path.extension().and_then(|e| e.to_str()) {
            Some("log") => false,
            Some("seal") => true,
            _ => continue,
        };
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(number) = number {
            found.push(SegmentPath { number, path, sealed });
        }
    }
    found.sort_by_key(|s| (s.number, !s.sealed));
    found.dedup_by_key(|s| s.number);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::GENESIS;
    use crate::frame::{Header, Kind};
    use crate::like::{Own, Ranges};
    use proptest::prelude::*;

    /// A `.log` of some frames, or the `.seal` of the same.
    fn file(sealed: bool) -> Vec<u8> {
        let header = HeaderBytes::new(Header {
            schema: 1,
            segment: 1,
            first_sequence: 1,
            previous_hash: hex::encode(GENESIS),
            created: String::new(),
        });
        let mut frames = Vec::new();
        let mut last = header.start();
        for sequence in 1..20 {
            let payload = format!("{{\"auditID\":\"{sequence}\"}}");
            last = Frame::append(&mut frames, &last, sequence, Kind::Record, payload.as_bytes());
        }
        // One that is like the first one, whose frame begins with the others.
        let own = Own { id: "like", received_us: 1, completed_us: 2, latency_us: 1 };
        let ranges = Ranges::new([11..14, 14..14, 14..14, 14..14]).expect("they are short");
        let mut payload = Vec::new();
        Like { back: frames.len() as u32, ranges, own }.encode(&mut payload);
        Frame::append(&mut frames, &last, 20, Kind::Like, &payload);
        if !sealed {
            return [header.encode(MAGIC_LOG), frames].concat();
        }
        let mut out = header.encode(MAGIC_SEAL);
        let at = out.len() as u64;
        let block = zstd::bulk::compress(&frames, 1).expect("compressed");
        out.extend_from_slice(&block);
        let table_at = out.len() as u64;
        out.extend_from_slice(&at.to_le_bytes());
        out.extend_from_slice(&(block.len() as u32).to_le_bytes());
        out.extend_from_slice(&(frames.len() as u32).to_le_bytes());
        out.extend_from_slice(&table_at.to_le_bytes());
        out.extend_from_slice(&1_u32.to_le_bytes());
        out.extend_from_slice(&19_u32.to_le_bytes());
        out.extend_from_slice(MAGIC_END);
        out
    }

    /// Every frame that can be read, from a file with this content.
    fn read_all(bytes: &[u8]) -> usize {
        let mut temporary = tempfile::NamedTempFile::new().expect("a file");
        io::Write::write_all(&mut temporary, bytes).expect("written");
        let Ok(mut segment) = Segment::open(temporary.path()) else { return 0 };
        let (mut place, mut count) = (0, 0);
        while let Ok(Some(entry)) = segment.entry_at(place) {
            place += entry.len_bytes;
            count += 1;
        }
        let _ = segment.bytes_after(place);
        count
    }

    #[test]
    fn both_forms_have_the_same_frames() {
        assert_eq!((read_all(&file(false)), read_all(&file(true))), (20, 20));
    }

    #[test]
    fn a_record_that_is_like_another_is_whole() {
        for sealed in [false, true] {
            let mut temporary = tempfile::NamedTempFile::new().expect("a file");
            io::Write::write_all(&mut temporary, &file(sealed)).expect("written");
            let mut segment = Segment::open(temporary.path()).expect("a segment");
            let (mut place, mut last) = (0, String::new());
            while let Some(entry) = segment.entry_at(place).expect("readable") {
                assert_eq!(entry.kind, Kind::Record);
                last = String::from_utf8(entry.payload.to_vec()).expect("text");
                place += entry.len_bytes;
            }
            assert!(last.starts_with(r#"{"auditID":"like""#), "{last}");
        }
    }

    proptest! {
        /// Whatever the bytes are: frames or none, and never a panic.
        #[test]
        fn no_file_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300), sealed: bool) {
            read_all(&bytes);
            let magic = if sealed { MAGIC_SEAL } else { MAGIC_LOG };
            read_all(&[magic.as_slice(), &bytes].concat());
        }

        #[test]
        fn no_change_is_too_strange(sealed: bool, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
            let mut bytes = file(sealed);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            read_all(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            read_all(&bytes);
        }
    }
}
