//! Is the trail whole? Everything is read again, every hash made again, every signature checked.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::chain::{self, GENESIS, Hash};
use crate::files;
use crate::frame::Kind;
use crate::index::Wrapped;
use crate::record::Record;
use crate::segment::{self, Segment, SegmentError};
use crate::sessions::{Closed, recording_name, sha256};
use crate::signed::{Checkpoint, PublicKeys, Tombstone};

/// The answer of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nothing is wrong.
    pub intact: bool,
    pub segments: u64,
    /// Frames read: records, checkpoints and tombstones.
    pub frames: u64,
    pub records: u64,
    pub checkpoints: u64,
    /// The first and the last sequence number that are there.
    pub first_sequence: u64,
    pub last_sequence: u64,
    /// The newest frame that a signature vouches for; later ones are chained and not signed yet.
    pub signed_through: u64,
    /// Older segments were removed by policy, up to this sequence number.
    pub removed_through: u64,
    /// Recordings of sessions that are there and are as their records say.
    #[serde(default)]
    pub recordings: u64,
    /// Indexes of closed segments that are as they were made.
    #[serde(default)]
    pub indexes: u64,
    /// Bytes after the last whole frame: a write that a crash cut off, or one in progress.
    pub torn_bytes: u64,
    /// The first thing that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<Bad>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bad {
    /// The sequence number of the first record that is not as it was written, or not there.
    pub sequence: u64,
    pub segment: u64,
    /// What is found, in a sentence.
    pub what: String,
    /// Not a record is wrong, but this file beside them.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub file: String,
    /// The record that is found in its place, as far as it can be read.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub audit_id: String,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub time: String,
}

/// A trail that could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is no audit trail of a version that is known here")]
    Format(PathBuf),
    #[error("{0} holds no public keys; name a file with --keys")]
    Keys(PathBuf),
}

/// Checkpoints and keys that were kept elsewhere: what an intruder on the server cannot change.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    /// Takes the place of the trail's own `keys.json`.
    pub keys: Option<PublicKeys>,
    pub checkpoints: Vec<Checkpoint>,
}

/// Reads the trail in `directory`. Memory is bounded by a block and the list of segments.
pub fn verify(directory: &Path, witness: &Witness) -> Result<Report, VerifyError> {
    let read = |name: &str| {
        let path = directory.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(VerifyError::Io { path, source }),
        }
    };
    let format = read(files::FORMAT)?.unwrap_or_default();
    let mut formats = crate::FORMATS_BEFORE.iter().chain([&crate::FORMAT]);
    if !formats.any(|known| known.as_bytes() == format) {
        return Err(VerifyError::Format(directory.to_owned()));
    }
    // Before the segments: what is vouched for now must be in what is read afterwards.
    let head = read(files::HEAD)?;
    let keys = match &witness.keys {
        Some(keys) => keys.clone(),
        None => read(files::KEYS)?
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| VerifyError::Keys(directory.join(files::KEYS)))?,
    };
    let mut walk = Walk::new(keys, directory.to_owned());
    let walked = walk.expectations(head, witness).and_then(|()| walk.segments());
    let bad = match walked {
        Err(Stop::Bad(bad)) => Some(bad),
        Err(Stop::Io(path, source)) => return Err(VerifyError::Io { path, source }),
        // Read once more: a server that writes meanwhile replaces it before it appends a checkpoint.
        Ok(()) => walk.conclude().or(walk.head_is_newest(read(files::HEAD)?)).or(walk.beside.take()),
    };
    walk.report.intact = bad.is_none();
    walk.report.first_bad = bad;
    Ok(walk.report)
}

enum Stop {
    Bad(Bad),
    Io(PathBuf, io::Error),
}

fn bad(sequence: u64, segment: u64, what: impl Into<String>) -> Stop {
    Stop::Bad(Bad { sequence, segment, what: what.into(), ..Bad::default() })
}

