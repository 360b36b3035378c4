//! Blobs: content-addressed files and the links that make them visible in repositories.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use gantry_oci::{Digest, RepositoryName};

use super::index::BlobInfo;
use super::{Store, file_name, remove_file};

impl Store {
    /// Size of a blob of the repository, and a note that somebody relies on it.
    pub(crate) fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        let found = self.index().linked_blob(repository, digest)?;
        // Rewriting the time on every read would serialise readers for nothing.
        if found.touched.elapsed().is_ok_and(|age| age > self.config.garbage_age / 8)
            && let Some(blob) = self.index_mut().blobs.get_mut(digest)
        {
            blob.touched = SystemTime::now();
        }
        Some(found.size_bytes)
    }

    /// Moves the file at `from`, whose content has `digest` and is fsynced, to its place and links it.
    pub(crate) fn commit_blob(
        &self,
        repository: &RepositoryName,
        from: &Path,
        digest: &Digest,
        size_bytes: u64,
    ) -> io::Result<()> {
        let path = self.blob_path(digest);
        // The path ends in a shard directory and a name.
        let shard = path.parent().unwrap_or(&path);
        self.directories.ensure(shard)?;
        {
            let _blob = self.lock_blob(digest);
            if self.index().blobs.contains_key(digest) {
                remove_file(from)?;
            } else {
                fs::rename(from, &path)?;
            }
            self.index_mut()
                .blobs
                .insert(digest.clone(), BlobInfo { size_bytes, touched: SystemTime::now() });
        }
        self.directories.sync(shard)?;
        self.write_link(repository, digest)
    }

    /// Makes a blob of `source` visible in `repository`; false if `source` has no such blob.
    pub(crate) fn mount_blob(
        &self,
        repository: &RepositoryName,
        source: &RepositoryName,
        digest: &Digest,
    ) -> io::Result<bool> {
        {
            let mut index = self.index_mut();
            if index.linked_blob(source, digest).is_none() {
                return Ok(false);
            }
            if let Some(blob) = index.blobs.get_mut(digest) {
                blob.touched = SystemTime::now();
            }
        }
        self.write_link(repository, digest).map(|()| true)
    }

    fn write_link(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let directory = self.repository_directory(repository, "_blobs");
        self.directories.ensure(&directory)?;
        {
            let _repository = self.lock_repository(repository);
            fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(directory.join(file_name(digest)))?;
        }
        self.directories.sync(&directory)?;
        let _repository = self.lock_repository(repository);
        self.index_mut().repositories.entry(repository.clone()).or_default().blobs.insert(digest.clone());
        Ok(())
    }

    /// Takes the blob out of the repository; garbage collection removes its file when no repository has it.
    /// False: it was not there.
    pub(crate) fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        let directory = self.repository_directory(repository, "_blobs");
        {
            let _repository = self.lock_repository(repository);
            let known =
                self.index_mut().repositories.get_mut(repository).is_some_and(|r| r.blobs.remove(digest));
            if !known {
                return Ok(false);
            }
            remove_file(&directory.join(file_name(digest)))?;
        }
        self.directories.sync(&directory)?;
        Ok(true)
    }
}
