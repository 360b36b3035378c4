//! Blobs: content by digest and the links that make it visible in repositories.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use gantry_oci::{Digest, RepositoryName};

use super::index::{BlobInfo, Index, Repository};
use super::{Store, file_name, race, remove_file};

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

    /// Makes the file at `from`, whose content has `digest` and is fsynced, a blob and links it. The file may stay.
    pub(crate) fn commit_blob(
        &self,
        repository: &RepositoryName,
        from: &Path,
        digest: &Digest,
        size_bytes: u64,
    ) -> io::Result<()> {
        let (pin, is_known) = {
            // After a removal of the same content that is under way; the pin keeps off the next one.
            let _blob = self.lock_blob(digest);
            let mut index = self.index_mut();
            (self.pin(&mut index, digest), index.blobs.contains_key(digest))
        };
        race();
        if !is_known {
            let put = self.content.put(from, digest, size_bytes);
            put.inspect_err(|_| self.doubt(digest))?;
            race();
            let new = || BlobInfo::new(size_bytes, SystemTime::now());
            self.index_mut().blobs.entry(digest.clone()).or_insert_with(new);
        }
        self.write_link(repository, &pin)
    }

    /// Makes a blob of `source` visible in `repository`; false if `source` has no such blob.
    pub(crate) fn mount_blob(
        &self,
        repository: &RepositoryName,
        source: &RepositoryName,
        digest: &Digest,
    ) -> io::Result<bool> {
        let pin = {
            let mut index = self.index_mut();
            if index.linked_blob(source, digest).is_none() {
                return Ok(false);
            }
            self.pin(&mut index, digest)
        };
        self.write_link(repository, &pin).map(|()| true)
    }

    /// Notes that somebody relies on a blob that is there or about to come; until the pin is dropped, it is no garbage.
    fn pin<'a>(&'a self, index: &mut Index, digest: &'a Digest) -> Pin<'a> {
        if let Some(blob) = index.blobs.get_mut(digest) {
            blob.touched = SystemTime::now();
        }
        *index.pins.entry(digest.clone()).or_default() += 1;
        Pin { store: self, digest }
    }

    fn write_link(&self, repository: &RepositoryName, pin: &Pin<'_>) -> io::Result<()> {
        let directory = self.repository_directory(repository, "_blobs");
        self.directories.ensure(&directory)?;
        let file = directory.join(file_name(pin.digest));
        loop {
            {
                let _repository = self.lock_repository(repository);
                fs::OpenOptions::new().create(true).truncate(true).write(true).open(&file)?;
            }
            race();
            self.directories.sync(&directory)?;
            race();
            let _repository = self.lock_repository(repository);
            // Somebody who deleted it from the repository meanwhile took the new link for the old one.
            if file.exists() {
                self.index_mut().link(repository, pin.digest);
                return Ok(());
            }
        }
    }

    /// Takes the blob out of the repository; garbage collection removes it when no repository has it.
    pub(crate) fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<Removed> {
        let directory = self.repository_directory(repository, "_blobs");
        {
            let _repository = self.lock_repository(repository);
            let names = |e: &Repository| e.manifests.values().any(|m| m.blobs.contains(digest));
            if self.index().repositories.get(repository).is_some_and(names) {
                return Ok(Removed::InUse);
            }
            if !self.index_mut().unlink(repository, digest) {
                return Ok(Removed::Unknown);
            }
            race();
            remove_file(&directory.join(file_name(digest)))?;
        }
        self.directories.sync(&directory)?;
        Ok(Removed::Done)
    }
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Done,
    /// It was not there.
    Unknown,
    /// A manifest of the repository names it.
    InUse,
    /// What was a condition of it does not hold.
    Kept,
}

/// Keeps a blob from being collected while it is about to be linked.
struct Pin<'a> {
    store: &'a Store,
    digest: &'a Digest,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut index = self.store.index_mut();
        let left = index.pins.get(self.digest).map_or(0, |pins| pins.saturating_sub(1));
        match left {
            0 => drop(index.pins.remove(self.digest)),
            left => drop(index.pins.insert(self.digest.clone(), left)),
        }
    }
}
