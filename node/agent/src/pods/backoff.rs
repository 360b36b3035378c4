//! Restart and pull back-off: pure, the caller brings the time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// The first delay.
pub(crate) const BASE: Duration = Duration::from_secs(10);
/// The longest delay.
pub(crate) const CAP: Duration = Duration::from_secs(300);
/// A key that was quiet for this long starts anew.
const RESET: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// Delays by key, which is a container's name or an image's. Bounded by the pod's containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoffs(BTreeMap<String, Entry>);

impl Backoffs {
    /// Until when `key` has to wait, counted from `since` (the failure), and the delay; `None` when it may go on.
    pub(crate) fn hold(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let entry = self.0.get(key)?;
        if elapsed(entry.updated, now) > RESET {
            return None;
        }
        let until = since.checked_add(entry.delay).ok()?;
        (now < until).then_some((until, entry.delay))
    }

    /// Notes a further try of `key`: the next one waits twice as long.
    pub(crate) fn next(&mut self, key: &str, now: Timestamp) {
        let delay = match self.0.get(key) {
            Some(entry) if elapsed(entry.updated, now) <= RESET => (entry.delay * 2).min(CAP),
            _ => BASE,
        };
        self.0.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// When `key` was last noted.
    pub(crate) fn since(&self, key: &str) -> Option<Timestamp> {
        self.0.get(key).map(|entry| entry.updated)
    }

    /// Forgets `key`.
    pub(crate) fn clear(&mut self, key: &str) {
        self.0.remove(key);
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A delay as Go prints it in messages: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(delay: Duration) -> String {
    let seconds = delay.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_cap_and_start_anew_after_a_quiet_time() {
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("in range");
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.hold("a", at(0), at(0)), None, "the first restart is immediate");
        let mut seen = Vec::new();
        for _ in 0..7 {
            backoffs.next("a", at(0));
            seen.push(backoffs.hold("a", at(0), at(0)).map(|(_, delay)| delay.as_secs()));
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300].map(Some));
        assert_eq!(backoffs.hold("a", at(0), at(299)).map(|(until, _)| until), Some(at(300)));
        assert_eq!(backoffs.hold("a", at(0), at(300)), None);
        backoffs.next("a", at(1000));
        assert_eq!(backoffs.hold("a", at(1000), at(1001)).map(|(_, delay)| delay), Some(BASE));
        backoffs.clear("a");
        assert_eq!(backoffs.hold("a", at(1000), at(1001)), None);
    }

    #[test]
    fn durations_read_as_in_go() {
        for (seconds, want) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3661, "1h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), want);
        }
    }
}
