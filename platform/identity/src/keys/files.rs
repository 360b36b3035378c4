//! Keys as files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_base::fs;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use zeroize::Zeroizing;

use super::{KeyError, SigningKey};

const PREFIX: &str = "token-";
const SUFFIX: &str = ".key";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const PEM_LINE_CHARS: usize = 64;

/// Every key of the directory, which is made where it is absent. Other files are left alone.
pub(super) fn load(directory: &Path) -> Result<Vec<Arc<SigningKey>>, KeyError> {
    let file = |source| KeyError::File { path: directory.to_owned(), source };
    fs::create_directory(directory, DIRECTORY_MODE).map_err(file)?;
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(file)? {
        let path = entry.map_err(file)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some((signs_from, id)) = name.and_then(parse_name) {
            keys.push(Arc::new(read(&path, signs_from, id)?));
        }
    }
    Ok(keys)
}

/// Makes a key; it is in its file when this returns.
pub(super) fn make(directory: &Path, signs_from: i64) -> Result<Arc<SigningKey>, KeyError> {
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
    let der = der.map_err(|_| KeyError::Generate)?;
    let key = SigningKey::from_der(der.as_ref(), signs_from).ok_or(KeyError::Generate)?;
    let path = path_of(directory, &key);
    let written = fs::write_atomic(&path, to_pem(der.as_ref()).as_bytes(), FILE_MODE);
    written.map_err(|source| KeyError::File { path, source })?;
    tracing::info!(kid = key.id(), signs_from, "a key for tokens was made");
    Ok(Arc::new(key))
}

pub(super) fn remove(directory: &Path, key: &SigningKey) -> Result<(), KeyError> {
    let path = path_of(directory, key);
    let removed = fs::remove_all(&path).and_then(|()| fs::sync_directory(directory));
    removed.map_err(|source| KeyError::File { path, source })?;
    tracing::info!(kid = key.id(), "a key for tokens was removed");
    Ok(())
}

fn path_of(directory: &Path, key: &SigningKey) -> PathBuf {
    directory.join(format!("{PREFIX}{}-{}{SUFFIX}", key.signs_from(), key.id()))
}

fn parse_name(name: &str) -> Option<(i64, &str)> {
    let (signs_from, id) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
    Some((signs_from.parse().ok()?, id))
}

fn read(path: &Path, signs_from: i64, id: &str) -> Result<SigningKey, KeyError> {
    let pem = std::fs::read(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
    let der = from_pem(&Zeroizing::new(pem));
    let key = der.and_then(|der| SigningKey::from_der(&der, signs_from)).filter(|key| key.id() == id);
    key.ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
}

fn to_pem(der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(format!("{PEM_BEGIN}\n"));
    for line in body.as_bytes().chunks(PEM_LINE_CHARS) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str(PEM_END);
    pem.push('\n');
    pem
}

fn from_pem(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let body = std::str::from_utf8(pem).ok()?.split_once(PEM_BEGIN)?.1.split_once(PEM_END)?.0;
    let body: Zeroizing<String> = Zeroizing::new(body.chars().filter(|c| !c.is_whitespace()).collect());
    STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}
