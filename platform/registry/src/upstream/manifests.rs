//! Manifests of upstreams: asked for when they are not here, or not fresh.

use std::sync::Arc;
use std::time::Instant;

use gantry_oci::client::{ClientError, Manifest};
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_signatures::attachment;

use super::{Freshness, REMEMBERED_MAX, Upstream, refused};
use crate::Registry;
use crate::errors::{ApiError, ErrorCode};
use crate::routes::ManifestName;
use crate::store::Tagging;

/// Sees to it that the manifest is here if its upstream has it, and says how sure that is. Nothing to do for
/// repositories of our own.
pub(crate) async fn manifest(
    registry: &Registry,
    repository: &RepositoryName,
    reference: &ManifestName,
) -> Result<Freshness, ApiError> {
    let Some((upstream, remote)) = registry.upstream(repository) else { return Ok(Freshness::Known) };
    let ask = Ask { registry, upstream: &upstream, repository, remote: &remote };
    let freshness = ask.bring(reference).await?;
    if let Some(digest) = ask.here(reference) {
        upstream.used(repository, &digest);
    }
    Ok(freshness)
}

struct Ask<'a> {
    registry: &'a Registry,
    upstream: &'a Arc<Upstream>,
    /// As it is called here, and there.
    repository: &'a RepositoryName,
    remote: &'a RepositoryName,
}

