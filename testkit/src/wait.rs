//! Waiting for what becomes true in its own time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `timeout`; the message names `what`.
#[track_caller]
pub fn eventually(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(what, timeout, || if condition() { Ok(()) } else { Err("it does not hold") });
}

/// Waits until `look` finds something, and returns it.
///
/// # Panics
/// When it does not within `timeout`; the message has `what` and what was seen last.
#[track_caller]
pub fn eventually_some<T, E: Debug>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    let mut wait = FIRST_PAUSE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > timeout => {
                panic!("{what}: not within {} s; last seen: {seen:?}", timeout.as_secs())
            }
            Err(_) => pause(wait),
        }
        wait = (wait * 2).min(PAUSE_MAX);
    }
}

/// Lets time pass between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "end-to-end tests block their own thread, no runtime's")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
