//! A private key under a password, as cosign writes it: JSON with scrypt's parameters and a NaCl secretbox.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::KeyError;

/// What cosign uses; 64 MiB and some tenths of a second for each password that is tried.
const LOG_N: u8 = 16;
const R: u32 = 8;
const P: u32 = 1;
/// Memory that a file from outside may ask for, as `128 · N · r`.
const MEMORY_MAX_BYTES: u64 = 256 << 20;
const P_MAX: u32 = 4;

#[derive(serde::Serialize, serde::Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

pub(crate) fn seal(secret: &[u8], password: &[u8]) -> Result<Vec<u8>, KeyError> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    let random = SystemRandom::new();
    random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(|_| KeyError::Random)?;
    let key = derive(password, &salt, LOG_N, R, P)?;
    let sealed = XSalsa20Poly1305::new(&Key::from(*key))
        .encrypt(&Nonce::from(nonce), secret)
        .map_err(|_| KeyError::Password)?;
    let sealed = Sealed {
        kdf: Kdf {
            name: "scrypt".to_owned(),
            params: Params { n: 1 << LOG_N, r: R, p: P },
            salt: STANDARD.encode(salt),
        },
        cipher: Cipher { name: "nacl/secretbox".to_owned(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(sealed),
    };
    serde_json::to_vec(&sealed).map_err(|error| KeyError::Format(error.to_string()))
}

pub(crate) fn open(sealed: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let format = |what: &str| KeyError::Format(what.to_owned());
    let sealed: Sealed =
        serde_json::from_slice(sealed).map_err(|error| KeyError::Format(error.to_string()))?;
    if sealed.kdf.name != "scrypt" || sealed.cipher.name != "nacl/secretbox" {
        return Err(format("it is sealed in a way that is not known"));
    }
    let Params { n, r, p } = sealed.kdf.params;
    let memory = n.checked_mul(u64::from(r)).and_then(|blocks| blocks.checked_mul(128));
    let fits = memory.is_some_and(|bytes| bytes <= MEMORY_MAX_BYTES) && p <= P_MAX;
    if !n.is_power_of_two() || !fits {
        return Err(format("its scrypt parameters are not possible, or too large"));
    }
    let bytes = |text: &str| STANDARD.decode(text).map_err(|error| KeyError::Format(error.to_string()));
    let (salt, nonce, ciphertext) =
        (bytes(&sealed.kdf.salt)?, bytes(&sealed.cipher.nonce)?, bytes(&sealed.ciphertext)?);
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| format("its nonce has not 24 bytes"))?;
    // A power of two below 2^64 has at most 63 zeros.
    let log_n = n.trailing_zeros() as u8;
    let key = derive(password, &salt, log_n, r, p)?;
    let opened = XSalsa20Poly1305::new(&Key::from(*key)).decrypt(&Nonce::from(nonce), ciphertext.as_slice());
    opened.map(Zeroizing::new).map_err(|_| KeyError::Password)
}

fn derive(password: &[u8], salt: &[u8], log_n: u8, r: u32, p: u32) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let params = scrypt::Params::new(log_n, r, p, 32).map_err(|error| KeyError::Format(error.to_string()))?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(password, salt, &params, &mut key[..])
        .map_err(|error| KeyError::Format(error.to_string()))?;
    Ok(key)
}
