//! Reading secrets out of documents. (`secrecy` offers this for every secret at once, by a feature of the whole
//! workspace; a secret that can be read from anywhere by accident is not wanted.)

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

/// A text that is a secret.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// The same, where there may be none.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}
