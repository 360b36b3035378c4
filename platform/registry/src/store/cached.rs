//! What is kept of other registries, and how it leaves.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::SystemTime;

use gantry_oci::{Digest, RepositoryName};

use super::blobs::Removed;
use super::{Store, race};

/// A manifest that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cached {
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) children: Vec<Digest>,
    /// When it was last pulled, or came.
    pub(crate) used: SystemTime,
}

/// A blob that is kept in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CachedBlob {
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) touched: SystemTime,
}

/// Everything that is kept below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) manifests: Vec<Cached>,
    pub(crate) blobs: Vec<CachedBlob>,
    pub(crate) repositories: usize,
    /// Manifests that were pushed here and are no other registry's.
    pub(crate) own: usize,
}

impl Kept {
    /// Bytes on the disk, each blob once.
    pub(crate) fn size_bytes(&self) -> u64 {
        let sizes: HashMap<&Digest, u64> = self.blobs.iter().map(|b| (&b.digest, b.size_bytes)).collect();
        sizes.values().sum::<u64>() + self.manifests.iter().map(|m| m.size_bytes).sum::<u64>()
    }

    /// The part that a quota of these repositories counts: their manifests, and the blobs that these name.
    pub(crate) fn counted_in(mut self, repositories: &HashSet<RepositoryName>) -> Self {
        self.manifests.retain(|manifest| repositories.contains(&manifest.repository));
        let named: HashSet<(&RepositoryName, &Digest)> =
            self.manifests.iter().flat_map(|m| m.blobs.iter().map(|blob| (&m.repository, blob))).collect();
        self.blobs.retain(|blob| named.contains(&(&blob.repository, &blob.digest)));
        self
    }
}

impl Store {
    /// What is kept in the repositories below `prefix` (`mirror/docker.io/`).
    pub(crate) fn kept(&self, prefix: &str) -> Kept {
        let index = self.index();
        let mut kept = Kept::default();
        for (name, entry) in index.repositories.iter().filter(|(name, _)| name.as_str().starts_with(prefix)) {
            kept.repositories += usize::from(!entry.manifests.is_empty());
            for (digest, record) in &entry.manifests {
                kept.own += usize::from(!record.partial);
                let pulled = entry.times.pulled.get(digest).copied();
                let came = entry.times.manifests.get(digest).copied();
                kept.manifests.push(Cached {
                    repository: name.clone(),
                    digest: digest.clone(),
                    size_bytes: record.size,
                    blobs: record.blobs.clone(),
                    children: record.manifests.clone(),
                    used: pulled.max(came).unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
            let blobs = entry.blobs.iter().filter_map(|digest| Some((digest, index.blobs.get(digest)?)));
            kept.blobs.extend(blobs.map(|(digest, info)| CachedBlob {
                repository: name.clone(),
                digest: digest.clone(),
                size_bytes: info.size_bytes,
                touched: info.touched,
            }));
        }
        kept
    }

    /// Removes manifests, and the blobs that nothing else in their repositories names, and gives the space back.
    pub(crate) fn evict(&self, manifests: &[Cached], blobs: &[CachedBlob]) -> io::Result<()> {
        let mut loose: HashSet<(RepositoryName, Digest)> = HashSet::new();
        for manifest in manifests {
            race();
            if self.delete_manifest(&manifest.repository, &manifest.digest)? == Removed::Done {
                loose.extend(manifest.blobs.iter().map(|b| (manifest.repository.clone(), b.clone())));
            }
        }
        loose.extend(blobs.iter().map(|b| (b.repository.clone(), b.digest.clone())));
        for (repository, digest) in loose {
            if self.unlink_blob(&repository, &digest)? == Removed::Done {
                self.remove_unseen(&digest)?;
            }
        }
        Ok(())
    }
}
