//! The files of one log, oldest first: rotated ones (`0.log.TIME`, `0.log.TIME.gz`) and the current one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::line::{Entry, Filter, Joiner, Source};

/// What one call reads at most.
const BATCH_BYTES: usize = 64 << 10;
/// An entry the runtime writes is far shorter (16 KiB of text); longer ones are not its own and are cut.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// One open file of a log.
enum Part {
    Plain(BufReader<File>),
    Gzip(Box<BufReader<MultiGzDecoder<File>>>),
}

impl Part {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(if path.extension().is_some_and(|e| e == "gz") {
            Self::Gzip(Box::new(BufReader::with_capacity(BATCH_BYTES, MultiGzDecoder::new(file))))
        } else {
            Self::Plain(BufReader::with_capacity(BATCH_BYTES, file))
        })
    }

    fn reader(&mut self) -> &mut dyn BufRead {
        match self {
            Self::Plain(reader) => reader,
            Self::Gzip(reader) => reader,
        }
    }
}

/// Reads a log from its oldest file on, or from its last lines on, to what is written now; and on from there.
pub(super) struct LogReader {
    path: PathBuf,
    parts: std::collections::VecDeque<Part>,
    /// Inode of the newest file opened, to see that the log was rotated.
    inode: u64,
    joiner: Joiner,
    /// Beginning of an entry whose end is not written yet.
    pending: Vec<u8>,
    /// Output bytes that may still be given out.
    left: Option<u64>,
}

/// What a call of [`LogReader::read`] found.
pub(super) enum Batch {
    /// Output, never empty.
    Some(Vec<u8>),
    /// Nothing more is written now.
    End,
    /// The limit of bytes was reached with this last output.
    Limit(Vec<u8>),
}

impl LogReader {
    /// Opens the log. `tail`: only the last lines, `limit`: at most so many bytes of output.
    pub(super) fn open(
        path: &Path,
        filter: Filter,
        tail: Option<u64>,
        limit: Option<u64>,
    ) -> io::Result<Self> {
        let current = File::open(path)?;
        let inode = current.metadata()?.ino();
        let mut parts = std::collections::VecDeque::new();
        match tail {
            Some(lines) => {
                let missing = tail_of_plain(&current, lines, filter.only)?;
                parts.push_front(Part::Plain(BufReader::with_capacity(BATCH_BYTES, current)));
                open_older(path, missing, filter.only, &mut parts);
            }
            None => {
                parts.extend(rotated(path).iter().filter_map(|p| Part::open(p).ok()));
                parts.push_back(Part::Plain(BufReader::with_capacity(BATCH_BYTES, current)));
            }
        }
        let joiner = Joiner::new(filter);
        Ok(Self { path: path.to_owned(), parts, inode, joiner, pending: Vec::new(), left: limit })
    }

    /// Reads on. Blocks on the disk only.
    pub(super) fn read(&mut self) -> io::Result<Batch> {
        let mut out = Vec::new();
        while out.len() < BATCH_BYTES {
            if !self.step(&mut out)? && !self.advance()? {
                break;
            }
        }
        Ok(self.bounded(out))
    }

    /// Gives out a last line without an end, once nothing more is written.
    pub(super) fn finish(&mut self) -> Batch {
        let mut out = Vec::new();
        self.joiner.finish(&mut out);
        self.bounded(out)
    }

    fn bounded(&mut self, mut out: Vec<u8>) -> Batch {
        if let Some(left) = &mut self.left {
            let room = usize::try_from(*left).unwrap_or(usize::MAX);
            if out.len() >= room {
                out.truncate(room);
                *left = 0;
                return Batch::Limit(out);
            }
            *left -= out.len() as u64;
        }
        if out.is_empty() { Batch::End } else { Batch::Some(out) }
    }

