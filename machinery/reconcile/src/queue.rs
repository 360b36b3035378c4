//! Keys that need work: each waits once, however often it was added; one key is never worked on twice
//! at a time.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

const BACKOFF_MS_MIN: u64 = 5;
const BACKOFF_MS_MAX: u64 = 60_000;

/// Cheap to clone; all clones are one queue.
pub struct Queue<T>(Arc<Inner<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone + Eq + Hash + Ord> Default for Queue<T> {
    fn default() -> Self {
        Self(Arc::new(Inner { state: Mutex::new(State::default()), changed: Notify::new() }))
    }
}

struct Inner<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// In `ready`, or to be put there when the work on them ends.
    dirty: HashSet<T>,
    working: HashSet<T>,
    /// When a key becomes ready by itself; at most one entry per key, the earliest asked for.
    delayed: BTreeMap<(Instant, T), ()>,
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash + Ord> Queue<T> {
    /// Work on `key` as soon as a worker is free.
    pub fn add(&self, key: T) {
        self.lock().add(key);
        self.0.changed.notify_one();
    }

    /// Work on `key` after `delay`, or earlier if asked elsewhere.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.lock();
        match state.due.get(&key) {
            Some(due) if *due <= at => return,
            Some(due) => {
                let due = *due;
                state.delayed.remove(&(due, key.clone()));
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.delayed.insert((at, key), ());
        drop(state);
        self.0.changed.notify_one();
    }

    /// Work on `key` again after a delay that doubles with every failure in a row.
    pub fn retry(&self, key: T) {
        let failures = {
            let mut state = self.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count = count.saturating_add(1);
            *count
        };
        let delay_ms = BACKOFF_MS_MIN.saturating_mul(1 << failures.min(20)).min(BACKOFF_MS_MAX);
        self.add_after(key, Duration::from_millis(delay_ms));
    }

    /// The last work on `key` succeeded: the next failure counts as the first.
    pub fn forget(&self, key: &T) {
        self.lock().failures.remove(key);
    }

    /// The next key to work on; [`Queue::done`] must follow.
    pub async fn next(&self) -> T {
        loop {
            let changed = self.0.changed.notified();
            let wake_at = {
                let mut state = self.lock();
                state.ripen(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.0.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match wake_at {
                Some(at) => tokio::select! { () = changed => {}, () = tokio::time::sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// The work on `key` ended; if it was added meanwhile, it is ready again.
    pub fn done(&self, key: &T) {
        let mut state = self.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash + Ord> State<T> {
    fn add(&mut self, key: T) {
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    fn ripen(&mut self, now: Instant) {
        while let Some(((at, _), ())) = self.delayed.first_key_value() {
            if *at > now {
                return;
            }
            if let Some(((_, key), ())) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_is_never_worked_on_twice_at_a_time() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn the_earliest_delay_wins_and_failures_back_off() {
        let queue = Queue::default();
        queue.add_after("late", Duration::from_secs(3600));
        queue.add_after("late", Duration::from_millis(1));
        queue.add_after("late", Duration::from_secs(3600));
        assert_eq!(queue.next().await, "late");
        queue.done(&"late");
        let began = Instant::now();
        for _ in 0..3 {
            queue.retry("x");
            assert_eq!(queue.next().await, "x");
            queue.done(&"x");
        }
        assert!(began.elapsed() >= Duration::from_millis(10 + 20 + 40));
        queue.forget(&"x");
        queue.retry("x");
        assert_eq!(queue.next().await, "x");
    }
}
