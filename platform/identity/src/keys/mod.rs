//! The keys that sign tokens: P-256 with SHA-256 (ES256, RFC 7518, 3.4).
//!
//! Why ES256, and nothing beside it: tokens are verified by others too. kube-apiserver takes RS* and ES*
//! from an OIDC issuer, not EdDSA; RSA signatures would make every token 256 bytes longer and far dearer
//! to make. Ed25519 would make a first verification a little cheaper (`examples/identity.rs` measures both);
//! repeated ones are answered from memory. One algorithm leaves nothing to confuse.
//!
//! A key is a file `token-SIGNS_FROM-KID.key` (PKCS#8 in PEM, 0600); SIGNS_FROM is in seconds since the
//! epoch. The youngest key whose time has come signs. A key is published before it signs, so that
//! verifiers that cache the key set know it in time, and stays published until the last token it signed
//! has expired.

mod documents;
mod files;
mod plan;
mod signing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

pub use documents::openid_configuration;
pub use signing::SigningKey;

/// When keys are made, when they begin to sign, how long they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySchedule {
    /// How long a key signs.
    pub rotation: SignedDuration,
    /// How long before that it is published: longer than verifiers cache the key set.
    pub publish_ahead: SignedDuration,
    /// How long a key is kept after its successor began: the longest lifetime of a token, and the time for
    /// which expired tokens are still read (Keystone's `allow_expired_window`).
    pub keep: SignedDuration,
}

impl Default for KeySchedule {
    fn default() -> Self {
        let hours = SignedDuration::from_hours;
        Self { rotation: hours(30 * 24), publish_ahead: hours(2), keep: hours(24 + 48) }
    }
}

/// Why keys could not be read, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} does not hold the P-256 private key (PKCS#8 in PEM) that its name says")]
    Malformed { path: PathBuf },
    #[error("a key could not be generated")]
    Generate,
    #[error("there is no key {kid:?}")]
    Unknown { kid: String },
    #[error("the key {kid:?} is the only one: make another first")]
    Last { kid: String },
}

/// The keys as they are at one time; never empty. Oldest first.
pub struct KeySet {
    keys: Vec<Arc<SigningKey>>,
    by_id: HashMap<String, Arc<SigningKey>>,
    jwks: Arc<str>,
}

impl KeySet {
    fn new(mut keys: Vec<Arc<SigningKey>>) -> Self {
        keys.sort_by(|a, b| (a.signs_from(), a.id()).cmp(&(b.signs_from(), b.id())));
        let by_id = keys.iter().map(|key| (key.id().to_owned(), key.clone())).collect();
        let jwks = documents::jwks(&keys).to_string().into();
        Self { keys, by_id, jwks }
    }

    /// The key that signs now.
    pub fn signing(&self, now: Timestamp) -> &Arc<SigningKey> {
        &self.keys[plan::signing(&self.starts(), now.as_second())]
    }

    /// The key of this id, for verification.
    pub fn get(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.by_id.get(kid)
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[Arc<SigningKey>] {
        &self.keys
    }

    /// The key set as it is published (RFC 7517).
    pub fn jwks(&self) -> Arc<str> {
        self.jwks.clone()
    }

    fn starts(&self) -> Vec<i64> {
        self.keys.iter().map(|key| key.signs_from()).collect()
    }
}

/// The keys of one instance and their files.
pub struct KeyRing {
    directory: PathBuf,
    schedule: KeySchedule,
    set: ArcSwap<KeySet>,
    /// One change of the files at a time.
    changing: Mutex<()>,
    /// Keys that were made and of which nobody was told.
    made: Mutex<Vec<Arc<SigningKey>>>,
}

impl KeyRing {
    /// Reads the keys in `directory` (made 0700), makes the first one there, and does what is due.
    pub fn open(directory: &Path, schedule: KeySchedule, now: Timestamp) -> Result<Self, KeyError> {
        let mut keys = files::load(directory)?;
        let mut made = Vec::new();
        if keys.is_empty() {
            let first = files::make(directory, now.as_second())?;
            made.push(first.clone());
            keys.push(first);
        }
        let ring = Self {
            directory: directory.to_owned(),
            schedule,
            set: ArcSwap::from_pointee(KeySet::new(keys)),
            changing: Mutex::new(()),
            made: Mutex::new(made),
        };
        ring.maintain(now)?;
        Ok(ring)
    }

    /// The keys as they are now. Cheap.
    pub fn set(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.set.load()
    }

    /// The published key set as a value.
    pub fn jwks(&self) -> Value {
        documents::jwks(self.set().all())
    }

    /// Makes the key that is due, removes those that nothing refers to any more; says when to come again.
    /// Blocks for a few file operations.
    pub fn maintain(&self, now: Timestamp) -> Result<Timestamp, KeyError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.set.load_full();
        let plan = plan::plan(&set.starts(), &self.schedule, now.as_second());
        if plan.make.is_some() || !plan.remove.is_empty() {
            let mut keys = set.keys.clone();
            if let Some(signs_from) = plan.make {
                let key = files::make(&self.directory, signs_from)?;
                self.tell_of(&key);
                keys.push(key);
            }
            let removed: Vec<_> = plan.remove.iter().map(|at| set.keys[*at].clone()).collect();
            keys.retain(|key| !removed.iter().any(|gone| gone.id() == key.id()));
            self.set.store(Arc::new(KeySet::new(keys)));
            for key in removed {
                files::remove(&self.directory, &key)?;
            }
        }
        let next = plan::next(&self.set.load().starts(), &self.schedule, now.as_second());
        Ok(Timestamp::from_second(next).unwrap_or(Timestamp::MAX))
    }

    /// The keys that were made since the last call, for the audit trail.
    pub fn take_made(&self) -> Vec<Arc<SigningKey>> {
        std::mem::take(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell_of(&self, key: &Arc<SigningKey>) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
    }

    /// Makes a key that signs at once, e.g. because the one before may be known to others. Verifiers that
    /// cache the key set may not know it for a while. Gives its id.
    pub fn rotate_now(&self, now: Timestamp) -> Result<String, KeyError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.set.load_full();
        // Keys that were to sign later would take over at their time; this one is in their place.
        let (mut keys, later): (Vec<_>, Vec<_>) =
            set.keys.iter().cloned().partition(|key| key.signs_from() <= now.as_second());
        let key = files::make(&self.directory, now.as_second())?;
        self.tell_of(&key);
        keys.push(key.clone());
        self.set.store(Arc::new(KeySet::new(keys)));
        for key in later {
            files::remove(&self.directory, &key)?;
        }
        Ok(key.id().to_owned())
    }

    /// Takes a key away: every token it signed is void at once.
    pub fn withdraw(&self, kid: &str) -> Result<(), KeyError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.set.load_full();
        let key = set.get(kid).ok_or_else(|| KeyError::Unknown { kid: kid.to_owned() })?;
        if set.keys.len() == 1 {
            return Err(KeyError::Last { kid: kid.to_owned() });
        }
        let left = set.keys.iter().filter(|key| key.id() != kid).cloned().collect();
        self.set.store(Arc::new(KeySet::new(left)));
        files::remove(&self.directory, key)
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("directory", &self.directory).finish_non_exhaustive()
    }
}
