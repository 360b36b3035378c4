//! Verify, set, change: vault, pool, rules and lock-out put together.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::policy::{PasswordOptions, PasswordPolicy, PasswordState, Violation};
use super::record::{PasswordRecord, SetBy};
use super::{Password, PasswordError, PasswordHasher};
use crate::lockout::{Failure, Lockout, Refusal, Source, Subject};
use crate::vault::{SecretBytes, SecretKey, SecretKind, Vault, VaultError};

/// Times a change is tried again because another came between its reading and its writing.
const RACES_MAX: usize = 3;

/// One attempt to sign in with a password.
#[derive(Debug)]
pub struct Login<'a> {
    /// Who is meant, and whether there is such a user. A disabled one, or one whose passwords are another
    /// system's, is `Nobody` here: it takes as long and fails alike.
    pub subject: Subject<'a>,
    pub source: Source,
    pub password: Password,
    pub options: PasswordOptions,
    pub now: Timestamp,
}

/// Why a password does not sign in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Also for users that do not exist, or have no password.
    #[error("the user or the password is wrong")]
    Wrong(Failure),
    #[error(transparent)]
    Refused(Refusal),
    /// The password is right.
    #[error("the password has expired and has to be changed")]
    Expired,
    #[error(transparent)]
    Password(PasswordError),
    #[error(transparent)]
    Vault(VaultError),
}

/// Why a password is not set.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Login(LoginError),
    #[error(transparent)]
    Violation(Violation),
    #[error(transparent)]
    Password(PasswordError),
    #[error(transparent)]
    Vault(VaultError),
    #[error("the password was changed by another at the same time: try again")]
    Race,
}

struct Checked {
    record: PasswordRecord,
    /// The record as it lies in the vault.
    secret: SecretBytes,
    outdated: bool,
}

/// The passwords of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Passwords {
    vault: Vault,
    pub(super) hasher: PasswordHasher,
    lockout: Lockout,
    policy: Arc<ArcSwap<PasswordPolicy>>,
}

impl Passwords {
    pub fn new(vault: Vault, hasher: PasswordHasher, lockout: Lockout, policy: PasswordPolicy) -> Self {
        Self { vault, hasher, lockout, policy: Arc::new(ArcSwap::from_pointee(policy)) }
    }

    /// The rules as they are now.
    pub fn policy(&self) -> Arc<PasswordPolicy> {
        self.policy.load_full()
    }

    /// Other rules from now on. What is kept already keeps the expiry it got.
    pub fn set_policy(&self, policy: PasswordPolicy) {
        self.policy.store(Arc::new(policy));
    }

    pub fn lockout(&self) -> &Lockout {
        &self.lockout
    }

    pub fn hasher(&self) -> &PasswordHasher {
        &self.hasher
    }

    /// Checks a password; gives the record it was checked with. A hash of another cost than the settings'
    /// is made anew behind the answer.
    pub async fn verify(&self, login: Login<'_>) -> Result<PasswordRecord, LoginError> {
        let (options, now) = (login.options, login.now);
        let (subject, source, password) = (login.subject, login.source, login.password.clone());
        let checked = self.verify_any_age(login).await?;
        if let (true, Subject::User(user)) = (checked.outdated, subject) {
            self.rehash(user.to_owned(), source, password, checked.record.clone(), checked.secret);
        }
        match self.policy().state(&checked.record, &options, now) {
            PasswordState::Good => Ok(checked.record),
            PasswordState::Expired => Err(LoginError::Expired),
        }
    }

    /// The user changes the password, also one that has expired.
    pub async fn change(&self, login: Login<'_>, new: Password) -> Result<PasswordRecord, ChangeError> {
        let (subject, source, options, now) = (login.subject, login.source, login.options, login.now);
        let checked = self.verify_any_age(login).await.map_err(ChangeError::Login)?;
        // Only what is kept under a user's id can have been verified.
        let (Subject::User(user) | Subject::Nobody(user)) = subject;
        let policy = self.policy();
        policy.check_text(&new).map_err(ChangeError::Violation)?;
        // What was verified is what is replaced: an administrator's reset in between is not undone.
        let record = Some(checked.record);
        policy.check_change(record.as_ref(), &options, SetBy::User, now).map_err(ChangeError::Violation)?;
        let history = policy.history(record.as_ref(), SetBy::User);
        if !history.is_empty() {
            let found = self.hasher.find(source.lane(), new.clone(), history).await;
            if found.map_err(ChangeError::Password)?.is_some() {
                return Err(ChangeError::Violation(policy.reused()));
            }
        }
        let hash = self.hasher.hash(source.lane(), new).await.map_err(ChangeError::Password)?;
        let record = policy.changed(record, hash, &options, SetBy::User, now);
        let key = SecretKey::only(SecretKind::Password, user);
        let kept = self.vault.replace(key, Some(checked.secret), Some(record.to_secret())).await;
        if kept.map_err(ChangeError::Vault)? { Ok(record) } else { Err(ChangeError::Race) }
    }

