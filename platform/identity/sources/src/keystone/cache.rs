//! Validated tokens, for a short while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::KeystoneIdentity;

/// Keyed by a hash: tokens themselves are not kept.
pub(super) type TokenHash = [u8; 32];

pub(super) struct Cache {
    entries: Mutex<HashMap<TokenHash, Entry>>,
    entries_max: usize,
    seconds_max: i64,
}

struct Entry {
    identity: KeystoneIdentity,
    until_seconds: i64,
}

impl Cache {
    pub(super) fn new(entries_max: usize, seconds_max: u64) -> Self {
        let seconds_max = i64::try_from(seconds_max).unwrap_or(i64::MAX);
        Self { entries: Mutex::new(HashMap::new()), entries_max, seconds_max }
    }

    pub(super) fn get(&self, token: &TokenHash, now_seconds: i64) -> Option<KeystoneIdentity> {
        let entries = self.lock();
        let entry = entries.get(token).filter(|entry| entry.until_seconds > now_seconds)?;
        Some(entry.identity.clone())
    }

    /// Keeps what was learned, never beyond the token's own end.
    pub(super) fn put(&self, token: TokenHash, identity: KeystoneIdentity, now_seconds: i64) {
        let until_seconds = now_seconds.saturating_add(self.seconds_max).min(identity.expires_at.as_second());
        let mut entries = self.lock();
        if entries.len() >= self.entries_max {
            entries.retain(|_, entry| entry.until_seconds > now_seconds);
        }
        if entries.len() >= self.entries_max {
            // All are fresh; which one is asked for again costs one question either way.
            if let Some(any) = entries.keys().next().copied() {
                entries.remove(&any);
            }
        }
        if self.entries_max > 0 && until_seconds > now_seconds {
            entries.insert(token, Entry { identity, until_seconds });
        }
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TokenHash, Entry>> {
        // The map is whole between any two of its operations.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExternalUser;

    fn identity(expires: i64) -> KeystoneIdentity {
        let user = ExternalUser {
            id: "u".into(),
            name: "u".into(),
            display_name: None,
            email: None,
            domain: None,
            enabled: true,
            groups: vec![],
            grants: vec![],
        };
        let expires_at = jiff::Timestamp::from_second(expires).expect("a time");
        KeystoneIdentity { user, scope: None, expires_at, methods: vec![] }
    }

    #[test]
    fn nothing_is_kept_longer_than_the_token_or_the_bound() {
        let cache = Cache::new(10, 30);
        cache.put([1; 32], identity(1_000), 100);
        cache.put([2; 32], identity(110), 100);
        cache.put([3; 32], identity(100), 100);
        let kept = |token: u8, now| cache.get(&[token; 32], now).is_some();
        assert!(kept(1, 100) && kept(1, 129) && !kept(1, 130));
        assert!(kept(2, 109) && !kept(2, 110));
        assert!(!kept(3, 100) && !kept(4, 100));
    }

    #[test]
    fn its_size_is_bounded() {
        let cache = Cache::new(3, 30);
        for token in 0..100 {
            cache.put([token; 32], identity(1_000), 100);
            assert!(cache.get(&[token; 32], 100).is_some(), "the newest is there");
        }
        assert_eq!(cache.lock().len(), 3);
        cache.put([200; 32], identity(1_000), 500);
        assert_eq!(cache.lock().len(), 1, "old ones go first");
    }
}