struct Walk {
    keys: PublicKeys,
    report: Report,
    last: Hash,
    next: u64,
    segment: u64,
    /// By sequence: hashes that signatures outside of the chain vouch for.
    expected: Vec<Checkpoint>,
    /// What precedes the first segment that is there.
    before: Option<(u64, u64, Hash)>,
    tombstone: Option<Tombstone>,
    /// What the last checkpoint in the chain vouches for.
    newest_checkpoint: u64,
    /// How many of `expected` are passed.
    at: usize,
    directory: PathBuf,
    /// The first recording or index that is not as it was. What is wrong with the records themselves goes first.
    beside: Option<Bad>,
}

impl Walk {
    fn new(keys: PublicKeys, directory: PathBuf) -> Self {
        Self {
            keys,
            directory,
            beside: None,
            report: Report::default(),
            last: GENESIS,
            next: 1,
            segment: 0,
            expected: Vec::new(),
            before: None,
            tombstone: None,
            newest_checkpoint: 0,
            at: 0,
        }
    }

    fn expectations(&mut self, head: Option<Vec<u8>>, witness: &Witness) -> Result<(), Stop> {
        if let Some(head) = head {
            let head: Checkpoint = serde_json::from_slice(&head)
                .map_err(|error| bad(0, 0, format!("{} is not readable: {error}", files::HEAD)))?;
            self.expected.push(head);
        }
        self.expected.extend(witness.checkpoints.iter().cloned());
        self.expected.sort_by_key(|c| c.sequence);
        for checkpoint in &self.expected {
            if !checkpoint.is_signed_by(&self.keys) {
                let what = format!("the checkpoint of {} is not signed by a known key", checkpoint.time);
                return Err(bad(checkpoint.sequence, 0, what));
            }
        }
        Ok(())
    }

