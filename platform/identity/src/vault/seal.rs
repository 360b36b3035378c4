//! One sealed value: `version ‖ key id ‖ nonce ‖ ciphertext ‖ tag`, AES-256-GCM (NIST SP 800-38D) with
//! random nonces. The associated data is the key id and the place, so a value opens nowhere else.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{SecretBytes, SecretKey};

pub(super) const KEY_BYTES: usize = 32;
const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// A key that seals and opens.
pub(super) struct SealingKey {
    id: [u8; KEY_ID_BYTES],
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    cipher: LessSafeKey,
}

impl SealingKey {
    pub(super) fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let unbound = UnboundKey::new(&AES_256_GCM, &bytes[..]).expect("the length is the algorithm's");
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes[..]), b"gantry vault key id");
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&mac.as_ref()[..KEY_ID_BYTES]);
        Self { id, bytes, cipher: LessSafeKey::new(unbound) }
    }

    pub(super) fn generate() -> Option<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut bytes[..]).ok()?;
        Some(Self::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Did this key seal the value?
    pub(super) fn sealed(&self, sealed: &[u8]) -> bool {
        sealed.first() == Some(&VERSION) && sealed.get(1..1 + KEY_ID_BYTES) == Some(&self.id)
    }

    /// `None`: no random numbers.
    pub(super) fn seal(&self, place: &SecretKey, value: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + value.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(self.associated(place));
        let tag = self.cipher.seal_in_place_separate_tag(nonce, aad, &mut sealed[HEAD_BYTES..]);
        // Only a length beyond the algorithm's (64 GiB) fails; values are bounded far below.
        sealed.extend_from_slice(tag.ok()?.as_ref());
        Some(sealed)
    }

    /// `None`: not sealed by this key, not for this place, or changed since.
    pub(super) fn open(&self, place: &SecretKey, sealed: &[u8]) -> Option<SecretBytes> {
        if !self.sealed(sealed) {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(sealed.get(1 + KEY_ID_BYTES..HEAD_BYTES)?).ok()?;
        let mut buffer = Zeroizing::new(sealed[HEAD_BYTES..].to_vec());
        let aad = Aad::from(self.associated(place));
        let plain = self.cipher.open_in_place(nonce, aad, &mut buffer).ok()?;
        Some(SecretBytes::new(plain.to_vec()))
    }

    /// Every part with its length before it: no two places read the same.
    fn associated(&self, place: &SecretKey) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.id);
        for part in [place.owner.as_str(), place.kind.as_str(), place.id.as_str()] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}
