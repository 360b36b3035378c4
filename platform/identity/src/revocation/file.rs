//! Events on disk: one redb file.

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use gantry_base::fs;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use super::RevocationError;
use super::event::Event;

/// (target as JSON, `revoked_at` in microseconds) → event as JSON. Several about one target are merged
/// when they are read.
const EVENTS: TableDefinition<'static, (&str, i64), &[u8]> = TableDefinition::new("events");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";
/// The newest file layout this build reads and the one it writes.
const SCHEMA: u64 = 1;
const CACHE_BYTES: usize = 4 << 20;
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

pub(super) struct RevocationFile {
    database: Database,
}

impl RevocationFile {
    pub(super) fn open(path: &Path) -> Result<Self, RevocationError> {
        let io = |source| RevocationError::File { path: path.to_owned(), source };
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_directory(directory, DIRECTORY_MODE).map_err(io)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
        let file = file.map_err(io)?;
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE)).map_err(io)?;
        let opened = FileBackend::new(file)
            .and_then(|backend| Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend));
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => RevocationError::Locked { path: path.to_owned() },
            other => failed(other),
        })?;
        fs::sync_directory(directory).map_err(io)?;
        let found = prepare(&database).map_err(failed)?;
        if found > SCHEMA {
            return Err(RevocationError::Newer { path: path.to_owned(), found, known: SCHEMA });
        }
        Ok(Self { database })
    }

    /// Every event, in no order. One that cannot be read stops the start: it may be what voids a token.
    pub(super) fn load(&self) -> Result<Vec<Event>, RevocationError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(EVENTS).map_err(failed)?;
        let mut events = Vec::new();
        for entry in table.iter().map_err(failed)? {
            let (_, value) = entry.map_err(failed)?;
            let event = serde_json::from_slice(value.value());
            events.push(
                event.map_err(|error| RevocationError::Database(format!("unreadable event: {error}")))?,
            );
        }
        Ok(events)
    }

    /// Adds events, durably, all or none. Says how many rows there are.
    pub(super) fn add(&self, events: &[Event]) -> Result<u64, redb::Error> {
        self.write(events, false)
    }

    /// Has these events and no others, durably.
    pub(super) fn replace(&self, events: &[Event]) -> Result<u64, redb::Error> {
        self.write(events, true)
    }

    fn write(&self, events: &[Event], alone: bool) -> Result<u64, redb::Error> {
        let transaction = self.database.begin_write()?;
        let rows = {
            let mut table = transaction.open_table(EVENTS)?;
            if alone {
                table.retain(|_, _| false)?;
            }
            for event in events {
                let encode = |error: serde_json::Error| redb::Error::Corrupted(error.to_string());
                let target = serde_json::to_string(&event.target).map_err(encode)?;
                let value = serde_json::to_vec(event).map_err(encode)?;
                table.insert((target.as_str(), event.revoked_at.as_microsecond()), value.as_slice())?;
            }
            table.len()?
        };
        transaction.commit()?;
        Ok(rows)
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
    transaction.open_table(EVENTS)?;
    transaction.commit()?;
    Ok(found)
}

fn failed(error: impl Into<redb::Error>) -> RevocationError {
    RevocationError::Database(error.into().to_string())
}
