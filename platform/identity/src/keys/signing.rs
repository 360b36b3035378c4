//! One key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Length of an ES256 signature: r and s (RFC 7518, 3.4).
pub(crate) const SIGNATURE_BYTES: usize = 64;
/// An uncompressed P-256 point: `04`, x, y (SEC 1, 2.3.3).
const POINT_BYTES: usize = 65;
/// Letters of the thumbprint that are the key's id: 96 bits. Every token carries it.
const ID_CHARS: usize = 16;

/// A private key, ready for use, with what others verify by.
pub struct SigningKey {
    id: String,
    signs_from: i64,
    pair: EcdsaKeyPair,
    point: [u8; POINT_BYTES],
    /// `{"alg":"ES256","kid":…,"typ":"JWT"}` in base64url, as it stands in every token of this key.
    header: String,
}

impl SigningKey {
    pub(super) fn from_der(der: &[u8], signs_from: i64) -> Option<Self> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()).ok()?;
        let point: [u8; POINT_BYTES] = pair.public_key().as_ref().try_into().ok()?;
        let id = thumbprint(&point)[..ID_CHARS].to_owned();
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{id}","typ":"JWT"}}"#));
        Some(Self { id, signs_from, pair, point, header })
    }

    /// The `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Since when it signs, in seconds since the epoch.
    pub fn signs_from(&self) -> i64 {
        self.signs_from
    }

    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// `None`: no random numbers.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
        self.pair.sign(&SystemRandom::new(), message).ok()?.as_ref().try_into().ok()
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }

    /// The public half as a JSON Web Key (RFC 7517).
    pub fn to_jwk(&self) -> Value {
        let (x, y) = coordinates(&self.point);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y,
        })
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn coordinates(point: &[u8; POINT_BYTES]) -> (String, String) {
    (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]))
}

/// RFC 7638: the members that matter, in lexical order.
fn thumbprint(point: &[u8; POINT_BYTES]) -> String {
    let (x, y) = coordinates(point);
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}
