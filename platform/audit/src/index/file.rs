//! The index of a closed segment, read in place.
//!
//! ```text
//! magic(8) segment(u64) first_sequence(u64) min_us(i64) max_us(i64)
//! rows(u32) terms(u32) fences(u32) postings_bytes(u32) check(8)
//! fences    every 256th term (u64)
//! terms     (term(u64) at(u32) count(u32))*   ordered; at = the row where count is 1
//! places    u32 per row
//! times     u32 per row: milliseconds after min_us; all ones: no record
//! postings  form(u8) rows                     form 0: LEB128 differences, 1: one bit per row
//! ```
//!
//! This is the content of what [`gantry_audit_api::index`] wraps. The header is read when the segment is opened.
//! Before the first search the whole file is read, for its signature, and once more when the file system says that it
//! was touched; the same search costs one read of 4 KiB and one of the list per term from then on. What is not as it
//! was made, or out of range, is an error, and the file is made again.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use gantry_audit_api::index::{MAGIC, Wrapped};
use gantry_audit_api::signed::PublicKeys;

use super::bits::Bits;
use super::memory::MemoryIndex;
use super::terms::Term;

const HEADER_BYTES: usize = 64;
const FENCE_EVERY: usize = 256;
const TERM_BYTES: usize = 16;
const NO_TIME: u32 = u32::MAX;
/// More frames than a segment can have.
const ROWS_MAX: u32 = 1 << 28;

/// What is kept in memory of an index file.
#[derive(Clone, Debug)]
pub(crate) struct IndexFile {
    rows: u32,
    terms: u32,
    postings_bytes: u32,
    pub(crate) min_us: i64,
    pub(crate) max_us: i64,
    fences: Vec<Term>,
    /// As which file it was found good; `None`: it was not looked at.
    good: Option<Stamp>,
}

/// Changes whenever anybody writes to a file, or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        // Unlike the time of modification, nobody can set this one.
        Ok(Self { inode: meta.ino(), bytes: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) })
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index is damaged")
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or_else(broken)
}

