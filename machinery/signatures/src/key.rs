//! Keys: made and read as cosign does, and used by ring.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ED25519, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use zeroize::Zeroizing;

use crate::{pem, sealed};

/// Names of the PEM blocks of private keys; cosign 2 writes the first, earlier ones and other tools the second.
const SEALED: &[&str] = &["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const PLAIN: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// What stands before a point of P-256 in a `SubjectPublicKeyInfo` (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("there is no block of PEM with a {0} key")]
    Absent(&'static str),
    #[error("the key is not readable: {0}")]
    Format(String),
    #[error("keys of this kind are not supported: ECDSA on P-256 or P-384, Ed25519 and RSA are")]
    Kind,
    #[error("the password does not open the key")]
    Password,
    #[error("the key is under a password, and none was given")]
    PasswordMissing,
    #[error("the system gives no random bytes")]
    Random,
}

/// A private key that signs: ECDSA on P-256.
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({:?})", self.public())
    }
}

impl PrivateKey {
    pub fn generate() -> Result<Self, KeyError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Self::from_pkcs8(pkcs8.map_err(|_| KeyError::Random)?.as_ref())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new());
        let pair = pair.map_err(|error| KeyError::Format(format!("no ECDSA key on P-256 ({error})")))?;
        Ok(Self { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    /// Whether a text has a key that a password is needed for.
    pub fn is_sealed(text: &str) -> bool {
        pem::blocks(text).iter().any(|block| SEALED.contains(&block.label.as_str()))
    }

    /// Reads what cosign and `openssl pkcs8` write.
    pub fn from_pem(text: &str, password: Option<&[u8]>) -> Result<Self, KeyError> {
        for block in pem::blocks(text) {
            if SEALED.contains(&block.label.as_str()) {
                let password = password.ok_or(KeyError::PasswordMissing)?;
                return Self::from_pkcs8(&sealed::open(&block.contents, password)?);
            }
            if block.label == PLAIN {
                return Self::from_pkcs8(&Zeroizing::new(block.contents));
            }
        }
        Err(KeyError::Absent("private"))
    }

    /// The key under a password, which may be empty, as `cosign generate-key-pair` writes it.
    pub fn to_pem(&self, password: &[u8]) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(pem::write(SEALED[0], &sealed::seal(&self.pkcs8, password)?)))
    }

    pub fn public(&self) -> PublicKey {
        let point = self.pair.public_key().as_ref();
        let spki = [&P256_PREFIX[..], point].concat();
        PublicKey { spki, raw: point.to_vec(), kind: Kind::P256 }
    }

    /// A signature in ASN.1, of the SHA-256 of the message.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signed = self.pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Random)?;
        Ok(signed.as_ref().to_vec())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// A public key that verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    raw: Vec<u8>,
    kind: Kind,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.kind, self.fingerprint())
    }
}

impl PublicKey {
    /// Reads the first `PUBLIC KEY` of a text.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let blocks = pem::blocks(text);
        let block = blocks.iter().find(|b| b.label == PUBLIC).ok_or(KeyError::Absent("public"))?;
        Self::from_spki(&block.contents)
    }

    /// Reads a DER `SubjectPublicKeyInfo`.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let parsed = SubjectPublicKeyInfo::from_der(der);
        let (rest, info) = parsed.map_err(|error| KeyError::Format(error.to_string()))?;
        if !rest.is_empty() {
            return Err(KeyError::Format("something follows it".to_owned()));
        }
        let algorithm = &info.algorithm.algorithm;
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let kind = match curve {
            Some(curve) if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_EC_P256 => Kind::P256,
            Some(curve) if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_NIST_EC_P384 => {
                Kind::P384
            }
            _ if *algorithm == OID_SIG_ED25519 => Kind::Ed25519,
            _ if *algorithm == OID_PKCS1_RSAENCRYPTION => Kind::Rsa,
            _ => return Err(KeyError::Kind),
        };
        Ok(Self { spki: der.to_vec(), raw: info.subject_public_key.data.to_vec(), kind })
    }

    pub fn to_pem(&self) -> String {
        pem::write(PUBLIC, &self.spki)
    }

    /// The digest of the key, by which people tell keys apart.
    pub fn fingerprint(&self) -> String {
        gantry_oci::Digest::of(&self.spki).to_string()
    }

    /// Signatures of cosign are of a SHA-256, whatever the key is; some tools take what fits the curve.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, &self.raw).verify(message, signature).is_ok()
        };
        match self.kind {
            Kind::P256 => by(&ECDSA_P256_SHA256_ASN1),
            Kind::P384 => by(&ECDSA_P384_SHA256_ASN1) || by(&ECDSA_P384_SHA384_ASN1),
            Kind::Ed25519 => by(&ED25519),
            Kind::Rsa => by(&RSA_PKCS1_2048_8192_SHA256),
        }
    }
}