    fn segments(&mut self) -> Result<(), Stop> {
        let folder = self.directory.join(files::SEGMENTS);
        let listed = segment::list(&folder).map_err(|error| Stop::Io(folder.clone(), error))?;
        let count = listed.len();
        for (index, file) in listed.into_iter().enumerate() {
            let mut opened = Segment::open(&file.path);
            if matches!(&opened, Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
            {
                // It was closed since it was listed.
                opened = Segment::open(&file.path.with_extension("seal"));
            }
            let opened = match opened {
                Ok(opened) => opened,
                Err(SegmentError::Io { path, source }) => return Err(Stop::Io(path, source)),
                Err(SegmentError::Format { source, .. }) => {
                    return Err(bad(self.next, file.number, format!("segment {}: {source}", file.number)));
                }
            };
            self.one(file.number, opened, index + 1 == count)?;
        }
        Ok(())
    }

    fn one(&mut self, number: u64, mut segment: Segment, newest: bool) -> Result<(), Stop> {
        self.enter(number, &segment)?;
        let mut place = 0;
        loop {
            let sequence = self.next;
            let frame = match segment.frame_at(place) {
                Ok(frame) => frame,
                // A block that does not decompress is a change like any other.
                Err(error) => {
                    return Err(bad(sequence, number, format!("the frames cannot be read: {error}")));
                }
            };
            let Some(frame) = frame else { break };
            let previous = self.last;
            let Some(hash) = frame.check(&previous, sequence) else {
                let what = "the record does not continue the chain: it was changed, moved or put in, or \
                            one before it was removed";
                let mut found = Bad { sequence, segment: number, what: what.to_owned(), ..Bad::default() };
                let entry = segment.entry_at(place).ok().flatten();
                if let Some(record) = entry.and_then(|entry| Record::parse(entry.payload)) {
                    found.audit_id = record.audit_id.into_owned();
                    found.time = record.request_received_timestamp.into_owned();
                }
                return Err(Stop::Bad(found));
            };
            let (kind, length) = (frame.kind, frame.len_bytes() as u64);
            match kind {
                Kind::Record => {
                    self.report.records += 1;
                    self.recording(frame.payload)?;
                }
                Kind::Like => {
                    let entry = segment.entry_at(place).ok().flatten();
                    if entry.is_none_or(|entry| entry.kind != Kind::Record) {
                        return Err(bad(sequence, number, "the record is like one that is not there"));
                    }
                    self.report.records += 1;
                }
                Kind::Checkpoint => self.checkpoint(frame.payload, &previous)?,
                Kind::Tombstone => self.tombstone(frame.payload)?,
                Kind::Other(_) => {}
            }
            self.pass(hash)?;
            place += length;
        }
        let torn = segment.bytes_after(place).map_err(|error| bad(self.next, number, error.to_string()))?;
        if torn > 0 && (segment.is_sealed() || !newest) {
            return Err(bad(self.next, number, format!("{torn} bytes of the segment are no whole record")));
        }
        self.report.torn_bytes = torn;
        self.index(number, segment.header().header.first_sequence)
    }

    /// Does a search in the segment that was just read find what is in it? One that is missing, or was made by an
    /// earlier version, is made again before it is used.
    fn index(&mut self, segment: u64, first_sequence: u64) -> Result<(), Stop> {
        let file = format!("{}/{}", files::SEGMENTS, segment::file_name(segment, "idx"));
        let path = self.directory.join(&file);
        let read = match File::open(&path).and_then(|opened| Wrapped::read(&opened)) {
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(Some(index)) => index.is_of(segment, &self.keys) && index.ends_with(&self.last),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => false,
            Err(error) => return Err(Stop::Io(path, error)),
        };
        if read {
            self.report.indexes += 1;
        } else if self.beside.is_none() {
            let what = format!(
                "the index of segment {segment} is not the one that was made of it, so a search may miss records; \
                 delete the file, and Gantry makes it again"
            );
            self.beside = Some(Bad { sequence: first_sequence, segment, what, file, ..Bad::default() });
        }
        Ok(())
    }

    fn enter(&mut self, number: u64, segment: &Segment) -> Result<(), Stop> {
        let header = &segment.header().header;
        let previous = chain::parse(&header.previous_hash);
        let previous =
            previous.ok_or_else(|| bad(self.next, number, "the segment names no segment before it"))?;
        if header.segment != number {
            return Err(bad(self.next, number, format!("the file is segment {} renamed", header.segment)));
        }
        if self.report.segments == 0 {
            self.report.first_sequence = header.first_sequence;
            if (header.first_sequence, previous) != (1, GENESIS) {
                self.before = Some((number - 1, header.first_sequence.saturating_sub(1), previous));
                self.at = self.expected.partition_point(|c| c.sequence < header.first_sequence);
            }
            self.next = header.first_sequence;
        } else if number != self.segment + 1 {
            let missing = self.segment + 1;
            return Err(bad(self.next, missing, format!("segment {missing} is missing")));
        } else if header.first_sequence != self.next {
            let what = format!(
                "records {} to {} are missing before segment {number}",
                self.next,
                header.first_sequence.saturating_sub(1)
            );
            return Err(bad(self.next, number, what));
        } else if previous != self.last {
            return Err(bad(self.next, number, "the segment does not continue the one before it"));
        }
        self.last = segment.header().start();
        self.segment = number;
        self.report.segments += 1;
        Ok(())
    }

    fn pass(&mut self, hash: Hash) -> Result<(), Stop> {
        while let Some(expected) = self.expected.get(self.at).filter(|c| c.sequence == self.next) {
            if chain::parse(&expected.hash) != Some(hash) {
                let what = format!(
                    "the checkpoint of {} vouches for other records: one of {} to {} was changed, and the chain \
                     made again",
                    expected.time,
                    self.newest_checkpoint + 1,
                    expected.sequence
                );
                return Err(bad(self.next, self.segment, what));
            }
            self.report.signed_through = self.report.signed_through.max(self.next);
            self.at += 1;
        }
        self.last = hash;
        self.report.frames += 1;
        self.report.last_sequence = self.next;
        self.next += 1;
        Ok(())
    }

    /// Where the record closes a recording: is the file as it was then? One that is gone has expired.
    fn recording(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let Some(closed) = Closed::of(payload).filter(|_| self.beside.is_none()) else { return Ok(()) };
        let name = recording_name(&closed.id);
        let path = self.directory.join(files::SESSIONS).join(&name);
        match File::open(&path).and_then(|file| sha256(&file)) {
            Ok(found) if found == closed.sha256 => self.report.recordings += 1,
            Ok(_) => {
                let file = format!("{}/{name}", files::SESSIONS);
                let what = format!("the recording {file} is not the one that was closed here");
                let record = Record::parse(payload).unwrap_or_default();
                self.beside = Some(Bad {
                    sequence: self.next,
                    segment: self.segment,
                    what,
                    file,
                    audit_id: record.audit_id.into_owned(),
                    time: record.request_received_timestamp.into_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Stop::Io(path, error)),
        }
        Ok(())
    }

    fn checkpoint(&mut self, payload: &[u8], previous: &Hash) -> Result<(), Stop> {
        let wrong = |what: &str| bad(self.next, self.segment, what);
        let checkpoint: Checkpoint =
            serde_json::from_slice(payload).map_err(|_| wrong("the checkpoint is not readable"))?;
        if !checkpoint.is_signed_by(&self.keys) {
            return Err(wrong("the checkpoint is not signed by a known key"));
        }
        // The first frame of a segment follows the segment's header, which follows the frame before.
        let vouched = chain::parse(&checkpoint.hash);
        if checkpoint.sequence + 1 != self.next || vouched != Some(*previous) {
            let what = format!(
                "the checkpoint vouches for other records: one of {} to {} was changed, and the chain made again",
                self.newest_checkpoint + 1,
                checkpoint.sequence
            );
            return Err(wrong(&what));
        }
        self.report.checkpoints += 1;
        self.newest_checkpoint = checkpoint.sequence;
        self.report.signed_through = self.report.signed_through.max(checkpoint.sequence);
        Ok(())
    }

    fn tombstone(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let wrong = |what: &str| bad(self.next, self.segment, what);
        let tombstone: Tombstone =
            serde_json::from_slice(payload).map_err(|_| wrong("the tombstone is not readable"))?;
        if !tombstone.is_signed_by(&self.keys) {
            return Err(wrong("the tombstone is not signed by a known key"));
        }
        self.tombstone = Some(tombstone);
        Ok(())
    }

    /// Whoever cuts off the end of a trail must put back an old head, or none.
    fn head_is_newest(&self, head: Option<Vec<u8>>) -> Option<Bad> {
        let head: Option<Checkpoint> = head.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let newest = self.newest_checkpoint;
        let vouched = head.as_ref().map_or(0, |head| head.sequence);
        let what = match head {
            None => format!("{} is missing, but the trail has checkpoints", files::HEAD),
            Some(_) => format!("{} is older than the newest checkpoint in the trail", files::HEAD),
        };
        (vouched < newest).then_some(Bad { sequence: newest, segment: self.segment, what, ..Bad::default() })
    }

    /// What only shows at the end.
    fn conclude(&mut self) -> Option<Bad> {
        let found = |sequence, segment, what: String| Some(Bad { sequence, segment, what, ..Bad::default() });
        if let Some((segment, sequence, hash)) = self.before {
            let told = self.tombstone.as_ref().is_some_and(|t| {
                // One that was cut short by a crash may have removed fewer segments than it says.
                t.through_segment > segment
                    || (t.through_segment == segment
                        && t.through_sequence == sequence
                        && chain::parse(&t.hash) == Some(hash))
            });
            if !told {
                return found(
                    1,
                    1,
                    format!("segments 1 to {segment} are missing, and no tombstone says why"),
                );
            }
            self.report.removed_through = sequence;
        }
        let missing = self.expected.get(self.at)?;
        let what = format!(
            "the trail ends at record {}, but the checkpoint of {} vouches for record {}",
            self.report.last_sequence, missing.time, missing.sequence
        );
        found(self.next, self.segment, what)
    }
}