impl IndexFile {
    /// The content of a segment's index.
    pub(crate) fn encode(index: &MemoryIndex, segment: u64, first_sequence: u64) -> Vec<u8> {
        let mut lists = index.lists();
        lists.sort_unstable_by_key(|(term, _)| *term);
        let rows = index.rows();
        let (mut terms, mut fences) = (0_u32, Vec::new());
        let (mut table, mut postings) = (Vec::with_capacity(lists.len() * TERM_BYTES), Vec::new());
        for of_term in lists.chunk_by(|one, next| one.0 == next.0) {
            let (term, list) = (of_term[0].0, merged(of_term, rows));
            let at = match list.as_ref() {
                [row] => *row,
                many => {
                    let at = postings.len() as u32;
                    encode_rows(&mut postings, many, rows);
                    at
                }
            };
            if (terms as usize).is_multiple_of(FENCE_EVERY) {
                fences.push(term);
            }
            terms += 1;
            table.extend_from_slice(&term.to_le_bytes());
            table.extend_from_slice(&at.to_le_bytes());
            table.extend_from_slice(&(list.len() as u32).to_le_bytes());
        }
        let (min_us, max_us) = match index.span_us() {
            (min, max) if min <= max => (min, max),
            _ => (0, 0),
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + table.len() + postings.len() + rows as usize * 8);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&segment.to_le_bytes());
        out.extend_from_slice(&first_sequence.to_le_bytes());
        out.extend_from_slice(&min_us.to_le_bytes());
        out.extend_from_slice(&max_us.to_le_bytes());
        for count in [rows, terms, fences.len() as u32, postings.len() as u32] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        let check = gantry_audit_api::chain::start(&out);
        out.extend_from_slice(&check[..8]);
        fences.iter().for_each(|fence| out.extend_from_slice(&fence.to_le_bytes()));
        out.extend_from_slice(&table);
        index.places.iter().for_each(|place| out.extend_from_slice(&place.to_le_bytes()));
        for time in &index.times_us {
            let after_ms = u32::try_from((time - min_us) / 1000).unwrap_or(NO_TIME - 1);
            let stored = if *time == 0 { NO_TIME } else { after_ms };
            out.extend_from_slice(&stored.to_le_bytes());
        }
        out.extend_from_slice(&postings);
        out
    }

    /// Reads what stays in memory of an index that one of the keys signed for this segment, and is as it was then.
    pub(crate) fn open(
        path: &Path,
        segment: u64,
        first_sequence: u64,
        keys: &PublicKeys,
    ) -> io::Result<(Self, File)> {
        let file = File::open(path)?;
        // As of before: what is written meanwhile is seen at the next look.
        let good = Some(Stamp::of(&file)?);
        let wrapped =
            Wrapped::read(&file)?.filter(|wrapped| wrapped.is_of(segment, keys)).ok_or_else(broken)?;
        let index = Self::decode(&file, segment, first_sequence)?;
        if index.content_bytes() != wrapped.content_bytes {
            return Err(broken());
        }
        Ok((Self { good, ..index }, file))
    }

    /// The same without a look at what it says: [`IndexFile::file`] gives nothing until [`IndexFile::open`] did.
    pub(crate) fn peek(path: &Path, segment: u64, first_sequence: u64) -> io::Result<Self> {
        Self::decode(&File::open(path)?, segment, first_sequence)
    }

    /// The file, if it is still the one that was found good.
    pub(crate) fn file(&self, path: &Path) -> io::Result<Option<File>> {
        let file = File::open(path)?;
        let stamp = Stamp::of(&file)?;
        Ok((self.good == Some(stamp)).then_some(file))
    }

    /// Refuses what is not the index of this segment.
    fn decode(file: &File, segment: u64, first_sequence: u64) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let u64_at = |at| number(&header, at).map(u64::from_le_bytes);
        let u32_at = |at| number(&header, at).map(u32::from_le_bytes);
        let check = gantry_audit_api::chain::start(&header[..56]);
        let of_it = u64_at(8)? == segment && u64_at(16)? == first_sequence;
        if &header[..8] != MAGIC || header[56..] != check[..8] || !of_it {
            return Err(broken());
        }
        let (rows, terms, fences, postings_bytes) = (u32_at(40)?, u32_at(44)?, u32_at(48)?, u32_at(52)?);
        let index = Self {
            rows,
            terms,
            postings_bytes,
            min_us: i64::from_le_bytes(number(&header, 24)?),
            max_us: i64::from_le_bytes(number(&header, 32)?),
            fences: Vec::new(),
            good: None,
        };
        let whole = index.postings_at(fences as usize) + u64::from(postings_bytes);
        if rows > ROWS_MAX
            || fences as usize != (terms as usize).div_ceil(FENCE_EVERY)
            || file.metadata()?.len() < whole
        {
            return Err(broken());
        }
        let mut bytes = vec![0; fences as usize * 8];
        file.read_exact_at(&mut bytes, HEADER_BYTES as u64)?;
        let fences = bytes.chunks_exact(8).map(|b| number(b, 0).map(u64::from_le_bytes));
        Ok(Self { fences: fences.collect::<io::Result<_>>()?, ..index })
    }

    fn content_bytes(&self) -> u64 {
        self.postings_at(self.fences.len()) + u64::from(self.postings_bytes)
    }

    fn terms_at(&self, fences: usize) -> u64 {
        (HEADER_BYTES + fences * 8) as u64
    }

    fn places_at(&self) -> u64 {
        self.terms_at(self.fences.len()) + u64::from(self.terms) * TERM_BYTES as u64
    }

    fn postings_at(&self, fences: usize) -> u64 {
        self.terms_at(fences) + u64::from(self.terms) * TERM_BYTES as u64 + u64::from(self.rows) * 8
    }

    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// The frames that have a term.
    pub(crate) fn bits(&self, file: &File, term: Term) -> io::Result<Bits> {
        let mut bits = Bits::none(self.rows);
        let Some(fence) = self.fences.partition_point(|f| *f <= term).checked_sub(1) else { return Ok(bits) };
        let first = fence * FENCE_EVERY;
        let count = FENCE_EVERY.min(self.terms as usize - first);
        let mut table = vec![0; count * TERM_BYTES];
        file.read_exact_at(&mut table, self.terms_at(self.fences.len()) + (first * TERM_BYTES) as u64)?;
        let entries: Vec<&[u8]> = table.chunks_exact(TERM_BYTES).collect();
        let key = |entry: &&[u8]| number(entry, 0).map_or(0, u64::from_le_bytes);
        let Ok(found) = entries.binary_search_by_key(&term, key) else { return Ok(bits) };
        let at = u32::from_le_bytes(number(entries[found], 8)?);
        let rows = u32::from_le_bytes(number(entries[found], 12)?);
        if rows == 1 {
            bits.set(at);
            return Ok(bits);
        }
        // A list is never longer than one bit per row; a difference takes five bytes at most.
        let bytes = 1 + (u64::from(rows) * 5).min(u64::from(self.rows).div_ceil(8));
        let left = self.postings_bytes.checked_sub(at).ok_or_else(broken)?;
        let mut list = vec![0; usize::try_from(bytes.min(u64::from(left))).map_err(|_| broken())?];
        file.read_exact_at(&mut list, self.postings_at(self.fences.len()) + u64::from(at))?;
        decode_rows(&list, rows, self.rows, &mut bits)?;
        Ok(bits)
    }

    pub(crate) fn place(&self, file: &File, row: u32) -> io::Result<u64> {
        if row >= self.rows {
            return Err(broken());
        }
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, self.places_at() + u64::from(row) * 4)?;
        Ok(u64::from(u32::from_le_bytes(bytes)))
    }

    /// Leaves the frames received within the bounds, to the millisecond: the record decides.
    pub(crate) fn within(
        &self,
        file: &File,
        bits: &mut Bits,
        since_us: i64,
        until_us: i64,
    ) -> io::Result<()> {
        if since_us <= self.min_us && until_us >= self.max_us {
            return Ok(());
        }
        let mut times = vec![0; self.rows as usize * 4];
        file.read_exact_at(&mut times, self.places_at() + u64::from(self.rows) * 4)?;
        bits.retain(|row| {
            let stored = number(&times, row as usize * 4).map_or(NO_TIME, u32::from_le_bytes);
            let time_us = self.min_us.saturating_add(i64::from(stored) * 1000);
            stored != NO_TIME && time_us <= until_us && time_us.saturating_add(1000) > since_us
        });
        Ok(())
    }
}

