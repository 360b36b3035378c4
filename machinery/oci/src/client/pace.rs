//! So many bytes a second, whoever shares it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A rate that clones share.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_per_second: f64,
    /// When the next byte may go.
    next: Mutex<Instant>,
}

impl Pace {
    pub fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1) as f64;
        Self(Arc::new(Shared { bytes_per_second, next: Mutex::new(Instant::now()) }))
    }

    /// Comes back when `bytes` may go.
    pub async fn take(&self, bytes: usize) {
        let at = {
            let mut next = self.0.next.lock().await;
            let (at, after) = turn(*next, Instant::now(), bytes as f64 / self.0.bytes_per_second);
            *next = after;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// When something goes that takes so many seconds, and when what comes after it may.
fn turn(next: Instant, now: Instant, seconds: f64) -> (Instant, Instant) {
    let at = next.max(now);
    (at, at + Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_waits_for_what_went_before_and_saves_nothing_up() {
        let start = Instant::now();
        let (first, next) = turn(start, start, 0.5);
        let (second, next) = turn(next, start, 0.25);
        assert_eq!((first - start, second - start), (Duration::ZERO, Duration::from_millis(500)));
        let late = start + Duration::from_secs(9);
        let (third, next) = turn(next, late, 1.0);
        assert_eq!((third, next), (late, late + Duration::from_secs(1)));
    }
}
