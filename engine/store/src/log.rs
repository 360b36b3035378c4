//! The durable log behind the store: the seam for other backends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{Event, EventKind, Key, Object, OpenError, Revision, Snapshot};

/// Keeps committed events. `append` returns once they survive a power cut.
pub(crate) trait Log: Send {
    /// Makes the events durable, all or none.
    fn append(&mut self, events: &[Arc<Event>]) -> Result<(), String>;
}

/// Keeps nothing: for tests and throw-away instances.
pub(crate) struct MemoryLog;

impl Log for MemoryLog {
    fn append(&mut self, _: &[Arc<Event>]) -> Result<(), String> {
        Ok(())
    }
}

const OBJECTS: TableDefinition<'static, &str, (u64, &[u8])> = TableDefinition::new("objects");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";
const REVISION_KEY: &str = "revision";
/// The newest file layout this build reads and the one it writes.
const SCHEMA: u64 = 1;
/// The map in memory serves reads; redb's cache only helps commits.
const CACHE_BYTES: usize = 16 << 20;
/// Free space worth a rewrite of the file at open.
const COMPACT_FREE_BYTES_MIN: u64 = 64 << 20;

/// One redb file. redb holds an exclusive lock on it while it is open.
pub(crate) struct DiskLog {
    database: Database,
}

impl DiskLog {
    pub(crate) fn open(path: &Path) -> Result<(Self, Snapshot), OpenError> {
        let failed = |reason: String| OpenError::Failed { path: path.into(), reason };
        let mut database =
            Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { path: path.into() },
                other => failed(other.to_string()),
            })?;
        let found = prepare(&database).map_err(|error| failed(error.to_string()))?;
        if found > SCHEMA {
            return Err(OpenError::Newer { path: path.into(), found, known: SCHEMA });
        }
        let (snapshot, live_bytes) = load(&database).map_err(|error| failed(error.to_string()))?;
        let file_bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
        if file_bytes.saturating_sub(live_bytes * 2) > COMPACT_FREE_BYTES_MIN {
            database.compact().map_err(|error| failed(error.to_string()))?;
        }
        sync_directory(path).map_err(|error| failed(error.to_string()))?;
        Ok((Self { database }, snapshot))
    }

    fn commit(&self, events: &[Arc<Event>]) -> Result<(), redb::Error> {
        let Some(last) = events.last() else { return Ok(()) };
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for Event { kind, object, .. } in events.iter().map(Arc::as_ref) {
                match kind {
                    EventKind::Put => {
                        objects.insert(object.key.as_str(), (object.revision, object.value.as_ref()))?;
                    }
                    EventKind::Delete => {
                        objects.remove(object.key.as_str())?;
                    }
                }
            }
            transaction.open_table(META)?.insert(REVISION_KEY, last.revision)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Log for DiskLog {
    fn append(&mut self, events: &[Arc<Event>]) -> Result<(), String> {
        self.commit(events).map_err(|error| error.to_string())
    }
}

/// Creates the tables of a new file; gives the schema of the file.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get(SCHEMA_KEY)?.map(|value| value.value());
        if found.is_none() {
            meta.insert(SCHEMA_KEY, SCHEMA)?;
        }
        found.unwrap_or(SCHEMA)
    };
    if found > SCHEMA {
        transaction.abort()?;
        return Ok(found);
    }
    transaction.open_table(OBJECTS)?;
    transaction.commit()?;
    Ok(found)
}

fn load(database: &Database) -> Result<(Snapshot, u64), redb::Error> {
    let transaction = database.begin_read()?;
    let revision: Revision =
        transaction.open_table(META)?.get(REVISION_KEY)?.map_or(0, |revision| revision.value());
    let mut snapshot = Snapshot::empty(revision);
    let mut live_bytes = 0;
    for entry in transaction.open_table(OBJECTS)?.iter()? {
        let (key, value) = entry?;
        let (revision, bytes) = value.value();
        live_bytes += (key.value().len() + bytes.len()) as u64;
        let key = Key::parse(key.value())
            .ok_or_else(|| redb::Error::Corrupted(format!("unreadable key {:?}", key.value())))?;
        snapshot.insert(Arc::new(Object { key, revision, value: Bytes::copy_from_slice(bytes) }));
    }
    Ok((snapshot, live_bytes))
}

/// A new file is only durable once its directory entry is.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).map_or(PathBuf::from("."), Into::into);
    std::fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        drop(DiskLog::open(&path).unwrap());
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(SCHEMA_KEY, SCHEMA + 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let error = DiskLog::open(&path).err().unwrap();
            assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
        }
    }
}