impl Ask<'_> {
    /// What is kept under the name.
    fn here(&self, reference: &ManifestName) -> Option<Digest> {
        let store = self.registry.store();
        match reference {
            ManifestName::Tag(tag) => store.resolve(self.repository, tag),
            ManifestName::Digest(digest) => {
                store.record(self.repository, digest).is_some().then(|| digest.clone())
            }
        }
    }

    fn is_fresh(&self, reference: &ManifestName) -> bool {
        let ManifestName::Tag(tag) = reference else { return self.here(reference).is_some() };
        let key = (self.repository.clone(), tag.clone());
        let fresh =
            self.upstream.memory().checked.get(&key).is_some_and(|at| at.elapsed() < self.upstream.fresh);
        fresh && self.here(reference).is_some()
    }

    fn checked(&self, tag: &Tag) {
        let mut memory = self.upstream.memory();
        if memory.checked.len() >= REMEMBERED_MAX {
            memory.checked.clear();
        }
        memory.checked.insert((self.repository.clone(), tag.clone()), Instant::now());
    }

    async fn bring(&self, reference: &ManifestName) -> Result<Freshness, ApiError> {
        if self.is_fresh(reference) {
            return Ok(Freshness::Known);
        }
        let key = (self.repository.clone(), reference.to_string());
        let turn = self.upstream.memory().asking.entry(key.clone()).or_default().clone();
        let answer = {
            let _mine = turn.lock().await;
            self.ask(reference).await
        };
        drop(turn);
        let mut memory = self.upstream.memory();
        // Whoever waits for it holds it, too.
        if memory.asking.get(&key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            memory.asking.remove(&key);
        }
        answer
    }

    async fn ask(&self, reference: &ManifestName) -> Result<Freshness, ApiError> {
        // Somebody may have asked while this one waited.
        if self.is_fresh(reference) {
            return Ok(Freshness::Known);
        }
        let here = self.here(reference);
        if let (Some(why), true) = (self.upstream.is_away(), here.is_some()) {
            return Ok(self.stale(&why));
        }
        let asked = self.current(reference, here.as_ref()).await;
        self.registry.note_answer(self.upstream, asked.as_ref().err());
        match asked {
            Ok(found) => {
                if let Some(found) = found {
                    self.keep(reference, found).await?;
                }
                if let ManifestName::Tag(tag) = reference {
                    self.checked(tag);
                }
                Ok(Freshness::Known)
            }
            Err(error) if error.is_not_found() => self.forget(reference).await,
            // Denied: the credentials ended, or it wants to be paid. What is kept stays good.
            Err(error) if here.is_some() => {
                tracing::warn!(upstream = self.upstream.name, repository = %self.repository, %error, "served stale");
                Ok(self.stale(&error.to_string()))
            }
            Err(error) => Err(refused(&self.upstream.name, &error)),
        }
    }

    /// The manifest as the upstream has it now; `None`: the same as here.
    async fn current(
        &self,
        reference: &ManifestName,
        here: Option<&Digest>,
    ) -> Result<Option<Manifest>, ClientError> {
        let (client, name) = (&self.upstream.client, reference.to_string());
        if here.is_some() && client.resolve(self.remote, &name).await?.as_ref() == here {
            return Ok(None);
        }
        client.manifest(self.remote, &name).await.map(Some)
    }

    async fn keep(&self, reference: &ManifestName, found: Manifest) -> Result<(), ApiError> {
        let Manifest { digest, media_type, bytes } = found;
        let max = self.registry.config().limits.manifest_references_max;
        let checked = crate::validate::check(&bytes, Some(&media_type), max);
        let mut record = checked.map_err(|why| {
            let message = format!("the upstream registry {}: {why}", self.upstream.name);
            ApiError::new(ErrorCode::ManifestInvalid).status(http::StatusCode::BAD_GATEWAY).message(message)
        })?;
        record.partial = true;
        self.registry.inner.catalogue.admit(self.repository).await?;
        let tag = match reference {
            ManifestName::Tag(tag) => Some(Tagging { tag: tag.clone(), immutable: false }),
            ManifestName::Digest(_) => None,
        };
        let (repository, stored, kept) = (self.repository.clone(), digest.clone(), record.clone());
        let put = self.registry.blocking(move |registry| {
            registry.store().put_manifest(&repository, &stored, record, &bytes, tag.as_ref())
        });
        match put.await? {
            Ok(()) => self.registry.scan_later(self.repository, &digest, &kept),
            // Refused is what lacks something, or moves what does not move; neither can be said of these.
            Err(refused) => {
                tracing::error!(?refused, repository = %self.repository, "an upstream's manifest was not kept");
            }
        }
        self.registry.note(self.repository);
        Ok(())
    }

    /// The upstream has it no more: a tag goes here, too. Images stay for who knows their digest.
    async fn forget(&self, reference: &ManifestName) -> Result<Freshness, ApiError> {
        if let ManifestName::Tag(tag) = reference {
            let (repository, tag) = (self.repository.clone(), tag.clone());
            if self.registry.blocking(move |r| r.store().delete_tag(&repository, &tag)).await? {
                self.registry.note(self.repository);
            }
        }
        Ok(Freshness::Known)
    }

    fn stale(&self, why: &str) -> Freshness {
        Freshness::Stale(format!(
            "{} is served as it was kept: the upstream registry {} does not answer ({why})",
            self.repository, self.upstream.name
        ))
    }
}

/// Fetches the signatures of an image that is pulled through, so that they can be checked here. What does not come
/// is not there for who checks.
pub(crate) async fn bring_signatures(registry: &Registry, repository: &RepositoryName, digest: &Digest) {
    if registry.upstream(repository).is_none() {
        return;
    }
    let Some(tag) = attachment::tag(digest) else { return };
    if let Err(error) = manifest(registry, repository, &ManifestName::Tag(tag.clone())).await {
        tracing::debug!(?error, %repository, "the signatures of an upstream's image did not come");
        return;
    }
    let Some(signed) = registry.store().resolve(repository, &tag) else { return };
    let (name, read) = (repository.clone(), signed);
    let bytes = registry.blocking(move |r| r.store().manifest(&name, &read)).await.ok().flatten();
    let entries = bytes.and_then(|bytes| attachment::entries(&bytes).ok()).unwrap_or_default();
    for entry in entries {
        if let Err(error) = super::blobs::whole(registry, repository, &entry.payload).await {
            tracing::debug!(?error, %repository, "a signature of an upstream's image did not come");
        }
    }
}
