//! The component's heart: what every door (Keystone API, authenticators, admission, commands) works with.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use gantry_identity_api::User;
use gantry_kube_types::{AuditEvent, AuditSink, SecurityEvent};
use jiff::{SignedDuration, Timestamp};

use crate::directory::Directory;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::keys::{KeyRing, KeySchedule};
use crate::lockout::{Lockout, LockoutSettings, Subject};
use crate::login::{Origin, user_object};
use crate::objects::Objects;
use crate::password::{
    ChangeError, HasherSettings, Login, Password, PasswordHasher, PasswordOptions, PasswordPolicy, Passwords,
    SecurityCompliance,
};
use crate::providers::Providers;
use crate::revocation::{Cause, Event, RevocationConfig, Revocations, Target};
use crate::session::Session;
use crate::sessions::Sessions;
use crate::token::{Checks, Claims, Tokens, TokensConfig};
use crate::vault::Vault;

/// Who our tokens are for: every service of this platform.
const AUDIENCE: &str = "gantry";

/// What the operator chooses.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Keystone's `[security_compliance]`.
    pub security_compliance: SecurityCompliance,
    pub lockout: LockoutSettings,
    pub hashing: HasherSettings,
    /// How long a token lives, in seconds.
    pub token_lifetime_seconds: Option<u64>,
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Vault and revocations are files in here.
    pub data: PathBuf,
    /// Signing and sealing keys.
    pub keys: PathBuf,
    /// `https://127.0.0.1:6443`: tokens are issued by `<url>/identity`.
    pub external_url: String,
    pub settings: Settings,
}

