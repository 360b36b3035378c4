//! The master key file: the current key and, while a rotation is under way, the one before it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_base::fs;
use zeroize::Zeroizing;

use super::seal::{KEY_BYTES, SealingKey};
use super::{SecretBytes, SecretKey, VaultError};

const FIRST_LINE: &str = "gantry-vault-keys 1";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// Two in the worst case; a hand-merged file may have a few more.
const KEYS_MAX: usize = 8;

/// The keys a vault may be sealed with. The first one seals.
pub(super) struct MasterKeys {
    keys: Vec<SealingKey>,
}

impl MasterKeys {
    pub(super) fn generate() -> Result<Self, VaultError> {
        Ok(Self { keys: vec![SealingKey::generate().ok_or(VaultError::Random)?] })
    }

    pub(super) fn load(path: &Path) -> Result<Option<Self>, VaultError> {
        let file = |source| VaultError::File { path: path.to_owned(), source };
        let Some(bytes) = fs::read_optional(path).map_err(file)? else { return Ok(None) };
        let bytes = Zeroizing::new(bytes);
        let malformed = || VaultError::MasterKeyMalformed { path: path.to_owned() };
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed());
        }
        let keys: Option<Vec<SealingKey>> = lines.map(decode).collect();
        let keys = keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len())).ok_or_else(malformed)?;
        Ok(Some(Self { keys }))
    }

    pub(super) fn store(&self, path: &Path) -> Result<(), VaultError> {
        let file = |source| VaultError::File { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_directory(directory, DIRECTORY_MODE).map_err(file)?;
        }
        let mut text = Zeroizing::new(format!("{FIRST_LINE}\n"));
        for key in &self.keys {
            let line = Zeroizing::new(STANDARD.encode(key.bytes()));
            text.push_str(&line);
            text.push('\n');
        }
        fs::write_atomic(path, text.as_bytes(), FILE_MODE).map_err(file)
    }

    /// Is there a key beside the current one, i.e. a rotation to finish?
    pub(super) fn is_rotating(&self) -> bool {
        self.keys.len() > 1
    }

    /// The same keys with a new one in front.
    pub(super) fn with_new(&self) -> Result<Self, VaultError> {
        let mut keys = vec![SealingKey::generate().ok_or(VaultError::Random)?];
        keys.extend(self.keys.iter().map(copy));
        Ok(Self { keys })
    }

    /// The current key alone.
    pub(super) fn current_only(&self) -> Self {
        Self { keys: self.keys.iter().take(1).map(copy).collect() }
    }

    pub(super) fn is_current(&self, sealed: &[u8]) -> bool {
        self.keys.first().is_some_and(|key| key.sealed(sealed))
    }

    pub(super) fn seal(&self, place: &SecretKey, value: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.keys.first().and_then(|key| key.seal(place, value)).ok_or(VaultError::Random)
    }

    pub(super) fn open(&self, place: &SecretKey, sealed: &[u8]) -> Result<SecretBytes, VaultError> {
        let key = self.keys.iter().find(|key| key.sealed(sealed));
        let opened = key.and_then(|key| key.open(place, sealed));
        opened.ok_or_else(|| VaultError::Tampered { key: place.clone() })
    }
}

fn copy(key: &SealingKey) -> SealingKey {
    SealingKey::new(Zeroizing::new(*key.bytes()))
}

fn decode(line: &str) -> Option<SealingKey> {
    let bytes = Zeroizing::new(STANDARD.decode(line).ok()?);
    let bytes: [u8; KEY_BYTES] = bytes.as_slice().try_into().ok()?;
    Some(SealingKey::new(Zeroizing::new(bytes)))
}
