//! The thread that tends segments: brings indexes up, closes and compresses what is full, removes what is
//! too old. It never touches what is appended to.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use gantry_audit_api::chain::{Hash, parse};
use gantry_audit_api::frame::MAGIC_SEAL;
use gantry_audit_api::index;
use gantry_audit_api::segment::{BLOCK_BYTES, MAGIC_END};
use gantry_base::fs as durable;
use gantry_base::threads::stand_back;
use gantry_kube_types::{AuditEvent, SecurityEvent};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use crate::catalog::{Catalog, Entry, State, follow};
use crate::index::IndexFile;
use crate::queue::{Item, RemovedThrough};
use crate::{Inner, own_user};

/// Indexes and compression can wait; requests are answered first. A search brings up what it needs itself.
const NICENESS: u8 = 19;
/// Fast, and most of what can be had: records are alike.
const COMPRESSION_LEVEL: i32 = 1;
/// Retention is looked at this often when nothing else happens.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);

/// How the keeper is woken.
#[derive(Default)]
pub(crate) struct Keeper {
    state: Mutex<Call>,
    called: Condvar,
}

#[derive(Default)]
struct Call {
    work: bool,
    stop: bool,
}

impl Keeper {
    pub(crate) fn wake(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).work = true;
        self.called.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.called.notify_one();
    }

    /// True while there is work to do.
    fn wait(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = self
            .called
            .wait_timeout_while(state, RETENTION_EVERY, |call| !call.work && !call.stop)
            .unwrap_or_else(PoisonError::into_inner);
        state.work = false;
        !state.stop
    }

    fn stops(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop
    }
}

/// Tends until it is stopped. What fails is tried again at the next call: nothing depends on it but speed
/// and space.
pub(crate) fn run(inner: &Arc<Inner>) {
    stand_back(NICENESS);
    loop {
        if let Err(error) = tend(inner) {
            tracing::error!(%error, "the audit trail's segments cannot be tended");
        }
        if !inner.keeper.wait() {
            return;
        }
    }
}

fn tend(inner: &Arc<Inner>) -> io::Result<()> {
    for number in inner.catalog.take_spoilt() {
        let what = format!("the index of segment {number} was changed or removed; it is made again");
        let event = AuditEvent::security(SecurityEvent::TrailChanged, own_user());
        inner.put(event.failed(500, "Damaged", &what));
    }
    let entries = inner.catalog.entries();
    let newest = entries.last().map(|entry| entry.number);
    for entry in entries {
        if inner.keeper.stops() {
            return Ok(());
        }
        // A segment that cannot be closed is searched as it is, and stays.
        if let Err(error) = tend_segment(&inner.catalog, &entry, Some(entry.number) == newest) {
            tracing::warn!(%error, segment = entry.number, "a segment of the audit trail cannot be closed");
        }
    }
    if inner.catalog.has_spoilt() {
        // Found since: told, and made again if that is not done, at once.
        inner.keeper.wake();
    }
    expire(inner)
}

fn tend_segment(catalog: &Catalog, entry: &Entry, newest: bool) -> io::Result<()> {
    let (end, frames) = {
        let mut state = entry.lock();
        catalog.index(entry, &mut state)?;
        let State::Open(index) = &mut *state else { return Ok(()) };
        catalog.catch_up(entry, index)?;
        (index.next_place, index.rows())
    };
    if newest {
        return Ok(());
    }
    // Nobody writes to it any more, so its index is complete. Searches go on beside the compression.
    let last = match catalog.path(entry.number, "seal").is_file() {
        false => compress(catalog, entry.number, end, frames)?,
        true => sealed(catalog, entry, frames)?,
    };
    let encoded = match &*entry.lock() {
        State::Open(index) => IndexFile::encode(index, entry.number, entry.first_sequence),
        State::Sealed(_) => return Ok(()),
    };
    let path = catalog.path(entry.number, "idx");
    let wrapped = index::wrap(encoded, &catalog.key, entry.number, &last).map_err(io::Error::other)?;
    durable::write_atomic(&path, &wrapped, 0o600)?;
    let keys = catalog.key.public();
    // Somebody may have been quick; until it is made once more, the one in memory is searched.
    let (index, _) = IndexFile::open(&path, entry.number, entry.first_sequence, &keys)
        .inspect_err(|_| catalog.spoil(entry.number))?;
    *entry.lock() = State::Sealed(Arc::new(index));
    durable::remove_all(&catalog.path(entry.number, "log"))
}

/// The last hash of a segment that is closed already, if that is whole: no index vouches for what was changed.
fn sealed(catalog: &Catalog, entry: &Entry, frames: u32) -> io::Result<Hash> {
    let mut segment = catalog.open(entry.number).map_err(io::Error::other)?;
    let position = follow(&mut segment)?;
    if position.next_sequence != entry.first_sequence + u64::from(frames) {
        return Err(io::Error::other(format!(
            "the chain of segment {} breaks at record {}; it is searched as it is",
            entry.number, position.next_sequence
        )));
    }
    Ok(position.last)
}

