//! Opening a trail that a process left, however it ended.
//!
//! What a crash kept from the disk is removed: nobody was told that it is durable ([`crate::torn`] says what that
//! can be). Everything a signature vouches for must still be there, and everything else must continue the chain.
//! Where it does not, the trail goes on in a new segment whose first record says so; the damaged segment stays as
//! it is, as evidence.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use gantry_audit_api::files;
use gantry_audit_api::frame::{Header, HeaderBytes, MAGIC_LOG};
use gantry_audit_api::segment::{self, Segment, SegmentError};
use gantry_audit_api::signed::{Checkpoint, SigningKey};
use gantry_base::fs as durable;

use crate::catalog::{Catalog, Position, State, follow, segments_directory};
use crate::config::Config;
use crate::errors::OpenError;
use crate::index::{IndexFile, MemoryIndex};
use crate::torn::{End, LOOK_BYTES_MAX};

/// What was found.
pub(crate) struct Recovered {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) position: Position,
    /// A sentence for the trail and for the operator.
    pub(crate) damage: Option<String>,
    /// Bytes of several records that did not reach the disk before a loss of power.
    pub(crate) lost_bytes: Option<u64>,
}

pub(crate) fn open(config: &Config, key: Arc<SigningKey>) -> Result<Recovered, OpenError> {
    let root = &config.root;
    let directory = segments_directory(root);
    for path in [root.clone(), directory.clone(), root.join(files::SESSIONS)] {
        durable::create_directory(&path, 0o700).map_err(OpenError::io(&path))?;
    }
    check_format(config)?;
    let head = read_head(config)?;
    let listed = segment::list(&directory).map_err(OpenError::io(&directory))?;
    let catalog = Arc::new(Catalog::new(directory.clone(), key));
    let Some(newest) = listed.last().cloned() else {
        let position = begin_segment(&catalog, 1, 1, &gantry_audit_api::chain::GENESIS)?;
        let damage = head.map(|head| {
            format!(
                "every segment is missing; the checkpoint of {} vouches for record {}",
                head.time, head.sequence
            )
        });
        return Ok(Recovered { catalog, position, damage, lost_bytes: None });
    };
    for file in &listed[..listed.len() - 1] {
        admit(&catalog, file.number, file.sealed)?;
    }
    let mut last = Segment::open(&newest.path).map_err(|error| match error {
        SegmentError::Io { path, source } => OpenError::Io { path, source },
        SegmentError::Format { path, source } => OpenError::File { path, why: source.to_string() },
    })?;
    let mut position = follow(&mut last).map_err(OpenError::io(&newest.path))?;
    let torn = last.bytes_after(position.place).map_err(OpenError::io(&newest.path))?;
    let vouched = head.as_ref().map_or(0, |head| head.sequence);
    let offset = last.file_offset(position.place);
    let end = match torn {
        0 => None,
        // It was durable before it was named so.
        _ if newest.sealed => Some(End::Changed),
        _ => Some(End::of(&read_end(&newest.path, offset).map_err(OpenError::io(&newest.path))?, offset)),
    };
    let is_changed = position.next_sequence <= vouched || end == Some(End::Changed);
    if !is_changed && !newest.sealed {
        if torn > 0 {
            tracing::warn!(bytes = torn, "what a crash cut off is removed from the audit trail");
            truncate(&newest.path, offset).map_err(OpenError::io(&newest.path))?;
        }
        catalog.push(newest.number, last.header().header.first_sequence, State::Open(MemoryIndex::default()));
        let lost_bytes = (end == Some(End::Hole)).then_some(torn);
        return Ok(Recovered { catalog, position, damage: None, lost_bytes });
    }
    let damage = is_changed.then(|| damage(position.next_sequence, vouched, torn));
    admit(&catalog, newest.number, newest.sealed)?;
    // Searches number what is behind the break, too: no number stands for two records.
    let behind = frames_from(&mut last, position.place);
    let next = (position.next_sequence + behind).max(vouched + 1);
    position = begin_segment(&catalog, newest.number + 1, next, &position.last)?;
    Ok(Recovered { catalog, position, damage, lost_bytes: None })
}