    /// Takes one buffer of the first part. `false` at its end.
    fn step(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(part) = self.parts.front_mut() else { return Ok(false) };
        let reader = part.reader();
        let buffer = match reader.fill_buf() {
            // A compressed file that was cut short ends where it ends.
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => {
                return Ok(false);
            }
            other => other?,
        };
        if buffer.is_empty() {
            return Ok(false);
        }
        let mut rest = buffer;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end);
            if self.pending.is_empty() {
                self.joiner.push(line, out);
            } else {
                self.pending.extend_from_slice(line);
                self.joiner.push(&self.pending, out);
                self.pending.clear();
            }
            rest = &after[1..];
        }
        if self.pending.len() < ENTRY_BYTES_MAX {
            self.pending.extend_from_slice(rest);
        }
        let taken = buffer.len();
        reader.consume(taken);
        Ok(true)
    }

    /// Goes to the next file: the next older part, or the one that took the current one's place.
    fn advance(&mut self) -> io::Result<bool> {
        if self.parts.len() > 1 {
            self.pending.clear();
            self.parts.pop_front();
            return Ok(true);
        }
        let next = match File::open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let inode = next.metadata()?.ino();
        if inode == self.inode {
            return Ok(false);
        }
        // The writer may have put its last entries into the old file after our last look: one more round there
        // first, by keeping it in front. A slow reader may also be more than one rotation behind.
        let older = rotated(&self.path);
        let ours = older.iter().position(|p| std::fs::metadata(p).is_ok_and(|m| m.ino() == self.inode));
        if let Some(ours) = ours {
            self.parts.extend(older[ours + 1..].iter().filter_map(|p| Part::open(p).ok()));
        }
        self.inode = inode;
        self.parts.push_back(Part::Plain(BufReader::with_capacity(BATCH_BYTES, next)));
        Ok(true)
    }
}

/// Rotated files of a log, oldest first: their names end with their time.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|p| p.extension().is_none_or(|e| e != "tmp"))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)))
        .collect();
    found.sort();
    // While a file is being compressed it is there under both names; the plain one is complete.
    let plain: Vec<PathBuf> = found.clone();
    found.retain(|p| p.extension().is_none_or(|e| e != "gz") || !plain.contains(&p.with_extension("")));
    found
}

/// Opens older files, newest first, until `missing` lines are found, each placed at the first wanted line.
fn open_older(
    path: &Path,
    mut missing: u64,
    only: Option<Source>,
    parts: &mut std::collections::VecDeque<Part>,
) {
    for older in rotated(path).iter().rev() {
        if missing == 0 {
            return;
        }
        // A file that rotation took away in this moment is older than all we show.
        let Ok(part) = tail_of_older(older, &mut missing, only) else { return };
        parts.push_front(part);
    }
}

fn tail_of_older(path: &Path, missing: &mut u64, only: Option<Source>) -> io::Result<Part> {
    if path.extension().is_none_or(|e| e != "gz") {
        let file = File::open(path)?;
        *missing = tail_of_plain(&file, *missing, only)?;
        return Ok(Part::Plain(BufReader::with_capacity(BATCH_BYTES, file)));
    }
    // A compressed file can only be read forwards: count, then skip.
    let mut counter = Part::open(path)?;
    let total = skip_lines(counter.reader(), u64::MAX, only)?;
    let mut part = Part::open(path)?;
    skip_lines(part.reader(), total.saturating_sub(*missing), only)?;
    *missing = missing.saturating_sub(total);
    Ok(part)
}

/// Skips so many ended lines; gives how many there were.
fn skip_lines(reader: &mut dyn BufRead, lines: u64, only: Option<Source>) -> io::Result<u64> {
    let mut line = Vec::new();
    let mut count = 0;
    while count < lines {
        line.clear();
        if (&mut *reader).take(ENTRY_BYTES_MAX as u64).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        count += u64::from(ends_line(&line, only));
    }
    Ok(count)
}

fn ends_line(line: &[u8], only: Option<Source>) -> bool {
    Entry::parse(line).is_some_and(|e| e.full && only.is_none_or(|only| only == e.source))
}

/// Places the file at the beginning of its last `lines` lines; gives how many of them it does not have.
fn tail_of_plain(mut file: &File, lines: u64, only: Option<Source>) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut found, mut at) = (0, end);
    // Bytes from `at` on that belong to an entry whose beginning was not read yet.
    let mut tail: Vec<u8> = Vec::new();
    while at > 0 {
        let size = at.min(BATCH_BYTES as u64);
        at -= size;
        let mut block = vec![0; usize::try_from(size).unwrap_or(BATCH_BYTES)];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&tail);
        let mut stop = block.len();
        while let Some(newline) = block[..stop.saturating_sub(1)].iter().rposition(|b| *b == b'\n') {
            found += u64::from(block[stop - 1] == b'\n' && ends_line(&block[newline + 1..stop], only));
            if found > lines {
                file.seek(SeekFrom::Start(at + stop as u64))?;
                return Ok(0);
            }
            stop = newline + 1;
        }
        block.truncate(stop);
        tail = if block.len() > ENTRY_BYTES_MAX { Vec::new() } else { block };
    }
    found += u64::from(tail.last() == Some(&b'\n') && ends_line(&tail, only));
    let start = if found > lines { tail.len() as u64 } else { 0 };
    file.seek(SeekFrom::Start(start))?;
    Ok(lines.saturating_sub(found))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
