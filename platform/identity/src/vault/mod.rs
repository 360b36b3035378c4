//! Secrets apart from API objects: password records, TOTP seeds, secrets of credentials and providers.
//!
//! One file (redb), each value sealed by AES-256-GCM under a master key that lies elsewhere. A value is
//! bound to its key: a record that is copied under another owner does not open. Nothing here is ever an
//! API object, so nothing here can be read by `get -o yaml`, a watch or a backup of objects.
//!
//! A write is on disk before it is acknowledged. Calls run on blocking threads; a caller that goes away
//! does not undo a write that has begun.

mod file;
mod master;
mod seal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use zeroize::{Zeroize, Zeroizing};

use file::VaultFile;
pub use file::VaultTransaction;

/// The largest secret: credential blobs and key files are far smaller.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The longest owner or id.
pub const NAME_BYTES_MAX: usize = 256;
/// Calls that run at once; more wait their turn, so that they cannot use up the blocking threads.
const CALLS_MAX: usize = 32;

/// What a secret is for. The words are part of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretKind {
    /// A user's password hashes with their times.
    Password,
    /// A user's TOTP seed, or the last time step that was used.
    Totp,
    /// The hash of an application credential's secret.
    ApplicationCredential,
    /// The blob of a Keystone credential (`ec2`, `cert`, `totp`, …).
    Credential,
    /// The secret of an OAuth1 consumer or access token.
    OAuth,
    /// What we show to a directory or a provider: bind password, client secret.
    Provider,
    /// Anything else a part of identity keeps.
    Other,
}

impl SecretKind {
    const ALL: [Self; 7] = [
        Self::Password,
        Self::Totp,
        Self::ApplicationCredential,
        Self::Credential,
        Self::OAuth,
        Self::Provider,
        Self::Other,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "totp",
            Self::ApplicationCredential => "application-credential",
            Self::Credential => "credential",
            Self::OAuth => "oauth",
            Self::Provider => "provider",
            Self::Other => "other",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Where a secret lies: whose it is, what for, and which one of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretKey {
    /// The id of the object the secret goes away with: a user, a consumer, a provider.
    pub owner: String,
    pub kind: SecretKind,
    /// Which of the owner's secrets of the kind; empty where there is but one.
    pub id: String,
}

impl SecretKey {
    /// The `id`th secret of a kind.
    pub fn new(kind: SecretKind, owner: &str, id: &str) -> Self {
        Self { owner: owner.to_owned(), kind, id: id.to_owned() }
    }

    /// The only secret of a kind.
    pub fn only(kind: SecretKind, owner: &str) -> Self {
        Self::new(kind, owner, "")
    }

    fn check(&self) -> Result<(), VaultError> {
        let fits = |name: &str| name.len() <= NAME_BYTES_MAX;
        if self.owner.is_empty() || !fits(&self.owner) || !fits(&self.id) {
            return Err(VaultError::BadKey { key: self.clone() });
        }
        Ok(())
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:?}", self.kind.as_str(), self.owner)?;
        if self.id.is_empty() { Ok(()) } else { write!(f, " ({:?})", self.id) }
    }
}

/// Bytes that are wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over; the vector is wiped in the end.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Each call is a place to look at in a review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for SecretBytes {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl Zeroize for SecretBytes {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why a secret could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is in use by another process")]
    Locked { path: PathBuf },
    #[error("{path} has schema {found}; this version knows {known}: run the newer version, or restore")]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("the vault {vault} has secrets, but its master key {path} is gone: restore it from the backup")]
    MasterKeyMissing { vault: PathBuf, path: PathBuf },
    #[error("{path} is no master key file")]
    MasterKeyMalformed { path: PathBuf },
    #[error("the master key {path} is not the one that {vault} was sealed with")]
    MasterKeyWrong { vault: PathBuf, path: PathBuf },
    #[error("the secret {key} does not open: the vault was changed from outside")]
    Tampered { key: SecretKey },
    #[error("the secret {key} has {bytes} bytes; {max} are allowed")]
    TooLarge { key: SecretKey, bytes: usize, max: usize },
    #[error("a secret cannot lie under {key}: owner and id must be short, the owner not empty")]
    BadKey { key: SecretKey },
    #[error("no random numbers could be had")]
    Random,
    #[error("the vault failed: {0}")]
    Database(String),
}

