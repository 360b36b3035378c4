//! Guessing is slowed down by user and by address. State is in memory: a restart forgets it.
//!
//! - **Back-off.** The first `free` failures cost nothing. From then on the next attempt has to wait,
//!   twice as long after each failure up to `wait_ms_max`. An attempt that comes too early is refused
//!   before the password is looked at, and does not make the wait longer.
//! - **Lock-out** (`lockout_failure_attempts` > 0). After that many failures no password is looked at
//!   for `lockout_duration` seconds, the right one included. Then counting begins again at zero.
//!   A user with the option `ignore_lockout_failure_attempts` has back-off only.
//! - **Success** forgets the user's failures, and takes one off the address: one good account does not
//!   make an address that tries others a good one.
//! - **Forgetting.** Failures older than `forget_seconds` count no more.
//! - **In parallel.** A user has at most [`PARALLEL_MAX`] attempts under way, and one once the free
//!   failures are used up, so that many guesses at once are no way around.
//! - **Addresses.** IPv6 counts by /64, what one customer has at the least: neither are 2^64 addresses
//!   2^64 attempts, nor does one customer lock out another's network. A mapped IPv4 address is that.
//! - **Bounds.** Three maps (users that exist, names that do not, addresses) of `entries_max` each. A full
//!   one forgets, of a few entries, the one whose wait is over first: invented names push out invented
//!   names, never a locked user. Names are kept as keyed hashes: an entry has one size.

mod guards;
mod source;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use guards::Guards;
pub use source::Source;

/// Attempts of one user under way at once. Services sign in from many workers at the same moment.
pub const PARALLEL_MAX: u32 = 32;

/// How waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// Failures that cost nothing.
    pub free: u32,
    /// The wait after the first failure that costs.
    pub wait_ms_min: u64,
    pub wait_ms_max: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { free: 3, wait_ms_min: 500, wait_ms_max: 30_000 }
    }
}

impl Backoff {
    fn wait_ms(&self, failures: u32) -> u64 {
        match failures.checked_sub(self.free + 1) {
            None => 0,
            Some(doublings) => {
                let factor = 1_u64.checked_shl(doublings.min(40)).unwrap_or(u64::MAX);
                self.wait_ms_min.saturating_mul(factor).min(self.wait_ms_max)
            }
        }
    }
}

/// When guessing is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockoutSettings {
    /// Failures until a user is locked out; 0: never. Set by `SecurityCompliance`, where Keystone has it.
    #[serde(skip)]
    pub lockout_failure_attempts: u32,
    /// Seconds a lock-out lasts. Set by `SecurityCompliance`, where Keystone has it.
    #[serde(skip)]
    pub lockout_duration: u64,
    pub user: Backoff,
    pub address: Backoff,
    pub forget_seconds: u64,
    /// Entries of each of the three maps; one has about 100 bytes.
    pub entries_max: usize,
}

impl Default for LockoutSettings {
    fn default() -> Self {
        Self {
            lockout_failure_attempts: 0,
            lockout_duration: 1800,
            user: Backoff::default(),
            // Many people share an address: offices, proxies, build machines.
            address: Backoff { free: 30, wait_ms_min: 500, wait_ms_max: 60_000 },
            forget_seconds: 3600,
            entries_max: 32_768,
        }
    }
}

/// Who signs in, as far as it is known before the password is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// The id of a user that exists.
    User(&'a str),
    /// What was asked for and does not exist: `domain/name`, or an id.
    Nobody(&'a str),
}

/// Why an attempt is not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// To the client this is no different from a wrong password, or a lock-out would tell who exists.
    #[error("the user is locked out for {} s", retry_after.as_secs())]
    Locked { retry_after: Duration },
    #[error("too many failed logins: try again in {} s", retry_after.as_secs())]
    User { retry_after: Duration },
    #[error("too many failed logins from this address: try again in {} s", retry_after.as_secs())]
    Address { retry_after: Duration },
}

impl Refusal {
    /// How long to wait, in whole seconds, for `Retry-After`.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Locked { retry_after } | Self::User { retry_after } | Self::Address { retry_after } => {
                *retry_after
            }
        }
    }
}

/// What a failure led to: for the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The user's failures that count, this one included.
    pub failures: u32,
    /// This failure locked the user out, until then.
    pub locked_until: Option<Timestamp>,
    /// From this failure on the address has to wait, at first until then.
    pub address_until: Option<Timestamp>,
}

/// The counts of one server. Cheap to clone.
#[derive(Clone)]
pub struct Lockout {
    state: Arc<Mutex<State>>,
    settings: Arc<LockoutSettings>,
}

struct State {
    users: Guards,
    nobodies: Guards,
    addresses: Guards,
}

/// An attempt that may go on: say how it ended. One that is dropped (the client went away, the vault
/// failed) counts as neither; its client has not learnt anything.
#[must_use = "say whether the password was right"]
pub struct Attempt {
    lockout: Lockout,
    user: u128,
    known: bool,
    address: u128,
    ignores_lockout: bool,
}

