//! How often one caller may pull from or push to a repository: buckets that fill up again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Callers remembered at one time; past it the oldest half is forgotten, which favours them.
const BUCKETS_MAX: usize = 20_000;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Buckets by repository, caller and verb.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<(String, String, &'static str), Bucket>>);

impl Rates {
    /// Takes one of `per_minute`; where none is left, the seconds until there is.
    pub(crate) fn take(
        &self,
        (repository, caller, verb): (&str, &str, &'static str),
        per_minute: u32,
        now: Instant,
    ) -> Result<(), u64> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            // Full again after a minute: such a bucket says nothing.
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < MINUTE);
            if buckets.len() >= BUCKETS_MAX {
                let mut times: Vec<Instant> = buckets.values().map(|bucket| bucket.at).collect();
                times.sort_unstable();
                let middle = times[times.len() / 2];
                buckets.retain(|_, bucket| bucket.at > middle);
            }
        }
        let full = f64::from(per_minute.max(1));
        let key = (repository.to_owned(), caller.to_owned(), verb);
        let bucket = buckets.entry(key).or_insert(Bucket { left: full, at: now });
        let grown = now.saturating_duration_since(bucket.at).as_secs_f64() * full / MINUTE.as_secs_f64();
        bucket.left = (bucket.left + grown).min(full);
        bucket.at = now;
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - bucket.left) * MINUTE.as_secs_f64() / full;
        // At most a minute, and whole: what the header says.
        Err(seconds.ceil().max(1.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_empty_and_fill_up() {
        let (rates, start) = (Rates::default(), Instant::now());
        let take = |caller: &str, after_ms: u64| {
            rates.take(("a", caller, "pull"), 6, start + Duration::from_millis(after_ms))
        };
        for _ in 0..6 {
            assert_eq!(take("alice", 0), Ok(()));
        }
        assert_eq!(take("alice", 0), Err(10));
        assert_eq!(take("alice", 9000), Err(1));
        assert_eq!(take("bob", 0), Ok(()), "each has their own");
        assert_eq!(take("alice", 10_000), Ok(()));
        assert_eq!(take("alice", 10_000), Err(10));
        for _ in 0..6 {
            assert_eq!(take("alice", 600_000), Ok(()));
        }
        assert!(take("alice", 600_000).is_err(), "no more than a minute's worth is saved up");
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let (rates, now) = (Rates::default(), Instant::now());
        for number in 0..BUCKETS_MAX + 10 {
            let at = now + Duration::from_micros(number as u64);
            let _ = rates.take(("a", &number.to_string(), "pull"), 1, at);
        }
        assert!(rates.0.lock().expect("a lock").len() <= BUCKETS_MAX);
    }
}
