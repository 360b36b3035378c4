//! Small content that was asked for, in memory: every pull begins with the same manifests and configurations, and a
//! read on another thread costs more than the rest of such an answer.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use gantry_oci::{Digest, Hasher};

/// What is larger is read from where it is.
pub(crate) const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Of all that is kept.
const BYTES_MAX: usize = 8 << 20;
/// Of one, beside its content.
const OVERHEAD_BYTES: usize = 200;

/// By digests that were looked at again, so nothing in it is ever wrong, whatever became of a file; whoever asks has
/// looked whether the caller may see it.
#[derive(Default)]
pub(crate) struct Warm(Mutex<Generations>);

/// What was asked for since the last turn, and before it. At a turn, what nobody asked for again goes.
#[derive(Default)]
struct Generations {
    young: HashMap<Digest, Bytes>,
    young_bytes: usize,
    old: HashMap<Digest, Bytes>,
}

impl Warm {
    pub(crate) fn get(&self, digest: &Digest) -> Option<Bytes> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = generations.young.get(digest) {
            return Some(bytes.clone());
        }
        let bytes = generations.old.remove(digest)?;
        generations.put(digest.clone(), bytes.clone());
        Some(bytes)
    }

    pub(crate) fn put(&self, digest: &Digest, bytes: &Bytes) {
        if bytes.len() as u64 <= SMALL_BYTES_MAX && is_of(bytes, digest) {
            let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            generations.put(digest.clone(), bytes.clone());
        }
    }
}

fn is_of(bytes: &Bytes, digest: &Digest) -> bool {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    hasher.finish() == *digest
}

impl Generations {
    fn put(&mut self, digest: Digest, bytes: Bytes) {
        let cost = bytes.len() + OVERHEAD_BYTES;
        if self.young_bytes + cost > BYTES_MAX / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(digest, bytes).is_none() {
            self.young_bytes += cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_all_of_it_is_bounded() {
        let warm = Warm::default();
        let content = |number: u32| Bytes::from(number.to_string().repeat(10_000));
        let (often, large) = (content(0), Bytes::from(vec![0; SMALL_BYTES_MAX as usize + 1]));
        warm.put(&Digest::of(&often), &often);
        warm.put(&Digest::of(&large), &large);
        assert_eq!(warm.get(&Digest::of(&large)), None);
        warm.put(&Digest::of(b"what it was"), &Bytes::from_static(b"what became of it"));
        assert_eq!(warm.get(&Digest::of(b"what it was")), None, "it is damaged");
        for number in 1..1000 {
            let bytes = content(number);
            warm.put(&Digest::of(&bytes), &bytes);
            assert_eq!(warm.get(&Digest::of(&bytes)).as_ref(), Some(&bytes));
            assert_eq!(warm.get(&Digest::of(&often)).as_ref(), Some(&often));
        }
        let kept: usize = (1..1000).map(content).filter_map(|b| Some(warm.get(&Digest::of(&b))?.len())).sum();
        assert!(kept > 0 && kept <= BYTES_MAX, "{kept}");
    }
}
