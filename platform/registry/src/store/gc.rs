//! Garbage collection beside pushes.
//!
//! A blob's link goes when no manifest of the repository names it, its content when no repository has a link, both
//! only when nobody pushed or asked for it within `Config::garbage_age`. That age is for clients, which look whether
//! a blob exists before they push a manifest that names it; what keeps the store whole is that each removal is decided
//! again under the lock that pushes of the same blob or repository take, and that a blob about to be linked is pinned.
//!
//! There is no state to lose: what is garbage follows from the index, so a collection that was cut off at any point is
//! gone on with by the next one.

use std::collections::HashSet;
use std::io;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_oci::{Digest, RepositoryName};

use super::index::BlobInfo;
use super::{Store, file_name, race, remove_file};

/// What one garbage collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    pub links: usize,
    pub blobs: usize,
    pub bytes: u64,
    pub uploads: usize,
}

/// How far a garbage collection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collecting {
    /// Repositories and blobs looked at, of how many.
    pub done: usize,
    pub total: usize,
    pub collected: Collected,
}

/// Spreads removals over time, so that pushes and pulls keep most of the disk.
struct Pace {
    per_second: u32,
    begun: Instant,
    removed: u32,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { per_second: per_second.max(1), begun: Instant::now(), removed: 0 }
    }

    /// Waits until one more removal is due.
    #[expect(
        clippy::disallowed_methods,
        reason = "on a thread that may block, and what is waited for is time"
    )]
    fn wait(&mut self) {
        self.removed += 1;
        let due = Duration::from_secs_f64(f64::from(self.removed) / f64::from(self.per_second));
        let ahead = due.saturating_sub(self.begun.elapsed());
        // Shorter pauses than the scheduler's are not worth having.
        if ahead > Duration::from_millis(5) {
            std::thread::sleep(ahead);
        }
    }
}

impl Store {
    /// Collects what is garbage now. `watch` is told how far it is, and stops it by returning false.
    pub(crate) fn collect_garbage(&self, watch: &dyn Fn(Collecting) -> bool) -> io::Result<Collected> {
        let mut collected = Collected { uploads: self.expire_uploads()?, ..Collected::default() };
        let repositories: Vec<RepositoryName> = self.index().repositories.keys().cloned().collect();
        let mut done = 0;
        for repository in &repositories {
            if !watch(Collecting { done, total: repositories.len(), collected }) {
                return Ok(collected);
            }
            collected.links += self.collect_links(repository)?;
            done += 1;
        }
        self.collect_doubtful()?;
        let garbage = self.unlinked_blobs();
        let total = done + garbage.len();
        let mut pace = Pace::new(self.config.garbage_removals_per_second_max);
        for digest in garbage {
            if done % 64 == 0 && !watch(Collecting { done, total, collected }) {
                return Ok(collected);
            }
            if let Some(blob) = self.collect_blob(&digest)? {
                collected.blobs += 1;
                collected.bytes += blob.size_bytes;
                pace.wait();
            }
            done += 1;
        }
        watch(Collecting { done, total, collected });
        Ok(collected)
    }

    fn is_old(&self, blob: &BlobInfo) -> bool {
        blob.touched.elapsed().is_ok_and(|age| age >= self.config.garbage_age)
    }

    fn collect_links(&self, repository: &RepositoryName) -> io::Result<usize> {
        let directory = self.repository_directory(repository, "_blobs");
        if self.unused_links(repository).is_empty() {
            return Ok(0);
        }
        // Manifests that were deleted must not come back after a loss of power, when their blobs are gone.
        let manifests = self.repository_directory(repository, "_manifests");
        if manifests.exists() {
            self.directories.sync(&manifests)?;
        }
        let garbage: Vec<Digest>;
        {
            let _repository = self.lock_repository(repository);
            garbage = self.unused_links(repository);
            {
                let mut index = self.index_mut();
                for digest in &garbage {
                    index.unlink(repository, digest);
                }
            }
            race();
            for digest in &garbage {
                remove_file(&directory.join(file_name(digest)))?;
            }
        }
        if !garbage.is_empty() {
            self.directories.sync(&directory)?;
        }
        Ok(garbage.len())
    }

    /// The links that no manifest of the repository needs, and nobody is about to.
    fn unused_links(&self, repository: &RepositoryName) -> Vec<Digest> {
        let index = self.index();
        let Some(entry) = index.repositories.get(repository) else { return Vec::new() };
        let used: HashSet<&Digest> = entry.manifests.values().flat_map(|m| &m.blobs).collect();
        let unused = entry.blobs.iter().filter(|digest| !used.contains(digest));
        let garbage =
            |d: &&Digest| !index.pins.contains_key(*d) && index.blobs.get(*d).is_none_or(|b| self.is_old(b));
        unused.filter(garbage).cloned().collect()
    }

    fn unlinked_blobs(&self) -> Vec<Digest> {
        let index = self.index();
        let unlinked = index.blobs.iter().filter(|(_, blob)| blob.links == 0 && self.is_old(blob));
        unlinked.map(|(digest, _)| digest.clone()).collect()
    }

    fn collect_blob(&self, digest: &Digest) -> io::Result<Option<BlobInfo>> {
        self.remove_blob(digest, |blob| blob.links == 0 && self.is_old(blob))
    }

    /// Gives back the space of a blob that was taken out of its last repository, without waiting for it to be old:
    /// nobody can have seen it elsewhere. False if somebody has it, or is about to.
    pub(super) fn remove_unseen(&self, digest: &Digest) -> io::Result<bool> {
        Ok(self.remove_blob(digest, |blob| blob.links == 0)?.is_some())
    }

    fn remove_blob(&self, digest: &Digest, goes: impl Fn(&BlobInfo) -> bool) -> io::Result<Option<BlobInfo>> {
        let _blob = self.lock_blob(digest);
        let removed = {
            let mut index = self.index_mut();
            if index.pins.contains_key(digest) || !index.blobs.get(digest).is_some_and(goes) {
                return Ok(None);
            }
            index.blobs.remove(digest)
        };
        race();
        self.content.remove(digest).inspect_err(|_| self.doubt(digest))?;
        Ok(removed)
    }

    /// Nobody knows whether the content is there: a collection is to remove it, unless it was pushed again.
    pub(super) fn doubt(&self, digest: &Digest) {
        self.doubtful().insert(digest.clone());
    }

    fn doubtful(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect_doubtful(&self) -> io::Result<()> {
        let doubtful: Vec<Digest> = self.doubtful().iter().cloned().collect();
        for digest in doubtful {
            let _blob = self.lock_blob(&digest);
            let is_wanted = {
                let index = self.index();
                index.pins.contains_key(&digest) || index.blobs.contains_key(&digest)
            };
            if !is_wanted {
                self.content.remove(&digest)?;
            }
            self.doubtful().remove(&digest);
        }
        Ok(())
    }
}
