//! The one thread that appends to the trail.
//!
//! It takes what waits, makes JSON of it, chains it, and writes it with one call; then gives the places
//! back. What it wrote becomes durable together, at most [`Config::sync_interval`] later. While the disk
//! fails it tries again and gives no place back, so requests wait rather than go unrecorded.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_audit_api::chain::Hash;
use gantry_audit_api::files;
use gantry_audit_api::frame::{FRAME_BYTES, Frame, Kind, PAYLOAD_BYTES_MAX};
use gantry_audit_api::like::{self as record, Own, Ranges};
use gantry_audit_api::signed::{Checkpoint, SigningKey, Tombstone};
use gantry_base::fs as durable;
use gantry_base::health::Health;
use gantry_kube_types::AuditEvent;
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::Inner;
use crate::alike::Kept;
use crate::catalog::{Entry, Position};
use crate::errors::OpenError;
use crate::index::{Fresh, terms};
use crate::json::Times;
use crate::queue::{Item, Like, RemovedThrough};
use crate::recover::begin_segment;
use crate::renderer::Renderer;

/// Between attempts to write while the disk fails.
const RETRY: Duration = Duration::from_millis(500);
/// A batch is written when its frames have so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// A segment has so many frames at most: the open one's index is in memory.
const SEGMENT_FRAMES_MAX: u64 = 1 << 16;
/// How far a record may be behind the one that it is like: who reads it reads both.
const BACK_MAX: u64 = 1 << 20;
/// Records that others may be like.
const BASES_MAX: usize = 1024;
/// Frames after which the keeper is told to bring the index up.
const INDEX_EVERY: u64 = 2048;
/// The name of the trail among the parts of the instance.
pub(crate) const PART: &str = "audit";

pub(crate) struct Writer {
    inner: Arc<Inner>,
    key: Arc<SigningKey>,
    file: File,
    /// Where the first frame is in the file.
    frames_at: u64,
    position: Position,
    /// The segment, as searches see it.
    entry: Option<Arc<Entry>>,
    /// Frames that are made and not in the file yet.
    pending: Vec<u8>,
    payload: Vec<u8>,
    /// Records of the segment that others are like, by the address of what both are made of.
    bases: HashMap<usize, Base>,
    times: Times,
    /// Terms of the frames in `pending`, for the index.
    fresh: Fresh,
    renderer: Renderer,
    /// Events whose places are given back when `pending` is in the file, and their bodies' bytes.
    owed: (usize, usize),
    written: u64,
    /// When the first frame was written that is not durable yet.
    unsynced: Option<Instant>,
    durable_sequence: u64,
    checkpointed: Checkpointed,
    indexed: u64,
    /// When the first record came into the segment; what the trail puts there itself lets none grow old.
    first_at: Option<Timestamp>,
    waiting: Vec<oneshot::Sender<()>>,
}

struct Base {
    place: u64,
    ranges: Ranges,
    /// Keeps its address from being another's.
    _kept: Arc<Kept>,
}

struct Checkpointed {
    sequence: u64,
    at: Instant,
}

impl Writer {
    pub(crate) fn new(
        inner: Arc<Inner>,
        key: Arc<SigningKey>,
        position: Position,
    ) -> Result<Self, OpenError> {
        let (file, frames_at, created) = open_log(&inner, position.segment)?;
        let entry = inner.catalog.newest();
        let renderer = Renderer::new(inner.alike.clone());
        let checkpointed = Checkpointed { sequence: position.next_sequence, at: Instant::now() };
        let writer = Self {
            inner,
            key,
            file,
            frames_at,
            position,
            entry,
            fresh: Fresh::default(),
            renderer,
            pending: Vec::with_capacity(BATCH_BYTES * 2),
            payload: Vec::new(),
            bases: HashMap::new(),
            times: Times::default(),
            owed: (0, 0),
            written: 0,
            unsynced: None,
            durable_sequence: position.next_sequence,
            checkpointed,
            indexed: position.next_sequence,
            // When that was is not kept; the segment is older.
            first_at: (position.place > 0).then_some(created),
            waiting: Vec::new(),
        };
        // Before anybody can search: what was there at the start is found at once.
        writer.publish();
        Ok(writer)
    }

