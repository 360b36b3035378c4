//! Signing in with a name and a password that a source knows.

use std::sync::Arc;

use gantry_identity_api::{Domain, IdentityProvider, Named as _, ProviderType, User};
use gantry_identity_sources::{ExternalUser, SourceError};
use jiff::Timestamp;
use kube::ResourceExt;
use secrecy::SecretString;

use super::shadow::{disable_user, ensure_user, user_id};
use super::{Built, Source};
use crate::core::Core;
use crate::directory::State;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::lockout::Subject;
use crate::login::{Origin, UserRef};
use crate::password::{LoginError, Password};

/// Whom to ask about whom.
struct Question {
    /// The shadow of that name, if the person has been here before.
    known: Option<Arc<User>>,
    domain: Arc<Domain>,
    name: String,
    providers: Vec<Arc<IdentityProvider>>,
}

impl Question {
    /// `None`: nobody outside is to be asked; also for every user that is managed here, disabled ones included.
    fn of(state: &State, user: &UserRef) -> Option<Self> {
        let known = user.find(state).cloned();
        let (domain, name, provider) = match (&known, user) {
            (Some(known), _) => {
                let provider = known.spec.provider.clone()?;
                (state.domains.get(&known.spec.domain)?, known.display_name(), Some(provider))
            }
            (None, UserRef::Name { name, domain }) => (domain.find(state)?, name.clone(), None),
            (None, UserRef::Id(_)) => return None,
        };
        if !domain.spec.enabled {
            return None;
        }
        let of_domain = state.providers.iter().filter(|p| {
            let by_password = p.spec.provider_type != ProviderType::Oidc;
            p.spec.enabled
                && by_password
                && p.spec.domain == domain.id()
                && p.metadata.deletion_timestamp.is_none()
        });
        let asked = of_domain.filter(|p| provider.as_ref().is_none_or(|id| *id == p.id()));
        let providers: Vec<Arc<IdentityProvider>> = asked.cloned().collect();
        (!providers.is_empty()).then(|| Self { known, domain: domain.clone(), name, providers })
    }

    /// What failures of unknown names are counted under. Directories do not tell these spellings apart, so neither
    /// does the count.
    fn spelling(&self) -> String {
        let plain = |c: char| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
            c => c,
        };
        let name: String = self.name.chars().filter(|c| !c.is_whitespace()).map(plain).collect();
        format!("{}/{}", self.domain.id(), name.to_lowercase())
    }
}

impl Core {
    /// Asks the sources of the user's domain. `None`: there are none, or the user is managed here.
    pub(crate) async fn by_source(
        &self,
        user: &UserRef,
        password: &Password,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<Option<Arc<User>>, IdentityError> {
        let question = Question::of(&self.directory.read(), user);
        let Some(question) = question else { return Ok(None) };
        let known = question.known.as_deref();
        let (id, spelling) = (known.map(|user| user.id()), question.spelling());
        let subject = id.as_deref().map_or(Subject::Nobody(&spelling), Subject::User);
        let ignores = known.is_some_and(|u| u.spec.options.ignore_lockout_failure_attempts == Some(true));
        // Before the source is asked: a guessing game here must not lock accounts there.
        let attempt = self.passwords.lockout().begin(subject, crate::login::source(origin), ignores, now);
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(refusal) => {
                return Err(self.password_failed(LoginError::Refused(refusal), known, origin).await?);
            }
        };
        match self.ask(&question, password, origin).await {
            Ok(Some((built, external))) => {
                attempt.succeeded();
                let by_id = matches!(user, UserRef::Id(_));
                if by_id && id != Some(user_id(&built.id(), &external.id)) {
                    return Err(IdentityError::Unauthorized);
                }
                ensure_user(self, &built, &external, origin).await.map(Some)
            }
            Ok(None) => {
                let failure = attempt.failed(now);
                Err(self.password_failed(LoginError::Wrong(failure), known, origin).await?)
            }
            // Nothing was learnt: it counts as neither.
            Err(error) => Err(error),
        }
    }

