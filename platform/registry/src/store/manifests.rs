//! Manifests, tags and what refers to what.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use gantry_oci::{Digest, RepositoryName, Tag};

use super::blobs::Removed;
use super::index::{ManifestRecord, Repository};
use super::{Store, file_name, race, remove_file};

/// Why a manifest is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It names what the repository lacks.
    Missing(Vec<Digest>),
    /// The tag is another manifest's and stays so.
    Immutable,
}

/// A tag to be pushed.
#[derive(Clone, Debug)]
pub(crate) struct Tagging {
    pub(crate) tag: Tag,
    /// Once pushed, it is not moved.
    pub(crate) immutable: bool,
}

impl Tagging {
    fn refuses(&self, entry: &Repository, digest: &Digest) -> bool {
        self.immutable && entry.tags.get(&self.tag).is_some_and(|tagged| tagged != digest)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tagged {
    Done,
    /// The manifest was deleted meanwhile.
    Gone,
    Immutable,
}

impl Store {
    /// Stores a manifest that was validated, and points `tag` to it, once everything it names is there.
    pub(crate) fn put_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: ManifestRecord,
        bytes: &[u8],
        tag: Option<&Tagging>,
    ) -> io::Result<Result<(), Refused>> {
        let directory = self.repository_directory(repository, "_manifests");
        self.directories.ensure(&directory)?;
        let mut head = serde_json::to_vec(&record)?;
        head.push(b'\n');
        let record = Arc::new(record);
        loop {
            let file = self.write_temporary(&directory, &[&head, bytes])?;
            race();
            {
                let _repository = self.lock_repository(repository);
                let refused = {
                    let index = self.index();
                    let entry = index.repositories.get(repository);
                    let missing = missing(entry, &record);
                    let moved = |t: &Tagging| entry.is_some_and(|entry| t.refuses(entry, digest));
                    match missing.is_empty() {
                        false => Some(Refused::Missing(missing)),
                        true => tag.is_some_and(moved).then_some(Refused::Immutable),
                    }
                };
                if let Some(refused) = refused {
                    remove_file(&file)?;
                    return Ok(Err(refused));
                }
                fs::rename(&file, directory.join(file_name(digest)))?;
                let mut index = self.index_mut();
                let entry = index.repositories.entry(repository.clone()).or_default();
                entry.insert_manifest(digest.clone(), record.clone());
                let now = SystemTime::now();
                entry.pushed = Some(now);
                entry.times.manifests.insert(digest.clone(), now);
            }
            race();
            self.directories.sync(&directory)?;
            // Only now: a tag that is durable before its manifest would take the place of one that was good.
            let Some(tag) = tag else { return Ok(Ok(())) };
            match self.put_tag(repository, digest, tag)? {
                Tagged::Done => return Ok(Ok(())),
                Tagged::Immutable => return Ok(Err(Refused::Immutable)),
                // Deleted again before it had its tag.
                Tagged::Gone => {}
            }
        }
    }

    /// Points a tag to a manifest of the repository.
    fn put_tag(&self, repository: &RepositoryName, digest: &Digest, wanted: &Tagging) -> io::Result<Tagged> {
        let tag = &wanted.tag;
        let directory = self.repository_directory(repository, "_tags");
        self.directories.ensure(&directory)?;
        let file = self.write_temporary(&directory, &[digest.to_string().as_bytes(), b"\n"])?;
        race();
        {
            let _repository = self.lock_repository(repository);
            let refused = match self.index().repositories.get(repository) {
                Some(entry) if wanted.refuses(entry, digest) => Some(Tagged::Immutable),
                Some(entry) if entry.manifests.contains_key(digest) => None,
                _ => Some(Tagged::Gone),
            };
            if let Some(refused) = refused {
                remove_file(&file)?;
                return Ok(refused);
            }
            fs::rename(&file, directory.join(tag.as_str()))?;
            if let Some(entry) = self.index_mut().repositories.get_mut(repository) {
                entry.tags.insert(tag.clone(), digest.clone());
                entry.times.tags.insert(tag.clone(), SystemTime::now());
            }
        }
        self.directories.sync(&directory).map(|()| Tagged::Done)
    }

    /// What a tag points to.
    pub(crate) fn resolve(&self, repository: &RepositoryName, tag: &Tag) -> Option<Digest> {
        self.index().repositories.get(repository)?.tags.get(tag).cloned()
    }

    pub(crate) fn record(&self, repository: &RepositoryName, digest: &Digest) -> Option<Arc<ManifestRecord>> {
        self.index().repositories.get(repository)?.manifests.get(digest).cloned()
    }

    /// A manifest's bytes; `None` if the repository has none of this digest.
    pub(crate) fn manifest(&self, repository: &RepositoryName, digest: &Digest) -> io::Result<Option<Bytes>> {
        let Some(record) = self.record(repository, digest) else { return Ok(None) };
        let path = self.repository_directory(repository, "_manifests").join(file_name(digest));
        let Some(file) = gantry_base::fs::read_optional(&path)? else { return Ok(None) };
        let bytes = Bytes::from(file);
        let head = bytes.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        let bytes = bytes.slice(head..);
        if bytes.len() as u64 != record.size {
            return Err(io::Error::other(format!("{} is damaged", path.display())));
        }
        self.warm.put(digest, &bytes);
        Ok(Some(bytes))
    }

    /// Removes a manifest and every tag that points to it.
    pub(crate) fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> io::Result<Removed> {
        self.delete_manifest_if(repository, digest, &|_| true)
    }

    /// [`Store::delete_manifest`], if `condition` holds in the moment of it.
    pub(crate) fn delete_manifest_if(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        condition: &dyn Fn(&Repository) -> bool,
    ) -> io::Result<Removed> {
        let (directory, tags) = (
            self.repository_directory(repository, "_manifests"),
            self.repository_directory(repository, "_tags"),
        );
        let tagged: Vec<Tag>;
        {
            let _repository = self.lock_repository(repository);
            {
                let mut index = self.index_mut();
                let Some(entry) = index.repositories.get_mut(repository) else {
                    return Ok(Removed::Unknown);
                };
                if entry.manifests.values().any(|m| m.manifests.contains(digest)) {
                    return Ok(Removed::InUse);
                }
                if !condition(entry) {
                    return Ok(Removed::Kept);
                }
                tagged = entry.tags.iter().filter(|(_, d)| *d == digest).map(|(t, _)| t.clone()).collect();
                if !entry.remove_manifest(digest) {
                    return Ok(Removed::Unknown);
                }
            }
            race();
            for tag in &tagged {
                remove_file(&tags.join(tag.as_str()))?;
            }
            remove_file(&directory.join(file_name(digest)))?;
        }
        if !tagged.is_empty() {
            self.directories.sync(&tags)?;
        }
        self.directories.sync(&directory).map(|()| Removed::Done)
    }

    /// Removes a tag and leaves the manifest; false if there was none.
    pub(crate) fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> io::Result<bool> {
        let directory = self.repository_directory(repository, "_tags");
        {
            let _repository = self.lock_repository(repository);
            let removed = self.index_mut().repositories.get_mut(repository).is_some_and(|entry| {
                entry.times.tags.remove(tag);
                entry.tags.remove(tag).is_some()
            });
            if !removed {
                return Ok(false);
            }
            remove_file(&directory.join(tag.as_str()))?;
        }
        self.directories.sync(&directory).map(|()| true)
    }

    /// At most `count` tags after `last`, in order, and whether there are more; `None`: no such repository.
    pub(crate) fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        count: usize,
    ) -> Option<(Vec<String>, bool)> {
        let index = self.index();
        let entry = index.repositories.get(repository).filter(|r| !r.manifests.is_empty())?;
        let all = entry.tags.keys().map(Tag::as_str);
        let mut after = all.skip_while(|tag| last.is_some_and(|last| *tag <= last));
        let page = after.by_ref().take(count).map(str::to_owned).collect();
        Some((page, after.next().is_some()))
    }

