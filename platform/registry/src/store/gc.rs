//! Garbage collection beside pushes.
//!
//! A blob's link goes when no manifest of the repository names it, a blob's file when no repository has a link,
//! both only when nobody pushed or asked for it within `Config::garbage_age`. Each removal is decided again
//! under the lock that pushes of the same blob or repository take.

use std::collections::HashSet;
use std::io;

use gantry_oci::{Digest, RepositoryName};

use super::index::{BlobInfo, Index};
use super::{Store, file_name, remove_file};

/// What one garbage collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub links: usize,
    pub blobs: usize,
    pub bytes: u64,
    pub uploads: usize,
}

impl Store {
    pub(crate) fn collect_garbage(&self) -> io::Result<Collected> {
        let mut collected = Collected { uploads: self.expire_uploads()?, ..Collected::default() };
        let repositories: Vec<RepositoryName> = self.index().repositories.keys().cloned().collect();
        for repository in &repositories {
            collected.links += self.collect_links(repository)?;
        }
        for digest in self.unlinked_blobs() {
            if let Some(blob) = self.collect_blob(&digest)? {
                collected.blobs += 1;
                collected.bytes += blob.size_bytes;
            }
        }
        Ok(collected)
    }

    fn is_old(&self, blob: &BlobInfo) -> bool {
        blob.touched.elapsed().is_ok_and(|age| age >= self.config.garbage_age)
    }

    fn collect_links(&self, repository: &RepositoryName) -> io::Result<usize> {
        let directory = self.repository_directory(repository, "_blobs");
        let garbage: Vec<Digest>;
        {
            let _repository = self.lock_repository(repository);
            {
                let mut index = self.index_mut();
                let Index { blobs, repositories } = &mut *index;
                let Some(entry) = repositories.get_mut(repository) else { return Ok(0) };
                let used: HashSet<&Digest> = entry.manifests.values().flat_map(|m| &m.blobs).collect();
                let unused = entry.blobs.iter().filter(|digest| !used.contains(digest));
                garbage =
                    unused.filter(|d| blobs.get(*d).is_none_or(|blob| self.is_old(blob))).cloned().collect();
                for digest in &garbage {
                    entry.blobs.remove(digest);
                }
            }
            for digest in &garbage {
                remove_file(&directory.join(file_name(digest)))?;
            }
        }
        if !garbage.is_empty() {
            self.directories.sync(&directory)?;
        }
        Ok(garbage.len())
    }

    fn unlinked_blobs(&self) -> Vec<Digest> {
        let index = self.index();
        let linked: HashSet<&Digest> = index.repositories.values().flat_map(|r| &r.blobs).collect();
        let unlinked =
            index.blobs.iter().filter(|(digest, blob)| !linked.contains(digest) && self.is_old(blob));
        unlinked.map(|(digest, _)| digest.clone()).collect()
    }

    fn collect_blob(&self, digest: &Digest) -> io::Result<Option<BlobInfo>> {
        let _blob = self.lock_blob(digest);
        let removed = {
            let mut index = self.index_mut();
            let old = index.blobs.get(digest).is_some_and(|blob| self.is_old(blob));
            if !old || index.repositories.values().any(|r| r.blobs.contains(digest)) {
                return Ok(None);
            }
            index.blobs.remove(digest)
        };
        remove_file(&self.blob_path(digest))?;
        Ok(removed)
    }
}
