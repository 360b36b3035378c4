//! The component's heart: what every door (Keystone API, authenticators, admission, commands) works with.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use gantry_identity_api::User;
use gantry_kube_types::{AuditEvent, AuditObject, AuditSink, SecurityEvent, UserFields, UserInfo};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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
use crate::pull::PullCredentials;
use crate::revocation::{Cause, Event, Facts, RevocationConfig, Revocations, Target};
use crate::session::{Session, trust_stands};
use crate::sessions::{Last, Sessions, Versions};
use crate::token::{Checks, Claims, Tokens, TokensConfig};
use crate::vault::{SecretKey, Vault};

/// Who our tokens are for: every service of this platform.
const AUDIENCE: &str = "gantry";

/// The longest time for which an expired token can be read: keys and revocations are kept for as long.
const ALLOW_EXPIRED: SignedDuration = SignedDuration::from_hours(48);

/// What the operator chooses.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Keystone's `[security_compliance]`.
    pub security_compliance: SecurityCompliance,
    pub lockout: LockoutSettings,
    pub hashing: HasherSettings,
    /// Where clients reach the platform, `https://cloud.example.org`: in the catalogue and as the tokens' issuer.
    /// Absent: this machine's address.
    pub external_url: Option<String>,
    /// How long a token lives, in seconds. Absent: four hours; more than a day is a day.
    pub token_lifetime_seconds: Option<u64>,
    /// For how long a service can still read a token that has expired, in seconds: Keystone's
    /// `[token] allow_expired_window`. Absent: two days.
    pub allow_expired_window_seconds: Option<u64>,
}

impl Settings {
    /// Why they cannot be used.
    pub fn problem(&self) -> Option<String> {
        let url = self.external_url.as_deref()?;
        let parsed = url.parse::<http::Uri>().ok();
        let is_root = |uri: &http::Uri| {
            uri.scheme_str() == Some("https") && uri.host().is_some() && matches!(uri.path(), "" | "/")
        };
        let good =
            parsed.as_ref().is_some_and(|uri| is_root(uri) && uri.query().is_none()) && !url.ends_with('/');
        (!good).then(|| {
            format!("external_url is {url:?}; it is https:// and a host, with a port where that is not 443")
        })
    }
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
    /// Every `HOST:PORT` by which clients name the platform's registry: what image pull secrets are for.
    pub registry_hosts: Vec<String>,
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
    File { path: String, error: std::io::Error },
}

/// Everything together. One per process, shared by all doors.
pub struct Core {
    pub directory: Directory,
    pub objects: Objects,
    pub vault: Vault,
    pub passwords: Passwords,
    pub tokens: Tokens,
    pub revocations: Revocations,
    pub pull: Arc<PullCredentials>,
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
                .map_err(|error| OpenError::File { path: directory.display().to_string(), error })?;
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
        let pull_key = config.keys.join("pull.key");
        let pull = PullCredentials::open(&pull_key, config.registry_hosts.clone())
            .map_err(|error| OpenError::File { path: pull_key.display().to_string(), error })?;
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
            pull: Arc::new(pull),
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

    /// [`Core::validate`], also of a token that expired lately: work that was begun with it may be finished by the
    /// services that it was shown to. What has been revoked meanwhile, or taken away, is gone all the same.
    pub fn validate_expired(&self, token: &str) -> Result<Arc<Session>, IdentityError> {
        let now = self.now();
        let seconds = self.config.settings.allow_expired_window_seconds;
        let window =
            seconds.map_or(ALLOW_EXPIRED, |s| SignedDuration::from_secs(i64::try_from(s).unwrap_or(0)));
        let checks = Checks { expired_for: window.min(ALLOW_EXPIRED), ..Checks::at(now) };
        let claims = self.tokens.verify(token, checks).map_err(|_| IdentityError::Unauthorized)?;
        self.session(claims, now).ok_or(IdentityError::Unauthorized)
    }

    /// Is the token still good that the caller came with, for a service that handed out something of its own for it at
    /// that time? Of callers who are none of ours it cannot be said: true.
    pub fn still_good(&self, caller: &UserInfo, issued_at: Timestamp) -> bool {
        let state = self.directory.read();
        let project = |id: &str| state.projects.get(id).map(|project| project.spec.domain.as_str());
        let Some(facts) = Facts::of_caller(caller, issued_at, project) else { return true };
        let active = state.users.get(facts.user).is_some_and(|user| state.user_active(user));
        let stands = |id| trust_stands(&state, id, self.now());
        active && facts.trust.is_none_or(stands) && self.revocations.find(&facts).is_none()
    }

    /// Goes up with whatever [`Core::still_good`] depends on.
    pub(crate) fn standing_version(&self) -> u64 {
        let (directory, revocations) = self.versions();
        directory + revocations
    }

    /// The session of verified claims, unless they are revoked or their user or scope is gone.
    pub(crate) fn session(&self, claims: Arc<Claims>, now: Timestamp) -> Option<Arc<Session>> {
        self.session_at(self.versions(), claims, now)
    }

    /// [`Core::session`], for who keeps the one of before.
    pub(crate) fn session_again(
        &self,
        last: &Last,
        claims: &Arc<Claims>,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        let versions = self.versions();
        last.get_or(versions, now, || self.session_at(versions, claims.clone(), now))
    }

    fn versions(&self) -> Versions {
        (self.directory.version(), self.revocations.generation())
    }

