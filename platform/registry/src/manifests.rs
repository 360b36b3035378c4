//! Manifests by tag and by digest.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use gantry_kube_types::{UserInfo, groups};
use gantry_oci::{Digest, Hasher, RepositoryName, Tag};
use gantry_registry_api::EventType;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::Registry;
use crate::access::Caller;
use crate::blobs::{build, matches};
use crate::catalogue::Facts;
use crate::errors::{ApiError, ErrorCode};
use crate::events::manifest_data;
use crate::gate::{Act, Asked};
use crate::routes::ManifestName;
use crate::rules::{Counted, immutable, is_immutable};
use crate::scans::images::{has_file_system, is_image};
use crate::store::{ManifestRecord, Refused, Removed, Tagging};

/// `GET` and `HEAD /v2/NAME/manifests/REFERENCE`.
pub(crate) async fn get(
    registry: &Registry,
    caller: &Caller<'_>,
    name: RepositoryName,
    reference: ManifestName,
    headers: &HeaderMap,
    head: bool,
) -> Result<Response, ApiError> {
    let unknown = || {
        let reference = reference.to_string();
        ApiError::new(ErrorCode::ManifestUnknown)
            .detail(json!({ "name": name.as_str(), "reference": reference }))
    };
    let digest = match &reference {
        ManifestName::Digest(digest) => digest.clone(),
        ManifestName::Tag(tag) => registry.store().resolve(&name, tag).ok_or_else(unknown)?,
    };
    let record = registry.store().record(&name, &digest).ok_or_else(unknown)?;
    let etag = format!("\"{digest}\"");
    let mut response =
        Response::builder().header("Docker-Content-Digest", digest.to_string()).header(ETAG, &etag);
    if matches(headers, &etag) {
        return Ok(build(response.status(StatusCode::NOT_MODIFIED), Body::empty()));
    }
    response = response.header(CONTENT_TYPE, &record.media_type).header(CONTENT_LENGTH, record.size);
    if head {
        return Ok(build(response, Body::empty()));
    }
    registry.take_rate(&name, &registry.rules(&name), &caller.user.username, Counted::Pull)?;
    // Which pods may run it was decided when they were made.
    if !caller.user.in_group(groups::NODES) {
        permit(registry, Act::Pull, &name, &reference.to_string(), &digest, &record).await?;
    }
    registry.inner.counts.pulls.add(1);
    registry.store().note_pull(&name, &digest);
    if registry.is_heard(EventType::Pulled) {
        registry.glimpsed(&name, &reference, manifest_data(&digest, &record, &caller.user.username));
    }
    let repository = name.clone();
    let manifest = match registry.store().warm.get(&digest) {
        Some(manifest) => Some(manifest),
        None => registry.blocking(move |r| r.store().manifest(&repository, &digest)).await?,
    };
    Ok(build(response, Body::from(manifest.ok_or_else(unknown)?)))
}

/// `PUT /v2/NAME/manifests/REFERENCE`.
pub(crate) async fn put(
    registry: &Registry,
    caller: &Caller<'_>,
    name: RepositoryName,
    reference: ManifestName,
    request: Request,
) -> Result<Response, ApiError> {
    let limits = &registry.config().limits;
    let facts = registry.facts(&name);
    let rules = facts.as_ref().map(|facts| facts.rules.clone()).unwrap_or_default();
    registry.take_rate(&name, &rules, &caller.user.username, Counted::Push)?;
    let (parts, body) = request.into_parts();
    let max = limits.manifest_size_max_bytes;
    let bytes = axum::body::to_bytes(body, max).await.map_err(|_| {
        ApiError::new(ErrorCode::ManifestInvalid)
            .status(StatusCode::PAYLOAD_TOO_LARGE)
            .message(format!("the manifest broke off or is larger than {max} bytes"))
    })?;
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let record = crate::validate::check(&bytes, content_type, limits.manifest_references_max)
        .map_err(|message| ApiError::new(ErrorCode::ManifestInvalid).message(message))?;
    let (digest, tag) = match reference {
        ManifestName::Tag(tag) => (Digest::of(&bytes), Some(tag)),
        ManifestName::Digest(expected) => {
            let mut hasher = Hasher::new(expected.algorithm());
            hasher.update(&bytes);
            let found = hasher.finish();
            if found != expected {
                return Err(ApiError::new(ErrorCode::DigestInvalid)
                    .message(format!("the manifest has the digest {found}, not {expected}")));
            }
            (expected, None)
        }
    };
    let subject = record.subject.clone();
    accept(registry, &caller.user, &name, facts, (&digest, record), bytes, tag).await?;
    let mut response = Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{name}/manifests/{digest}"))
        .header("Docker-Content-Digest", digest.to_string())
        .header(CONTENT_LENGTH, 0);
    if let Some(subject) = subject {
        response = response.header("OCI-Subject", subject.to_string());
    }
    Ok(build(response, Body::empty()))
}

