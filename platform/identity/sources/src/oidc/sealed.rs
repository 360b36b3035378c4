//! A sign-in under way, kept by the browser in a sealed cookie: nothing is stored here until it comes back, so
//! that beginning any number of sign-ins costs the server no memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::SourceError;

/// What has to fit when the browser comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub state: String,
    pub nonce: String,
    pub verifier: String,
    pub redirect_uri: String,
    pub return_to: Option<String>,
    pub expires_seconds: i64,
}

/// Seals and opens; remembers which have been opened for good.
pub(super) struct Sealer {
    key: LessSafeKey,
    /// Who it is for: a cookie of one provider is none of another's.
    context: Vec<u8>,
    /// States that came back, with when they expire anyway.
    used: Mutex<HashMap<[u8; 32], i64>>,
    used_max: usize,
}

impl Sealer {
    pub(super) fn new(key: &[u8; 32], context: &str, used_max: usize) -> Self {
        // Thirty-two bytes are what this algorithm takes.
        let key = UnboundKey::new(&AES_256_GCM, key).unwrap_or_else(|_| unreachable!("the length is right"));
        let context = context.as_bytes().to_vec();
        Self { key: LessSafeKey::new(key), context, used: Mutex::new(HashMap::new()), used_max }
    }

    pub(super) fn seal(&self, pending: &Pending) -> Result<String, SourceError> {
        let failed = || SourceError::rejected("the sign-in could not be sealed");
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut text = serde_json::to_vec(pending).map_err(|_| failed())?;
        let (aad, unique) = (Aad::from(&self.context), Nonce::assume_unique_for_key(nonce));
        self.key.seal_in_place_append_tag(unique, aad, &mut text).map_err(|_| failed())?;
        Ok(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &text].concat()))
    }

    /// What was sealed, if `state` is the one that belongs to it, it is not too old, and it was not taken before.
    pub(super) fn take(&self, sealed: &str, state: &str, now_seconds: i64) -> Result<Pending, SourceError> {
        let pending = self.open(sealed);
        let pending = pending.ok_or_else(|| SourceError::rejected("this browser began no sign-in"))?;
        let digest = digest(&pending.state);
        // Hashes are compared, so that the time it takes tells nothing about the state.
        if digest != self::digest(state) {
            return Err(SourceError::rejected("the answer belongs to another sign-in (state)"));
        }
        if now_seconds >= pending.expires_seconds {
            return Err(SourceError::rejected("the sign-in took too long; begin again"));
        }
        // The map is whole between any two of its operations.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= self.used_max {
            used.retain(|_, expires| *expires > now_seconds);
        }
        if used.len() >= self.used_max {
            return Err(SourceError::unavailable("sign-in", "too many people sign in at the same time"));
        }
        if used.insert(digest, pending.expires_seconds).is_some() {
            return Err(SourceError::rejected("the sign-in was already completed (state)"));
        }
        Ok(pending)
    }

    fn open(&self, sealed: &str) -> Option<Pending> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let nonce: [u8; NONCE_LEN] = bytes.get(..NONCE_LEN)?.try_into().ok()?;
        let (aad, unique) = (Aad::from(&self.context), Nonce::assume_unique_for_key(nonce));
        let text = self.key.open_in_place(unique, aad, &mut bytes[NONCE_LEN..]).ok()?;
        serde_json::from_slice(text).ok()
    }
}

fn digest(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(state: &str) -> Pending {
        Pending {
            state: state.into(),
            nonce: "n".into(),
            verifier: "secret-verifier".into(),
            redirect_uri: "https://x".into(),
            return_to: None,
            expires_seconds: 100,
        }
    }

    #[test]
    fn a_sign_in_comes_back_once_in_time_and_with_its_own_state() {
        let sealer = Sealer::new(&[7; 32], "a", 10);
        let sealed = sealer.seal(&pending("one")).expect("sealed");
        assert!(!sealed.contains("secret-verifier"));
        assert!(sealer.take(&sealed, "two", 1).is_err(), "another state");
        assert!(sealer.take(&sealed, "one", 100).is_err(), "too late");
        assert_eq!(sealer.take(&sealed, "one", 1), Ok(pending("one")));
        assert!(sealer.take(&sealed, "one", 1).is_err(), "twice");
        let again = sealer.seal(&pending("one")).expect("sealed");
        assert!(sealer.take(&again, "one", 1).is_err(), "the state is what counts");
    }

    #[test]
    fn nobody_else_can_make_or_change_one() {
        let sealer = Sealer::new(&[7; 32], "a", 10);
        let sealed = sealer.seal(&pending("s")).expect("sealed");
        let mut bytes = URL_SAFE_NO_PAD.decode(&sealed).expect("base64");
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(sealer.take(&URL_SAFE_NO_PAD.encode(&bytes), "s", 1).is_err(), "byte {at} changed");
            bytes[at] ^= 1;
        }
        assert!(Sealer::new(&[8; 32], "a", 10).take(&sealed, "s", 1).is_err(), "another key");
        assert!(Sealer::new(&[7; 32], "b", 10).take(&sealed, "s", 1).is_err(), "another provider");
        for nonsense in ["", "AAAA", "!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(sealer.take(nonsense, "s", 1).is_err());
        }
        assert!(sealer.take(&sealed, "s", 1).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let sealer = Sealer::new(&[7; 32], "a", 2);
        for (state, fits) in [("a", true), ("b", true), ("c", false)] {
            let sealed = sealer.seal(&pending(state)).expect("sealed");
            assert_eq!(sealer.take(&sealed, state, 1).is_ok(), fits, "{state}");
        }
        let later = sealer.seal(&Pending { expires_seconds: 300, ..pending("d") }).expect("sealed");
        assert!(sealer.take(&later, "d", 150).is_ok(), "old ones make room");
    }
}
