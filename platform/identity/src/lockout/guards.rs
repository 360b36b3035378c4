//! A bounded map of counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::Backoff;

/// Entries looked at, anywhere in the map, to find one to forget.
const EVICTION_SAMPLE: u64 = 16;

/// Failures of one user, name or address.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) failures: u32,
    /// No attempt before then.
    pub(super) until_ms: i64,
    /// `until_ms` is the end of a lock-out.
    pub(super) locked: bool,
    pub(super) under_way: u32,
    pub(super) touched_ms: i64,
}

impl Entry {
    pub(super) fn fail(&mut self, backoff: &Backoff, now_ms: i64) {
        self.failures = self.failures.saturating_add(1);
        self.touched_ms = self.touched_ms.max(now_ms);
        let wait_ms = i64::try_from(backoff.wait_ms(self.failures)).unwrap_or(i64::MAX);
        // A failure that costs nothing holds up nobody, also not who began before it was known.
        if wait_ms > 0 {
            self.until_ms = self.until_ms.max(now_ms.saturating_add(wait_ms));
        }
    }

    /// What is left of the wait, in whole seconds.
    pub(super) fn wait(&self, now_ms: i64) -> Option<Duration> {
        let left = u64::try_from(self.until_ms.saturating_sub(now_ms)).unwrap_or(0);
        (left > 0).then(|| Duration::from_secs(left.div_ceil(1000)))
    }

    /// Back to no failures; attempts under way stay counted.
    pub(super) fn reset(&mut self, now_ms: i64) {
        *self = Self { under_way: self.under_way, touched_ms: now_ms, ..Self::default() };
    }

    fn is_over(&self, now_ms: i64, forget_ms: i64) -> bool {
        self.until_ms <= now_ms && self.touched_ms.saturating_add(forget_ms) <= now_ms
    }
}

pub(super) struct Guards {
    /// Where each entry lies in `slots`, which has no gaps: a random one is an index away.
    index: HashMap<u128, usize>,
    slots: Vec<(u128, Entry)>,
    entries_max: usize,
    evictions: u64,
    /// Two, for 128 bits: nobody outside can find names that collide.
    hashers: [RandomState; 2],
}

impl Guards {
    pub(super) fn new(entries_max: usize) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            entries_max: entries_max.max(1),
            evictions: 0,
            hashers,
        }
    }

    pub(super) fn key(&self, name: &[u8]) -> u128 {
        let [high, low] = [0, 1].map(|n: usize| u128::from(self.hashers[n].hash_one(name)));
        high << 64 | low
    }

    pub(super) fn get(&mut self, key: u128) -> Option<&mut Entry> {
        let slot = *self.index.get(&key)?;
        self.slots.get_mut(slot).map(|(_, entry)| entry)
    }

    /// The entry as it counts now; what is too old is forgotten.
    pub(super) fn live(&mut self, key: u128, now_ms: i64, forget_ms: i64) -> Option<&mut Entry> {
        let entry = self.get(key)?;
        if entry.is_over(now_ms, forget_ms) {
            entry.reset(now_ms);
        }
        Some(entry)
    }

    pub(super) fn entry(&mut self, key: u128, now_ms: i64, forget_ms: i64) -> &mut Entry {
        let slot = match self.index.get(&key) {
            Some(slot) => *slot,
            None => {
                if self.slots.len() >= self.entries_max {
                    self.evict(now_ms, forget_ms);
                }
                self.slots.push((key, Entry { touched_ms: now_ms, ..Entry::default() }));
                self.index.insert(key, self.slots.len() - 1);
                self.slots.len() - 1
            }
        };
        let entry = &mut self.slots[slot].1;
        if entry.is_over(now_ms, forget_ms) {
            entry.reset(now_ms);
        }
        entry
    }

    /// Forgets the failures of an entry.
    pub(super) fn forget(&mut self, key: u128) {
        if let Some(entry) = self.get(key) {
            entry.reset(entry.touched_ms);
        }
    }

    /// An attempt has ended. An entry without failures is not kept.
    pub(super) fn end(&mut self, key: u128) {
        let Some(entry) = self.get(key) else { return };
        entry.under_way = entry.under_way.saturating_sub(1);
        if entry.under_way == 0 && entry.failures == 0 {
            self.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn remove(&mut self, key: u128) {
        let Some(slot) = self.index.remove(&key) else { return };
        self.slots.swap_remove(slot);
        if let Some((moved, _)) = self.slots.get(slot) {
            self.index.insert(*moved, slot);
        }
    }

    fn evict(&mut self, now_ms: i64, forget_ms: i64) {
        let cost = |slot: &usize| {
            let entry = &self.slots[*slot].1;
            (
                !entry.is_over(now_ms, forget_ms),
                entry.locked,
                entry.until_ms,
                entry.failures,
                entry.touched_ms,
            )
        };
        let slots = self.slots.len() as u64;
        let pick = |n: u64| (self.hashers[0].hash_one((self.evictions, n)) % slots) as usize;
        let first = (0..EVICTION_SAMPLE).map(pick).min_by_key(cost);
        if let Some((key, _)) = first.map(|slot| &self.slots[slot]) {
            self.remove(*key);
        }
        self.evictions = self.evictions.wrapping_add(1);
    }
}