    /// At most `count` names of repositories that hold an image, after `last`, and whether there are more.
    pub(crate) fn repositories(&self, last: Option<&RepositoryName>, count: usize) -> (Vec<String>, bool) {
        let index = self.index();
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut after = index
            .repositories
            .range::<RepositoryName, _>((from, Bound::Unbounded))
            .filter(|(_, entry)| !entry.manifests.is_empty())
            .map(|(name, _)| name.to_string());
        let page = after.by_ref().take(count).collect();
        (page, after.next().is_some())
    }

    /// The manifests whose subject is `subject`, by digest after `last`.
    pub(crate) fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        last: Option<&Digest>,
    ) -> Vec<(Digest, Arc<ManifestRecord>)> {
        let index = self.index();
        let Some(entry) = index.repositories.get(repository) else { return Vec::new() };
        let Some(referrers) = entry.referrers.get(subject) else { return Vec::new() };
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        referrers
            .range::<Digest, _>((from, Bound::Unbounded))
            .filter_map(|digest| Some((digest.clone(), entry.manifests.get(digest)?.clone())))
            .collect()
    }
}

/// How much a repository holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) tags: usize,
    pub(crate) manifests: usize,
    /// Of manifests, and of the blobs they name, each once.
    pub(crate) size_bytes: u64,
    pub(crate) pushed: Option<SystemTime>,
}

