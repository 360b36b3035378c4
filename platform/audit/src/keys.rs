//! The key that signs checkpoints, and the list of keys that ever did.

use std::path::Path;

use gantry_audit_api::files;
use gantry_audit_api::signed::{PublicKeys, SigningKey};
use gantry_base::fs as durable;

use crate::config::Config;
use crate::errors::OpenError;

/// Opens the key, or makes one; its public half joins `keys.json`.
pub(crate) fn open(config: &Config) -> Result<SigningKey, OpenError> {
    let path = &config.key;
    let key = match durable::read_optional(path).map_err(OpenError::io(path))? {
        Some(bytes) => SigningKey::from_pkcs8(&bytes).ok_or_else(|| OpenError::Key(path.clone()))?,
        None => {
            let (key, bytes) = SigningKey::generate().ok_or_else(|| OpenError::Key(path.clone()))?;
            durable::write_atomic(path, &bytes, 0o600).map_err(OpenError::io(path))?;
            key
        }
    };
    publish(&config.root, &key)?;
    Ok(key)
}

/// Keys of the past stay: their signatures are in the trail.
fn publish(root: &Path, key: &SigningKey) -> Result<(), OpenError> {
    let path = root.join(files::KEYS);
    let mut keys = match durable::read_optional(&path).map_err(OpenError::io(&path))? {
        None => PublicKeys { schema: 1, ..PublicKeys::default() },
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| OpenError::File { path: path.clone(), why: error.to_string() })?,
    };
    if keys.ed25519.contains_key(key.id()) {
        return Ok(());
    }
    keys.ed25519.extend(key.public().ed25519);
    let text = serde_json::to_string_pretty(&keys)
        .map_err(|error| OpenError::File { path: path.clone(), why: error.to_string() })?;
    durable::write_atomic(&path, text.as_bytes(), 0o644).map_err(OpenError::io(&path))
}
