//! Signing in at a provider, which says who it is: one way for the Keystone API and for browsers.

use std::sync::Arc;

use gantry_identity_api::{IdentityProvider, ProviderType, extra};
use gantry_identity_sources::{ExternalUser, SourceError};
use gantry_kube_types::{AuditEvent, SecurityEvent, UserInfo};

use super::{Built, ensure_user};
use crate::core::Core;
use crate::errors::IdentityError;
use crate::lockout::{Attempt, Subject};
use crate::login::{Issued, LoginRequest, Method, Origin, ScopeRequest, user_object};
use crate::password::LoginError;

impl Core {
    /// The enabled provider of this name or id and kind.
    pub(crate) async fn provider(&self, name: &str, kind: ProviderType) -> Result<Built, IdentityError> {
        let found = {
            let state = self.directory.read();
            let found = state.provider_called(name);
            let fits = |p: &&Arc<IdentityProvider>| {
                let domain = state.domains.get(&p.spec.domain).is_some_and(|d| d.spec.enabled);
                p.spec.enabled && p.spec.provider_type == kind && domain
            };
            found.filter(fits).cloned()
        };
        let found = found.ok_or_else(|| IdentityError::not_found("Identity Provider", name))?;
        Ok(self.providers.source(self, &found).await?)
    }

    /// Counts by provider and address: who it is, is not known before the provider says it.
    pub(crate) async fn begin_outside(
        &self,
        built: &Built,
        origin: &Origin,
    ) -> Result<Attempt, IdentityError> {
        let source = crate::login::source(origin);
        let subject = format!("{}@{source:?}", built.id());
        match self.passwords.lockout().begin(Subject::Nobody(&subject), source, false, self.now()) {
            Ok(attempt) => Ok(attempt),
            Err(refusal) => Err(self.password_failed(LoginError::Refused(refusal), None, origin).await?),
        }
    }

    /// The person is known: their shadow, and a token for it.
    pub(crate) async fn signed_in_outside(
        &self,
        built: &Built,
        user: &ExternalUser,
        attempt: Attempt,
        origin: &Origin,
    ) -> Result<Issued, IdentityError> {
        attempt.succeeded();
        let shadow = match ensure_user(self, built, user, origin).await {
            Ok(shadow) => shadow,
            Err(error) => {
                self.record_outside(built, &error.to_string(), origin).await?;
                return Err(error);
            }
        };
        let user = crate::directory::table::Entry::id(shadow.as_ref());
        let method = Method::Federated { user, protocol: built.protocol() };
        let request =
            LoginRequest { methods: vec![method], scope: ScopeRequest::Unscoped, ..LoginRequest::default() };
        self.login(request, origin).await
    }

    /// The provider says no, or nothing. Only a no counts as a failure, and only where there is an attempt to count.
    pub(crate) async fn failed_outside(
        &self,
        built: &Built,
        error: &SourceError,
        attempt: Option<Attempt>,
        origin: &Origin,
    ) -> Result<(), IdentityError> {
        self.record_outside(built, &error.to_string(), origin).await?;
        if let Some(attempt) = attempt
            && matches!(error, SourceError::BadCredentials | SourceError::Rejected { .. })
        {
            attempt.failed(self.now());
        }
        Ok(())
    }

    async fn record_outside(&self, built: &Built, why: &str, origin: &Origin) -> Result<(), IdentityError> {
        let event = AuditEvent::security(SecurityEvent::LoginFailed, UserInfo::anonymous());
        let event = event.about(user_object("")).failed(401, "Unauthorized", why);
        let event = event.with(extra::METHOD, built.protocol().to_owned());
        let event = event.with(extra::PROVIDER, built.id());
        self.record(event, origin).await
    }
}