impl Store {
    /// What the repository holds; nothing if there is none.
    pub(crate) fn contents(&self, repository: &RepositoryName) -> Contents {
        let index = self.index();
        let Some(entry) = index.repositories.get(repository) else { return Contents::default() };
        let blobs: HashSet<&Digest> = entry.manifests.values().flat_map(|m| &m.blobs).collect();
        let blobs = blobs.into_iter().filter_map(|digest| index.blobs.get(digest));
        let manifests = entry.manifests.values().map(|m| m.size);
        Contents {
            tags: entry.tags.len(),
            manifests: entry.manifests.len(),
            size_bytes: blobs.map(|blob| blob.size_bytes).chain(manifests).sum(),
            pushed: entry.pushed.filter(|_| !entry.manifests.is_empty()),
        }
    }

    /// How many repositories hold a manifest, how many blobs there are, and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let index = self.index();
        let repositories = index.repositories.values().filter(|entry| !entry.manifests.is_empty()).count();
        let bytes = index.blobs.values().map(|blob| blob.size_bytes).sum();
        (repositories as u64, index.blobs.len() as u64, bytes)
    }

    /// The names of all repositories that hold a manifest.
    pub(crate) fn names(&self) -> Vec<RepositoryName> {
        let index = self.index();
        let held = index.repositories.iter().filter(|(_, entry)| !entry.manifests.is_empty());
        held.map(|(name, _)| name.clone()).collect()
    }

    /// Removes every manifest and tag of the repository, and what makes its blobs seen there.
    pub(crate) fn clear(&self, repository: &RepositoryName) -> io::Result<()> {
        let (mut manifests, blobs): (Vec<Digest>, Vec<Digest>) = {
            let index = self.index();
            let Some(entry) = index.repositories.get(repository) else { return Ok(()) };
            (entry.manifests.keys().cloned().collect(), entry.blobs.iter().cloned().collect())
        };
        // Indexes before what they name: each round takes what nothing names any more.
        while !manifests.is_empty() {
            let before = manifests.len();
            let mut named = Vec::new();
            for digest in manifests {
                if self.delete_manifest(repository, &digest)? == Removed::InUse {
                    named.push(digest);
                }
            }
            manifests = named;
            if manifests.len() == before {
                return Err(io::Error::other(format!("indexes of {repository} name each other")));
            }
        }
        for digest in &blobs {
            self.unlink_blob(repository, digest)?;
        }
        Ok(())
    }
}

fn missing(repository: Option<&Repository>, record: &ManifestRecord) -> Vec<Digest> {
    if record.partial {
        return Vec::new();
    }
    let has_blob = |d: &Digest| repository.is_some_and(|r| r.blobs.contains(d));
    let has_manifest = |d: &Digest| repository.is_some_and(|r| r.manifests.contains_key(d));
    let blobs = record.blobs.iter().filter(|d| !has_blob(d));
    blobs.chain(record.manifests.iter().filter(|d| !has_manifest(d))).cloned().collect()
}