    /// Somebody who may update the user sets the password; a lock-out ends. Neither history nor minimum
    /// age bind, as in Keystone.
    pub async fn set(
        &self,
        user: &str,
        source: Source,
        new: Password,
        options: PasswordOptions,
        now: Timestamp,
    ) -> Result<PasswordRecord, ChangeError> {
        let policy = self.policy();
        policy.check_text(&new).map_err(ChangeError::Violation)?;
        let hash = self.hasher.hash(source.lane(), new).await.map_err(ChangeError::Password)?;
        let key = SecretKey::only(SecretKind::Password, user);
        for _ in 0..RACES_MAX {
            let found = self.vault.get(key.clone()).await.map_err(ChangeError::Vault)?;
            let record = found.as_ref().and_then(PasswordRecord::from_secret);
            let record = policy.changed(record, hash.clone(), &options, SetBy::Administrator, now);
            let kept = self.vault.replace(key.clone(), found, Some(record.to_secret())).await;
            if kept.map_err(ChangeError::Vault)? {
                self.lockout.unlock(user);
                return Ok(record);
            }
        }
        Err(ChangeError::Race)
    }

    /// The user has no password any more.
    pub async fn remove(&self, user: &str) -> Result<bool, VaultError> {
        self.vault.delete(SecretKey::only(SecretKind::Password, user)).await
    }

    /// What is kept of the user's passwords.
    pub async fn record(&self, user: &str) -> Result<Option<PasswordRecord>, VaultError> {
        let found = self.vault.get(SecretKey::only(SecretKind::Password, user)).await?;
        Ok(found.as_ref().and_then(PasswordRecord::from_secret))
    }

    async fn verify_any_age(&self, login: Login<'_>) -> Result<Checked, LoginError> {
        let began = Instant::now();
        let Login { subject, source, password, options, now } = login;
        let ignores = options.ignore_lockout_failure_attempts;
        let attempt = self.lockout.begin(subject, source, ignores, now).map_err(LoginError::Refused)?;
        let name = match subject {
            Subject::User(id) => id,
            // Looked up as well, so that it takes as long: nothing is ever kept under such an owner.
            Subject::Nobody(_) => "\u{0}nobody",
        };
        let found = self.vault.get(SecretKey::only(SecretKind::Password, name)).await;
        let found = found.map_err(LoginError::Vault)?;
        let record = found.as_ref().and_then(PasswordRecord::from_secret);
        let hash = record.as_ref().map(|record| record.current.hash.clone());
        let verified = self.hasher.verify(source.lane(), password, hash).await;
        let verified = verified.map_err(LoginError::Password)?;
        let (Some(record), Some(secret), true) = (record, found, verified.matches) else {
            // The wait begins now, not when the login came into the queue.
            let now = now.checked_add(began.elapsed()).unwrap_or(now);
            return Err(LoginError::Wrong(attempt.failed(now)));
        };
        attempt.succeeded();
        Ok(Checked { record, secret, outdated: verified.outdated })
    }

    /// Behind the answer; when it does not succeed, the next login tries again.
    fn rehash(
        &self,
        user: String,
        source: Source,
        password: Password,
        record: PasswordRecord,
        found: SecretBytes,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(hash) = this.hasher.hash(source.lane(), password).await else { return };
            let mut record = record;
            record.current.hash = hash;
            let key = SecretKey::only(SecretKind::Password, &user);
            if let Err(error) = this.vault.replace(key, Some(found), Some(record.to_secret())).await {
                tracing::warn!(user, %error, "a password hash could not be brought to the present cost");
            }
        });
    }
}
