//! Content as objects of a bucket.
//!
//! What it asks of S3 runs on threads of its own, so that callers may be anywhere, also where they may block.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use gantry_oci::Digest;
use gantry_oci::image::{MediaSource, Opener};
use http::Method;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt,
    RetryConfig,
};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::connection::{ANSWER_TIMEOUT, Connection};
use super::credentials::AccessKeys;
use super::settings::S3Settings;
use super::{BLOBS, Found};

/// Larger blobs go in parts of this size, of which S3 takes 10,000.
const PART_BYTES: u64 = 16 << 20;
/// Parts in memory at the same time, of all pushes together.
const PARTS_MAX: usize = 8;
/// Chunks that a reader is behind; one is what the connection gave at once.
const CHUNKS_MAX: usize = 16;
const THREADS: usize = 2;
/// With pauses that double from 100 ms: a client waits some seconds for a server that is away.
const RETRIES_MAX: usize = 5;
/// How long a URL is good that a client is sent to.
const URL_LIFETIME: Duration = Duration::from_secs(20 * 60);

/// A cheap handle on one bucket.
#[derive(Clone)]
pub(crate) struct S3 {
    bucket: AmazonS3,
    /// `PREFIX/`, or nothing.
    prefix: String,
    redirect: bool,
    parts: Arc<Semaphore>,
    threads: Arc<Threads>,
}

impl S3 {
    /// Asks nothing of the server yet.
    pub(super) fn open(settings: &S3Settings, environment: Option<&AccessKeys>) -> io::Result<Self> {
        let wrong = |why: String| io::Error::other(format!("[registry.s3] {why}"));
        let keys = match (&settings.credentials, environment) {
            (Some(path), _) => AccessKeys::read(path)?,
            (None, Some(keys)) => keys.clone(),
            (None, None) => {
                let why = "has no credentials, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set";
                return Err(wrong(why.to_owned()));
            }
        };
        let threads = Threads::start()?;
        let authorities = settings.authorities.as_deref().map(authorities).transpose()?;
        let connection = Connection::new(threads.runtime().handle().clone(), authorities.as_deref());
        let connection = connection.map_err(|why| wrong(format!("authorities: {why}")))?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_virtual_hosted_style_request(!settings.forcepathstyle)
            // Blobs go one by one, and not every server knows requests about many.
            .with_disable_bulk_delete(true)
            .with_access_key_id(keys.id)
            .with_secret_access_key(keys.secret.expose())
            // `S3Settings::endpoint` has decided about it.
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(retries())
            .with_http_connector(connection);
        if let Some(token) = keys.session_token {
            builder = builder.with_token(token.expose());
        }
        if let Some(endpoint) = settings.endpoint().map_err(wrong)? {
            builder = builder.with_endpoint(endpoint);
        }
        Ok(Self {
            bucket: builder.build().map_err(|error| wrong(reason(&error)))?,
            prefix: settings.prefix(),
            redirect: settings.redirect,
            parts: Arc::new(Semaphore::new(PARTS_MAX)),
            threads: Arc::new(threads),
        })
    }

    fn path(&self, digest: &Digest) -> ObjectPath {
        ObjectPath::from(format!("{}{BLOBS}/{}", self.prefix, super::name(digest)))
    }

