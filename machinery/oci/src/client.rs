//! A client of one registry (OCI Distribution 1.1).

mod access;
mod elsewhere;
mod mirror;
mod pace;
mod pull;

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK, LOCATION, RANGE};
use http::{Method, StatusCode};
use reqwest::{Body, Response};
use serde_json::Value;

pub use access::Credentials;
pub use mirror::Incoming;
pub use pace::Pace;
pub use reqwest::Url;

use crate::image::{Blob, Image};
use crate::{Algorithm, Digest, RepositoryName, Tag};

const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
const MANIFEST_MAX_BYTES: usize = 4 << 20;
/// Blobs up to this size go in one request, larger ones in chunks that can be gone on from.
const MONOLITHIC_MAX_BYTES: u64 = 4 << 20;
const CHUNK_BYTES: u64 = 32 << 20;
const PIECE_BYTES: usize = 256 * 1024;
const ATTEMPTS: usize = 4;
const PAGES_MAX: usize = 10_000;

/// Why the registry did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("cannot reach the registry")]
    Transport(#[from] reqwest::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The registry answered what the protocol does not allow.
    #[error("the registry's answer is not valid: {0}")]
    Protocol(String),
}

/// An answer that is an error, in the registry's words.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    /// e.g. `MANIFEST_UNKNOWN`; empty if the body had none.
    pub code: String,
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = if self.message.is_empty() { "the registry refused" } else { &self.message };
        write!(
            f,
            "{message} ({}{}{})",
            self.status.as_u16(),
            if self.code.is_empty() { "" } else { " " },
            self.code
        )
    }
}

impl ClientError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND)
    }

    fn is_passing(&self) -> bool {
        match self {
            Self::Transport(error) => !error.is_builder(),
            Self::Refused(refusal) => {
                // A token that ended meanwhile is another one at the next question.
                refusal.status.is_server_error()
                    || matches!(refusal.status, StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::UNAUTHORIZED)
            }
            _ => false,
        }
    }
}

/// How far a push is.
#[derive(Clone, Debug)]
pub struct Progress {
    pub digest: Digest,
    pub sent_bytes: u64,
    pub size_bytes: u64,
    /// The registry had it already.
    pub present: bool,
}

/// A manifest as the registry holds it.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Bytes,
}

/// Talks to one registry with whatever credentials `http` carries, or with those of [`RegistryClient::signed_in`].
#[derive(Clone)]
pub struct RegistryClient {
    base: Url,
    http: reqwest::Client,
    access: Option<Arc<access::Access>>,
    pace: Option<Pace>,
    elsewhere: Option<reqwest::Client>,
}

type Watcher<'a> = &'a (dyn Fn(Progress) + Send + Sync);

impl RegistryClient {
    /// `base` is the address without `/v2/`.
    pub fn new(base: Url, http: reqwest::Client) -> Self {
        Self { base, http, access: None, pace: None, elsewhere: None }
    }

    /// Does what the registry asks of strangers: gets tokens, and shows the credentials if there are any.
    pub fn signed_in(mut self, credentials: Option<Credentials>) -> Self {
        self.access = Some(Arc::new(access::Access::new(credentials)));
        self
    }

