//! Entries in the order of their keys, however many: what does not fit in memory is sorted in runs, which lie in
//! files that have no name any more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MEMORY_MAX_BYTES: usize = 24 << 20;
const ENTRY_OVERHEAD_BYTES: usize = 64;
const RUN_BUFFER_BYTES: usize = 64 << 10;

pub(super) type Entry = (Vec<u8>, Vec<u8>);

pub(super) struct Sorter {
    directory: PathBuf,
    entries: Vec<Entry>,
    bytes: usize,
    bytes_max: usize,
    runs: Vec<File>,
}

impl Sorter {
    /// Runs go to `directory`, whose file system has room for the index as well.
    pub(super) fn new(directory: &Path) -> Self {
        let (entries, runs) = (Vec::new(), Vec::new());
        Self { directory: directory.to_owned(), entries, bytes: 0, bytes_max: MEMORY_MAX_BYTES, runs }
    }

    pub(super) fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
        self.bytes += key.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.entries.push((key, value));
        if self.bytes > self.bytes_max { self.spill() } else { Ok(()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.runs.is_empty()
    }

    fn spill(&mut self) -> io::Result<()> {
        self.entries.sort_unstable();
        let mut file = BufWriter::new(tempfile::tempfile_in(&self.directory)?);
        for (key, value) in self.entries.drain(..) {
            for part in [key, value] {
                file.write_all(&(part.len() as u64).to_le_bytes())?;
                file.write_all(&part)?;
            }
        }
        let mut file = file.into_inner().map_err(|error| error.into_error())?;
        file.seek(SeekFrom::Start(0))?;
        self.runs.push(file);
        self.bytes = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Sorted> {
        self.entries.sort_unstable();
        self.entries.reverse();
        let mut sorted = Sorted { memory: self.entries, runs: Vec::new(), heads: BinaryHeap::new() };
        for file in self.runs {
            sorted.runs.push(BufReader::with_capacity(RUN_BUFFER_BYTES, file));
            sorted.advance(sorted.runs.len() - 1)?;
        }
        if let Some(entry) = sorted.memory.pop() {
            sorted.heads.push(Reverse((entry, usize::MAX)));
        }
        Ok(sorted)
    }
}

/// The merged runs, and what stayed in memory, the least last.
pub(super) struct Sorted {
    memory: Vec<Entry>,
    runs: Vec<BufReader<File>>,
    /// The next entry of each, with the run's number.
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl Sorted {
    pub(super) fn peek(&self) -> Option<&Entry> {
        self.heads.peek().map(|Reverse((entry, _))| entry)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let Some(Reverse((entry, run))) = self.heads.pop() else { return Ok(None) };
        if run < self.runs.len() {
            self.advance(run)?;
        } else if let Some(next) = self.memory.pop() {
            self.heads.push(Reverse((next, run)));
        }
        Ok(Some(entry))
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(key) = part(&mut self.runs[run])? {
            let value = part(&mut self.runs[run])?;
            let value = value.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            self.heads.push(Reverse(((key, value), run)));
        }
        Ok(())
    }
}

fn part(reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    match reader.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    // It was written a moment ago by ourselves, to a file that nobody else can open.
    let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).map_err(io::Error::other)?];
    reader.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_merged_in_order(
            keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..200),
            bytes_max in 0..4000_usize,
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let mut sorter = Sorter::new(directory.path());
            sorter.bytes_max = bytes_max;
            for key in &keys {
                sorter.push(key.clone(), vec![7; key.len()]).expect("pushed");
            }
            let mut sorted = sorter.finish().expect("sorted");
            let mut want: Vec<Entry> = keys.iter().map(|key| (key.clone(), vec![7; key.len()])).collect();
            want.sort();
            let mut found = Vec::new();
            while let Some(entry) = sorted.next().expect("read") {
                found.push(entry);
            }
            prop_assert_eq!(found, want);
        }
    }
}
