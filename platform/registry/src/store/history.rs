//! When what was pushed and pulled, and what retention does with it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gantry_oci::{Digest, RepositoryName, Tag};
use jiff::Timestamp;

use super::blobs::Removed;
use super::{Store, race, remove_file};
use crate::retention::{ManifestFacts, Plan, TagFacts};

/// Pulls within this time count as one: readers must not wait for each other to write it down.
const PULLS_APART: Duration = Duration::from_secs(600);
/// In a repository's directory: digest → seconds since the epoch, as JSON.
const PULLED: &str = "_pulled";

/// The times of one repository.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(super) tags: HashMap<Tag, SystemTime>,
    pub(super) manifests: HashMap<Digest, SystemTime>,
    pub(super) pulled: HashMap<Digest, SystemTime>,
    /// Pulls that are in memory only.
    unsaved: bool,
}

impl Times {
    /// Reads when manifests were last pulled. A file that cannot be read makes everything look never pulled, which
    /// is said and no error: it is a note of the past.
    pub(super) fn load_pulls(&mut self, directory: &Path) -> io::Result<()> {
        let path = directory.join(PULLED);
        let Some(bytes) = gantry_base::fs::read_optional(&path)? else { return Ok(()) };
        match serde_json::from_slice::<HashMap<Digest, u64>>(&bytes) {
            Ok(all) => {
                let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
                self.pulled = all.into_iter().filter_map(|(d, s)| Some((d, at(s)?))).collect();
            }
            Err(error) => tracing::warn!(file = %path.display(), %error, "last pulls are not known"),
        }
        Ok(())
    }

    pub(super) fn forget_manifest(&mut self, digest: &Digest) {
        self.manifests.remove(digest);
        self.unsaved |= self.pulled.remove(digest).is_some();
    }
}

/// A time of a file as one of the rules'; files from before 1970 are as old as can be.
fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Store {
    /// Somebody pulled the manifest.
    pub(crate) fn note_pull(&self, repository: &RepositoryName, digest: &Digest) {
        let now = SystemTime::now();
        let recent = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < PULLS_APART);
        {
            let index = self.index();
            let Some(entry) = index.repositories.get(repository) else { return };
            if entry.times.pulled.get(digest).is_some_and(recent) {
                return;
            }
        }
        if let Some(entry) = self.index_mut().repositories.get_mut(repository)
            && entry.manifests.contains_key(digest)
        {
            entry.times.pulled.insert(digest.clone(), now);
            entry.times.unsaved = true;
        }
    }

    /// Writes down the pulls since the last time.
    pub(crate) fn save_pulls(&self) -> io::Result<()> {
        let mut changed = Vec::new();
        for (name, entry) in &mut self.index_mut().repositories {
            if std::mem::take(&mut entry.times.unsaved) {
                changed.push((name.clone(), entry.times.pulled.clone()));
            }
        }
        for (name, pulled) in changed {
            let since =
                |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let pulled: HashMap<String, u64> =
                pulled.into_iter().map(|(digest, at)| (digest.to_string(), since(at))).collect();
            let path = self.repository_directory(&name, PULLED);
            gantry_base::fs::write_atomic(&path, &serde_json::to_vec(&pulled)?, 0o600)?;
        }
        Ok(())
    }

    /// What retention rules look at.
    pub(crate) fn history(&self, repository: &RepositoryName) -> (Vec<TagFacts>, Vec<ManifestFacts>) {
        let index = self.index();
        let Some(entry) = index.repositories.get(repository) else { return Default::default() };
        let times = &entry.times;
        // What has no time was made now: nothing goes because a time is not known.
        let or_now = |at: Option<&SystemTime>| timestamp(at.copied().unwrap_or_else(SystemTime::now));
        let tags = entry.tags.iter().map(|(tag, digest)| TagFacts {
            tag: tag.clone(),
            digest: digest.clone(),
            pushed: or_now(times.tags.get(tag)),
            pulled: times.pulled.get(digest).copied().map(timestamp),
        });
        let manifests = entry.manifests.iter().map(|(digest, record)| ManifestFacts {
            digest: digest.clone(),
            pushed: or_now(times.manifests.get(digest)),
            children: record.manifests.clone(),
            subject: record.subject.clone(),
        });
        (tags.collect(), manifests.collect())
    }

    /// Does what was planned from `seen`; what was pushed again since then stays.
    pub(crate) fn let_go(
        &self,
        repository: &RepositoryName,
        plan: &Plan,
        (tags, manifests): &(Vec<TagFacts>, Vec<ManifestFacts>),
    ) -> io::Result<()> {
        let directory = self.repository_directory(repository, "_tags");
        for seen in tags.iter().filter(|t| plan.tags.contains(&t.tag)) {
            race();
            let _repository = self.lock_repository(repository);
            {
                let mut index = self.index_mut();
                let Some(entry) = index.repositories.get_mut(repository) else { return Ok(()) };
                let same = entry.tags.get(&seen.tag) == Some(&seen.digest)
                    && entry.times.tags.get(&seen.tag).copied().map(timestamp) == Some(seen.pushed);
                if !same {
                    continue;
                }
                entry.tags.remove(&seen.tag);
                entry.times.tags.remove(&seen.tag);
            }
            remove_file(&directory.join(seen.tag.as_str()))?;
        }
        if !plan.tags.is_empty() && directory.exists() {
            self.directories.sync(&directory)?;
        }
        // Indexes before what they name: each round takes what nothing names any more.
        let mut left: Vec<&ManifestFacts> =
            manifests.iter().filter(|m| plan.manifests.contains(&m.digest)).collect();
        loop {
            let before = left.len();
            let mut named = Vec::new();
            for seen in left {
                let unchanged = |entry: &super::index::Repository| {
                    let pushed = entry.times.manifests.get(&seen.digest).copied().map(timestamp);
                    pushed == Some(seen.pushed) && !entry.tags.values().any(|digest| *digest == seen.digest)
                };
                if self.delete_manifest_if(repository, &seen.digest, &unchanged)? == Removed::InUse {
                    named.push(seen);
                }
            }
            left = named;
            if left.is_empty() || left.len() == before {
                return Ok(());
            }
        }
    }
}
