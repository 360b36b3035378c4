//! Which repositories, tags, manifests and blobs there are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use gantry_oci::{Digest, RepositoryName, Tag};

use super::content::Found;
use super::history::Times;

/// What lists and referrers need to know of a manifest without reading it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestRecord {
    pub(crate) media_type: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// The blobs it needs (configuration and layers), which garbage collection keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blobs: Vec<Digest>,
    /// The manifests an index names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) manifests: Vec<Digest>,
    /// What the index says they are for, in the same order: `os/architecture`, or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) platforms: Vec<String>,
    /// Kept of another registry, which has what is not here of the blobs and manifests that it names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) partial: bool,
}

/// A blob that is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobInfo {
    pub(crate) size_bytes: u64,
    /// When it was last pushed, mounted or asked for.
    pub(crate) touched: SystemTime,
    /// Repositories that it is seen in.
    pub(crate) links: u32,
}

impl BlobInfo {
    pub(crate) fn new(size_bytes: u64, touched: SystemTime) -> Self {
        Self { size_bytes, touched, links: 0 }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Repository {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) manifests: HashMap<Digest, Arc<ManifestRecord>>,
    pub(crate) tags: BTreeMap<Tag, Digest>,
    /// Subject → the manifests that refer to it.
    pub(crate) referrers: HashMap<Digest, BTreeSet<Digest>>,
    /// When a manifest or a tag was last written.
    pub(crate) pushed: Option<SystemTime>,
    pub(crate) times: Times,
}

impl Repository {
    pub(crate) fn insert_manifest(&mut self, digest: Digest, record: Arc<ManifestRecord>) {
        if let Some(subject) = &record.subject {
            self.referrers.entry(subject.clone()).or_default().insert(digest.clone());
        }
        self.manifests.insert(digest, record);
    }

    pub(crate) fn remove_manifest(&mut self, digest: &Digest) -> bool {
        let Some(record) = self.manifests.remove(digest) else { return false };
        if let Some(subject) = &record.subject
            && let Some(referrers) = self.referrers.get_mut(subject)
        {
            referrers.remove(digest);
            if referrers.is_empty() {
                self.referrers.remove(subject);
            }
        }
        self.tags.retain(|_, tagged| tagged != digest);
        self.times.tags.retain(|tag, _| self.tags.contains_key(tag));
        self.times.forget_manifest(digest);
        true
    }
}

/// Everything, by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) blobs: HashMap<Digest, BlobInfo>,
    pub(crate) repositories: BTreeMap<RepositoryName, Repository>,
    /// Blobs that pushes and mounts are about to make seen, and how many do. They may be on their way.
    pub(crate) pins: HashMap<Digest, u32>,
}

impl Index {
    /// Makes a blob seen in a repository.
    pub(crate) fn link(&mut self, repository: &RepositoryName, digest: &Digest) {
        let new = self.repositories.entry(repository.clone()).or_default().blobs.insert(digest.clone());
        if new && let Some(blob) = self.blobs.get_mut(digest) {
            blob.links += 1;
        }
    }

    /// The opposite; false if it was not seen there.
    pub(crate) fn unlink(&mut self, repository: &RepositoryName, digest: &Digest) -> bool {
        let was = self.repositories.get_mut(repository).is_some_and(|entry| entry.blobs.remove(digest));
        if was && let Some(blob) = self.blobs.get_mut(digest) {
            blob.links = blob.links.saturating_sub(1);
        }
        was
    }

    /// Size of a blob that may be seen in `repository`.
    pub(crate) fn linked_blob(&self, repository: &RepositoryName, digest: &Digest) -> Option<BlobInfo> {
        let repository = self.repositories.get(repository)?;
        repository.blobs.get(digest)?;
        self.blobs.get(digest).copied()
    }

