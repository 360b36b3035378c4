//! The operator's rules for passwords, by Keystone's names (`[security_compliance]`).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::record::{PasswordRecord, SetBy, StoredPassword};
use super::regexes::Pattern;
use super::{PASSWORD_BYTES_MAX, Password};
use crate::lockout::LockoutSettings;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const DAYS_MAX: u32 = 36_500;
const HISTORY_MAX: u32 = 64;

/// The settings. Where Keystone has a name it is used, with Keystone's meaning and default; the minimum
/// length is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityCompliance {
    /// Failed logins until a user is locked out; 0: never.
    pub lockout_failure_attempts: u32,
    /// Seconds a lock-out lasts.
    pub lockout_duration: u64,
    /// Days a password is good; 0: for ever.
    pub password_expires_days: u32,
    /// A new password must differ from so many last ones, the present one included; 0: no rule.
    pub unique_last_password_count: u32,
    /// Days until a user may change a password again; 0: at once.
    pub minimum_password_age: u32,
    /// Characters at least.
    pub password_length_min: u32,
    /// What a whole password has to match; empty: anything.
    pub password_regex: String,
    /// The pattern in words, for people.
    pub password_regex_description: String,
    /// A password that somebody else has set is good for changing it only.
    pub change_password_upon_first_use: bool,
    /// Days without a login until a user is disabled; 0: never.
    pub disable_user_account_days_inactive: u32,
}

impl Default for SecurityCompliance {
    fn default() -> Self {
        Self {
            lockout_failure_attempts: 0,
            lockout_duration: 1800,
            password_expires_days: 0,
            unique_last_password_count: 0,
            minimum_password_age: 0,
            password_length_min: 8,
            password_regex: String::new(),
            password_regex_description: String::new(),
            change_password_upon_first_use: false,
            disable_user_account_days_inactive: 0,
        }
    }
}

impl SecurityCompliance {
    /// The lock-out part, with our own back-off as it is in `base`.
    pub fn lockout(&self, base: LockoutSettings) -> LockoutSettings {
        LockoutSettings {
            lockout_failure_attempts: self.lockout_failure_attempts,
            lockout_duration: self.lockout_duration,
            ..base
        }
    }
}

/// The user's options that bear on passwords (Keystone's names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PasswordOptions {
    pub ignore_change_password_upon_first_use: bool,
    pub ignore_password_expiry: bool,
    pub ignore_lockout_failure_attempts: bool,
    pub ignore_user_inactivity: bool,
    /// The user cannot change the password; whoever may update the user can.
    pub lock_password: bool,
}

impl From<&gantry_identity_api::UserOptions> for PasswordOptions {
    fn from(options: &gantry_identity_api::UserOptions) -> Self {
        let yes = |option: Option<bool>| option.unwrap_or(false);
        Self {
            ignore_change_password_upon_first_use: yes(options.ignore_change_password_upon_first_use),
            ignore_password_expiry: yes(options.ignore_password_expiry),
            ignore_lockout_failure_attempts: yes(options.ignore_lockout_failure_attempts),
            ignore_user_inactivity: yes(options.ignore_user_inactivity),
            lock_password: yes(options.lock_password),
        }
    }
}

/// A setting that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("password_regex {pattern:?} is not understood: {why}")]
    Regex { pattern: String, why: String },
    #[error("{name} is {value}; at most {max} is possible")]
    TooLarge { name: &'static str, value: u32, max: u32 },
}

/// Why a new password is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("the password must have at least {min} characters")]
    TooShort { min: u32 },
    #[error("the password must have at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    #[error("the password does not match the requirements: {description}")]
    Pattern { description: String },
    #[error("the password must differ from the last {count}")]
    Reused { count: u32 },
    #[error(
        "the password can be changed {days} day(s) after the last change, which is in {days_left} day(s): ask an administrator to reset it"
    )]
    TooYoung { days: u32, days_left: i64 },
    #[error("the password is locked: an administrator can set it")]
    Locked,
}

/// What a right password is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordState {
    Good,
    /// For changing it only.
    Expired,
}

/// The rules, ready for use. Pure: what time it is and what is kept is told.
#[derive(Clone, Debug)]
pub struct PasswordPolicy {
    settings: SecurityCompliance,
    pattern: Option<Pattern>,
}

impl PasswordPolicy {
    /// Checks the settings.
    pub fn new(settings: SecurityCompliance) -> Result<Self, PolicyError> {
        for (name, value, max) in [
            ("password_expires_days", settings.password_expires_days, DAYS_MAX),
            ("minimum_password_age", settings.minimum_password_age, DAYS_MAX),
            ("disable_user_account_days_inactive", settings.disable_user_account_days_inactive, DAYS_MAX),
            ("unique_last_password_count", settings.unique_last_password_count, HISTORY_MAX),
            ("password_length_min", settings.password_length_min, 128),
        ] {
            if value > max {
                return Err(PolicyError::TooLarge { name, value, max });
            }
        }
        let regex = settings.password_regex.as_str();
        let bad = |why| PolicyError::Regex { pattern: regex.to_owned(), why };
        let pattern = if regex.is_empty() { None } else { Some(Pattern::parse(regex).map_err(bad)?) };
        Ok(Self { settings, pattern })
    }

