//! Is this a signature of this image by somebody who is trusted?

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_oci::Digest;
use jiff::Timestamp;

use crate::payload::Payload;
use crate::{Authority, CertificateError, PublicKey};

/// A signature as it is kept beside an image; nothing of it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub payload: Bytes,
    /// In Base64, as the annotation has it.
    pub signature: String,
    /// PEM, where a certificate and not a key is to be believed.
    pub certificate: Option<String>,
    pub chain: Option<String>,
}

/// Whose signatures count.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub keys: Vec<PublicKey>,
    pub authorities: Vec<Authority>,
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    pub by: Signer,
    /// The name that the image had for who signed it.
    pub reference: String,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Signer {
    /// Whoever has the private half of the key with this fingerprint.
    Key(String),
    Certificate {
        subject: String,
        identities: Vec<String>,
    },
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(fingerprint) => write!(f, "key {fingerprint}"),
            Self::Certificate { subject, identities } if identities.is_empty() => {
                write!(f, "certificate of {subject}")
            }
            Self::Certificate { identities, .. } => write!(f, "certificate of {}", identities.join(", ")),
        }
    }
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error("the signature is no Base64")]
    Encoding,
    #[error("it was made with none of the keys that are trusted")]
    Key,
    #[error("its certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error("it was not made with the key of its certificate")]
    CertificateKey,
    #[error("what was signed is not readable: {0}")]
    Payload(String),
    #[error("it is the signature of another image, {0}")]
    OtherImage(Digest),
}

/// Says who signed the image of this digest, or why the signature does not count.
pub fn verify(
    signature: &Signature,
    digest: &Digest,
    trust: &Trust,
    now: Timestamp,
) -> Result<Verified, Unverified> {
    let bytes = STANDARD.decode(signature.signature.trim()).map_err(|_| Unverified::Encoding)?;
    let by = signer(signature, &bytes, trust, now)?;
    // Not before: what nobody signed is not worth reading.
    let payload = Payload::parse(&signature.payload).map_err(Unverified::Payload)?;
    if payload.digest != *digest {
        return Err(Unverified::OtherImage(payload.digest));
    }
    Ok(Verified { by, reference: payload.reference })
}

fn signer(signature: &Signature, bytes: &[u8], trust: &Trust, now: Timestamp) -> Result<Signer, Unverified> {
    if let Some(key) = trust.keys.iter().find(|key| key.verifies(&signature.payload, bytes)) {
        return Ok(Signer::Key(key.fingerprint()));
    }
    let mut refused = Unverified::Key;
    let Some(certificate) = &signature.certificate else { return Err(refused) };
    for authority in &trust.authorities {
        match authority.trusts(certificate, signature.chain.as_deref(), now) {
            Ok(found) if found.key.verifies(&signature.payload, bytes) => {
                return Ok(Signer::Certificate { subject: found.subject, identities: found.identities });
            }
            Ok(_) => refused = Unverified::CertificateKey,
            Err(error) => refused = error.into(),
        }
    }
    Err(refused)
}