    /// Reads the names below `root`; `content` is what there is of blobs. Temporary files of a process that died are
    /// removed; a link or a tag whose content is not there was never acknowledged and is not taken up.
    pub(crate) fn load(root: &Path, content: Vec<Found>) -> io::Result<Self> {
        let mut index = Self::default();
        for Found { digest, size_bytes, written } in content {
            index.blobs.insert(digest, BlobInfo::new(size_bytes, written));
        }
        index.load_repositories(&root.join("repositories"), "")?;
        Ok(index)
    }

    fn load_repositories(&mut self, directory: &Path, name: &str) -> io::Result<()> {
        for entry in entries(directory)? {
            let Ok(component) = entry.file_name().into_string() else { continue };
            if !component.starts_with('_') && entry.file_type()?.is_dir() {
                let child = if name.is_empty() { component } else { format!("{name}/{component}") };
                self.load_repositories(&entry.path(), &child)?;
            }
        }
        let Ok(parsed) = name.parse::<RepositoryName>() else { return Ok(()) };
        let repository = self.load_repository(directory)?;
        if !repository.blobs.is_empty() || !repository.manifests.is_empty() {
            for digest in &repository.blobs {
                if let Some(blob) = self.blobs.get_mut(digest) {
                    blob.links += 1;
                }
            }
            self.repositories.insert(parsed, repository);
        }
        Ok(())
    }

    fn load_repository(&self, directory: &Path) -> io::Result<Repository> {
        let mut repository = Repository::default();
        for (digest, _) in digests(&directory.join("_blobs"))? {
            if self.blobs.contains_key(&digest) {
                repository.blobs.insert(digest);
            }
        }
        for (digest, entry) in digests(&directory.join("_manifests"))? {
            let at = written(&entry);
            repository.pushed = repository.pushed.max(at);
            if let Some(at) = at {
                repository.times.manifests.insert(digest.clone(), at);
            }
            let mut line = String::new();
            let mut file = io::BufReader::new(fs::File::open(entry.path())?);
            file.read_line(&mut line)?;
            match serde_json::from_str::<ManifestRecord>(&line) {
                Ok(mut record) => {
                    if record.blobs.is_empty() && record.platforms.is_empty() {
                        // Written before records named them.
                        (record.manifests, record.platforms) = crate::validate::manifests_of(file);
                    }
                    repository.insert_manifest(digest, Arc::new(record));
                }
                Err(error) => tracing::error!(file = %entry.path().display(), %error, "unreadable manifest"),
            }
        }
        for entry in entries(&directory.join("_tags"))? {
            let Some(tag) = entry.file_name().to_str().and_then(|n| n.parse::<Tag>().ok()) else {
                discard_temporary(&entry)?;
                continue;
            };
            let at = written(&entry);
            repository.pushed = repository.pushed.max(at);
            let digest = fs::read_to_string(entry.path())?.trim().parse::<Digest>();
            if let Ok(digest) = digest
                && repository.manifests.contains_key(&digest)
            {
                if let Some(at) = at {
                    repository.times.tags.insert(tag.clone(), at);
                }
                repository.tags.insert(tag, digest);
            }
        }
        repository.times.load_pulls(directory)?;
        Ok(repository)
    }
}

fn written(entry: &fs::DirEntry) -> Option<SystemTime> {
    entry.metadata().ok()?.modified().ok()
}

fn digests(directory: &Path) -> io::Result<Vec<(Digest, fs::DirEntry)>> {
    let mut found = Vec::new();
    for entry in entries(directory)? {
        match entry.file_name().to_str().and_then(super::digest_of_file_name) {
            Some(digest) => found.push((digest, entry)),
            None => discard_temporary(&entry)?,
        }
    }
    Ok(found)
}

pub(super) fn discard_temporary(entry: &fs::DirEntry) -> io::Result<()> {
    if entry.file_name().to_str().is_some_and(|n| n.starts_with('.') && n.ends_with(".tmp")) {
        super::remove_file(&entry.path())?;
    }
    Ok(())
}

pub(super) fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
