//! Uploads of whole archives: a docker-archive or an OCI archive comes in pieces that can be gone on from, also after a
//! restart, is read here, and its images are stored as if they had been pushed.
//!
//! The bytes are those of an upload ([`crate::store::Upload`]) of one repository that it is for, and go when that
//! does. What else is known of it is a [`Record`] in `archives/ID.json`. Work that a restart cut off is begun again by
//! who asks for it again: rights are always those of somebody who is there.

mod plan;
mod routes;
mod work;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use gantry_kube_types::UserInfo;
use gantry_oci::RepositoryName;
use serde::{Deserialize, Serialize};

use crate::Registry;

pub(crate) use routes::{all, one};

/// Archives of one caller that are known; of those, the ones that ended make room for new ones.
const PER_CALLER_MAX: usize = 32;
/// Of all callers.
const ALL_MAX: usize = 10_000;
/// Archives that are read and stored at the same time: each takes a processor and the disk.
const WORKING_MAX: usize = 2;

/// How far an archive is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    /// Bytes are to come, or to be finished.
    #[default]
    Receiving,
    /// All of it is here; others are read first.
    Waiting,
    /// What is in it is found out.
    Reading,
    /// Its images are stored.
    Storing,
    Done,
    /// `error` says why. Where the archive itself is good, finishing it tries again.
    Failed,
}

impl Phase {
    fn is_working(self) -> bool {
        matches!(self, Self::Waiting | Self::Reading | Self::Storing)
    }
}

/// An image that was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) digest: String,
    pub(crate) media_type: String,
}

/// What is written down of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    /// Who began it, and alone may go on with it.
    pub(crate) owner: String,
    /// The repository whose upload the bytes are.
    pub(crate) home: String,
    /// Where its images go: `REPOSITORY[:TAG]`; absent: where their own names say.
    pub(crate) name: Option<String>,
    /// What the client knows the file by.
    pub(crate) key: Option<String>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) phase: Phase,
    pub(crate) images: Vec<Stored>,
    pub(crate) error: Option<String>,
}

struct Entry {
    record: Record,
    changed: SystemTime,
    progress: Arc<Progress>,
}

/// Bytes of blobs that were stored, of how many.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) total_bytes: AtomicU64,
}

/// All archives that are known.
pub(crate) struct Archives {
    directory: PathBuf,
    entries: Mutex<HashMap<String, Entry>>,
    working: tokio::sync::Semaphore,
}

impl Archives {
    /// Takes up what a former process left.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let directory = root.join("archives");
        gantry_base::fs::create_directory(&directory, 0o700)?;
        let mut entries = HashMap::new();
        for file in std::fs::read_dir(&directory)? {
            let file = file?;
            let (path, name) = (file.path(), file.file_name());
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let record = id.zip(serde_json::from_slice(&std::fs::read(&path)?).ok());
            match record {
                Some((id, record)) => {
                    let changed = file.metadata()?.modified().unwrap_or_else(|_| SystemTime::now());
                    entries.insert(id.to_owned(), Entry { record, changed, progress: Arc::default() });
                }
                None => std::fs::remove_file(&path)?,
            }
        }
        let working = tokio::sync::Semaphore::new(WORKING_MAX);
        Ok(Self { directory, entries: Mutex::new(entries), working })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, id: &str, owner: &str) -> Option<Record> {
        self.entries().get(id).map(|entry| entry.record.clone()).filter(|record| record.owner == owner)
    }

    /// Writes a record down, and only then shows it.
    fn put(&self, id: &str, record: Record) -> io::Result<()> {
        let bytes = serde_json::to_vec(&record)?;
        gantry_base::fs::write_atomic(&self.path(id), &bytes, 0o600)?;
        let mut entries = self.entries();
        let changed = SystemTime::now();
        let progress = entries.get(id).map(|entry| entry.progress.clone()).unwrap_or_default();
        entries.insert(id.to_owned(), Entry { record, changed, progress });
        Ok(())
    }

    /// Shows how far it is, and writes nothing: after a restart it is as far as it was before.
    fn advance(&self, id: &str, phase: Phase) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.record.phase = phase;
            if phase == Phase::Waiting {
                entry.progress = Arc::default();
            }
        }
    }

    fn progress(&self, id: &str) -> Arc<Progress> {
        self.entries().get(id).map(|entry| entry.progress.clone()).unwrap_or_default()
    }

    fn forget(&self, id: &str) -> io::Result<()> {
        self.entries().remove(id);
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Makes room for one more of the owner; false: there is none.
    fn make_room(&self, owner: &str) -> io::Result<bool> {
        let (mut finished, mut own, all) = {
            let entries = self.entries();
            let own = entries.iter().filter(|(_, entry)| entry.record.owner == owner);
            let own: Vec<_> = own.map(|(id, e)| (e.changed, e.record.phase, id.clone())).collect();
            let ended = own.iter().filter(|(_, phase, _)| matches!(phase, Phase::Done | Phase::Failed));
            let finished: Vec<_> = ended.cloned().collect();
            (finished, own.len(), entries.len())
        };
        finished.sort_by_key(|(changed, ..)| *changed);
        for (_, _, id) in finished {
            if own < PER_CALLER_MAX {
                break;
            }
            self.forget(&id)?;
            own -= 1;
        }
        Ok(own < PER_CALLER_MAX && all < ALL_MAX)
    }
}

/// Who owns what they began: a name alone may be given to somebody else later.
fn owner(user: &UserInfo) -> String {
    if user.uid.is_empty() { user.username.clone() } else { format!("{}/{}", user.username, user.uid) }
}

impl Registry {
    /// Forgets archives whose bytes nobody went on with, and what was said of those that ended long ago.
    pub(crate) fn expire_archives(&self, after: Duration) -> io::Result<()> {
        let archives = &self.inner.archives;
        let known: Vec<(String, Phase, SystemTime)> = {
            let entries = archives.entries();
            entries.iter().map(|(id, e)| (id.clone(), e.record.phase, e.changed)).collect()
        };
        for (id, phase, changed) in known {
            let is_old = changed.elapsed().unwrap_or_default() > after;
            let goes = match phase {
                Phase::Receiving => self.store().received(&id).is_none(),
                Phase::Done | Phase::Failed => is_old && self.store().received(&id).is_none(),
                Phase::Waiting | Phase::Reading | Phase::Storing => false,
            };
            if goes {
                archives.forget(&id)?;
            }
        }
        Ok(())
    }

    /// What somebody is told of an archive.
    fn archive_status(&self, id: &str, record: &Record) -> serde_json::Value {
        let progress = self.inner.archives.progress(id);
        let received = self.store().received(id).or(record.size_bytes).unwrap_or_default();
        let mut status = serde_json::json!({
            "id": id,
            "phase": record.phase,
            "receivedBytes": received,
            "storedBytes": progress.stored_bytes.load(Ordering::Relaxed),
            "totalBytes": progress.total_bytes.load(Ordering::Relaxed),
            "images": record.images,
        });
        let size = record.size_bytes.map(serde_json::Value::from);
        let text = |text: &Option<String>| text.clone().map(serde_json::Value::from);
        let more = [("name", text(&record.name)), ("sizeBytes", size), ("error", text(&record.error))];
        for (key, value) in more {
            if let Some(value) = value {
                status[key] = value;
            }
        }
        status
    }

    fn home(record: &Record) -> io::Result<RepositoryName> {
        record.home.parse().map_err(io::Error::other)
    }
}