    /// The first source that knows name and password; `None`: all of them say no.
    async fn ask(
        &self,
        question: &Question,
        password: &Password,
        origin: &Origin,
    ) -> Result<Option<(Built, ExternalUser)>, IdentityError> {
        let secret = SecretString::from(password.expose());
        let mut silent = None;
        for provider in &question.providers {
            let built = match self.providers.source(self, provider).await {
                Ok(built) => built,
                Err(error) => {
                    silent = Some(IdentityError::from(error));
                    continue;
                }
            };
            let remote_domain = built.remote_domain(&self.directory.read());
            match authenticate(&built, &question.name, &remote_domain, &secret).await {
                Ok(external) => return Ok(Some((built, external))),
                Err(SourceError::BadCredentials | SourceError::Rejected { .. }) => {}
                Err(SourceError::Disabled { .. }) => {
                    if let Some(known) = question.known.as_ref().filter(|user| user.spec.enabled) {
                        disable_user(self, &known.id(), origin).await?;
                    }
                    return Err(IdentityError::Unauthorized);
                }
                Err(error) => {
                    tracing::warn!(provider = provider.name_any(), %error, "a source does not answer a sign-in");
                    silent = Some(IdentityError::Unavailable(error.to_string()));
                }
            }
        }
        silent.map_or(Ok(None), Err)
    }
}

async fn authenticate(
    built: &Built,
    name: &str,
    remote_domain: &str,
    password: &SecretString,
) -> Result<ExternalUser, SourceError> {
    match &built.source {
        Source::Ldap(ldap) => ldap.authenticate(name, password).await,
        Source::Keystone(keystone) => Ok(keystone.authenticate(name, remote_domain, password).await?.user),
        // Not asked: passwords are the provider's own affair.
        Source::Oidc(_) => Err(SourceError::BadCredentials),
    }
}

#[cfg(test)]
mod tests {
    use gantry_identity_api::IdentityProviderSpec;

    use super::*;
    use crate::directory::tests::{put, two_organisations};

    fn provider(domain: &str, kind: ProviderType, enabled: bool) -> IdentityProviderSpec {
        IdentityProviderSpec { provider_type: kind, domain: domain.to_owned(), enabled, ..Default::default() }
    }

    #[test]
    fn sources_are_asked_about_their_own_domain_and_nobody_managed_here() {
        let mut state = two_organisations();
        put(&mut state, IdentityProvider::new("acme-ldap", provider("acme", ProviderType::Ldap, true)));
        put(&mut state, IdentityProvider::new("acme-ldap-2", provider("acme", ProviderType::Ldap, true)));
        put(&mut state, IdentityProvider::new("acme-off", provider("acme", ProviderType::Ldap, false)));
        put(&mut state, IdentityProvider::new("globex-oidc", provider("globex", ProviderType::Oidc, true)));
        for (id, source) in [("shadow", "acme-ldap-2"), ("orphan", "acme-off")] {
            let mut user = (**state.users.get("alice").expect("alice")).clone();
            user.metadata.name = Some(id.to_owned());
            user.spec.provider = Some(source.to_owned());
            put(&mut state, user);
        }
        let mut bob = (**state.users.get("bob").expect("bob")).clone();
        bob.spec.enabled = false;
        put(&mut state, bob);
        for (user, want) in [
            ("acme/alice", None),
            // Disabled here: that somebody outside has the name does not matter.
            ("acme/bob", None),
            ("acme/shadow", Some("acme-ldap-2")),
            ("acme/orphan", None),
            ("acme/new", Some("acme-ldap,acme-ldap-2")),
            ("globex/new", None),
            ("nowhere/new", None),
        ] {
            let asked = Question::of(&state, &UserRef::parse(user));
            let asked = asked.map(|q| q.providers.iter().map(|p| p.name_any()).collect::<Vec<_>>().join(","));
            assert_eq!(asked.as_deref(), want, "{user}");
        }
    }

    #[test]
    fn spellings_of_one_name_count_as_one() {
        let mut state = two_organisations();
        put(&mut state, IdentityProvider::new("acme-ldap", provider("acme", ProviderType::Ldap, true)));
        let spelling = |name: &str| {
            let user = UserRef::parse(&format!("acme/{name}"));
            Question::of(&state, &user).map(|q| q.spelling()).unwrap_or_default()
        };
        for name in ["Zoe", "zoe ", "Z OE", "ｚoe"] {
            assert_eq!(spelling(name), "acme/zoe", "{name}");
        }
        assert_ne!(spelling("zoé"), "acme/zoe");
    }
}
