//! Events that are to be delivered, on disk until they are: one file of lines, each an event with its receivers, or
//! that one of these has it. What many write at once is one write and one fsync.
//!
//! That something was delivered is written, and not waited for: after a crash it may be delivered again, under the
//! same id. The file is written anew when most of it is over with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Event;
use super::queue::{Taken, WAITING_MAX, Waiting};

/// A file that is not longer is not written anew.
const REWRITE_MIN_BYTES: u64 = 1 << 20;
/// How much longer it is than what it held when it was last written anew.
const REWRITE_FACTOR: u64 = 4;
/// Of what is to be written: above it, events that nobody waits for are left out.
const UNWRITTEN_MAX_BYTES: usize = 8 << 20;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Event {
        number: u64,
        /// Receivers by the ids of their objects; absent: they were not known yet.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<Vec<String>>,
        event: Arc<Event>,
    },
    Done {
        done: u64,
        by: String,
    },
}

pub(super) struct Outbox {
    state: Mutex<State>,
    /// Who holds it writes for all.
    log: Arc<tokio::sync::Mutex<Log>>,
}

#[derive(Default)]
struct State {
    next: u64,
    receivers: HashMap<String, Receiver>,
    /// Events of the time before receivers were known.
    unrouted: BTreeMap<u64, Arc<Event>>,
    unwritten: Vec<u8>,
    /// Grows with every line.
    lines: u64,
}

#[derive(Default)]
struct Receiver {
    waiting: Waiting,
    /// Events that were given up and not told of yet.
    given_up: u64,
}

struct Log {
    path: PathBuf,
    file: File,
    length_bytes: u64,
    rewrite_at_bytes: u64,
    /// Lines that are on disk.
    written: u64,
}

impl State {
    fn write(&mut self, line: &Line) {
        let before = self.unwritten.len();
        match serde_json::to_writer(&mut self.unwritten, line) {
            Ok(()) => self.unwritten.push(b'\n'),
            // Nothing in a line cannot be written as JSON.
            Err(error) => {
                tracing::error!(%error, "an event cannot be written");
                self.unwritten.truncate(before);
            }
        }
        self.lines += 1;
    }

    fn add(&mut self, number: u64, to: &[String], event: &Arc<Event>) {
        let now = Instant::now();
        for uid in to {
            let receiver = self.receivers.entry(uid.clone()).or_default();
            if let Some(dropped) = receiver.waiting.add(number, event.clone(), now) {
                receiver.given_up += 1;
                self.write(&Line::Done { done: dropped, by: uid.clone() });
            }
        }
    }

    /// A registry that never learns of receivers must not keep everything.
    fn add_unrouted(&mut self, number: u64, event: Arc<Event>) {
        self.unrouted.insert(number, event);
        if self.unrouted.len() > WAITING_MAX {
            self.unrouted.pop_first();
        }
    }

    fn read(&mut self, line: Line) {
        match line {
            Line::Event { number, to: None, event } => self.add_unrouted(number, event),
            Line::Event { number, to: Some(to), event } => {
                self.unrouted.remove(&number);
                self.next = self.next.max(number + 1);
                self.add(number, &to, &event);
                return;
            }
            Line::Done { done, by } => {
                if let Some(receiver) = self.receivers.get_mut(&by) {
                    receiver.waiting.remove(done, Instant::now());
                }
                return;
            }
        }
        let last = self.unrouted.last_key_value().map_or(0, |(number, _)| number + 1);
        self.next = self.next.max(last);
    }

    /// Everything that is not over with, as lines.
    fn all(&self) -> Vec<u8> {
        let mut events: BTreeMap<u64, (Option<Vec<String>>, Arc<Event>)> = BTreeMap::new();
        for (number, event) in &self.unrouted {
            events.insert(*number, (None, event.clone()));
        }
        for (uid, receiver) in &self.receivers {
            for (number, event) in receiver.waiting.iter() {
                let (to, _) = events.entry(number).or_insert_with(|| (None, event.clone()));
                to.get_or_insert_default().push(uid.clone());
            }
        }
        let mut lines = Self::default();
        for (number, (to, event)) in events {
            lines.write(&Line::Event { number, to, event });
        }
        lines.unwritten
    }
}

