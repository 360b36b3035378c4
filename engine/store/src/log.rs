//! The durable log behind the store: the seam for other backends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::seal::{SealError, is_sealed};
use crate::{Event, EventKind, Key, Object, OpenError, Options, Packed, Revision, Sealing, Snapshot};

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
const CACHE_BYTES: usize = 8 << 20;
/// Free space worth a rewrite of the file at open.
const COMPACT_FREE_BYTES_MIN: u64 = 64 << 20;

/// One redb file. redb holds an exclusive lock on it while it is open.
pub(crate) struct DiskLog {
    database: Database,
    sealing: Option<Arc<Sealing>>,
}

/// Why the file cannot be read or written.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// redb has an error type per operation, all of which become its one.
macro_rules! database_errors {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for FileError {
            fn from(error: redb::$kind) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}
database_errors!(TransactionError, TableError, StorageError, CommitError);

impl DiskLog {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<(Self, Snapshot), OpenError> {
        let sealing = options.sealing.clone();
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
        let sealing_now = sealing.as_deref();
        seal_plain(&database, sealing_now).map_err(|error| failed(error.to_string()))?;
        let (snapshot, live_bytes) = load(&database, sealing_now, options.packed.clone())
            .map_err(|error| failed(error.to_string()))?;
        let file_bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
        if file_bytes.saturating_sub(live_bytes * 2) > COMPACT_FREE_BYTES_MIN {
            database.compact().map_err(|error| failed(error.to_string()))?;
        }
        sync_directory(path).map_err(|error| failed(error.to_string()))?;
        Ok((Self { database, sealing }, snapshot))
    }

    fn commit(&self, events: &[Arc<Event>]) -> Result<(), FileError> {
        let Some(last) = events.last() else { return Ok(()) };
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for Event { kind, object, .. } in events.iter().map(Arc::as_ref) {
                match kind {
                    EventKind::Put => {
                        let sealed = self.sealed(object)?;
                        let value = sealed.as_deref().unwrap_or(object.value.as_ref());
                        objects.insert(object.key.as_str(), (object.revision, value))?;
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

    /// The value as it is kept, where it is not kept as it is.
    fn sealed(&self, object: &Object) -> Result<Option<Vec<u8>>, SealError> {
        let sealing = self.sealing.as_ref().filter(|sealing| sealing.covers(&object.key));
        sealing.map(|sealing| sealing.seal(&object.key, &object.value)).transpose()
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

fn load(
    database: &Database,
    sealing: Option<&Sealing>,
    packed: Packed,
) -> Result<(Snapshot, u64), FileError> {
    let transaction = database.begin_read()?;
    let revision: Revision =
        transaction.open_table(META)?.get(REVISION_KEY)?.map_or(0, |revision| revision.value());
    let mut snapshot = Snapshot::empty(revision, packed);
    let mut live_bytes = 0;
    for entry in transaction.open_table(OBJECTS)?.iter()? {
        let (key, value) = entry?;
        let (revision, bytes) = value.value();
        live_bytes += (key.value().len() + bytes.len()) as u64;
        let key = parse(key.value())?;
        let value = match sealing {
            _ if !is_sealed(bytes) => Bytes::copy_from_slice(bytes),
            Some(sealing) => sealing.open(&key, bytes)?.into(),
            None => return Err(SealError::NoKey(key).into()),
        };
        snapshot.insert(Arc::new(Object { key, revision, value }));
    }
    Ok((snapshot, live_bytes))
}

/// Seals what a version without sealing left plain.
fn seal_plain(database: &Database, sealing: Option<&Sealing>) -> Result<(), FileError> {
    let Some(sealing) = sealing else { return Ok(()) };
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut plain = Vec::new();
        for entry in objects.iter()? {
            let (key, value) = entry?;
            let (revision, bytes) = value.value();
            let key = parse(key.value())?;
            if sealing.covers(&key) && !is_sealed(bytes) {
                plain.push((sealing.seal(&key, bytes)?, key, revision));
            }
        }
        for (sealed, key, revision) in &plain {
            objects.insert(key.as_str(), (*revision, sealed.as_slice()))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn parse(key: &str) -> Result<Key, redb::Error> {
    Key::parse(key).ok_or_else(|| redb::Error::Corrupted(format!("unreadable key {key:?}")))
}

/// A new file is only durable once its directory entry is.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).map_or(PathBuf::from("."), Into::into);
    std::fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, sealing: Option<Arc<Sealing>>) -> Result<(DiskLog, Snapshot), OpenError> {
        DiskLog::open(path, &Options { sealing, ..Options::default() })
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        drop(open(&path, None).unwrap());
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(SCHEMA_KEY, SCHEMA + 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        for _ in 0..2 {
            let error = open(&path, None).err().unwrap();
            assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
        }
    }

    #[test]
    fn secrets_are_sealed_in_the_file_plain_ones_of_before_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let event = |name: &str, revision| {
            let key = Key::new("", "secrets", "n", name);
            let value = Bytes::from_static(b"{\"data\":\"hunter2hunter2\"}");
            let object = Arc::new(Object { key, revision, value });
            vec![Arc::new(Event { revision, kind: EventKind::Put, object, previous: None })]
        };
        let (mut log, _) = open(&path, None).unwrap();
        log.append(&event("plain", 1)).unwrap();
        drop(log);
        let sealing = Arc::new(Sealing::new(&[1; 32], &[("", "secrets")]));
        let (mut log, snapshot) = open(&path, Some(sealing.clone())).unwrap();
        assert!(snapshot.get(&Key::new("", "secrets", "n", "plain")).is_some());
        log.append(&event("sealed", 2)).unwrap();
        {
            let transaction = log.database.begin_read().unwrap();
            for entry in transaction.open_table(OBJECTS).unwrap().iter().unwrap() {
                let (key, value) = entry.unwrap();
                assert!(is_sealed(value.value().1), "{:?}", key.value());
            }
        }
        drop(log);
        let (log, snapshot) = open(&path, Some(sealing)).unwrap();
        let kept = snapshot.get(&Key::new("", "secrets", "n", "sealed")).unwrap();
        assert_eq!(kept.value.as_ref(), b"{\"data\":\"hunter2hunter2\"}");
        drop(log);
        for wrong in [None, Some(Arc::new(Sealing::new(&[2; 32], &[("", "secrets")])))] {
            assert!(matches!(open(&path, wrong), Err(OpenError::Failed { .. })));
        }
    }
}
