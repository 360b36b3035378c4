//! Where the content of blobs is: in files, or in a bucket of S3, under the same names in both
//! (`blobs/sha256/ab/HEX`), so that any tool that copies moves it. Everything else of the store is files.

mod claim;
mod connection;
mod credentials;
mod files;
mod pieces;
mod s3;
mod settings;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use gantry_oci::Digest;
use gantry_oci::image::MediaSource;

use super::sync::Directories;
use crate::config::Config;

pub use credentials::AccessKeys;
pub use settings::S3Settings;

/// The directory, or what stands before the names in a bucket.
const BLOBS: &str = "blobs";

pub(crate) enum Content {
    Files(files::Files),
    S3(s3::S3),
}

/// Content that is there.
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) written: SystemTime,
}

impl Content {
    /// The content of the store at `config.root`. Refuses one that is somewhere else than configured.
    pub(super) fn open(config: &Config, directories: Arc<Directories>) -> io::Result<Self> {
        let files = files::Files::new(config.root.join(BLOBS), directories);
        let Some(settings) = &config.s3 else {
            claim::require_files(&config.root)?;
            gantry_base::fs::create_directory(&config.root.join(BLOBS), 0o700)?;
            return Ok(Self::Files(files));
        };
        let s3 = s3::S3::open(settings, config.s3_keys.as_ref())?;
        claim::require_bucket(&config.root, &s3, settings, || files.is_empty())?;
        Ok(Self::S3(s3))
    }

    /// Everything that is there. Files that a process left unfinished are removed.
    pub(super) fn list(&self) -> io::Result<Vec<Found>> {
        match self {
            Self::Files(files) => files.list(),
            Self::S3(s3) => s3.list(),
        }
    }

    pub(super) fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match self {
            Self::Files(files) => files.size(digest),
            Self::S3(s3) => s3.size(digest),
        }
    }

    /// Takes the file at `from`, whose content has `digest` and is fsynced. It is durable when this returns; after an
    /// error it may be there, or not, or come to be.
    pub(super) fn put(&self, from: &Path, digest: &Digest, size_bytes: u64) -> io::Result<()> {
        match self {
            Self::Files(files) => files.put(from, digest),
            Self::S3(s3) => s3.put(from, digest, size_bytes),
        }
    }

    /// Removes what may be gone.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        match self {
            Self::Files(files) => files.remove(digest),
            Self::S3(s3) => s3.remove(digest),
        }
    }

    /// For reading on a thread that may block. What is gone is `NotFound` when it is opened, or first read.
    pub(crate) fn source(&self, digest: &Digest, size_bytes: u64) -> MediaSource {
        match self {
            Self::Files(files) => files.source(digest, size_bytes),
            Self::S3(s3) => s3.source(digest, size_bytes),
        }
    }

    /// The bytes from `start` up to but not including `end`, for a response.
    pub(crate) async fn body(&self, digest: &Digest, start: u64, end: u64) -> io::Result<Body> {
        match self {
            Self::Files(files) => files.body(digest, start, end).await,
            Self::S3(s3) => s3.body(digest, start, end).await,
        }
    }

    /// A URL that gives everybody who has it the content for a while, where clients are to fetch it themselves.
    pub(crate) async fn redirect(&self, digest: &Digest) -> io::Result<Option<String>> {
        match self {
            Self::Files(_) => Ok(None),
            Self::S3(s3) => s3.redirect(digest).await,
        }
    }
}

/// The name below [`BLOBS`].
fn name(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}/{}/{hex}", digest.algorithm().as_str(), &hex[..2])
}

/// The digest that a name below [`BLOBS`] is of.
fn digest_of_name(name: &str) -> Option<Digest> {
    let mut parts = name.split('/');
    let (algorithm, _, hex) = (parts.next()?, parts.next()?, parts.next()?);
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    (name == self::name(&digest)).then_some(digest)
}