/// The rows of all lists of one term, each once and in order.
fn merged<'a>(lists: &[(Term, &'a [u32])], rows: u32) -> Cow<'a, [u32]> {
    if let [(_, list)] = lists {
        return Cow::Borrowed(list);
    }
    let mut bits = Bits::none(rows);
    lists.iter().flat_map(|(_, list)| *list).for_each(|row| bits.set(*row));
    let mut all: Vec<u32> = bits.descending().collect();
    all.reverse();
    Cow::Owned(all)
}

fn encode_rows(out: &mut Vec<u8>, rows: &[u32], of: u32) {
    let start = out.len();
    let bytes_max = of.div_ceil(8) as usize;
    out.push(0);
    let mut before = 0;
    // A difference takes a byte and more.
    let sparse = if rows.len() > bytes_max { &[] } else { rows };
    for row in sparse {
        let mut difference = row - before;
        before = *row;
        while difference >= 0x80 {
            out.push(difference as u8 | 0x80);
            difference >>= 7;
        }
        out.push(difference as u8);
    }
    if sparse.len() < rows.len() || out.len() - start > 1 + bytes_max {
        out.truncate(start);
        out.push(1);
        let mut bits = Bits::none(of);
        rows.iter().for_each(|row| bits.set(*row));
        out.extend(bits.bytes());
    }
}

