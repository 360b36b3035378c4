//! The segments that are there, as searches see them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use gantry_audit_api::chain::Hash;
use gantry_audit_api::segment::{Segment, SegmentError, file_name};
use gantry_audit_api::signed::SigningKey;
use tokio::sync::watch;

use crate::index::{Fresh, IndexFile, MemoryIndex, Waiting};

/// One segment.
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) first_sequence: u64,
    pub(crate) state: Mutex<State>,
    waiting: Mutex<Waiting>,
}

/// How a segment is searched.
pub(crate) enum State {
    /// Its index is in memory, and may be behind its file.
    Open(MemoryIndex),
    /// It is compressed, and its index is a file.
    Sealed(Arc<IndexFile>),
}

impl Entry {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // An index that a panic left half-way is behind its file, which is a state it may have.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the terms of frames that begin at `place` of the file for the index. The given is empty afterwards.
    pub(crate) fn hand_over(&self, place: u64, fresh: &mut Fresh) {
        self.waiting().put(place, fresh);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Rows that a panic left half-way do not follow each other, and are read from the file.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the trail is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tip {
    /// The sequence number that the next frame will have.
    pub(crate) next_sequence: u64,
    /// Everything before it survives a loss of power.
    pub(crate) durable_sequence: u64,
    /// Events taken out of the queue and written, since the start.
    pub(crate) written: u64,
}

/// The list of segments, the oldest first, and the folder they are in.
pub(crate) struct Catalog {
    pub(crate) directory: PathBuf,
    entries: RwLock<Vec<Arc<Entry>>>,
    pub(crate) tip: watch::Sender<Tip>,
    /// Signs indexes. One that another key signed, if only an earlier one, is made again.
    pub(crate) key: Arc<SigningKey>,
    /// Segments whose index somebody changed, until the keeper tells.
    spoilt: Mutex<Vec<u64>>,
}

impl Catalog {
    pub(crate) fn new(directory: PathBuf, key: Arc<SigningKey>) -> Self {
        let (tip, _) = watch::channel(Tip::default());
        Self { directory, entries: RwLock::default(), tip, key, spoilt: Mutex::default() }
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn newest(&self) -> Option<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    pub(crate) fn push(&self, number: u64, first_sequence: u64, state: State) {
        let entry =
            Arc::new(Entry { number, first_sequence, state: Mutex::new(state), waiting: Mutex::default() });
        self.entries.write().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Forgets the segments up to and including a number.
    pub(crate) fn forget_through(&self, number: u64) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).retain(|entry| entry.number > number);
    }

    pub(crate) fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.directory.join(file_name(number, extension))
    }

    /// The segment's file in the form it has now.
    pub(crate) fn open(&self, number: u64) -> Result<Segment, SegmentError> {
        let sealed = self.path(number, "seal");
        match Segment::open(&sealed) {
            Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match Segment::open(&self.path(number, "log")) {
            // It was closed between the two looks.
            Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Segment::open(&sealed)
            }
            other => other,
        }
    }

    /// The index of a closed segment, and its file, as it was made; `None`: it is in memory. Where the file is not as
    /// it was made, the segment is indexed anew: no search goes by it.
    pub(crate) fn index(
        &self,
        entry: &Entry,
        state: &mut State,
    ) -> io::Result<Option<(Arc<IndexFile>, File)>> {
        let State::Sealed(index) = state else { return Ok(None) };
        let path = self.path(entry.number, "idx");
        if let Ok(Some(file)) = index.file(&path) {
            return Ok(Some((index.clone(), file)));
        }
        match IndexFile::open(&path, entry.number, entry.first_sequence, &self.key.public()) {
            Ok((index, file)) => {
                let index = Arc::new(index);
                *state = State::Sealed(index.clone());
                Ok(Some((index, file)))
            }
            // The whole segment expired.
            Err(error) if !self.path(entry.number, "seal").is_file() => Err(error),
            Err(error) => {
                tracing::error!(%error, ?path, "the index of a segment is not the one that was made; it is made again");
                self.spoil(entry.number);
                *state = State::Open(MemoryIndex::default());
                Ok(None)
            }
        }
    }

    fn spoilt(&self) -> MutexGuard<'_, Vec<u64>> {
        self.spoilt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the keeper tell of a segment's index, and make it again.
    pub(crate) fn spoil(&self, number: u64) {
        self.spoilt().push(number);
    }

    pub(crate) fn has_spoilt(&self) -> bool {
        !self.spoilt().is_empty()
    }

    /// Segments whose index was found changed since the last call.
    pub(crate) fn take_spoilt(&self) -> Vec<u64> {
        std::mem::take(&mut self.spoilt())
    }

    /// Brings the index of an open segment up to its file: by what the writer has left, and by the file where that
    /// is not all (after a start, or when nobody came for it).
    pub(crate) fn catch_up(&self, entry: &Entry, index: &mut MemoryIndex) -> io::Result<()> {
        let waiting = std::mem::take(&mut *entry.waiting());
        let written = self.tip.borrow().next_sequence;
        if !waiting.fresh.is_empty() {
            self.read(entry, index, |index| index.next_place < waiting.place)?;
            index.take(&waiting);
        }
        self.read(entry, index, |index| entry.first_sequence + u64::from(index.rows()) < written)
    }

    fn read(
        &self,
        entry: &Entry,
        index: &mut MemoryIndex,
        is_behind: impl Fn(&MemoryIndex) -> bool,
    ) -> io::Result<()> {
        if !is_behind(index) {
            return Ok(());
        }
        let mut segment = self.open(entry.number).map_err(io::Error::other)?;
        while is_behind(index) {
            match segment.entry_at(index.next_place)? {
                Some(found) => index.push(&found),
                None => break,
            }
        }
        Ok(())
    }
}

/// Where a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    /// Where the next frame of the segment begins.
    pub(crate) place: u64,
    pub(crate) next_sequence: u64,
    pub(crate) last: Hash,
}

/// Follows the chain through a segment as far as it holds.
pub(crate) fn follow(segment: &mut Segment) -> io::Result<Position> {
    let header = segment.header();
    let mut at = Position {
        segment: header.header.segment,
        place: 0,
        next_sequence: header.header.first_sequence,
        last: header.start(),
    };
    while let Some(frame) = segment.frame_at(at.place)? {
        let Some(hash) = frame.check(&at.last, at.next_sequence) else { break };
        at.last = hash;
        at.place += frame.len_bytes() as u64;
        at.next_sequence += 1;
    }
    Ok(at)
}

pub(crate) fn segments_directory(root: &Path) -> PathBuf {
    root.join(gantry_audit_api::files::SEGMENTS)
}
