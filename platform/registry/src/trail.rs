//! What the registry leaves in the audit trail beside the requests that it answers: what it does by itself, and what
//! comes of a request after its answer.

use std::borrow::Cow;

use gantry_kube_types::{AuditEvent, AuditObject, SecurityEvent, UserInfo, audit_annotations};
use gantry_oci::RepositoryName;
use gantry_registry_api::{GROUP, Owner, RESOURCE};

use crate::Registry;
use crate::reconcile::OWN_USER;

/// Whose managers see the record.
pub(crate) fn whose(owner: &Owner) -> Option<(Cow<'static, str>, String)> {
    match owner {
        Owner { project: Some(id), .. } => Some((audit_annotations::PROJECT.into(), id.clone())),
        Owner { domain: Some(id), .. } => Some((audit_annotations::OBJECT_DOMAIN.into(), id.clone())),
        Owner { .. } => None,
    }
}

impl Registry {
    /// What the registry did by itself with a repository, in `facts`.
    pub(crate) async fn record(
        &self,
        kind: SecurityEvent,
        repository: &RepositoryName,
        facts: &[(&str, &str)],
    ) {
        self.record_of(UserInfo::authenticated(OWN_USER, &[]), kind, repository, facts).await;
    }

    /// [`Registry::record`], of what `user` asked for.
    pub(crate) async fn record_of(
        &self,
        user: UserInfo,
        kind: SecurityEvent,
        repository: &RepositoryName,
        facts: &[(&str, &str)],
    ) {
        let Some(sink) = self.inner.audit.get() else { return };
        let event =
            AuditEvent::security(kind, user).about(AuditObject::new(GROUP, RESOURCE, repository.as_str()));
        let whose = self.inner.catalogue.owner(repository.as_str()).and_then(|owner| whose(&owner));
        let event = whose.into_iter().fold(event, |event, (key, id)| event.with(key, id));
        let event =
            facts.iter().fold(event, |event, (key, value)| event.with(format!("{GROUP}/{key}"), *value));
        // The trail is closed when the platform ends.
        let _ = sink.record(event).await;
    }
}
