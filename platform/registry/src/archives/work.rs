//! An archive that is here, read and stored.

use std::io;
use std::sync::atomic::Ordering;

use gantry_kube_types::{SecurityEvent, UserInfo};
use gantry_oci::archive::{ArchiveError, ArchiveLimits, ArchivedManifest, contents};
use gantry_oci::image::Blob;
use gantry_oci::{Reference, RepositoryName, Tag};

use super::plan::{Plan, plan};
use super::{Phase, Record, Stored};
use crate::Registry;
use crate::access::Caller;
use crate::errors::ApiError;
use crate::rules::Counted;
use crate::seed::SeedError;
use crate::uploads::Locked;

/// Why an archive was not stored.
enum Failure {
    /// It is no good, and its bytes need not be kept.
    Bad(String),
    /// Another time, or with other rights or rules, it may be.
    Refused(String),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error.into_parts().message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        match error {
            // What the system said, and not a reader of the archive.
            ArchiveError::Io(error) if error.raw_os_error().is_some() => error.into(),
            error => Self::Bad(error.to_string()),
        }
    }
}

impl From<SeedError> for Failure {
    fn from(error: SeedError) -> Self {
        match error {
            SeedError::Storage(error) => error.into(),
            SeedError::Busy => Self::Refused(error.to_string()),
            SeedError::Invalid(why) => Self::Bad(why),
        }
    }
}

/// Reads and stores the archive that `upload` has become, with the rights of `user`.
pub(super) async fn work(registry: Registry, user: UserInfo, record: Record, mut upload: Locked) {
    let archives = &registry.inner.archives;
    let id = upload.id.clone();
    let stored = match archives.working.acquire().await {
        Ok(_permit) => store(&registry, &user, &record, &upload).await,
        Err(_) => Err(Failure::Refused("the registry is closed".to_owned())),
    };
    let keeps = matches!(stored, Err(Failure::Refused(_)));
    let done = match stored {
        Ok(images) => {
            tracing::info!(%id, user = user.username, images = images.len(), "an archive was stored");
            let size_bytes = Some(upload.received_bytes);
            Record { phase: Phase::Done, images, error: None, size_bytes, ..record }
        }
        Err(Failure::Bad(why) | Failure::Refused(why)) => {
            tracing::info!(%id, user = user.username, why, "an archive was not stored");
            Record { phase: Phase::Failed, error: Some(why), ..record }
        }
    };
    let ended = registry.blocking(move |registry| {
        // First what came of it: without its bytes, it would be gone as if nobody had gone on with it.
        let put = registry.inner.archives.put(&upload.id, done);
        if !keeps {
            registry.store().cancel_upload(&mut upload)?;
        }
        put
    });
    if let Err(error) = ended.await {
        tracing::error!(%error, id, "what came of an archive could not be written down");
        archives.advance(&id, Phase::Failed);
    }
}

async fn store(
    registry: &Registry,
    user: &UserInfo,
    record: &Record,
    upload: &Locked,
) -> Result<Vec<Stored>, Failure> {
    registry.inner.archives.advance(&upload.id, Phase::Reading);
    let limits = ArchiveLimits {
        uncompressed_max_bytes: registry.config().limits.blob_size_max_bytes,
        scratch: Some(registry.config().root.join("uploads")),
        ..ArchiveLimits::default()
    };
    let path = upload.path().to_owned();
    let read = registry.blocking(move |_| Ok(contents(&path, &limits)));
    let manifests = read.await??;
    let name: Option<Reference> = match &record.name {
        Some(name) => Some(name.parse().map_err(|error| Failure::Bad(format!("{name:?}: {error}")))?),
        None => None,
    };
    let plan = plan(&manifests, name.as_ref()).map_err(Failure::Refused)?;
    for repository in plan.keys() {
        Caller::later(registry, user.clone()).require("push", repository.as_str())?;
        registry.refuse_pushes_to_mirrors(repository)?;
    }
    registry.inner.archives.advance(&upload.id, Phase::Storing);
    store_blobs(registry, &upload.id, &manifests, &plan).await?;
    // Every byte was what it should be: now images may be seen.
    let mut stored = Vec::new();
    for (repository, wanted) in &plan {
        registry.inner.catalogue.admit(repository).await?;
        for (n, tags) in wanted {
            store_manifest(registry, user, repository, (&manifests[*n], tags)).await?;
            stored.extend(tags.iter().map(|tag| Stored {
                repository: repository.to_string(),
                tag: tag.to_string(),
                digest: manifests[*n].digest.to_string(),
                media_type: manifests[*n].media_type.clone(),
            }));
        }
    }
    Ok(stored)
}

async fn store_blobs(
    registry: &Registry,
    id: &str,
    manifests: &[ArchivedManifest],
    plan: &Plan,
) -> Result<(), Failure> {
    let mut wanted: Vec<(RepositoryName, Blob)> = Vec::new();
    for (repository, parts) in plan {
        let mut seen = std::collections::HashSet::new();
        for blob in parts.keys().flat_map(|n| &manifests[*n].blobs) {
            if seen.insert(&blob.digest) {
                wanted.push((repository.clone(), blob.clone()));
            }
        }
    }
    let progress = registry.inner.archives.progress(id);
    progress.total_bytes.store(wanted.iter().map(|(_, blob)| blob.size_bytes).sum(), Ordering::Relaxed);
    let stored = registry.blocking(move |registry| {
        let mut watch = |bytes| {
            progress.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        let mut each = wanted.iter();
        Ok(each.try_for_each(|(repository, blob)| registry.put_blob_now(repository, blob, &mut watch)))
    });
    Ok(stored.await??)
}

/// Stores a manifest under each of its tags, or by its digest alone.
async fn store_manifest(
    registry: &Registry,
    user: &UserInfo,
    repository: &RepositoryName,
    (manifest, tags): (&ArchivedManifest, &[Tag]),
) -> Result<(), Failure> {
    let max = registry.config().limits.manifest_references_max;
    let record = crate::validate::check(&manifest.bytes, Some(&manifest.media_type), max);
    let record = record.map_err(|why| Failure::Bad(format!("the manifest {}: {why}", manifest.digest)))?;
    let tags: Vec<Option<Tag>> = match tags {
        [] => vec![None],
        tags => tags.iter().cloned().map(Some).collect(),
    };
    for tag in tags {
        let facts = registry.facts(repository);
        if tag.is_some() {
            registry.take_rate(repository, &registry.rules(repository), &user.username, Counted::Push)?;
        }
        let (digest, bytes) = (&manifest.digest, manifest.bytes.clone());
        let manifest = (digest, record.clone());
        let named = tag.clone();
        crate::manifests::accept(registry, user, repository, facts, manifest, bytes, tag).await?;
        // The request that this comes of was answered, and names neither the image nor what became of it.
        if let Some(tag) = named {
            let shown = digest.to_string();
            let facts = [("digest", shown.as_str()), ("tag", tag.as_str())];
            registry.record_of(user.clone(), SecurityEvent::ImageUploaded, repository, &facts).await;
        }
    }
    Ok(())
}
