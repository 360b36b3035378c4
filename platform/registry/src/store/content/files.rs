//! Content as files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use gantry_oci::image::{FilePart, MediaSource};
use gantry_oci::{Algorithm, Digest};

use super::Found;
use crate::store::index::{discard_temporary, entries};
use crate::store::remove_file;
use crate::store::sync::Directories;

pub(crate) struct Files {
    directory: PathBuf,
    directories: Arc<Directories>,
}

impl Files {
    pub(super) fn new(directory: PathBuf, directories: Arc<Directories>) -> Self {
        Self { directory, directories }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(super::name(digest))
    }

    pub(super) fn is_empty(&self) -> io::Result<bool> {
        self.list().map(|found| found.is_empty())
    }

    pub(super) fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for algorithm in Algorithm::ALL {
            for shard in entries(&self.directory.join(algorithm.as_str()))? {
                for entry in entries(&shard.path())? {
                    let name = entry.file_name();
                    let digest = name.to_str().and_then(|n| Digest::from_parts(algorithm, n).ok());
                    let Some(digest) = digest else {
                        discard_temporary(&entry)?;
                        continue;
                    };
                    let meta = entry.metadata()?;
                    let written = meta.modified().unwrap_or_else(|_| SystemTime::now());
                    found.push(Found { digest, size_bytes: meta.len(), written });
                }
            }
        }
        Ok(found)
    }

    pub(super) fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match fs::metadata(self.path(digest)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn put(&self, from: &Path, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        // The path ends in a shard directory and a name.
        let shard = path.parent().unwrap_or(&path);
        self.directories.ensure(shard)?;
        fs::rename(from, &path)?;
        self.directories.sync(shard)
    }

    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        remove_file(&self.path(digest)).map(drop)
    }

    pub(super) fn source(&self, digest: &Digest, size_bytes: u64) -> MediaSource {
        MediaSource::File(FilePart { path: self.path(digest), offset_bytes: 0, size_bytes, keep: None })
    }

    pub(super) async fn body(&self, digest: &Digest, start: u64, end: u64) -> io::Result<Body> {
        super::pieces::body(self.path(digest), start, end).await
    }
}