/// Stores a manifest, where policies and rules let it in, and tells who listens.
pub(crate) async fn accept(
    registry: &Registry,
    user: &UserInfo,
    name: &RepositoryName,
    facts: Option<Facts>,
    (digest, record): (&Digest, ManifestRecord),
    bytes: Bytes,
    tag: Option<Tag>,
) -> Result<(), ApiError> {
    let named = tag.clone().map_or_else(|| ManifestName::Digest(digest.clone()), ManifestName::Tag);
    if !is_image(&record) || has_file_system(&bytes) {
        permit(registry, Act::Push, name, &named.to_string(), digest, &record).await?;
    }
    let rules = facts.as_ref().map(|facts| facts.rules.clone()).unwrap_or_default();
    let data = manifest_data(digest, &record, &user.username);
    let tag = tag.map(|tag| Tagging { immutable: is_immutable(&rules, &tag), tag });
    let stored = store(registry, name, facts, (digest, record), bytes, tag).await;
    registry.note(name);
    stored?;
    registry.inner.counts.pushes.add(1);
    // Before anybody is told that it is here.
    registry.happened(EventType::Pushed, name, Some(&named), data).await?;
    Ok(())
}

/// What policies say of the image that `reference` (a tag or a digest) of the repository is.
async fn permit(
    registry: &Registry,
    act: Act,
    repository: &RepositoryName,
    reference: &str,
    digest: &Digest,
    record: &ManifestRecord,
) -> Result<(), ApiError> {
    if !registry.has_policies(act) {
        return Ok(());
    }
    let separator = if reference.contains(':') { '@' } else { ':' };
    let name = format!("{repository}{separator}{reference}");
    let asked = Asked { repository, name: &name, digest };
    registry.permit(act, asked, record).await?.map_err(|refusal| {
        ApiError::new(ErrorCode::Denied)
            .status(StatusCode::FORBIDDEN)
            .message(format!("image {name} ({digest}): {refusal}"))
    })
}

/// Stores the manifest if it fits.
pub(crate) async fn store(
    registry: &Registry,
    name: &RepositoryName,
    facts: Option<Facts>,
    (digest, record): (&Digest, ManifestRecord),
    bytes: Bytes,
    tag: Option<Tagging>,
) -> Result<(), ApiError> {
    let (_counting, crowded) = match facts {
        Some(facts) => {
            let counting = registry.inner.counting.lock().await;
            match registry.fits(&facts, digest, &record) {
                Ok(crowded) => (Some(counting), crowded),
                Err(refused) => {
                    drop(counting);
                    tell_of_quota(registry, name, digest, &refused).await;
                    return Err(refused);
                }
            }
        }
        None => Default::default(),
    };
    let tagged = tag.as_ref().map(|tag| tag.tag.to_string()).unwrap_or_default();
    let (repository, stored, pushed) = (name.clone(), digest.clone(), record.clone());
    let put = registry
        .blocking(move |r| r.store().put_manifest(&repository, &stored, record, &bytes, tag.as_ref()));
    match put.await? {
        Ok(()) => {
            registry.scan_later(name, digest, &pushed);
            registry.crowd(&crowded);
            Ok(())
        }
        Err(Refused::Missing(missing)) => {
            let missing: Vec<_> = missing.iter().map(|digest| json!({ "digest": digest })).collect();
            Err(ApiError::new(ErrorCode::ManifestBlobUnknown).detail(missing.into()))
        }
        Err(Refused::Immutable) => Err(immutable(name, &tagged)),
    }
}

/// A push did not fit, and whoever makes room may not be who pushed.
async fn tell_of_quota(registry: &Registry, name: &RepositoryName, digest: &Digest, refused: &ApiError) {
    let data = refused.facts();
    if data.get("quotaBytes").is_some() {
        let reference = ManifestName::Digest(digest.clone());
        registry.told(EventType::QuotaExceeded, name, Some(&reference), data).await;
    }
}

/// `DELETE /v2/NAME/manifests/REFERENCE`: a tag alone, or a manifest with all its tags.
pub(crate) async fn delete(
    registry: &Registry,
    caller: &Caller<'_>,
    name: RepositoryName,
    reference: ManifestName,
) -> Result<Response, ApiError> {
    let (named, changed, deleting) = (reference.to_string(), name.clone(), reference.clone());
    let rules = registry.rules(&name);
    if let ManifestName::Tag(tag) = &reference
        && is_immutable(&rules, tag)
    {
        return Err(immutable(&name, tag.as_str()));
    }
    let deleted = registry.blocking(move |r| match &reference {
        ManifestName::Tag(tag) => match r.store().delete_tag(&name, tag)? {
            true => Ok(Removed::Done),
            false => Ok(Removed::Unknown),
        },
        ManifestName::Digest(digest) => r.store().delete_manifest_if(&name, digest, &|entry| {
            let mut tags = entry.tags.iter().filter(|(_, tagged)| *tagged == digest);
            !tags.any(|(tag, _)| is_immutable(&rules, tag))
        }),
    });
    match deleted.await? {
        Removed::Done => {}
        Removed::Unknown => {
            return Err(ApiError::new(ErrorCode::ManifestUnknown).detail(json!({ "reference": named })));
        }
        Removed::Kept => return Err(immutable(&changed, &format!("a tag of {named}"))),
        Removed::InUse => {
            return Err(ApiError::new(ErrorCode::Denied)
                .status(StatusCode::CONFLICT)
                .message(format!("an index names {named}: delete the index first")));
        }
    }
    registry.note(&changed);
    let data = json!({ "reason": "request", "user": caller.user.username });
    registry.happened(EventType::Deleted, &changed, Some(&deleting), data).await?;
    Ok(build(Response::builder().status(StatusCode::ACCEPTED).header(CONTENT_LENGTH, 0), Body::empty()))
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}
