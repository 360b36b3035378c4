//! Passwords: argon2id hashes (RFC 9106) made on threads of their own, the operator's rules, and what is
//! kept of a user's passwords.
//!
//! [`PasswordHasher`] is the bounded pool, [`PasswordPolicy`] the rules as pure functions over a
//! [`PasswordRecord`], [`Passwords`] the three with vault and lock-out: verify, set, change.

mod hash;
mod policy;
mod pool;
mod queue;
mod record;
mod regexes;
mod service;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

pub use hash::{HashCost, Workspace};
pub use policy::{
    PasswordOptions, PasswordPolicy, PasswordState, PolicyError, SecurityCompliance, Violation,
};
pub use pool::{HasherSettings, PasswordHasher, Verified};
pub use record::{PasswordRecord, SetBy, StoredPassword};
pub use service::{ChangeError, Login, LoginError, Passwords};

/// The longest password, Keystone's `max_password_length`. Argon2 has no limit of its own that matters.
pub const PASSWORD_BYTES_MAX: usize = 4096;

const GENERATED_CHARS: usize = 24;
const GENERATED_TRIES_MAX: usize = 1000;
/// Without what is mistaken for another when read aloud or off a screen.
const GENERATED_ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789-_";

/// A password as a person or a program gives it: never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes the text over; it is wiped in the end.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Each call is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// 24 characters of a 57-letter alphabet, about 140 bits, with a letter of both cases, a digit and a
    /// mark, which is not the first. `None`: no random numbers.
    pub fn generate() -> Option<Self> {
        (0..GENERATED_TRIES_MAX).find_map(|_| Self::random().filter(Self::is_mixed))
    }

    fn random() -> Option<Self> {
        use ring::rand::{SecureRandom, SystemRandom};
        let alphabet = GENERATED_ALPHABET.len();
        // Bytes from here on would make the first letters likelier than the last.
        let fair = 256 / alphabet * alphabet;
        let mut text = Zeroizing::new(String::with_capacity(GENERATED_CHARS));
        let mut bytes = Zeroizing::new([0_u8; 2 * GENERATED_CHARS]);
        while text.len() < GENERATED_CHARS {
            SystemRandom::new().fill(&mut bytes[..]).ok()?;
            let fitting = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
            let letters = fitting.map(|byte| char::from(GENERATED_ALPHABET[byte % alphabet]));
            let missing = GENERATED_CHARS - text.len();
            text.extend(letters.take(missing));
        }
        Some(Self(text))
    }

    fn is_mixed(&self) -> bool {
        let has = |class: fn(&char) -> bool| self.0.chars().any(|c| class(&c));
        // A word that begins with a dash is an option to most programs.
        self.0.starts_with(|c: char| c.is_ascii_alphanumeric())
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_digit)
            && has(char::is_ascii_punctuation)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> serde::Deserialize<'de> for Password {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

/// Why a password could not be hashed or compared. None of them says anything about the password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("too many logins at this moment: try again in {} s", retry_after.as_secs())]
    Busy { retry_after: Duration },
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("a stored password hash is not an argon2id hash that this version reads")]
    MalformedHash,
    #[error("password hashing cannot cost {0}")]
    Cost(String),
    #[error("no random numbers could be had")]
    Random,
    #[error("the password threads have stopped")]
    Stopped,
}
