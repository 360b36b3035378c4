//! Each way of proving who one is.

use std::sync::Arc;

use gantry_identity_api::{User, UserOptions};
use gantry_kube_types::{AuditEvent, AuditObject, SecurityEvent, UserInfo};
use jiff::Timestamp;

use super::{CredentialRef, Method, Origin, Proof, UserRef, secrets, user_object};
use crate::core::Core;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::lockout::{Refusal, Source, Subject, source_of};
use crate::password::{Login, LoginError, Password, PasswordError, PasswordOptions};

/// Methods of one request.
const METHODS_MAX: usize = 8;

impl Method {
    /// Whom the method is about, for the record.
    pub(super) fn who(&self) -> Option<String> {
        match self {
            Self::Password { user, .. } | Self::Totp { user, .. } => Some(user.text()),
            Self::Federated { user, .. } => Some(user.clone()),
            Self::ApplicationCredential { credential: CredentialRef::Id(id), .. } => Some(id.clone()),
            Self::ApplicationCredential { credential: CredentialRef::Name { user, .. }, .. } => {
                Some(user.text())
            }
            Self::Token { .. } => None,
        }
    }
}

impl Core {
    /// All methods must succeed and be about one user.
    pub(super) async fn prove(
        &self,
        methods: Vec<Method>,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Proof, IdentityError> {
        if methods.is_empty() || methods.len() > METHODS_MAX {
            return Err(IdentityError::Unauthorized);
        }
        let mut proof: Option<Proof> = None;
        for method in methods {
            let next = self.prove_one(method, origin, now).await?;
            proof = Some(match proof {
                None => next,
                Some(before) => merged(before, next)?,
            });
        }
        proof.ok_or(IdentityError::Unauthorized)
    }

    async fn prove_one(
        &self,
        method: Method,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Proof, IdentityError> {
        let word = method.word().to_owned();
        let proof = |user: Arc<User>| Proof {
            user,
            methods: vec![word.clone()],
            token: None,
            application_credential: None,
        };
        match method {
            Method::Password { user, password } => {
                Ok(proof(self.by_password(&user, password, origin, now).await?))
            }
            Method::Totp { user, passcode } => Ok(proof(self.by_totp(&user, &passcode, origin, now).await?)),
            Method::Federated { user, .. } => {
                let state = self.directory.read();
                let found = state.users.get(&user).filter(|u| state.user_active(u)).cloned();
                Ok(proof(found.ok_or(IdentityError::Unauthorized)?))
            }
            Method::Token { token } => {
                let session = self.validate(&token)?;
                // What somebody was entrusted with, they do not turn into more.
                if session.claims.trust.is_some() || session.claims.oauth.is_some() {
                    let why = "A token that was made with a trust does not give another.";
                    return Err(IdentityError::Forbidden(why.to_owned()));
                }
                let mut methods = session.claims.methods.clone();
                if !methods.contains(&word) {
                    methods.push(word);
                }
                Ok(Proof {
                    user: session.user.clone(),
                    methods,
                    application_credential: session.claims.application_credential.clone(),
                    token: Some(session),
                })
            }
            Method::ApplicationCredential { credential, secret } => {
                let (user, id) = self.by_application_credential(&credential, &secret, origin, now).await?;
                Ok(Proof { application_credential: Some(id), ..proof(user) })
            }
        }
    }

    /// Who exists, is enabled and is managed here; the same work is done for all others.
    fn local_user(&self, user: &UserRef) -> Option<Arc<User>> {
        let state = self.directory.read();
        let found = user.find(&state)?;
        (state.user_active(found) && found.spec.provider.is_none()).then(|| found.clone())
    }

    async fn by_password(
        &self,
        user: &UserRef,
        password: Password,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Arc<User>, IdentityError> {
        if let Some(found) = self.by_source(user, &password, origin, now).await? {
            return Ok(found);
        }
        let found = self.local_user(user);
        let (id, text) = (found.as_ref().map(|u| u.id()), user.text());
        let options = found.as_ref().map(|u| u.spec.options.clone()).unwrap_or_default();
        let login = Login {
            subject: id.as_deref().map_or(Subject::Nobody(&text), Subject::User),
            source: source(origin),
            password,
            options: PasswordOptions::from(&options),
            now,
        };
        match (self.passwords.verify(login).await, found) {
            (Ok(_), Some(found)) => Ok(found),
            (Ok(_), None) => Err(IdentityError::Unauthorized),
            (Err(error), found) => Err(self.password_failed(error, found.as_deref(), origin).await?),
        }
    }

    /// What a failed password means for the caller; a lock-out leaves a record of its own.
    pub(crate) async fn password_failed(
        &self,
        error: LoginError,
        user: Option<&User>,
        origin: &Origin,
    ) -> Result<IdentityError, IdentityError> {
        Ok(match error {
            LoginError::Wrong(failure) => {
                if let Some(until) = failure.address_until {
                    self.address_locked_out(until, origin).await?;
                }
                if let (Some(until), Some(user)) = (failure.locked_until, user) {
                    let event = AuditEvent::security(SecurityEvent::LockedOut, UserInfo::anonymous());
                    let event = event.about(user_object(&user.id()));
                    let event = event.with("identity.gantry.dev/locked-until", until.to_string());
                    let name = self.directory.read().kubernetes_name(user).unwrap_or_default();
                    let event = event.with("identity.gantry.dev/user", name);
                    self.record(event, origin).await?;
                }
                IdentityError::Unauthorized
            }
            // To the client no different from a wrong password, or a lock-out would tell who exists.
            LoginError::Refused(Refusal::Locked { .. }) => IdentityError::Unauthorized,
            LoginError::Refused(refusal) => {
                let seconds = refusal.retry_after().as_secs().max(1);
                IdentityError::TooMany { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX) }
            }
            LoginError::Expired => IdentityError::PasswordExpired(user.map(|u| u.id()).unwrap_or_default()),
            LoginError::Password(PasswordError::Busy { retry_after }) => {
                let seconds = u32::try_from(retry_after.as_secs().max(1)).unwrap_or(u32::MAX);
                IdentityError::TooMany { retry_after_s: seconds }
            }
            LoginError::Password(PasswordError::TooLong) => IdentityError::Unauthorized,
            other => IdentityError::Unavailable(other.to_string()),
        })
    }

    /// The record of an address that has to wait from now on, whomever it tried.
    async fn address_locked_out(&self, until: Timestamp, origin: &Origin) -> Result<(), IdentityError> {
        let address = origin.connection.peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
        let event = AuditEvent::security(SecurityEvent::LockedOut, UserInfo::anonymous());
        let event = event.about(AuditObject::new(gantry_identity_api::GROUP, "addresses", &address));
        self.record(event.with("identity.gantry.dev/locked-until", until.to_string()), origin).await
    }

    async fn by_totp(
        &self,
        user: &UserRef,
        passcode: &str,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Arc<User>, IdentityError> {
        let found = {
            let state = self.directory.read();
            user.find(&state).filter(|u| state.user_active(u)).cloned()
        };
        let (id, text) = (found.as_ref().map(|u| u.id()), user.text());
        let subject = id.as_deref().map_or(Subject::Nobody(&text), Subject::User);
        let options: UserOptions = found.as_ref().map(|u| u.spec.options.clone()).unwrap_or_default();
        let ignores = options.ignore_lockout_failure_attempts == Some(true);
        // Six digits are guessed sooner than a password: the same counters slow both down.
        let attempt = self.passwords.lockout().begin(subject, source(origin), ignores, now);
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(refusal) => {
                return Err(self
                    .password_failed(LoginError::Refused(refusal), found.as_deref(), origin)
                    .await?);
            }
        };
        let good = secrets::check_totp(&self.vault, id.as_deref(), passcode, now).await?;
        match found {
            Some(found) if good => {
                attempt.succeeded();
                Ok(found)
            }
            found => {
                let failure = attempt.failed(now);
                Err(self.password_failed(LoginError::Wrong(failure), found.as_deref(), origin).await?)
            }
        }
    }

    async fn by_application_credential(
        &self,
        credential: &CredentialRef,
        secret: &Password,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<(Arc<User>, String), IdentityError> {
        let found = {
            let state = self.directory.read();
            let found = match credential {
                CredentialRef::Id(id) => state.application_credentials.get(id),
                CredentialRef::Name { name, user } => user
                    .find(&state)
                    .and_then(|user| state.application_credentials.by_name(Some(&user.id()), name)),
            };
            let live = found.filter(|c| c.spec.expires_at.as_ref().is_none_or(|at| at.0 > now));
            live.and_then(|c| {
                let user = state.users.get(&c.spec.user).filter(|u| state.user_active(u))?;
                Some((user.clone(), c.id()))
            })
        };
        let id = found.as_ref().map(|(_, id)| id.as_str());
        let good =
            secrets::check_application_secret(&self.vault, &self.passwords, id, secret, source(origin));
        match (good.await?, found) {
            (true, Some(found)) => Ok(found),
            _ => Err(IdentityError::Unauthorized),
        }
    }
}

fn merged(mut before: Proof, next: Proof) -> Result<Proof, IdentityError> {
    if before.user.id() != next.user.id() {
        return Err(IdentityError::Unauthorized);
    }
    for method in next.methods {
        if !before.methods.contains(&method) {
            before.methods.push(method);
        }
    }
    Ok(Proof {
        token: before.token.or(next.token),
        application_credential: before.application_credential.or(next.application_credential),
        ..before
    })
}

pub(crate) fn source(origin: &Origin) -> Source {
    source_of(origin.connection.peer.map(|peer| peer.ip()))
}
