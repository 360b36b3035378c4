//! What copies between registries need: blobs as they come, digests of tags, and what refers to a manifest.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, Method, StatusCode};
use reqwest::{Body, Response};
use serde_json::{Value, json};

use super::{ClientError, MANIFESTS, RegistryClient};
use crate::{Digest, RepositoryName};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Sent by registries that list what refers to a manifest themselves.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// What refers to one manifest, at most.
const REFERRERS_MAX: usize = 1000;

/// A blob on its way. Nobody has checked it.
#[derive(Debug)]
pub struct Incoming {
    response: Response,
    pace: Option<super::Pace>,
}

impl Incoming {
    /// What the registry says that its size is.
    pub fn size_bytes(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.response.chunk().await?;
        if let (Some(pace), Some(bytes)) = (&self.pace, &chunk) {
            pace.take(bytes.len()).await;
        }
        Ok(chunk)
    }
}

impl RegistryClient {
    /// Begins to fetch a blob.
    pub async fn incoming(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Incoming, ClientError> {
        let path = format!("v2/{repository}/blobs/{digest}");
        let response = self.send(Method::GET, &path, &[], Body::from("")).await?;
        Ok(Incoming { response, pace: self.pace.clone() })
    }

    /// What a tag points to as the registry says; `None`: it has no such tag, or says nothing of digests.
    pub async fn resolve(
        &self,
        repository: &RepositoryName,
        reference: &str,
    ) -> Result<Option<Digest>, ClientError> {
        let path = format!("v2/{repository}/manifests/{reference}");
        match self.send(Method::HEAD, &path, &[(ACCEPT, MANIFESTS.to_owned())], Body::from("")).await {
            Ok(response) => {
                let digest = response.headers().get(DIGEST).and_then(|v| v.to_str().ok());
                Ok(digest.and_then(|text| text.parse().ok()))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifests that refer to another, of one kind or of all. Asked of registries that do not know (before
    /// OCI 1.1) by the tag that clients keep instead.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Digest>, ClientError> {
        let path = format!("v2/{repository}/referrers/{subject}");
        let listed = match self.items(path, "manifests").await {
            Ok(listed) => listed,
            Err(error) if error.is_not_found() => {
                self.index_under(repository, &fallback_tag(subject)).await?.unwrap_or_default()
            }
            Err(error) => return Err(error),
        };
        let fits = |d: &&Value| artifact_type.is_none_or(|kind| d["artifactType"].as_str() == Some(kind));
        let digests = listed.iter().filter(fits).filter_map(|d| d["digest"].as_str()?.parse().ok());
        Ok(digests.take(REFERRERS_MAX).collect())
    }

    async fn index_under(
        &self,
        repository: &RepositoryName,
        tag: &str,
    ) -> Result<Option<Vec<Value>>, ClientError> {
        match self.manifest(repository, tag).await {
            Ok(index) => {
                let index: Value = serde_json::from_slice(&index.bytes)
                    .map_err(|error| ClientError::Protocol(error.to_string()))?;
                Ok(index["manifests"].as_array().cloned())
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pushes a manifest that refers to another one; where the registry does not list those itself, it is added to
    /// the tag that clients keep for it (OCI Distribution 1.1, *Referrers Tag Schema*).
    pub async fn put_referrer(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        (digest, media_type, bytes): (&Digest, &str, Bytes),
        reference: &str,
    ) -> Result<(), ClientError> {
        let size = bytes.len();
        let parsed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let headers = [(CONTENT_TYPE, media_type.to_owned())];
        let path = format!("v2/{repository}/manifests/{reference}");
        let answer = self.send(Method::PUT, &path, &headers, bytes.into()).await?;
        if answer.headers().contains_key(SUBJECT) {
            return Ok(());
        }
        let tag = fallback_tag(subject);
        let mut listed = self.index_under(repository, &tag).await?.unwrap_or_default();
        let named = digest.to_string();
        if listed.len() >= REFERRERS_MAX || listed.iter().any(|d| d["digest"].as_str() == Some(&named)) {
            return Ok(());
        }
        let kind = parsed["artifactType"].as_str().or(parsed["config"]["mediaType"].as_str());
        let mut entry = json!({ "mediaType": media_type, "digest": named, "size": size });
        if let Some(kind) = kind {
            entry["artifactType"] = kind.into();
        }
        if parsed["annotations"].is_object() {
            entry["annotations"] = parsed["annotations"].clone();
        }
        listed.push(entry);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed }).to_string();
        self.put_manifest(repository, &tag, INDEX, index.into()).await
    }

    /// Whether there is a registry behind the address that lets the caller in.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.send(Method::GET, "v2/", &[], Body::from("")).await.map(drop)
    }

    /// Whether the caller may push to the repository: an upload is begun, and forgotten.
    pub async fn check_push(&self, repository: &RepositoryName) -> Result<(), ClientError> {
        let path = format!("v2/{repository}/blobs/uploads/");
        let begun = self.send(Method::POST, &path, &[], Body::from("")).await?;
        let location = super::header(&begun, &http::header::LOCATION)?;
        self.send(Method::DELETE, &location, &[], Body::from("")).await.map(drop)
    }

    /// Whether a manifest of this digest is there.
    pub async fn has_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, ClientError> {
        let path = format!("v2/{repository}/manifests/{digest}");
        match self.send(Method::HEAD, &path, &[(ACCEPT, MANIFESTS.to_owned())], Body::from("")).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `sha256-HEX`
fn fallback_tag(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm().as_str(), subject.hex())
}

impl ClientError {
    /// Whether trying again later may help: nobody answers, or the registry is busy or unwell.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Transport(error) => !error.is_builder(),
            Self::Refused(refusal) => {
                refusal.status.is_server_error() || refusal.status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Io(_) => true,
            Self::Protocol(_) => false,
        }
    }

    /// Whether the registry does not know or not let in the caller.
    pub fn is_denied(&self) -> bool {
        let denied = |status| matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        matches!(self, Self::Refused(refusal) if denied(refusal.status))
    }
}