impl Lockout {
    /// Counts from zero.
    pub fn new(settings: LockoutSettings) -> Self {
        let guards = || Guards::new(settings.entries_max);
        let state = State { users: guards(), nobodies: guards(), addresses: guards() };
        Self { state: Arc::new(Mutex::new(state)), settings: Arc::new(settings) }
    }

    /// Asks whether a password may be looked at now. `ignores_lockout`: the user's option.
    pub fn begin(
        &self,
        subject: Subject<'_>,
        source: Source,
        ignores_lockout: bool,
        now: Timestamp,
    ) -> Result<Attempt, Refusal> {
        let now_ms = now.as_millisecond();
        let state = &mut *self.lock();
        let address = state.addresses.key(&source.bytes());
        if let Some(entry) = state.addresses.live(address, now_ms, self.forget_ms()) {
            let retry_after = entry.wait(now_ms);
            retry_after.map_or(Ok(()), |retry_after| Err(Refusal::Address { retry_after }))?;
        }
        let (users, user, known) = state.of(subject);
        let entry = users.entry(user, now_ms, self.forget_ms());
        if let Some(retry_after) = entry.wait(now_ms) {
            let locked = entry.locked && !ignores_lockout;
            return Err(if locked { Refusal::Locked { retry_after } } else { Refusal::User { retry_after } });
        }
        if entry.locked {
            entry.reset(now_ms);
        }
        let parallel_max = if entry.failures < self.settings.user.free.max(1) { PARALLEL_MAX } else { 1 };
        if entry.under_way >= parallel_max {
            return Err(Refusal::User { retry_after: Duration::from_secs(1) });
        }
        entry.under_way += 1;
        entry.touched_ms = entry.touched_ms.max(now_ms);
        Ok(Attempt { lockout: self.clone(), user, known, address, ignores_lockout })
    }

    /// Forgets a user's failures: an administrator unlocks, or sets a new password.
    pub fn unlock(&self, user_id: &str) {
        let users = &mut self.lock().users;
        let key = users.key(user_id.as_bytes());
        users.forget(key);
    }

    /// Until when the user is locked out.
    pub fn locked_until(&self, user_id: &str, now: Timestamp) -> Option<Timestamp> {
        let users = &mut self.lock().users;
        let key = users.key(user_id.as_bytes());
        let entry = users.live(key, now.as_millisecond(), self.forget_ms())?;
        (entry.locked && entry.wait(now.as_millisecond()).is_some())
            .then(|| Timestamp::from_millisecond(entry.until_ms).ok())?
    }

    fn forget_ms(&self) -> i64 {
        millis(self.settings.forget_seconds.max(self.settings.lockout_duration))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between the steps of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Lockout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lockout").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl State {
    fn of(&mut self, subject: Subject<'_>) -> (&mut Guards, u128, bool) {
        let (users, name, known) = match subject {
            Subject::User(id) => (&mut self.users, id, true),
            Subject::Nobody(name) => (&mut self.nobodies, name, false),
        };
        let key = users.key(name.as_bytes());
        (users, key, known)
    }
}

impl Attempt {
    /// The password was right.
    pub fn succeeded(self) {
        let state = &mut *self.lockout.lock();
        // Attempts beside this one are counted down by their own ends.
        state.users_of(self.known).forget(self.user);
        if let Some(entry) = state.addresses.get(self.address) {
            entry.failures = entry.failures.saturating_sub(1);
        }
    }

    /// The password was wrong, or there is no such user.
    pub fn failed(self, now: Timestamp) -> Failure {
        let now_ms = now.as_millisecond();
        let settings = self.lockout.settings.clone();
        let forget_ms = self.lockout.forget_ms();
        let state = &mut *self.lockout.lock();
        let address = state.addresses.entry(self.address, now_ms, forget_ms);
        address.fail(&settings.address, now_ms);
        // Told once: each further failure only makes the wait longer.
        let slowed = address.failures == settings.address.free + 1;
        let address_until = slowed.then(|| Timestamp::from_millisecond(address.until_ms).ok()).flatten();
        let entry = state.users_of(self.known).entry(self.user, now_ms, forget_ms);
        entry.fail(&settings.user, now_ms);
        let limit = settings.lockout_failure_attempts;
        let locks = limit > 0 && entry.failures >= limit && !self.ignores_lockout && !entry.locked;
        if locks {
            entry.locked = true;
            entry.until_ms = now_ms.saturating_add(millis(settings.lockout_duration));
        }
        let until = locks.then(|| Timestamp::from_millisecond(entry.until_ms).ok()).flatten();
        Failure { failures: entry.failures, locked_until: until, address_until }
    }
}

impl State {
    fn users_of(&mut self, known: bool) -> &mut Guards {
        if known { &mut self.users } else { &mut self.nobodies }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let state = &mut *self.lockout.lock();
        let guards = state.users_of(self.known);
        guards.end(self.user);
    }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// The address a connection comes from, when it is known.
pub fn source_of(peer: Option<IpAddr>) -> Source {
    peer.map_or(Source::Unknown, Source::from)
}
