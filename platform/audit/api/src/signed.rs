//! What is signed: checkpoints, which vouch for everything up to a record, tombstones, which say why old
//! segments are gone, and indexes, which say where in a segment to look. Ed25519 (RFC 8032) over lines of text.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// Vouches for the trail up to `sequence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    pub schema: u32,
    /// The last frame vouched for.
    pub sequence: u64,
    /// Its hash, in hex.
    pub hash: String,
    pub time: String,
    /// The id of the key that signed.
    pub key: String,
    pub signature: String,
}

/// Takes the place of segments that were removed by policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    pub schema: u32,
    /// The last segment that is gone; all before it are, too.
    pub through_segment: u64,
    /// The last frame that is gone.
    pub through_sequence: u64,
    /// Its hash, in hex.
    pub hash: String,
    pub reason: String,
    pub time: String,
    pub key: String,
    pub signature: String,
}

/// Says that the index of a closed segment was made of its frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedIndex {
    pub schema: u32,
    pub segment: u64,
    /// The hash of the segment's last frame, in hex: of these frames, and of no others.
    pub hash: String,
    /// Of the index, in hex.
    pub sha256: String,
    pub key: String,
    pub signature: String,
}

impl Checkpoint {
    /// Signs for the trail up to a frame.
    pub fn sign(key: &SigningKey, sequence: u64, hash: &[u8; 32], time: String) -> Self {
        let mut checkpoint = Self {
            schema: 1,
            sequence,
            hash: hex::encode(hash),
            time,
            key: key.id().to_owned(),
            signature: String::new(),
        };
        checkpoint.signature = key.sign(&checkpoint.text());
        checkpoint
    }

    fn text(&self) -> String {
        let Self { schema, sequence, hash, time, key, .. } = self;
        format!("gantry audit checkpoint\n{schema}\n{sequence}\n{hash}\n{time}\n{key}\n")
    }

    pub fn is_signed_by(&self, keys: &PublicKeys) -> bool {
        keys.verify(&self.key, &self.text(), &self.signature)
    }
}

impl Tombstone {
    /// Signs for the removal of every segment up to one.
    pub fn sign(
        key: &SigningKey,
        (through_segment, through_sequence): (u64, u64),
        hash: &[u8; 32],
        reason: String,
        time: String,
    ) -> Self {
        let mut tombstone = Self {
            schema: 1,
            through_segment,
            through_sequence,
            hash: hex::encode(hash),
            reason,
            time,
            key: key.id().to_owned(),
            signature: String::new(),
        };
        tombstone.signature = key.sign(&tombstone.text());
        tombstone
    }

    fn text(&self) -> String {
        let Self { schema, through_segment, through_sequence, hash, reason, time, key, .. } = self;
        // The reason is the last line but for the key: it cannot pass for another field.
        format!(
            "gantry audit tombstone\n{schema}\n{through_segment}\n{through_sequence}\n{hash}\n{time}\n{key}\n{reason}\n"
        )
    }

    pub fn is_signed_by(&self, keys: &PublicKeys) -> bool {
        keys.verify(&self.key, &self.text(), &self.signature)
    }
}

impl SignedIndex {
    /// Signs for the index of a segment that ends with `hash`.
    pub fn sign(key: &SigningKey, segment: u64, hash: &[u8; 32], sha256: &[u8; 32]) -> Self {
        let mut index = Self {
            schema: 1,
            segment,
            hash: hex::encode(hash),
            sha256: hex::encode(sha256),
            key: key.id().to_owned(),
            signature: String::new(),
        };
        index.signature = key.sign(&index.text());
        index
    }

    fn text(&self) -> String {
        let Self { schema, segment, hash, sha256, key, .. } = self;
        format!("gantry audit index\n{schema}\n{segment}\n{hash}\n{sha256}\n{key}\n")
    }

    pub fn is_signed_by(&self, keys: &PublicKeys) -> bool {
        keys.verify(&self.key, &self.text(), &self.signature)
    }
}

/// The private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: String,
}

impl SigningKey {
    /// A new key, and its PKCS#8 bytes to keep.
    pub fn generate() -> Option<(Self, Vec<u8>)> {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).ok()?;
        Some((Self::from_pkcs8(document.as_ref())?, document.as_ref().to_vec()))
    }

    pub fn from_pkcs8(bytes: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(bytes).ok()?;
        let id = key_id(pair.public_key().as_ref());
        Some(Self { pair, id })
    }

    /// The first 16 hex digits of the public key's SHA-256.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn public(&self) -> PublicKeys {
        let key = STANDARD.encode(self.pair.public_key().as_ref());
        PublicKeys { schema: 1, ed25519: BTreeMap::from([(self.id.clone(), key)]) }
    }

    fn sign(&self, text: &str) -> String {
        STANDARD.encode(self.pair.sign(text.as_bytes()).as_ref())
    }
}

fn key_id(public: &[u8]) -> String {
    hex::encode(&ring::digest::digest(&ring::digest::SHA256, public).as_ref()[..8])
}

/// Keys that may sign, by id: the content of `keys.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKeys {
    pub schema: u32,
    /// Id to key, base64 of 32 bytes.
    pub ed25519: BTreeMap<String, String>,
}

impl PublicKeys {
    fn verify(&self, id: &str, text: &str, signature: &str) -> bool {
        let decode = |text: &str| STANDARD.decode(text).ok();
        let Some(key) = self.ed25519.get(id).and_then(|key| decode(key)) else { return false };
        let Some(signature) = decode(signature) else { return false };
        key_id(&key) == id
            && UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_signed() {
        let (key, _) = SigningKey::generate().expect("a key");
        let (other, _) = SigningKey::generate().expect("a key");
        let good = Checkpoint::sign(&key, 7, &[1; 32], "2026-01-01T00:00:00Z".to_owned());
        assert!(good.is_signed_by(&key.public()));
        assert!(!good.is_signed_by(&other.public()), "a key nobody knows");
        for bad in [
            Checkpoint { sequence: 8, ..good.clone() },
            Checkpoint { hash: hex::encode([2; 32]), ..good.clone() },
            Checkpoint { time: "2026-01-02T00:00:00Z".to_owned(), ..good.clone() },
            Checkpoint { key: other.id().to_owned(), ..good.clone() },
            Checkpoint { signature: String::new(), ..good.clone() },
        ] {
            assert!(!bad.is_signed_by(&key.public()), "{bad:?}");
        }
        let gone = Tombstone::sign(&key, (3, 900), &[1; 32], "too old".to_owned(), String::new());
        assert!(gone.is_signed_by(&key.public()));
        assert!(!Tombstone { through_segment: 4, ..gone.clone() }.is_signed_by(&key.public()));
        assert!(!Tombstone { reason: "other".to_owned(), ..gone }.is_signed_by(&key.public()));
        let index = SignedIndex::sign(&key, 3, &[1; 32], &[2; 32]);
        assert!(index.is_signed_by(&key.public()));
        assert!(!SignedIndex { segment: 4, ..index.clone() }.is_signed_by(&key.public()));
        assert!(!SignedIndex { hash: hex::encode([2; 32]), ..index.clone() }.is_signed_by(&key.public()));
        assert!(!SignedIndex { sha256: hex::encode([1; 32]), ..index }.is_signed_by(&key.public()));
    }
}