    /// Moves bytes of blobs no faster than that.
    pub fn paced(mut self, pace: Option<Pace>) -> Self {
        self.pace = pace;
        self
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        // `path` may be an absolute URL (a `Location`); credentials go to the same origin only.
        let url = self.base.join(path).map_err(|error| ClientError::Protocol(error.to_string()))?;
        if url.origin() == self.base.origin() {
            Ok(url)
        } else {
            Err(ClientError::Protocol(format!("it points to another host: {url}")))
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(http::HeaderName, String)],
        body: Body,
    ) -> Result<Response, ClientError> {
        let url = self.url(path)?;
        let scope = self.access.as_ref().map(|access| (access, access::Scope::of(&method, &url)));
        let mut request = self.http.request(method.clone(), url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = match scope {
            Some((access, scope)) => self.send_signed(request, access, scope).await?,
            None => request.send().await?,
        };
        let response = self.followed(response, &method, headers).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    async fn send_signed(
        &self,
        request: reqwest::RequestBuilder,
        access: &access::Access,
        scope: access::Scope,
    ) -> Result<Response, ClientError> {
        // A body that is read from a file is gone; whoever sends one tries again.
        let again = request.try_clone();
        let response = access.sign(request, &scope).send().await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && access.answer(&response, &self.http, scope.clone()).await?
            && let Some(again) = again
        {
            return Ok(access.sign(again, &scope).send().await?);
        }
        Ok(response)
    }

    /// Pushes an image under each of `tags`, blobs first. `watch` is told of every piece.
    pub async fn push(
        &self,
        repository: &RepositoryName,
        tags: &[Tag],
        image: &Image,
        watch: Watcher<'_>,
    ) -> Result<(), ClientError> {
        for blob in image.blobs() {
            self.push_blob(repository, blob, watch).await?;
        }
        for tag in tags {
            self.put_manifest(repository, tag.as_str(), &image.media_type, image.manifest.clone()).await?;
        }
        Ok(())
    }

    /// Pushes one blob unless it is there; a broken connection is gone on from.
    pub async fn push_blob(
        &self,
        repository: &RepositoryName,
        blob: &Blob,
        watch: Watcher<'_>,
    ) -> Result<(), ClientError> {
        let progress = |sent_bytes, present| Progress {
            digest: blob.digest.clone(),
            sent_bytes,
            size_bytes: blob.size_bytes,
            present,
        };
        if self.has_blob(repository, &blob.digest).await? {
            watch(progress(blob.size_bytes, true));
            return Ok(());
        }
        if blob.size_bytes <= MONOLITHIC_MAX_BYTES {
            let path = format!("v2/{repository}/blobs/uploads/?digest={}", blob.digest);
            let source = blob.source.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                source.open()?.read_to_end(&mut bytes).map(|_| bytes)
            });
            let bytes = read.await.map_err(std::io::Error::other)??;
            let (headers, bytes) = (octets(bytes.len() as u64), Bytes::from(bytes));
            if let Some(pace) = &self.pace {
                pace.take(bytes.len()).await;
            }
            let answer = self.send(Method::POST, &path, &headers, bytes.clone().into()).await?;
            if answer.status() == StatusCode::ACCEPTED {
                // It takes nothing with the first request: an upload was begun.
                let path = finish(&header(&answer, &LOCATION)?, &blob.digest);
                self.send(Method::PUT, &path, &headers, bytes.into()).await?;
            }
            watch(progress(blob.size_bytes, false));
            return Ok(());
        }
        let begun =
            self.send(Method::POST, &format!("v2/{repository}/blobs/uploads/"), &[], Body::from("")).await?;
        let mut location = header(&begun, &LOCATION)?;
        let (mut sent, mut failures) = (0, 0);
        while sent < blob.size_bytes {
            let length = CHUNK_BYTES.min(blob.size_bytes - sent);
            match self.send_chunk(&location, blob, sent, length).await {
                Ok(next) => {
                    (sent, failures) = (sent + length, 0);
                    location = next;
                    watch(progress(sent, false));
                }
                Err(error) if error.is_passing() && failures < ATTEMPTS => {
                    failures += 1;
                    tracing::debug!(%error, failures, "a chunk failed: asking how far the upload is");
                    sent = self.received(&location).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.send(Method::PUT, &finish(&location, &blob.digest), &octets(0), Body::from("")).await?;
        Ok(())
    }

    async fn send_chunk(
        &self,
        location: &str,
        blob: &Blob,
        at: u64,
        length: u64,
    ) -> Result<String, ClientError> {
        let reader = blob.source.open_at(at)?.take(length);
        let mut headers = octets(length);
        headers.push((CONTENT_RANGE, format!("{at}-{}", at + length - 1)));
        let response =
            self.send(Method::PATCH, location, &headers, stream(reader, self.pace.clone())).await?;
        header(&response, &LOCATION)
    }

    /// How many bytes of an upload arrived.
    async fn received(&self, location: &str) -> Result<u64, ClientError> {
        let response = self.send(Method::GET, location, &[], Body::from("")).await?;
        let range = header(&response, &RANGE)?;
        let last = range.split_once('-').and_then(|(_, last)| last.parse::<u64>().ok());
        let last = last.ok_or_else(|| ClientError::Protocol(format!("Range: {range}")))?;
        // `0-0` is said of no byte and of one; a piece that arrived is never one byte.
        Ok(if last == 0 { 0 } else { last + 1 })
    }

    /// Makes a blob of `source` visible in `repository` without sending it; false: it must be pushed.
    pub async fn mount_blob(
        &self,
        repository: &RepositoryName,
        source: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, ClientError> {
        let path = format!("v2/{repository}/blobs/uploads/?mount={digest}&from={source}");
        let response = self.send(Method::POST, &path, &[], Body::from("")).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        let location = header(&response, &LOCATION)?;
        self.send(Method::DELETE, &location, &[], Body::from("")).await?;
        Ok(false)
    }

    pub async fn has_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, ClientError> {
        let path = format!("v2/{repository}/blobs/{digest}");
        match self.send(Method::HEAD, &path, &[], Body::from("")).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let headers = [(CONTENT_TYPE, media_type.to_owned())];
        self.send(Method::PUT, &format!("v2/{repository}/manifests/{reference}"), &headers, bytes.into())
            .await?;
        Ok(())
    }

    /// Fetches a manifest by tag or digest and checks it.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &str,
    ) -> Result<Manifest, ClientError> {
        let path = format!("v2/{repository}/manifests/{reference}");
        let response =
            self.send(Method::GET, &path, &[(ACCEPT, MANIFESTS.to_owned())], Body::from("")).await?;
        let media_type = header(&response, &CONTENT_TYPE)?;
        let bytes = read(response, MANIFEST_MAX_BYTES).await?;
        let wanted = reference.parse::<Digest>().ok();
        let mut hasher = crate::Hasher::new(wanted.as_ref().map_or(Algorithm::Sha256, Digest::algorithm));
        hasher.update(&bytes);
        let digest = hasher.finish();
        if wanted.is_some_and(|wanted| wanted != digest) {
            return Err(ClientError::Protocol(format!(
                "the manifest has the digest {digest}, not {reference}"
            )));
        }
        Ok(Manifest { digest, media_type, bytes })
    }

    /// Fetches a small blob, such as a configuration, and checks it.
    pub async fn small_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Bytes, ClientError> {
        let response =
            self.send(Method::GET, &format!("v2/{repository}/blobs/{digest}"), &[], Body::from("")).await?;
        let bytes = read(response, MANIFEST_MAX_BYTES).await?;
        let mut hasher = crate::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() == *digest {
            Ok(bytes)
        } else {
            Err(ClientError::Protocol(format!("blob {digest} has another digest")))
        }
    }

    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &str,
    ) -> Result<(), ClientError> {
        let path = format!("v2/{repository}/manifests/{reference}");
        self.send(Method::DELETE, &path, &[], Body::from("")).await.map(|_| ())
    }

    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<String>, ClientError> {
        self.pages(format!("v2/{repository}/tags/list"), "tags").await
    }

    /// Names of all repositories the caller may list.
    pub async fn catalog(&self) -> Result<Vec<String>, ClientError> {
        self.pages("v2/_catalog".to_owned(), "repositories").await
    }

    async fn pages(&self, path: String, field: &str) -> Result<Vec<String>, ClientError> {
        let items = self.items(path, field).await?;
        Ok(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    }

    async fn items(&self, mut path: String, field: &str) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.send(Method::GET, &path, &[], Body::from("")).await?;
            let link = response.headers().get(LINK).and_then(|l| l.to_str().ok()).map(str::to_owned);
            let body: Value = serde_json::from_slice(&read(response, 16 << 20).await?)
                .map_err(|error| ClientError::Protocol(error.to_string()))?;
            all.extend(body[field].as_array().into_iter().flatten().cloned());
            match link.as_deref().and_then(|l| l.strip_prefix('<')?.split_once('>')) {
                Some((next, _)) => path = next.to_owned(),
                None => return Ok(all),
            }
        }
        Err(ClientError::Protocol(format!("more than {PAGES_MAX} pages")))
    }
}

/// Where an upload ends.
fn finish(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

fn octets(length: u64) -> Vec<(http::HeaderName, String)> {
    vec![(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, length.to_string())]
}

/// A body read from a blocking reader, piece by piece, off the async threads.
pub fn stream(reader: impl Read + Send + 'static, pace: Option<Pace>) -> Body {
    let reader = Arc::new(std::sync::Mutex::new(reader));
    Body::wrap_stream(futures::stream::try_unfold((reader, pace), |(reader, pace)| async move {
        let shared = reader.clone();
        let piece = tokio::task::spawn_blocking(move || {
            let mut reader = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            std::io::Read::take(&mut *reader, PIECE_BYTES as u64).read_to_end(&mut piece).map(|_| piece)
        });
        let piece = piece.await.map_err(std::io::Error::other)??;
        if let Some(pace) = &pace {
            pace.take(piece.len()).await;
        }
        Ok::<_, std::io::Error>((!piece.is_empty()).then(|| (Bytes::from(piece), (reader, pace))))
    }))
}

fn header(response: &Response, name: &http::HeaderName) -> Result<String, ClientError> {
    let value = response.headers().get(name).and_then(|v| v.to_str().ok());
    value.map(str::to_owned).ok_or_else(|| ClientError::Protocol(format!("it has no {name}")))
}

async fn read(mut response: Response, max_bytes: usize) -> Result<Bytes, ClientError> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if bytes.len() + piece.len() > max_bytes {
            return Err(ClientError::Protocol(format!("it is larger than {max_bytes} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

async fn refusal(response: Response) -> ClientError {
    let status = response.status();
    let body = read(response, 64 * 1024).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = &body["errors"][0];
    // The front door speaks Kubernetes' Status.
    let message = if error.is_null() { text(&body["message"]) } else { text(&error["message"]) };
    ClientError::Refused(Refusal { status, code: text(&error["code"]), message })
}