    pub fn settings(&self) -> &SecurityCompliance {
        &self.settings
    }

    /// Is the text good as a password? Where it was used before is [`Self::history`]'s matter.
    pub fn check_text(&self, password: &Password) -> Result<(), Violation> {
        let (text, min) = (password.expose(), self.settings.password_length_min);
        if text.len() > PASSWORD_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        if text.chars().take(min as usize).count() < min as usize {
            return Err(Violation::TooShort { min });
        }
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.matches(text)) {
            let said = self.settings.password_regex_description.as_str();
            let description = if said.is_empty() { &self.settings.password_regex } else { said };
            return Err(Violation::Pattern { description: description.to_owned() });
        }
        Ok(())
    }

    /// May the user change the password now? `Administrator`: always.
    pub fn check_change(
        &self,
        record: Option<&PasswordRecord>,
        options: &PasswordOptions,
        by: SetBy,
        now: Timestamp,
    ) -> Result<(), Violation> {
        if by == SetBy::Administrator {
            return Ok(());
        }
        if options.lock_password {
            return Err(Violation::Locked);
        }
        let (Some(record), days) = (record, self.settings.minimum_password_age) else { return Ok(()) };
        // A password that was set by another has no age to keep: its user should change it soon.
        if days == 0 || record.current.set_by == SetBy::Administrator || is_expired(record, options, now) {
            return Ok(());
        }
        let left = after_days(record.current.created, days).duration_since(now);
        if left > SignedDuration::ZERO {
            let days_left = left.as_secs().max(1).unsigned_abs().div_ceil(DAY.as_secs().unsigned_abs());
            return Err(Violation::TooYoung { days, days_left: days_left.try_into().unwrap_or(i64::MAX) });
        }
        Ok(())
    }

    /// The hashes a new password must not be one of.
    pub fn history(&self, record: Option<&PasswordRecord>, by: SetBy) -> Vec<String> {
        match (record, by) {
            (Some(record), SetBy::User) => record.last(self.settings.unique_last_password_count as usize),
            _ => Vec::new(),
        }
    }

    /// What to answer when it is.
    pub fn reused(&self) -> Violation {
        Violation::Reused { count: self.settings.unique_last_password_count }
    }

    /// The record after `hash` became the password.
    pub fn changed(
        &self,
        record: Option<PasswordRecord>,
        hash: String,
        options: &PasswordOptions,
        by: SetBy,
        now: Timestamp,
    ) -> PasswordRecord {
        let settings = &self.settings;
        let first_use = settings.change_password_upon_first_use
            && by == SetBy::Administrator
            && !options.ignore_change_password_upon_first_use;
        let ages = settings.password_expires_days > 0 && !options.ignore_password_expiry;
        let expires = match (first_use, ages) {
            (true, _) => Some(now),
            (false, true) => Some(after_days(now, settings.password_expires_days)),
            (false, false) => None,
        };
        let password = StoredPassword { hash, created: now, expires, set_by: by };
        let history = settings.unique_last_password_count as usize;
        match record {
            Some(record) => record.changed(password, history),
            None => PasswordRecord::first(password),
        }
    }

    /// What the present password is good for.
    pub fn state(&self, record: &PasswordRecord, options: &PasswordOptions, now: Timestamp) -> PasswordState {
        if is_expired(record, options, now) { PasswordState::Expired } else { PasswordState::Good }
    }

    /// Has the user been away for too long?
    pub fn is_inactive(&self, last_active: Timestamp, options: &PasswordOptions, now: Timestamp) -> bool {
        let days = self.settings.disable_user_account_days_inactive;
        days > 0 && !options.ignore_user_inactivity && after_days(last_active, days) <= now
    }
}

/// A password to be changed at first use has expired when it was made; `ignore_password_expiry` is not
/// about those.
fn is_expired(record: &PasswordRecord, options: &PasswordOptions, now: Timestamp) -> bool {
    let current = &record.current;
    let first_use = current.expires == Some(current.created);
    let ignored = if first_use {
        options.ignore_change_password_upon_first_use
    } else {
        options.ignore_password_expiry
    };
    !ignored && current.expires.is_some_and(|expires| expires <= now)
}

/// The end of time for what lies beyond it.
fn after_days(from: Timestamp, days: u32) -> Timestamp {
    from.checked_add(DAY * i32::try_from(days).unwrap_or(i32::MAX)).unwrap_or(Timestamp::MAX)
}
