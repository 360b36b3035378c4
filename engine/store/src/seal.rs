//! Encryption at rest: values of chosen resources are sealed in the file and plain in memory.
//!
//! A sealed value is `0x01 ‖ nonce ‖ ciphertext ‖ tag` (AES-256-GCM, NIST SP 800-38D, random nonces). The key of
//! the object is the associated data, so a value does not open under another name. Plain values are JSON and begin
//! otherwise, which is how a file from before sealing is told apart: what it holds is sealed when it is opened.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::Key;

/// No JSON text begins with it.
const SEALED: u8 = 0x01;
const HEAD_BYTES: usize = 1 + NONCE_LEN;
/// Bytes of a sealing key.
pub const KEY_BYTES: usize = 32;

/// Which resources are sealed, and with what.
pub struct Sealing {
    cipher: LessSafeKey,
    /// Group and resource.
    resources: Vec<(String, String)>,
}

impl Sealing {
    /// Seals the values of `resources` (group and plural name) with `key`.
    pub fn new(key: &[u8; KEY_BYTES], resources: &[(&str, &str)]) -> Self {
        // The length is the algorithm's.
        let unbound = UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes");
        let resources = resources.iter().map(|(group, name)| ((*group).to_owned(), (*name).to_owned()));
        Self { cipher: LessSafeKey::new(unbound), resources: resources.collect() }
    }

    pub(crate) fn covers(&self, key: &Key) -> bool {
        self.resources.iter().any(|(group, resource)| group == key.group() && resource == key.resource())
    }

    pub(crate) fn seal(&self, key: &Key, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + value.len() + AES_256_GCM.tag_len());
        sealed.push(SEALED);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let aad = Aad::from(key.as_str().as_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.cipher.seal_in_place_separate_tag(nonce, aad, &mut sealed[HEAD_BYTES..]);
        sealed.extend_from_slice(tag.map_err(|_| SealError::Random)?.as_ref());
        Ok(sealed)
    }

    pub(crate) fn open(&self, key: &Key, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let unreadable = || SealError::Unreadable(key.clone());
        let nonce = sealed.get(1..HEAD_BYTES).ok_or_else(unreadable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unreadable())?;
        let mut buffer = sealed[HEAD_BYTES..].to_vec();
        let plain = self.cipher.open_in_place(nonce, Aad::from(key.as_str().as_bytes()), &mut buffer);
        let length = plain.map_err(|_| unreadable())?.len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("resources", &self.resources).finish_non_exhaustive()
    }
}

pub(crate) fn is_sealed(value: &[u8]) -> bool {
    value.first() == Some(&SEALED)
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("no random numbers could be had")]
    Random,
    #[error("{0:?} is sealed with another key, or was changed on disk")]
    Unreadable(Key),
    #[error("{0:?} is sealed, and no key was given")]
    NoKey(Key),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_with_its_key_under_its_name_and_unchanged_only() {
        let sealing = Sealing::new(&[7; KEY_BYTES], &[("", "secrets")]);
        let (a, b) = (Key::new("", "secrets", "n", "a"), Key::new("", "secrets", "n", "b"));
        assert!(sealing.covers(&a) && !sealing.covers(&Key::new("", "configmaps", "n", "a")));
        let sealed = sealing.seal(&a, b"{\"x\":1}").expect("sealed");
        assert!(is_sealed(&sealed) && !is_sealed(b"{}"));
        assert_eq!(sealing.open(&a, &sealed).expect("opened"), b"{\"x\":1}");
        assert!(sealing.open(&b, &sealed).is_err(), "another name");
        assert!(Sealing::new(&[8; KEY_BYTES], &[]).open(&a, &sealed).is_err(), "another key");
        for at in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealing.open(&a, &changed).is_err(), "byte {at} changed");
            assert!(sealing.open(&a, &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