/// Writes the closed form of a segment whose chain holds, and gives its last hash; what somebody changed is evidence,
/// and stays as it is.
fn compress(catalog: &Catalog, number: u64, end: u64, frames: u32) -> io::Result<Hash> {
    let mut segment = catalog.open(number).map_err(io::Error::other)?;
    if segment.bytes_after(end)? > 0 {
        return Err(io::Error::other(format!(
            "segment {number} has bytes that are no frames; it stays as it is"
        )));
    }
    let temporary = catalog.path(number, "tmp");
    let mut file = File::create(&temporary)?;
    let mut at = 0_u64;
    let mut put = |bytes: &[u8], at: &mut u64| -> io::Result<()> {
        file.write_all(bytes)?;
        *at += bytes.len() as u64;
        Ok(())
    };
    put(&segment.header().encode(MAGIC_SEAL), &mut at)?;
    let (mut table, mut raw, mut place) = (Vec::new(), Vec::with_capacity(BLOCK_BYTES * 2), 0);
    let mut last = segment.header().start();
    let mut sequence = segment.header().header.first_sequence;
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?;
    let mut blocks = 0_u32;
    while place < end {
        let Some(frame) = segment.frame_at(place)? else {
            return Err(io::Error::other(format!("segment {number} ends early")));
        };
        last = frame.check(&last, sequence).ok_or_else(|| {
            let why = format!("the chain of segment {number} breaks at record {sequence}; it stays as it is");
            io::Error::other(why)
        })?;
        sequence += 1;
        raw.extend_from_slice(&(frame.payload.len() as u32).to_le_bytes());
        raw.push(frame.kind.byte());
        raw.extend_from_slice(frame.payload);
        raw.extend_from_slice(&frame.tag);
        place += frame.len_bytes() as u64;
        if raw.len() >= BLOCK_BYTES || place == end {
            let compressed = compressor.compress(&raw)?;
            table.extend_from_slice(&at.to_le_bytes());
            table.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
            table.extend_from_slice(&(raw.len() as u32).to_le_bytes());
            put(&compressed, &mut at)?;
            raw.clear();
            blocks += 1;
        }
    }
    let table_at = at;
    put(&table, &mut at)?;
    let mut footer = Vec::with_capacity(24);
    footer.extend_from_slice(&table_at.to_le_bytes());
    footer.extend_from_slice(&blocks.to_le_bytes());
    footer.extend_from_slice(&frames.to_le_bytes());
    footer.extend_from_slice(MAGIC_END);
    put(&footer, &mut at)?;
    file.sync_all()?;
    std::fs::rename(&temporary, catalog.path(number, "seal"))?;
    durable::sync_directory(&catalog.directory)?;
    Ok(last)
}

/// Removes what the retention does not keep: first the tombstone is durable, then the files go.
fn expire(inner: &Arc<Inner>) -> io::Result<()> {
    if let Some(age) = inner.config.retention.age_max
        && let Some(before) = std::time::SystemTime::now().checked_sub(age)
    {
        inner.sessions.expire(before)?;
    }
    let Some((through, reason)) = expired(inner)? else { return Ok(()) };
    let catalog = &inner.catalog;
    let entries = catalog.entries();
    // The segment after it names its last hash, and its last sequence number.
    let Some(after) = entries.iter().find(|entry| entry.number > through) else { return Ok(()) };
    let next = catalog.open(after.number).map_err(io::Error::other)?;
    let header = &next.header().header;
    let hash: Hash = match parse(&header.previous_hash) {
        Some(hash) => hash,
        None => {
            let mut last = catalog.open(through).map_err(io::Error::other)?;
            follow(&mut last)?.last
        }
    };
    let removed = RemovedThrough { segment: through, sequence: header.first_sequence - 1, hash, reason };
    tracing::info!(
        segment = through,
        records = removed.sequence,
        reason = removed.reason,
        "audit records expire"
    );
    let (done, durable) = oneshot::channel();
    inner.queue.put(Item::Tombstone(removed, done));
    if durable.blocking_recv().is_err() {
        // The trail was closed before the tombstone was written.
        return Ok(());
    }
    catalog.forget_through(through);
    for entry in entries.iter().filter(|entry| entry.number <= through) {
        for extension in ["idx", "log", "seal"] {
            durable::remove_all(&catalog.path(entry.number, extension))?;
        }
    }
    durable::sync_directory(&catalog.directory)
}

/// The last segment that is to go, and why.
fn expired(inner: &Inner) -> io::Result<Option<(u64, String)>> {
    let retention = &inner.config.retention;
    let mut closed = Vec::new();
    for entry in inner.catalog.entries() {
        let State::Sealed(index) = &*entry.lock() else { break };
        let bytes: u64 = ["idx", "seal"]
            .iter()
            .filter_map(|extension| inner.catalog.path(entry.number, extension).metadata().ok())
            .map(|meta| meta.len())
            .sum();
        closed.push((entry.number, index.max_us, bytes));
    }
    let mut found = None;
    if let Some(age) = retention.age_max {
        let age = SignedDuration::try_from(age).map_err(io::Error::other)?;
        let oldest = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN).as_microsecond();
        let old = closed.iter().take_while(|(_, max_us, _)| *max_us < oldest).last();
        found = old.map(|(number, ..)| (*number, format!("older than {age:#}")));
    }
    if let Some(bytes_max) = retention.bytes_max {
        let mut kept: u64 = closed.iter().map(|(.., bytes)| bytes).sum();
        for (number, _, bytes) in &closed {
            if kept <= bytes_max {
                break;
            }
            kept -= bytes;
            if found.as_ref().is_none_or(|(n, _)| n < number) {
                found = Some((*number, format!("more than {bytes_max} bytes")));
            }
        }
    }
    Ok(found)
}
