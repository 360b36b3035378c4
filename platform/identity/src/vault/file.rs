//! The vault's file, synchronously.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_base::fs;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use super::master::MasterKeys;
use super::{SecretBytes, SecretKey, SecretKind, VALUE_BYTES_MAX, VaultError};

/// (owner, kind, id): the secrets of one owner lie together.
type Place = (&'static str, &'static str, &'static str);
const SECRETS: TableDefinition<'static, Place, &[u8]> = TableDefinition::new("secrets");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";
/// The newest file layout this build reads and the one it writes.
const SCHEMA: u64 = 1;
const CACHE_BYTES: usize = 4 << 20;
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Sealed at the making: tells a wrong master key from a changed record. Its owner is no valid owner.
const PROBE: &str = "gantry";

pub(super) struct VaultFile {
    database: Database,
    path: PathBuf,
    master_path: PathBuf,
    /// Replaced by a rotation. A writer looks at it after it has the write transaction, so no writer
    /// seals with a key that a rotation has already gone past.
    keys: ArcSwap<MasterKeys>,
    /// Reads, and writes that were committed.
    #[cfg(test)]
    pub(super) done: super::Done,
}

impl VaultFile {
    pub(super) fn open(path: &Path, master_path: &Path) -> Result<Self, VaultError> {
        let database = open_database(path)?;
        let empty = prepare(&database, path)?;
        let keys = match (MasterKeys::load(master_path)?, empty) {
            (Some(keys), _) => keys,
            (None, true) => {
                let keys = MasterKeys::generate()?;
                keys.store(master_path)?;
                keys
            }
            (None, false) => {
                return Err(VaultError::MasterKeyMissing { vault: path.into(), path: master_path.into() });
            }
        };
        let keys = ArcSwap::from_pointee(keys);
        let vault = Self {
            database,
            path: path.into(),
            master_path: master_path.into(),
            keys,
            #[cfg(test)]
            done: super::Done::default(),
        };
        if empty {
            vault.transaction(|vault| vault.write(&probe(), b""))?;
        } else if vault.get(&probe()).is_err() {
            return Err(VaultError::MasterKeyWrong { vault: path.into(), path: master_path.into() });
        }
        if vault.keys.load().is_rotating() {
            vault.finish_rotation()?;
        }
        Ok(vault)
    }

    pub(super) fn get(&self, key: &SecretKey) -> Result<Option<SecretBytes>, VaultError> {
        #[cfg(test)]
        self.done.read();
        loop {
            // The keys before the snapshot: those after it may no longer hold what sealed an older record.
            let keys = self.keys.load_full();
            let transaction = self.database.begin_read().map_err(database)?;
            let table = transaction.open_table(SECRETS).map_err(database)?;
            let Some(sealed) = table.get(place(key)).map_err(database)? else { return Ok(None) };
            let opened = keys.open(key, sealed.value());
            // A rotation came between the two: look again. Rotations end, and so does this.
            if opened.is_ok() || Arc::ptr_eq(&keys, &self.keys.load()) {
                return opened.map(Some);
            }
        }
    }

    pub(super) fn list(&self, owner: &str) -> Result<Vec<SecretKey>, VaultError> {
        #[cfg(test)]
        self.done.read();
        let transaction = self.database.begin_read().map_err(database)?;
        let table = transaction.open_table(SECRETS).map_err(database)?;
        keys_of(&table, owner)
    }

    pub(super) fn transaction<T, E: From<VaultError>>(
        &self,
        work: impl FnOnce(&mut VaultTransaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self.database.begin_write().map_err(database)?;
        let done = {
            let table = transaction.open_table(SECRETS).map_err(database)?;
            work(&mut VaultTransaction { table, keys: self.keys.load_full() })
        };
        // Dropped uncommitted, the transaction leaves nothing.
        let done = done?;
        commit(transaction)?;
        #[cfg(test)]
        self.done.commit();
        Ok(done)
    }

    pub(super) fn rotate(&self) -> Result<(), VaultError> {
        // In the file first: a secret sealed by a key that is nowhere would be lost.
        let keys = self.keys.load().with_new()?;
        keys.store(&self.master_path)?;
        self.keys.store(Arc::new(keys));
        self.finish_rotation()
    }

    fn finish_rotation(&self) -> Result<(), VaultError> {
        self.transaction(|vault| vault.reseal())?;
        let keys = self.keys.load().current_only();
        keys.store(&self.master_path)?;
        self.keys.store(Arc::new(keys));
        tracing::info!(vault = %self.path.display(), "the vault is sealed with a new master key");
        Ok(())
    }
}

/// The vault while one caller has it to itself. What is read is what was written before, here too.
pub struct VaultTransaction<'t> {
    table: Table<'t, Place, &'static [u8]>,
    keys: Arc<MasterKeys>,
}

impl VaultTransaction<'_> {
    /// The secret under `key`.
    pub fn get(&self, key: &SecretKey) -> Result<Option<SecretBytes>, VaultError> {
        let sealed = self.table.get(place(key)).map_err(database)?;
        sealed.map(|sealed| self.keys.open(key, sealed.value())).transpose()
    }

    /// The keys of an owner's secrets.
    pub fn list(&self, owner: &str) -> Result<Vec<SecretKey>, VaultError> {
        keys_of(&self.table, owner)
    }

    /// Keeps a secret, in place of what was there.
    pub fn put(&mut self, key: &SecretKey, value: &SecretBytes) -> Result<(), VaultError> {
        key.check()?;
        let (bytes, max) = (value.expose().len(), VALUE_BYTES_MAX);
        if bytes > max {
            return Err(VaultError::TooLarge { key: key.clone(), bytes, max });
        }
        self.write(key, value.expose())
    }

    /// Removes a secret; false when there was none.
    pub fn delete(&mut self, key: &SecretKey) -> Result<bool, VaultError> {
        Ok(self.table.remove(place(key)).map_err(database)?.is_some())
    }

    /// Removes all secrets of an owner; says how many.
    pub fn delete_owner(&mut self, owner: &str) -> Result<usize, VaultError> {
        let keys = keys_of(&self.table, owner)?;
        for key in &keys {
            self.delete(key)?;
        }
        Ok(keys.len())
    }

    fn write(&mut self, key: &SecretKey, value: &[u8]) -> Result<(), VaultError> {
        let sealed = self.keys.seal(key, value)?;
        self.table.insert(place(key), sealed.as_slice()).map_err(database)?;
        Ok(())
    }

    /// Seals by the current key whatever another key has sealed.
    fn reseal(&mut self) -> Result<(), VaultError> {
        let mut stale = Vec::new();
        for entry in self.table.iter().map_err(database)? {
            let (key, sealed) = entry.map_err(database)?;
            if !self.keys.is_current(sealed.value()) {
                stale.push(parse(key.value())?);
            }
        }
        for key in stale {
            if let Some(value) = self.get(&key)? {
                self.write(&key, value.expose())?;
            }
        }
        Ok(())
    }
}