    fn session_at(&self, versions: Versions, claims: Arc<Claims>, now: Timestamp) -> Option<Arc<Session>> {
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
            Ok(_) => {
                let own = found.map(|found| crate::session::spoken_name(&self.directory.read(), &found));
                let own = UserFields { username: own.unwrap_or_default(), ..UserFields::default() };
                self.password_set(user, SecurityEvent::PasswordChanged, own.into(), origin).await
            }
            Err(ChangeError::Login(error)) => {
                Err(self.password_failed(error, found.as_deref(), origin).await?)
            }
            Err(error) => Err(change_error(error)),
        }
    }

    /// Somebody who may sets the user's password; the record says that it was `by` them.
    pub async fn set_password(
        &self,
        user: &str,
        new: Password,
        by: UserInfo,
        origin: &Origin,
    ) -> Result<(), IdentityError> {
        let (_, options) = self.changeable(user);
        let source = crate::login::source(origin);
        let locked = self.passwords.lockout().locked_until(user, self.now()).is_some();
        self.passwords.set(user, source, new, options, self.now()).await.map_err(change_error)?;
        if locked {
            let event = AuditEvent::security(SecurityEvent::Unlocked, by.clone()).about(user_object(user));
            self.record(event, origin).await?;
        }
        self.password_set(user, SecurityEvent::PasswordReset, by, origin).await
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
        by: UserInfo,
        origin: &Origin,
    ) -> Result<(), IdentityError> {
        let target = Target::User(user.to_owned());
        self.revoke(Event::new(target, Cause::PasswordChanged, self.now())).await?;
        self.show_expiry(user).await?;
        self.record(AuditEvent::security(event, by).about(user_object(user)), origin).await
    }

    /// Writes into the user's status when the password ends.
    pub(crate) async fn show_expiry(&self, user: &str) -> Result<(), IdentityError> {
        let (_, options) = self.changeable(user);
        let kept = self.passwords.record(user).await;
        let kept = kept.map_err(|error| IdentityError::Unavailable(error.to_string()))?;
        let expires = kept.and_then(|record| record.current.expires);
        let expires = expires.filter(|_| !options.ignore_password_expiry).map(|at| Time(whole_seconds(at)));
        let shown = {
            let state = self.directory.read();
            let Some(found) = state.users.get(user) else { return Ok(()) };
            found.status.as_ref().and_then(|status| status.password_expires_at.clone())
        };
        if shown == expires {
            return Ok(());
        }
        let show = |user: &mut User| {
            user.status.get_or_insert_default().password_expires_at.clone_from(&expires);
            Ok(())
        };
        self.objects.update_status(user, show).await.map(drop)
    }

    /// Revokes one token; those got with it live on, as in Keystone. The record says that it was `by` them; who
    /// revokes the very token they came with logs out.
    pub async fn revoke_token(
        &self,
        session: &Session,
        by: &Session,
        origin: &Origin,
    ) -> Result<(), IdentityError> {
        self.revoke(Event::token(&session.claims, Cause::Revoked, self.now())).await?;
        let kind = match session.claims.id == by.claims.id {
            true => SecurityEvent::Logout,
            false => SecurityEvent::TokenRevoked,
        };
        let event = AuditEvent::security(kind, by.info.clone());
        let event = event.about(user_object(&session.user.id()));
        self.record(event.with(gantry_identity_api::extra::TOKEN_ID, session.claims.id.clone()), origin).await
    }

    /// Makes and removes signing keys, where that is due; what is new is recorded.
    pub(crate) async fn tend_keys(&self, now: Timestamp) -> Result<(), String> {
        let keys = self.tokens.keys().clone();
        let made = tokio::task::spawn_blocking(move || {
            // Reads and writes a few key files.
            let maintained = keys.maintain(now);
            maintained.map(|_| keys.take_made())
        });
        for key in made.await.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())? {
            let signs_from = Timestamp::from_second(key.signs_from()).unwrap_or(now).to_string();
            let about = AuditObject::new(gantry_identity_api::GROUP, "signingkeys", key.id());
            let event = AuditEvent::security(SecurityEvent::SigningKeyRotated, crate::component::own_user());
            let event = event.about(about).with("identity.gantry.dev/signs-from", signs_from);
            self.record(event, &Origin::default()).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Makes tokens useless, here at once and for good once it returns.
    pub(crate) async fn revoke(&self, event: Event) -> Result<(), IdentityError> {
        let revoked = self.revocations.record(event).await;
        revoked.map_err(|error| IdentityError::Unavailable(error.to_string()))
    }
}

#[async_trait::async_trait]
impl crate::tenancy::Secrets for Core {
    async fn forget(&self, key: &SecretKey) -> Result<(), String> {
        self.vault.delete(key.clone()).await.map(drop).map_err(|error| error.to_string())
    }

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

    async fn forget_project(&self, id: &str) -> Result<(), String> {
        let event = Event::new(Target::Project(id.to_owned()), Cause::Deleted, self.now());
        self.revocations.record(event).await.map_err(|error| error.to_string())
    }

    async fn forget_domain(&self, id: &str) -> Result<(), String> {
        // By their keys: what else has this id as its owner is not the domain's.
        for key in crate::keystone::domain_secrets(id) {
            self.forget(&key).await?;
        }
        let event = Event::new(Target::Domain(id.to_owned()), Cause::Deleted, self.now());
        self.revocations.record(event).await.map_err(|error| error.to_string())
    }
}

/// As objects hold times.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
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
