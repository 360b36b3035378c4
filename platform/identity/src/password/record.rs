//! What is kept of one user's passwords, sealed in the vault.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::vault::SecretBytes;

const SCHEMA: u32 = 1;
/// More than any sensible `unique_last_password_count`.
const PREVIOUS_MAX: usize = 64;

/// Who has set a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetBy {
    /// The user, who gave the one before.
    User,
    /// Whoever may update the user: history and minimum age do not bind them.
    Administrator,
}

/// One password as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPassword {
    /// PHC string.
    pub hash: String,
    pub created: Timestamp,
    /// From then on it is good for changing it only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<Timestamp>,
    pub set_by: SetBy,
}

/// A user's password and those before it, newest first.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordRecord {
    schema: u32,
    pub current: StoredPassword,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub previous: Vec<StoredPassword>,
}

impl PasswordRecord {
    /// A user's first password.
    pub fn first(password: StoredPassword) -> Self {
        Self { schema: SCHEMA, current: password, previous: Vec::new() }
    }

    /// The record after a change; `history` passwords are kept, the new one included.
    pub fn changed(self, password: StoredPassword, history: usize) -> Self {
        let mut previous = self.previous;
        previous.insert(0, self.current);
        previous.truncate(history.min(PREVIOUS_MAX).saturating_sub(1));
        Self { schema: SCHEMA, current: password, previous }
    }

    /// The hashes of the last `count` passwords, the present one first.
    pub fn last(&self, count: usize) -> Vec<String> {
        let all = std::iter::once(&self.current).chain(&self.previous);
        all.take(count).map(|password| password.hash.clone()).collect()
    }

    /// Reads a record of the vault; `None`: it is none that this version reads.
    pub fn from_secret(secret: &SecretBytes) -> Option<Self> {
        serde_json::from_slice::<Self>(secret.expose()).ok().filter(|record| record.schema <= SCHEMA)
    }

    /// The record as the vault keeps it.
    pub fn to_secret(&self) -> SecretBytes {
        SecretBytes::new(serde_json::to_vec(self).expect("strings and times are always JSON"))
    }
}

impl std::fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("StoredPassword");
        shown.field("created", &self.created).field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PasswordRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordRecord").field("current", &self.current).finish_non_exhaustive()
    }
}