fn place(key: &SecretKey) -> (&str, &str, &str) {
    (&key.owner, key.kind.as_str(), &key.id)
}

fn probe() -> SecretKey {
    SecretKey { owner: String::new(), kind: SecretKind::Other, id: PROBE.to_owned() }
}

fn parse((owner, kind, id): (&str, &str, &str)) -> Result<SecretKey, VaultError> {
    let unknown = || VaultError::Database(format!("a secret of unknown kind {kind:?} lies in it"));
    Ok(SecretKey::new(SecretKind::parse(kind).ok_or_else(unknown)?, owner, id))
}

fn keys_of(
    table: &impl ReadableTable<Place, &'static [u8]>,
    owner: &str,
) -> Result<Vec<SecretKey>, VaultError> {
    let mut keys = Vec::new();
    for entry in table.range((owner, "", "")..).map_err(database)? {
        let (key, _) = entry.map_err(database)?;
        if key.value().0 != owner {
            break;
        }
        keys.push(parse(key.value())?);
    }
    Ok(keys)
}

fn open_database(path: &Path) -> Result<Database, VaultError> {
    let io = |source| VaultError::File { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_directory(directory, DIRECTORY_MODE).map_err(io)?;
    let file = open_private(path).map_err(io)?;
    let opened = FileBackend::new(file)
        .and_then(|backend| Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend));
    let database = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => VaultError::Locked { path: path.to_owned() },
        other => database(other),
    })?;
    fs::sync_directory(directory).map_err(io)?;
    Ok(database)
}

/// 0600 from its first moment, and again if somebody loosened it.
fn open_private(path: &Path) -> std::io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o777 != FILE_MODE {
        permissions.set_mode(FILE_MODE);
        file.set_permissions(permissions)?;
    }
    Ok(file)
}

/// Makes the tables of a new file; true when nothing has been sealed yet.
fn prepare(db: &Database, path: &Path) -> Result<bool, VaultError> {
    let transaction = db.begin_write().map_err(database)?;
    let empty = {
        let mut meta = transaction.open_table(META).map_err(database)?;
        let found = meta.get(SCHEMA_KEY).map_err(database)?.map_or(SCHEMA, |value| value.value());
        if found > SCHEMA {
            return Err(VaultError::Newer { path: path.to_owned(), found, known: SCHEMA });
        }
        meta.insert(SCHEMA_KEY, SCHEMA).map_err(database)?;
        let secrets = transaction.open_table(SECRETS).map_err(database)?;
        secrets.first().map_err(database)?.is_none()
    };
    commit(transaction)?;
    Ok(empty)
}

/// redb's default durability: fsynced when it returns.
fn commit(transaction: WriteTransaction) -> Result<(), VaultError> {
    transaction.commit().map_err(database)
}

fn database(error: impl Into<redb::Error>) -> VaultError {
    VaultError::Database(error.into().to_string())
}
