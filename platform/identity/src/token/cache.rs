//! Tokens whose signature was found good. Not whether they are valid: that is asked every time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Claims;
use crate::keys::SigningKey;

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];
/// Locks are held for less than a microsecond; a few shards keep clients out of each other's way.
const SHARDS: usize = 16;

/// A token that was found signed by us.
#[derive(Clone)]
pub struct Verified {
    /// A token whose key was withdrawn is found, and refused.
    pub(super) key: Arc<SigningKey>,
    pub(super) claims: Arc<Claims>,
}

/// A bounded map. The one to go is the first, going round, that was not asked for since the last round
/// (second chance): as good as strict recency here, and a hit moves nothing.
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    entries_per_shard_max: usize,
}

#[derive(Default)]
struct Shard {
    index: HashMap<Digest, usize, BuildHasherDefault<First>>,
    slots: Vec<Slot>,
    hand: usize,
}

struct Slot {
    digest: Digest,
    verified: Verified,
    asked_for: bool,
}

impl Cache {
    pub(super) fn new(entries_max: usize) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, entries_per_shard_max: entries_max.div_ceil(SHARDS).max(1) }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Verified> {
        let mut shard = self.shard(digest);
        let at = *shard.index.get(digest)?;
        let slot = shard.slots.get_mut(at)?;
        slot.asked_for = true;
        Some(slot.verified.clone())
    }

    pub(super) fn put(&self, digest: Digest, verified: Verified) {
        let mut shard = self.shard(&digest);
        let shard = &mut *shard;
        if shard.index.contains_key(&digest) {
            return;
        }
        let slot = Slot { digest, verified, asked_for: false };
        let at = if shard.slots.len() < self.entries_per_shard_max {
            shard.slots.push(slot);
            shard.slots.len() - 1
        } else {
            let at = shard.next_victim();
            let gone = std::mem::replace(&mut shard.slots[at], slot);
            shard.index.remove(&gone.digest);
            at
        };
        shard.index.insert(digest, at);
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }

    fn shard(&self, digest: &Digest) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(digest[0]) % SHARDS])
    }
}

impl Shard {
    fn next_victim(&mut self) -> usize {
        loop {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            if !std::mem::take(&mut self.slots[at].asked_for) {
                return at;
            }
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Nothing panics between the steps of a change.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes eight bytes of the digest as they are. Only what was found signed by us is put in, so nobody
/// chooses digests.
#[derive(Default)]
pub(super) struct First(u64);

impl Hasher for First {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // A slice's length is written too, in eight bytes that are the same for all: folded in.
        let mut eight = [0; 8];
        let taken = bytes.len().min(9).saturating_sub(1);
        eight[..taken].copy_from_slice(&bytes[1..=taken]);
        self.0 ^= u64::from_le_bytes(eight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::{claims, ring};

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let cache = Cache::new(64);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ring = ring(&directory);
        let key = ring.set().all()[0].clone();
        let verified = Verified { key, claims: Arc::new(claims()) };
        let digest = |n: u64| -> Digest {
            let hash = ring::digest::digest(&ring::digest::SHA256, &n.to_be_bytes());
            hash.as_ref().try_into().expect("32 bytes")
        };
        cache.put(digest(0), verified.clone());
        for n in 1..10_000 {
            cache.put(digest(n), verified.clone());
            assert!(cache.get(&digest(0)).is_some(), "after {n}");
        }
        assert_eq!(cache.len(), 64);
        assert!(cache.get(&digest(9_999)).is_some(), "the newest");
        let found = (1..10_000).filter(|n| cache.get(&digest(*n)).is_some()).count();
        assert_eq!(found, 63);
    }
}