fn damage(breaks_at: u64, vouched: u64, bytes: u64) -> String {
    if breaks_at <= vouched {
        return format!("the chain breaks at record {breaks_at}, a checkpoint vouches for record {vouched}");
    }
    format!(
        "the chain breaks at record {breaks_at}, behind the last checkpoint (record {vouched}), and no crash leaves \
         the {bytes} bytes that follow: they stay as they are"
    )
}

/// How many frames can be read from a place on, whether they chain or not.
fn frames_from(segment: &mut Segment, mut place: u64) -> u64 {
    let mut count = 0;
    // Where a block of a closed segment does not decompress, there is nothing to be read.
    while let Ok(Some(frame)) = segment.frame_at(place) {
        place += frame.len_bytes() as u64;
        count += 1;
    }
    count
}

/// What follows the last frame that chains, as far as it is looked at.
fn read_end(path: &std::path::Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    file.seek(io::SeekFrom::Start(offset))?;
    let mut rest = Vec::new();
    file.take(LOOK_BYTES_MAX as u64).read_to_end(&mut rest)?;
    Ok(rest)
}

fn check_format(config: &Config) -> Result<(), OpenError> {
    let path = config.root.join(files::FORMAT);
    let wanted = gantry_audit_api::FORMAT;
    match durable::read_optional(&path).map_err(OpenError::io(&path))? {
        None => durable::write_atomic(&path, wanted.as_bytes(), 0o600).map_err(OpenError::io(&path)),
        Some(found) if found == wanted.as_bytes() => Ok(()),
        // What is there stays as it is; what comes is of this version.
        Some(found) if gantry_audit_api::FORMATS_BEFORE.iter().any(|known| known.as_bytes() == found) => {
            durable::write_atomic(&path, wanted.as_bytes(), 0o600).map_err(OpenError::io(&path))
        }
        Some(found) => {
            let found = String::from_utf8_lossy(&found).trim().to_owned();
            Err(OpenError::Format { path, found })
        }
    }
}

fn read_head(config: &Config) -> Result<Option<Checkpoint>, OpenError> {
    let path = config.root.join(files::HEAD);
    let Some(bytes) = durable::read_optional(&path).map_err(OpenError::io(&path))? else { return Ok(None) };
    let head = serde_json::from_slice(&bytes);
    head.map(Some).map_err(|error| OpenError::File { path, why: error.to_string() })
}

/// Takes a segment that is not written any more into the catalogue; what lacks its index gets one later.
fn admit(catalog: &Catalog, number: u64, sealed: bool) -> Result<(), OpenError> {
    let opened = catalog.open(number);
    let first_sequence = match &opened {
        Ok(segment) => segment.header().header.first_sequence,
        Err(error) => {
            // It is evidence, and it cannot be searched.
            tracing::error!(%error, segment = number, "a segment of the audit trail cannot be read");
            return Ok(());
        }
    };
    // Whether it is as it was made is seen when it is used first: a start waits for no hundred files.
    let index = IndexFile::peek(&catalog.path(number, "idx"), number, first_sequence);
    let state = match index {
        Ok(index) if sealed => State::Sealed(Arc::new(index)),
        _ => State::Open(MemoryIndex::default()),
    };
    if sealed {
        durable::remove_all(&catalog.path(number, "log")).map_err(OpenError::io(&catalog.directory))?;
    }
    catalog.push(number, first_sequence, state);
    Ok(())
}

fn truncate(path: &std::path::Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Makes the file of a new segment and lists it.
pub(crate) fn begin_segment(
    catalog: &Catalog,
    number: u64,
    first_sequence: u64,
    previous: &gantry_audit_api::chain::Hash,
) -> Result<Position, OpenError> {
    let header = HeaderBytes::new(Header {
        schema: 1,
        segment: number,
        first_sequence,
        previous_hash: hex::encode(previous),
        created: jiff::Timestamp::now().to_string(),
    });
    let path = catalog.path(number, "log");
    durable::write_atomic(&path, &header.encode(MAGIC_LOG), 0o600).map_err(OpenError::io(&path))?;
    catalog.push(number, first_sequence, State::Open(MemoryIndex::default()));
    Ok(Position { segment: number, place: 0, next_sequence: first_sequence, last: header.start() })
}
