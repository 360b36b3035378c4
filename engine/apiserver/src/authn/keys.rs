//! The key that signs service account tokens: P-256, PKCS#8 in PEM, one file.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gantry_base::fs;
use jsonwebtoken::{DecodingKey, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const FILE_NAME: &str = "service-account.key";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const PEM_LINE_CHARS: usize = 64;
/// An uncompressed P-256 point: `04`, x, y (SEC 1, 2.3.3).
const POINT_BYTES: usize = 65;

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read or write {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} does not hold a P-256 private key in PEM (PKCS#8)")]
    Malformed { path: PathBuf },
    #[error("a key could not be generated")]
    Generate,
}

/// A signing key, ready for use, with what others verify by.
pub(crate) struct SigningKey {
    pub(crate) id: String,
    pub(crate) encoding: EncodingKey,
    pub(crate) decoding: DecodingKey,
    x: String,
    y: String,
}

impl SigningKey {
    /// Reads the key of `directory`; makes one, readable by the owner alone, where there is none.
    pub(crate) fn load_or_create(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(FILE_NAME);
        let io = |source| KeyError::Io { path: path.clone(), source };
        if let Some(pem) = fs::read_optional(&path).map_err(io)? {
            let der = from_pem(&pem).ok_or_else(|| KeyError::Malformed { path: path.clone() })?;
            return Self::from_der(&der).ok_or(KeyError::Malformed { path });
        }
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| KeyError::Generate)?;
        let key = Self::from_der(der.as_ref()).ok_or(KeyError::Generate)?;
        fs::create_directory(directory, DIRECTORY_MODE).map_err(io)?;
        fs::write_atomic(&path, to_pem(der.as_ref()).as_bytes(), FILE_MODE).map_err(io)?;
        Ok(key)
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()).ok()?;
        let point = pair.public_key().as_ref();
        if point.len() != POINT_BYTES {
            return None;
        }
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        Some(Self {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(point)),
            encoding: EncodingKey::from_ec_der(der),
            decoding: DecodingKey::from_ec_components(&x, &y).ok()?,
            x,
            y,
        })
    }

    /// The public half as a JSON Web Key (RFC 7517).
    pub(crate) fn to_jwk(&self) -> Value {
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": self.x, "y": self.y,
        })
    }
}

fn to_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = format!("{PEM_BEGIN}\n");
    for line in body.as_bytes().chunks(PEM_LINE_CHARS) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str(PEM_END);
    pem.push('\n');
    pem
}

fn from_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let pem = std::str::from_utf8(pem).ok()?;
    let body = pem.split_once(PEM_BEGIN)?.1.split_once(PEM_END)?.0;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(body).ok()
}