fn decode_rows(list: &[u8], count: u32, of: u32, bits: &mut Bits) -> io::Result<()> {
    let (form, list) = list.split_first().ok_or_else(broken)?;
    if *form == 1 {
        *bits = Bits::from_bytes(list, of);
        return Ok(());
    }
    let mut bytes = list.iter();
    let mut row = 0_u32;
    for _ in 0..count {
        let (mut difference, mut shift) = (0_u32, 0);
        loop {
            let byte = *bytes.next().ok_or_else(broken)?;
            difference |= u32::from(byte & 0x7f).checked_shl(shift).ok_or_else(broken)?;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        row = row.checked_add(difference).ok_or_else(broken)?;
        bits.set(row);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::{Fresh, Waiting};
    use gantry_audit_api::segment::Entry;
    use proptest::prelude::*;

    fn some_index() -> MemoryIndex {
        let mut index = MemoryIndex::default();
        for number in 0..50 {
            let payload = format!(
                r#"{{"auditID":"id-{number}","verb":"get","user":{{"username":"user{}"}},"requestReceivedTimestamp":"2026-01-01T00:00:{number:02}Z"}}"#,
                number % 7
            );
            let kind = gantry_audit_api::frame::Kind::Record;
            index.push(&Entry { kind, payload: payload.as_bytes(), len_bytes: payload.len() as u64 });
        }
        let known: Vec<Term> = index.lists().iter().map(|(term, _)| *term).collect();
        let lists: Vec<Arc<[Term]>> = (1..4).map(|n| known[..n * 5].iter().copied().collect()).collect();
        let lists: Vec<Arc<[Term]>> = lists.into_iter().map(ordered).collect();
        let mut fresh = Fresh::default();
        for number in 0..30 {
            fresh.begin_row();
            fresh.push(number as u64);
            fresh.end_row(100, 1_767_225_660_000_000, lists.get(number % 4).cloned());
        }
        index.take(&Waiting { place: index.next_place, fresh });
        index
    }

    fn ordered(terms: Arc<[Term]>) -> Arc<[Term]> {
        let mut terms = terms.to_vec();
        terms.sort_unstable();
        terms.into()
    }

    proptest! {
        #[test]
        fn lists_are_read_as_they_were_written(rows in proptest::collection::btree_set(0_u32..5000, 2..600)) {
            let rows: Vec<u32> = rows.into_iter().collect();
            let mut list = Vec::new();
            encode_rows(&mut list, &rows, 5000);
            let mut bits = Bits::none(5000);
            decode_rows(&list, rows.len() as u32, 5000, &mut bits).expect("readable");
            let mut found: Vec<u32> = bits.descending().collect();
            found.reverse();
            prop_assert_eq!(found, rows);
        }

        /// An index that was damaged is refused, or answers something, and never panics.
        #[test]
        fn no_index_is_too_strange(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>(), term_at in any::<prop::sample::Index>()) {
            let index = some_index();
            let mut bytes = IndexFile::encode(&index, 1, 1);
            let terms: Vec<Term> = index.lists().iter().map(|(term, _)| *term).collect();
            let whole = changes.is_empty();
            for (at, byte) in changes {
                // Behind the checked header, too.
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if !whole {
                bytes.truncate(bytes.len() - cut.index(bytes.len() / 8));
            }
            let mut temporary = tempfile::NamedTempFile::new().expect("a file");
            io::Write::write_all(&mut temporary, &bytes).expect("written");
            let opened = IndexFile::peek(temporary.path(), 1, 1);
            prop_assert!(opened.is_ok() || !whole);
            if let Ok(read) = opened {
                let term = terms[term_at.index(terms.len())];
                let found = read.bits(temporary.as_file(), term);
                if whole {
                    prop_assert_eq!(found.as_ref().ok(), Some(&index.bits(term)));
                }
                if let Ok(mut bits) = found {
                    let _ = read.within(temporary.as_file(), &mut bits, 5, 10_000_000);
                }
                for row in 0..90 {
                    let _ = read.place(temporary.as_file(), row);
                }
            }
        }

        /// Whatever stands in the file: an answer or an error.
        #[test]
        fn no_list_is_too_strange(list in proptest::collection::vec(any::<u8>(), 0..64), count in 0_u32..100, of in 0_u32..1000) {
            let _ = decode_rows(&list, count, of, &mut Bits::none(of));
        }
    }
}