/// Why the component does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the vault of secrets: {0}")]
    Vault(#[from] crate::vault::VaultError),
    #[error("the rules for passwords: {0}")]
    Policy(#[from] crate::password::PolicyError),
    #[error("password hashing: {0}")]
    Hashing(#[from] crate::password::PasswordError),
    #[error("the token signing keys: {0}")]
    Keys(#[from] crate::keys::KeyError),
    #[error("the revoked tokens: {0}")]
    Revocations(#[from] crate::revocation::RevocationError),
    #[error("{path}: {error}")]
    Directory { path: String, error: std::io::Error },
}

/// Everything together. One per process, shared by all doors.
pub struct Core {
    pub directory: Directory,
    pub objects: Objects,
    pub vault: Vault,
    pub passwords: Passwords,
    pub tokens: Tokens,
    pub revocations: Revocations,
    pub config: Config,
    /// Where users come from who are not managed here.
    pub providers: Providers,
    sessions: Sessions,
    /// There before anything is served; absent in benches.
    audit: OnceLock<Arc<dyn AuditSink>>,
}

impl Core {
    /// Opens files and keys. Nothing is known until [`Core::directory`] follows the API server.
    ///
    /// Blocks on files: call it at start.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        for directory in [&config.data, &config.keys] {
            gantry_base::fs::create_directory(directory, 0o700)
                .map_err(|error| OpenError::Directory { path: directory.display().to_string(), error })?;
        }
        let vault = Vault::open(&config.data.join("vault.redb"), &config.keys.join("vault.key"))?;
        let settings = &config.settings;
        let compliance = settings.security_compliance.clone();
        let lockout = Lockout::new(compliance.lockout(settings.lockout.clone()));
        let hasher = PasswordHasher::start(settings.hashing.clone())?;
        let policy = PasswordPolicy::new(compliance)?;
        let passwords = Passwords::new(vault.clone(), hasher, lockout, policy);
        let keys = KeyRing::open(&config.keys.join("tokens"), KeySchedule::default(), Timestamp::now())?;
        let issuer = format!("{}/identity", config.external_url);
        let mut token_config = TokensConfig::new(&issuer, AUDIENCE);
        if let Some(seconds) = settings.token_lifetime_seconds {
            token_config.lifetime = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
        let tokens = Tokens::new(Arc::new(keys), token_config);
        let kept = RevocationConfig::new(KeySchedule::default().keep);
        let revocations = Revocations::open(&config.data.join("revocations.redb"), kept, Timestamp::now())?;
        let directory = Directory::default();
        let objects = Objects::new(directory.clone());
        let (providers, sessions, audit) = (Providers::default(), Sessions::default(), OnceLock::new());
        Ok(Self {
            directory,
            objects,
            vault,
            passwords,
            tokens,
            revocations,
            config,
            providers,
            sessions,
            audit,
        })
    }

    /// Security events go there from now on.
    pub fn audit_to(&self, sink: Arc<dyn AuditSink>) {
        // The first one stays: there is one trail.
        let _ = self.audit.set(sink);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// What the token means now; a bad one of any kind is the same `Unauthorized`.
    pub fn validate(&self, token: &str) -> Result<Arc<Session>, IdentityError> {
        let now = self.now();
        let claims = self.tokens.verify(token, Checks::at(now)).map_err(|_| IdentityError::Unauthorized)?;
        self.session(claims, now).ok_or(IdentityError::Unauthorized)
    }

    /// The session of verified claims, unless they are revoked or their user or scope is gone.
    pub(crate) fn session(&self, claims: Arc<Claims>, now: Timestamp) -> Option<Arc<Session>> {
        let versions = (self.directory.version(), self.revocations.generation());
        self.sessions.get_or(&claims, versions, now, || {
            if self.revocations.is_revoked(&claims) {
                return None;
            }
            Session::of(&self.directory.read(), claims.clone(), now)
        })
    }

    /// Queues a security event; nothing is answered before it is queued.
    pub(crate) async fn record(&self, event: AuditEvent, origin: &Origin) -> Result<(), IdentityError> {
        let Some(sink) = self.audit.get() else { return Ok(()) };
        let event = event.from_address(origin.connection.peer.map(|p| p.ip())).in_request(&origin.request);
        sink.record(event).await.map_err(|closed| IdentityError::Unavailable(closed.to_string()))
    }

    /// The user changes their own password, also an expired one. Every token made with the old one is revoked.
    pub async fn change_password(
        &self,
        user: &str,
        original: Password,
        new: Password,
        origin: &Origin,
    ) -> Result<(), IdentityError> {
        let (found, options) = self.changeable(user);
        let login = Login {
            subject: if found.is_some() { Subject::User(user) } else { Subject::Nobody(user) },
            source: crate::login::source(origin),
            password: original,
            options,
            now: self.now(),
        };
        match self.passwords.change(login, new).await {
            Ok(_) => self.password_set(user, SecurityEvent::PasswordChanged, origin).await,
            Err(ChangeError::Login(error)) => {
                Err(self.password_failed(error, found.as_deref(), origin).await?)
            }
            Err(error) => Err(change_error(error)),
        }
    }

    /// Somebody who may sets the user's password.
    pub async fn set_password(
        &self,
        user: &str,
        new: Password,
        origin: &Origin,
    ) -> Result<(), IdentityError> {
        let (_, options) = self.changeable(user);
        let source = crate::login::source(origin);
        self.passwords.set(user, source, new, options, self.now()).await.map_err(change_error)?;
        self.password_set(user, SecurityEvent::PasswordReset, origin).await
    }

    /// Enabled and managed here.
    fn changeable(&self, user: &str) -> (Option<Arc<User>>, PasswordOptions) {
        let state = self.directory.read();
        let found = state.users.get(user).filter(|u| state.user_enabled(u) && u.spec.provider.is_none());
        let options = found.map(|u| u.spec.options.clone()).unwrap_or_default();
        (found.cloned(), PasswordOptions::from(&options))
    }

    async fn password_set(
        &self,
        user: &str,
        event: SecurityEvent,
        origin: &Origin,
    ) -> Result<(), IdentityError> {
        let target = Target::User(user.to_owned());
        self.revoke(Event::new(target, Cause::PasswordChanged, self.now())).await?;
        let info = {
            let state = self.directory.read();
            let found = state.users.get(user).map(|u| crate::session::spoken_name(&state, u));
            gantry_kube_types::UserInfo { username: found.unwrap_or_default(), ..Default::default() }
        };
        self.record(AuditEvent::security(event, info).about(user_object(user)), origin).await
    }

    /// Revokes one token; those got with it live on, as in Keystone.
    pub async fn revoke_token(&self, session: &Session, origin: &Origin) -> Result<(), IdentityError> {
        self.revoke(Event::token(&session.claims, Cause::Revoked, self.now())).await?;
        let event = AuditEvent::security(SecurityEvent::TokenRevoked, session.info.clone());
        let event = event.about(user_object(&session.user.id()));
        self.record(event.with(gantry_identity_api::extra::TOKEN_ID, session.claims.id.clone()), origin).await
    }

    /// Makes tokens useless, here at once and for good once it returns.
    pub(crate) async fn revoke(&self, event: Event) -> Result<(), IdentityError> {
        let revoked = self.revocations.record(event).await;
        revoked.map_err(|error| IdentityError::Unavailable(error.to_string()))
    }
}

#[async_trait::async_trait]
impl crate::tenancy::Secrets for Core {
    async fn forget_user(&self, id: &str) -> Result<(), String> {
        self.vault.delete_owner(id).await.map_err(|error| error.to_string())?;
        self.passwords.lockout().unlock(id);
        let event = Event::new(Target::User(id.to_owned()), Cause::Deleted, self.now());
        self.revocations.record(event).await.map_err(|error| error.to_string())
    }

    async fn forget_application_credential(&self, id: &str) -> Result<(), String> {
        self.vault.delete_owner(id).await.map_err(|error| error.to_string())?;
        let event = Event::new(Target::ApplicationCredential(id.to_owned()), Cause::Deleted, self.now());
        self.revocations.record(event).await.map_err(|error| error.to_string())
    }
}

pub(crate) fn change_error(error: ChangeError) -> IdentityError {
    match error {
        ChangeError::Violation(violation) => IdentityError::Invalid(violation.to_string()),
        ChangeError::Race => IdentityError::Conflict(error.to_string()),
        ChangeError::Login(_) => IdentityError::Unauthorized,
        ChangeError::Password(crate::password::PasswordError::TooLong) => {
            IdentityError::Invalid(crate::password::PasswordError::TooLong.to_string())
        }
        other => IdentityError::Unavailable(other.to_string()),
    }
}