    /// Waits for S3, wherever the caller is.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let done = futures::executor::block_on(self.threads.runtime().spawn(work));
        done.map_err(io::Error::other)?.map_err(failed)
    }

    pub(super) fn list(&self) -> io::Result<Vec<Found>> {
        let directory = format!("{}{BLOBS}", self.prefix);
        let skipped = directory.len() + 1;
        let bucket = self.bucket.clone();
        let prefix = ObjectPath::from(directory);
        let objects = self.wait(async move { bucket.list(Some(&prefix)).try_collect::<Vec<_>>().await })?;
        let found = objects.into_iter().filter_map(|object| {
            // What else somebody put there is not ours.
            let digest = super::digest_of_name(object.location.as_ref().get(skipped..)?)?;
            Some(Found { digest, size_bytes: object.size, written: object.last_modified.into() })
        });
        Ok(found.collect())
    }

    pub(super) fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        let (bucket, path) = (self.bucket.clone(), self.path(digest));
        match self.wait(async move { bucket.head(&path).await }) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn put(&self, from: &Path, digest: &Digest, size_bytes: u64) -> io::Result<()> {
        let (s3, path, file) = (self.clone(), self.path(digest), Arc::new(File::open(from)?));
        self.wait(async move { s3.send(file, &path, size_bytes).await })
    }

    async fn send(&self, file: Arc<File>, path: &ObjectPath, size_bytes: u64) -> object_store::Result<()> {
        if size_bytes <= PART_BYTES {
            let _room = self.parts.acquire().await;
            let bytes = read(file, 0, size_bytes).await?;
            return self.bucket.put(path, bytes.into()).await.map(drop);
        }
        let mut upload = self.bucket.put_multipart(path).await?;
        let sent = match self.send_parts(&mut *upload, file, size_bytes).await {
            Ok(()) => upload.complete().await.map(drop),
            Err(error) => Err(error),
        };
        if sent.is_err() {
            // Parts cost space until they are taken back. Where this fails, too, the bucket's rules do it.
            if let Err(error) = upload.abort().await {
                tracing::warn!(object = %path, why = reason(&error), "parts of an object may be left on S3");
            }
        }
        sent
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        file: Arc<File>,
        size_bytes: u64,
    ) -> object_store::Result<()> {
        let mut sending = JoinSet::new();
        for at in (0..size_bytes).step_by(PART_BYTES as usize) {
            let room = self.parts.clone().acquire_owned().await;
            let bytes = read(file.clone(), at, PART_BYTES.min(size_bytes - at)).await?;
            let part = upload.put_part(bytes.into());
            sending.spawn(async move {
                let _room = room;
                part.await
            });
            while let Some(sent) = sending.try_join_next() {
                sent??;
            }
        }
        while let Some(sent) = sending.join_next().await {
            sent??;
        }
        Ok(())
    }

    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        let (bucket, path) = (self.bucket.clone(), self.path(digest));
        match self.wait(async move { bucket.delete(&path).await }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    async fn stream(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        // An empty range is none that HTTP knows.
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
        let got = self.bucket.get_opts(&self.path(digest), options).await.map_err(failed)?;
        Ok(got.into_stream().map_err(failed).boxed())
    }

    pub(super) async fn body(&self, digest: &Digest, start: u64, end: u64) -> io::Result<Body> {
        Ok(Body::from_stream(self.stream(digest, start..end).await?))
    }

    pub(super) async fn redirect(&self, digest: &Digest) -> io::Result<Option<String>> {
        if !self.redirect {
            return Ok(None);
        }
        let signed = self.bucket.signed_url(Method::GET, &self.path(digest), URL_LIFETIME).await;
        signed.map(|url| Some(url.into())).map_err(failed)
    }

    pub(super) fn source(&self, digest: &Digest, size_bytes: u64) -> MediaSource {
        let (s3, digest) = (self.clone(), digest.clone());
        MediaSource::Elsewhere(Opener::new(move |at| Ok(Box::new(s3.read(&digest, at..size_bytes)))))
    }

    /// Begins to fetch; errors come when it is read.
    fn read(&self, digest: &Digest, range: Range<u64>) -> Reader {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let (s3, digest) = (self.clone(), digest.clone());
        self.threads.runtime().spawn(async move {
            let mut stream = match s3.stream(&digest, range).await {
                Ok(stream) => stream,
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            };
            while let Some(chunk) = stream.next().await {
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        Reader { chunks, rest: Bytes::new() }
    }

    /// A small object beside the blobs.
    pub(super) fn read_small(&self, name: &str) -> io::Result<Option<String>> {
        let (bucket, path) = (self.bucket.clone(), ObjectPath::from(format!("{}{name}", self.prefix)));
        match self.wait(async move { bucket.get(&path).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_small(&self, name: &str, text: String) -> io::Result<()> {
        let (bucket, path) = (self.bucket.clone(), ObjectPath::from(format!("{}{name}", self.prefix)));
        self.wait(async move { bucket.put(&path, text.into()).await }).map(drop)
    }
}

fn authorities(path: &Path) -> io::Result<String> {
    let read = std::fs::read_to_string(path);
    read.map_err(|error| io::Error::new(error.kind(), format!("[registry.s3] {}: {error}", path.display())))
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
        max_retries: RETRIES_MAX,
        retry_timeout: ANSWER_TIMEOUT,
    }
}

async fn read(file: Arc<File>, at: u64, length: u64) -> object_store::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        // At most a part, which fits.
        let mut buffer = vec![0; length as usize];
        file.read_exact_at(&mut buffer, at).map(|()| Bytes::from(buffer))
    });
    read.await?.map_err(|error| object_store::Error::Generic { store: "file", source: Box::new(error) })
}

/// Which of these errors a client may be told to come again for, and what the log says.
fn failed(error: object_store::Error) -> io::Error {
    use object_store::Error as E;
    let kind = match &error {
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        E::Generic { .. } => io::ErrorKind::HostUnreachable,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("S3: {}", reason(&error)))
}

/// The server's word for it, or else the innermost error.
fn reason(error: &object_store::Error) -> String {
    let text = error.to_string();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    if let Some((code, _)) = code {
        return code.to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// An object that is fetched while it is read.
struct Reader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match futures::executor::block_on(self.chunks.recv()) {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let piece = self.rest.split_to(buffer.len().min(self.rest.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// A runtime that may be dropped anywhere.
struct Threads(Option<Runtime>);

impl Threads {
    fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("registry-s3").enable_all().build().map(Some).map(Self)
    }

    fn runtime(&self) -> &Runtime {
        // It is taken when this is dropped.
        self.0.as_ref().expect("until it is dropped")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