impl Outbox {
    /// Reads what is still to be delivered. A last line that broke off was acknowledged to nobody.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            gantry_base::fs::create_directory(directory, 0o700)?;
        }
        let mut state = State::default();
        let text = gantry_base::fs::read_optional(path)?.unwrap_or_default();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(line) => state.read(line),
                Err(error) => tracing::warn!(file = %path.display(), %error, "a line was not understood"),
            }
        }
        let all = state.all();
        gantry_base::fs::write_atomic(path, &all, 0o600)?;
        state.unwritten.clear();
        let log = Log::open(path, all.len(), state.lines)?;
        Ok(Self { state: Mutex::new(state), log: Arc::new(tokio::sync::Mutex::new(log)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event up for receivers, or for whoever there will be. Gives what to wait for.
    pub(super) fn put(&self, event: Event, to: Option<Vec<String>>) -> u64 {
        let mut state = self.state();
        let (number, event) = (state.next, Arc::new(event));
        state.next += 1;
        match &to {
            Some(to) => state.add(number, to, &event),
            None => state.add_unrouted(number, event.clone()),
        }
        state.write(&Line::Event { number, to, event });
        state.lines
    }

    /// Whether more than can be written is waiting to be.
    pub(super) fn is_behind(&self) -> bool {
        self.state().unwritten.len() > UNWRITTEN_MAX_BYTES
    }

    /// Returns when everything up to `line` is on disk.
    pub(super) async fn written(self: &Arc<Self>, line: u64) -> io::Result<()> {
        let mut log = self.log.clone().lock_owned().await;
        if log.written >= line {
            return Ok(());
        }
        let this = self.clone();
        // With the lock in it: who waits may go away, and the write goes on.
        let write = tokio::task::spawn_blocking(move || log.write(&this));
        write.await.map_err(io::Error::other)?
    }

    /// Writes what nobody waits for.
    pub(super) async fn flush(self: &Arc<Self>) -> io::Result<()> {
        let lines = self.state().lines;
        self.written(lines).await
    }

    pub(super) fn unrouted(&self) -> Vec<(u64, Arc<Event>)> {
        self.state().unrouted.iter().map(|(number, event)| (*number, event.clone())).collect()
    }

    /// Says who the receivers of an unrouted event are.
    pub(super) fn route(&self, number: u64, to: Vec<String>) {
        let mut state = self.state();
        let Some(event) = state.unrouted.remove(&number) else { return };
        state.add(number, &to, &event);
        state.write(&Line::Event { number, to: Some(to), event });
    }

    pub(super) fn take(&self, uid: &str, now: Instant) -> Option<Taken> {
        self.state().receivers.get_mut(uid)?.waiting.take(now)
    }

    pub(super) fn next(&self, uid: &str) -> Option<Instant> {
        self.state().receivers.get(uid)?.waiting.next()
    }

    pub(super) fn oldest(&self, uid: &str) -> Option<Timestamp> {
        self.state().receivers.get(uid)?.waiting.oldest()
    }

    pub(super) fn again(&self, uid: &str, number: u64, at: Instant) {
        if let Some(receiver) = self.state().receivers.get_mut(uid) {
            receiver.waiting.again(number, at);
        }
    }

    /// Nothing is being sent to it.
    pub(super) fn land(&self, uid: &str, now: Instant) {
        if let Some(receiver) = self.state().receivers.get_mut(uid) {
            receiver.waiting.land(now);
        }
    }

    /// Whether everything is delivered and written.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.unwritten.is_empty() && state.receivers.values().all(|receiver| receiver.waiting.len() == 0)
    }

    /// The receiver has it.
    pub(super) fn done(&self, uid: &str, number: u64) {
        let mut state = self.state();
        let found = state.receivers.get_mut(uid).is_some_and(|r| r.waiting.remove(number, Instant::now()));
        if found {
            state.write(&Line::Done { done: number, by: uid.to_owned() });
        }
    }

    /// Gives events up that are older.
    pub(super) fn give_up(&self, uid: &str, older_than: Timestamp) {
        let mut state = self.state();
        let Some(receiver) = state.receivers.get_mut(uid) else { return };
        let old = receiver.waiting.older_than(older_than);
        for number in &old {
            receiver.waiting.remove(*number, Instant::now());
            receiver.given_up += 1;
        }
        for done in old {
            state.write(&Line::Done { done, by: uid.to_owned() });
        }
    }

    /// How many wait, and how many were given up since this was last asked.
    pub(super) fn count(&self, uid: &str) -> (usize, u64) {
        let mut state = self.state();
        let Some(receiver) = state.receivers.get_mut(uid) else { return (0, 0) };
        (receiver.waiting.len(), std::mem::take(&mut receiver.given_up))
    }

    /// Lets go what waits for others than these.
    pub(super) fn keep(&self, uids: &HashSet<String>) {
        let mut state = self.state();
        let gone: Vec<String> = state.receivers.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in gone {
            let Some(receiver) = state.receivers.remove(&uid) else { continue };
            for (done, _) in receiver.waiting.iter() {
                state.write(&Line::Done { done, by: uid.clone() });
            }
        }
    }
}

impl Log {
    fn open(path: &Path, length: usize, written: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let length_bytes = u64::try_from(length).unwrap_or(u64::MAX);
        let rewrite_at_bytes = length_bytes.saturating_mul(REWRITE_FACTOR).max(REWRITE_MIN_BYTES);
        Ok(Self { path: path.to_owned(), file, length_bytes, rewrite_at_bytes, written })
    }

    fn write(&mut self, outbox: &Outbox) -> io::Result<()> {
        if self.length_bytes >= self.rewrite_at_bytes {
            return self.rewrite(outbox);
        }
        let (bytes, lines) = {
            let mut state = outbox.state();
            (std::mem::take(&mut state.unwritten), state.lines)
        };
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line in the middle of the file would take the next one with it.
            self.file.set_len(self.length_bytes)?;
            let mut state = outbox.state();
            let since = std::mem::replace(&mut state.unwritten, bytes);
            state.unwritten.extend(since);
            return Err(error);
        }
        self.length_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.written = lines;
        Ok(())
    }

    fn rewrite(&mut self, outbox: &Outbox) -> io::Result<()> {
        let (all, unwritten, lines) = {
            let mut state = outbox.state();
            (state.all(), std::mem::take(&mut state.unwritten), state.lines)
        };
        let written = gantry_base::fs::write_atomic(&self.path, &all, 0o600);
        match written.and_then(|()| Self::open(&self.path, all.len(), lines)) {
            Ok(log) => {
                *self = log;
                Ok(())
            }
            Err(error) => {
                let mut state = outbox.state();
                let since = std::mem::replace(&mut state.unwritten, unwritten);
                state.unwritten.extend(since);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