/// The vault of one instance. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    file: Arc<VaultFile>,
    calls: Arc<Semaphore>,
}

impl Vault {
    /// Opens the vault in `path` with the master key in `master_key`; makes both where neither is. A
    /// rotation that was cut short is finished. Blocks: call it at start, or from a blocking thread.
    pub fn open(path: &Path, master_key: &Path) -> Result<Self, VaultError> {
        let file = Arc::new(VaultFile::open(path, master_key)?);
        Ok(Self { file, calls: Arc::new(Semaphore::new(CALLS_MAX)) })
    }

    /// The secret under `key`.
    pub async fn get(&self, key: SecretKey) -> Result<Option<SecretBytes>, VaultError> {
        self.run(move |file| file.get(&key)).await
    }

    /// The keys of an owner's secrets.
    pub async fn list(&self, owner: &str) -> Result<Vec<SecretKey>, VaultError> {
        let owner = owner.to_owned();
        self.run(move |file| file.list(&owner)).await
    }

    /// Keeps a secret, in place of what was there.
    pub async fn put(&self, key: SecretKey, value: SecretBytes) -> Result<(), VaultError> {
        self.transaction(move |vault| vault.put(&key, &value)).await
    }

    /// Keeps `value` (or removes, for `None`) only if what is there is `expected`. False: it is not, and
    /// nothing has been changed.
    pub async fn replace(
        &self,
        key: SecretKey,
        expected: Option<SecretBytes>,
        value: Option<SecretBytes>,
    ) -> Result<bool, VaultError> {
        self.transaction(move |vault| {
            if vault.get(&key)? != expected {
                return Ok(false);
            }
            match &value {
                Some(value) => vault.put(&key, value)?,
                None => vault.delete(&key).map(drop)?,
            }
            Ok(true)
        })
        .await
    }

    /// Removes a secret; false when there was none.
    pub async fn delete(&self, key: SecretKey) -> Result<bool, VaultError> {
        self.transaction(move |vault| vault.delete(&key)).await
    }

    /// Removes all secrets of an owner; says how many.
    pub async fn delete_owner(&self, owner: &str) -> Result<usize, VaultError> {
        let owner = owner.to_owned();
        self.transaction(move |vault| vault.delete_owner(&owner)).await
    }

    /// Runs `work` with the vault to itself; all its changes are kept, or none when it fails. It runs on
    /// a blocking thread and holds up every other writer: read and write, compute elsewhere.
    pub async fn transaction<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<VaultError> + Send + 'static,
        F: FnOnce(&mut VaultTransaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.run(move |file| file.transaction(work)).await
    }

    /// Makes a new master key and seals every secret anew with it. The old key is kept in the key file
    /// until the last secret is sealed by the new one.
    pub async fn rotate_master_key(&self) -> Result<(), VaultError> {
        self.run(VaultFile::rotate).await
    }

    /// Reads and commits until now.
    #[cfg(test)]
    pub(crate) fn done(&self) -> (u64, u64) {
        self.file.done.both()
    }

    async fn run<T, E>(&self, work: impl FnOnce(&VaultFile) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<VaultError> + Send + 'static,
    {
        let stopped = |what: &str| VaultError::Database(what.to_owned());
        let call = self.calls.clone().acquire_owned().await.map_err(|_| stopped("it is closed"))?;
        let file = self.file.clone();
        // The permit goes with the work: a caller that is dropped does not make room too early.
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&file);
            drop(call);
            done
        });
        done.await.map_err(|error| stopped(&error.to_string()))?
    }
}

/// What a vault has done, for tests that compare what sign-ins cost.
#[cfg(test)]
#[derive(Default)]
struct Done {
    reads: std::sync::atomic::AtomicU64,
    commits: std::sync::atomic::AtomicU64,
}

#[cfg(test)]
impl Done {
    fn read(&self) {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn commit(&self) {
        self.commits.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn both(&self) -> (u64, u64) {
        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::SeqCst);
        (load(&self.reads), load(&self.commits))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}