    /// Writes until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let (mut items, mut ids) = (Vec::new(), String::new());
        while self.inner.queue.take(self.patience(), &mut items, &mut ids).is_some() {
            let mut waiting = ids.as_str();
            for item in items.drain(..) {
                self.item(item, &mut waiting);
                if self.is_full() {
                    self.rotate();
                } else if self.pending.len() >= BATCH_BYTES {
                    self.write();
                }
            }
            ids.clear();
            ids.shrink_to(BATCH_BYTES);
            self.write();
            self.keep_promises();
        }
        self.checkpoint();
        self.write();
        self.sync();
        self.inner.keeper.stop();
    }

    fn is_full(&self) -> bool {
        let first = self.entry.as_ref().map_or(self.position.next_sequence, |entry| entry.first_sequence);
        self.position.next_sequence - first >= SEGMENT_FRAMES_MAX
            || self.place() >= self.inner.config.segment_bytes_max
    }

    /// For how long the segment goes on, where it has records.
    fn life_left(&self) -> Option<Duration> {
        let age = Timestamp::now().duration_since(self.first_at?);
        // A clock that went back makes it young.
        let age = Duration::try_from(age).unwrap_or_default();
        Some(self.inner.config.segment_age_max.saturating_sub(age))
    }

    /// How long to wait for items: until the next thing that is due.
    fn patience(&self) -> Duration {
        let config = &self.inner.config;
        let left = |since: Instant, limit: Duration| limit.saturating_sub(since.elapsed());
        let sync = self.unsynced.map(|since| left(since, config.sync_interval));
        let checkpoint = (self.position.next_sequence > self.checkpointed.sequence)
            .then(|| left(self.checkpointed.at, config.checkpoint_interval));
        // Without anything due: for as long as it takes.
        [sync, checkpoint, self.life_left()].into_iter().flatten().min().unwrap_or(Duration::from_secs(3600))
    }

    fn keep_promises(&mut self) {
        let config = &self.inner.config;
        let (sync_interval, checkpoint_interval) = (config.sync_interval, config.checkpoint_interval);
        if self.unsynced.is_some_and(|since| since.elapsed() >= sync_interval) || !self.waiting.is_empty() {
            self.sync();
        }
        if self.position.next_sequence > self.checkpointed.sequence
            && self.checkpointed.at.elapsed() >= checkpoint_interval
        {
            self.checkpoint();
            self.write();
        }
        if self.life_left().is_some_and(|left| left.is_zero()) {
            self.rotate();
        }
        if self.position.next_sequence >= self.indexed + INDEX_EVERY {
            self.indexed = self.position.next_sequence;
            self.inner.keeper.wake();
        }
    }

    /// Where the next frame of the segment begins.
    fn place(&self) -> u64 {
        self.position.place + self.pending.len() as u64
    }

    /// `ids` begins with that of the next [`Item::Like`].
    fn item(&mut self, item: Item, ids: &mut &str) {
        match item {
            Item::Event(event) => {
                self.owed.0 += 1;
                self.owed.1 += event.body_bytes();
                self.event(&event);
            }
            Item::Own(event) => self.event(&event),
            Item::Like(like) => {
                let (id, rest) = ids.split_at(like.id_bytes);
                *ids = rest;
                self.like(id, like);
            }
            Item::Sync(done) => self.waiting.push(done),
            Item::Tombstone(removed, done) => {
                self.tombstone(removed);
                self.waiting.push(done);
            }
        }
    }

    /// A record that is like one before: as what is its own, where that one is near.
    fn like(&mut self, id: &str, like: Like) {
        let Like { kept, received_us, completed_us, latency_us, id_bytes: _ } = like;
        let own = Own { id, received_us, completed_us, latency_us };
        let (place, address) = (self.place(), Arc::as_ptr(&kept).addr());
        let mut payload = std::mem::take(&mut self.payload);
        let base = self.bases.get(&address).map(|base| (place - base.place, base.ranges));
        let kind = match base {
            Some((back, ranges)) if back <= BACK_MAX => {
                // At most a mebibyte.
                record::Like { back: back as u32, ranges, own }.encode(&mut payload);
                Kind::Like
            }
            _ => {
                payload.clear();
                if let Some(ranges) = kept.write(&mut payload, &own, &mut self.times) {
                    if self.bases.len() >= BASES_MAX {
                        self.bases.clear();
                    }
                    self.bases.insert(address, Base { place, ranges, _kept: kept.clone() });
                }
                Kind::Record
            }
        };
        self.owed.0 += 1;
        self.first_at.get_or_insert_with(Timestamp::now);
        self.append(kind, &payload);
        self.fresh.begin_row();
        self.fresh.push(terms::of_id(id));
        self.fresh.end_row(FRAME_BYTES + payload.len(), received_us, Some(kept.terms.clone()));
        self.payload = payload;
    }

    fn event(&mut self, event: &AuditEvent) {
        let session = match event.object.subresource.as_str() {
            "exec" | "attach" => self.inner.sessions.of_request(event),
            _ => None,
        };
        let mut payload = std::mem::take(&mut self.payload);
        let (renderer, fresh, namespaces) = (&mut self.renderer, &mut self.fresh, &self.inner.namespaces);
        let mut shared = renderer.render(&mut payload, fresh, event, namespaces, session);
        if payload.len() > PAYLOAD_BYTES_MAX {
            // Bodies are bounded by the front door; an event with larger ones keeps all but them.
            let mut small = event.clone();
            (small.request, small.response) = (gantry_kube_types::AuditBody::TooLarge, Default::default());
            shared = renderer.render(&mut payload, fresh, &small, namespaces, None);
        }
        self.first_at.get_or_insert_with(Timestamp::now);
        self.append(Kind::Record, &payload);
        self.fresh.end_row(FRAME_BYTES + payload.len(), event.received.as_microsecond(), shared);
        self.payload = payload;
    }

    /// A frame of the trail's own.
    fn append_own(&mut self, kind: Kind, payload: &[u8]) {
        self.append(kind, payload);
        self.fresh.begin_row();
        terms::of_kind(kind).into_iter().for_each(|term| self.fresh.push(term));
        self.fresh.end_row(FRAME_BYTES + payload.len(), 0, None);
    }

    fn append(&mut self, kind: Kind, payload: &[u8]) {
        let position = &mut self.position;
        let hash = Frame::append(&mut self.pending, &position.last, position.next_sequence, kind, payload);
        position.last = hash;
        position.next_sequence += 1;
        debug_assert!(self.pending.len() >= FRAME_BYTES);
    }

    /// Puts what is pending into the file. Does not return before it is there.
    fn write(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let at = self.frames_at + self.position.place;
        let (file, pending) = (&self.file, &self.pending);
        self.inner.persist("written", || file.write_all_at(pending, at), RETRY);
        if let Some(entry) = &self.entry {
            entry.hand_over(self.position.place, &mut self.fresh);
        }
        self.position.place += self.pending.len() as u64;
        self.pending.clear();
        self.unsynced.get_or_insert_with(Instant::now);
        let (events, body_bytes) = std::mem::take(&mut self.owed);
        self.written += events as u64;
        self.publish();
        if events > 0 {
            self.inner.queue.release(events, body_bytes);
        }
    }

    fn sync(&mut self) {
        let file = &self.file;
        self.inner.persist("made durable", || file.sync_data(), RETRY);
        self.unsynced = None;
        self.durable_sequence = self.position.next_sequence;
        self.publish();
        for done in self.waiting.drain(..) {
            // Who asked may have gone.
            let _ = done.send(());
        }
    }

    fn publish(&self) {
        self.inner.catalog.tip.send_replace(crate::catalog::Tip {
            next_sequence: self.position.next_sequence,
            durable_sequence: self.durable_sequence,
            written: self.written,
        });
    }

    /// Signs for everything so far, once it is durable.
    fn checkpoint(&mut self) {
        if self.position.next_sequence <= self.checkpointed.sequence {
            return;
        }
        self.write();
        self.sync();
        let sequence = self.position.next_sequence - 1;
        let checkpoint = Checkpoint::sign(&self.key, sequence, &self.position.last, now());
        // Strings and numbers: cannot fail.
        let text = serde_json::to_vec(&checkpoint).unwrap_or_default();
        let head = self.inner.config.root.join(files::HEAD);
        self.inner.persist("signed", || durable::write_atomic(&head, &text, 0o600), RETRY);
        self.append_own(Kind::Checkpoint, &text);
        self.checkpointed = Checkpointed { sequence: self.position.next_sequence, at: Instant::now() };
    }

    fn tombstone(&mut self, removed: RemovedThrough) {
        let RemovedThrough { segment, sequence, hash, reason } = removed;
        let tombstone = Tombstone::sign(&self.key, (segment, sequence), &hash, reason, now());
        let text = serde_json::to_vec(&tombstone).unwrap_or_default();
        self.append_own(Kind::Tombstone, &text);
    }

    /// Closes the segment and begins the next one.
    fn rotate(&mut self) {
        self.checkpoint();
        self.write();
        self.sync();
        let (number, last): (u64, Hash) = (self.position.segment + 1, self.position.last);
        let next = self.position.next_sequence;
        let inner = self.inner.clone();
        let mut begun = None;
        inner.persist(
            "continued in a new segment",
            || {
                let position =
                    begin_segment(&inner.catalog, number, next, &last).map_err(io::Error::other)?;
                begun = Some((position, open_log(&inner, number).map_err(io::Error::other)?));
                Ok(())
            },
            RETRY,
        );
        if let Some((position, (file, frames_at, _))) = begun {
            (self.position, self.file, self.frames_at) = (position, file, frames_at);
            self.first_at = None;
            self.entry = self.inner.catalog.newest();
            self.bases.clear();
        }
        self.inner.keeper.wake();
    }
}

fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

/// The file to write to, where its frames begin, and when it was made.
fn open_log(inner: &Inner, number: u64) -> Result<(File, u64, Timestamp), OpenError> {
    let path = inner.catalog.path(number, "log");
    let segment = inner
        .catalog
        .open(number)
        .map_err(|error| OpenError::File { path: path.clone(), why: error.to_string() })?;
    let file = std::fs::OpenOptions::new().write(true).open(&path).map_err(OpenError::io(&path))?;
    // Only what somebody changed is not readable: it is closed soon.
    let created = segment.header().header.created.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    Ok((file, segment.file_offset(0), created))
}

impl Inner {
    /// Does a thing that must not be given up, and shows that it fails while it does.
    fn persist(&self, what: &str, mut act: impl FnMut() -> io::Result<()>, pause: Duration) {
        let mut failed = false;
        while let Err(error) = act() {
            if !failed {
                tracing::error!(%error, "the audit trail cannot be {what}; requests wait");
                self.show(Health::Degraded(format!("the audit trail cannot be {what}: {error}")));
            }
            failed = true;
            std::thread::park_timeout(pause);
        }
        if failed {
            tracing::info!("the audit trail is {what} again");
            self.show(Health::Ok);
        }
    }
}
