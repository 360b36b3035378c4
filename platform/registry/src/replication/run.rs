//! One run of a replication. It has no state of its own: what is there already is not copied again, so that a run
//! that was cut off is gone on with by the next.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use gantry_kube_types::SecurityEvent;
use gantry_oci::client::{ClientError, RegistryClient};
use gantry_oci::image::Blob;
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_registry_api::{Direction, EventType, ReplicationSpec};
use http::StatusCode;
use serde_json::json;

use super::plan::{Tags, attachments, has_repository, has_tag, plan, reduced};
use crate::Registry;
use crate::retention::attached_to;
use crate::rules::is_immutable;
use crate::store::{ManifestRecord, Tagging};

/// Indexes in indexes that are followed.
const DEPTH_MAX: usize = 8;
/// Failures that are told in words.
const ERRORS_MAX: usize = 5;
/// Tags of one repository that are looked at.
const TAGS_MAX: usize = 20_000;

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) tags: u32,
    pub(crate) blobs: u32,
    pub(crate) bytes: u64,
    pub(crate) deleted: u32,
    /// What could not be copied.
    pub(crate) pending: u32,
    pub(crate) errors: Vec<String>,
}

/// Where something goes from and to.
#[derive(Clone, Debug)]
struct Way {
    from: RepositoryName,
    to: RepositoryName,
}

/// Told how many of how many repositories are done; false ends the run.
pub(crate) type Watch<'a> = &'a (dyn Fn(usize, usize) -> bool + Send + Sync);

pub(crate) struct Run<'a> {
    registry: &'a Registry,
    client: &'a RegistryClient,
    /// Of the rule.
    name: &'a str,
    spec: &'a ReplicationSpec,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        registry: &'a Registry,
        client: &'a RegistryClient,
        (name, spec): (&'a str, &'a ReplicationSpec),
    ) -> Self {
        Self { registry, client, name, spec, outcome: Outcome::default() }
    }

    /// Copies what differs. An error is one that ends the run; what concerns one tag is counted and told.
    pub(crate) async fn run(mut self, watch: Watch<'_>) -> Result<Outcome, String> {
        let ways = self.ways().await?;
        for (done, way) in ways.iter().enumerate() {
            if !watch(done, ways.len()) {
                return Err("it was ended".to_owned());
            }
            let before = self.outcome.clone();
            if let Err(error) = self.repository(way).await {
                self.failed(&way.from.to_string(), &error);
            }
            self.tell(way, &before).await;
        }
        watch(ways.len(), ways.len());
        Ok(self.outcome)
    }

    /// Tells of what was done in a repository, and of what was not.
    async fn tell(&self, way: &Way, before: &Outcome) {
        let now = &self.outcome;
        let changed = Outcome {
            tags: now.tags - before.tags,
            blobs: now.blobs - before.blobs,
            bytes: now.bytes - before.bytes,
            deleted: now.deleted - before.deleted,
            pending: now.pending - before.pending,
            errors: now.errors.get(before.errors.len()..).unwrap_or_default().to_vec(),
        };
        if changed == Outcome::default() {
            return;
        }
        self.registry.inner.replications.copied(self.name, &changed);
        let here = match self.spec.direction {
            Direction::Push => &way.from,
            Direction::Pull => &way.to,
        };
        let mut data = json!({ "replication": self.name, "direction": self.spec.direction,
            "from": way.from.as_str(), "to": way.to.as_str() });
        data["outcome"] = json!(changed);
        self.registry.told(EventType::Replicated, here, None, data).await;
        let pending = changed.pending.to_string();
        let facts = [("replication", self.name), ("pending", pending.as_str())];
        self.registry.record(SecurityEvent::ImagesReplicated, here, &facts).await;
    }

    fn failed(&mut self, what: &str, error: &str) {
        tracing::warn!(what, error, "not replicated");
        self.outcome.pending += 1;
        if self.outcome.errors.len() < ERRORS_MAX {
            self.outcome.errors.push(format!("{what}: {error}"));
        }
    }

    async fn ways(&self) -> Result<Vec<Way>, String> {
        let names: Vec<RepositoryName> = match self.spec.direction {
            // What is pulled through is not whole.
            Direction::Push => {
                let own = |name: &RepositoryName| !self.registry.is_mirror(name);
                self.registry.store().names().into_iter().filter(own).collect()
            }
            Direction::Pull if self.spec.repositories.iter().any(|p| p.contains(['*', '?'])) => {
                let all = self.client.catalog().await.map_err(|error| error.to_string())?;
                all.iter().filter_map(|name| name.parse().ok()).collect()
            }
            Direction::Pull => self.spec.repositories.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let meant = names.into_iter().filter(|name| has_repository(self.spec, name.as_str()));
        let way = |from: RepositoryName| {
            Some(Way { to: format!("{}{from}", self.spec.prefix).parse().ok()?, from })
        };
        Ok(meant.filter_map(way).collect())
    }

    async fn repository(&mut self, way: &Way) -> Result<(), String> {
        let (source, target) = match self.spec.direction {
            Direction::Push => {
                let source = self.own_tags(&way.from);
                if !source.keys().any(|tag| has_tag(self.spec, tag)) && !self.spec.deletes {
                    return Ok(());
                }
                (source, self.remote_tags(&way.to).await?)
            }
            Direction::Pull => (self.remote_tags(&way.from).await?, self.own_tags(&way.to)),
        };
        let planned = plan(self.spec, &source, &target);
        for tag in &planned.copies {
            if let Err(error) = self.tag(way, tag, target.get(tag)).await {
                self.failed(&format!("{}:{tag}", way.from), &error);
            }
        }
        let images = self.images(way, &source);
        for tag in attachments(&images, &source, &target) {
            if let Err(error) = self.tag(way, &tag, target.get(&tag)).await {
                self.failed(&format!("{}:{tag}", way.from), &error);
            }
        }
        for image in &images {
            if let Err(error) = self.referrers(way, image).await {
                self.failed(&format!("{}@{image}", way.from), &error);
            }
        }
        for tag in planned.deletes {
            match self.delete(way, &tag, &target).await {
                Ok(()) => self.outcome.deleted += 1,
                Err(error) => self.failed(&format!("{}:{tag}", way.to), &error),
            }
        }
        Ok(())
    }

    fn own_tags(&self, repository: &RepositoryName) -> Tags {
        self.registry.store().history(repository).0.into_iter().map(|t| (t.tag, t.digest)).collect()
    }

    async fn remote_tags(&self, repository: &RepositoryName) -> Result<Tags, String> {
        let listed = match self.client.tags(repository).await {
            Ok(listed) => listed,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error.to_string()),
        };
        let tags = listed.iter().filter_map(|tag| tag.parse::<Tag>().ok());
        let meant = tags.filter(|tag| has_tag(self.spec, tag) || attached_to(tag).is_some());
        let mut found = Tags::new();
        for tag in meant.take(TAGS_MAX) {
            let digest = self.client.resolve(repository, tag.as_str()).await;
            if let Some(digest) = digest.map_err(|error| error.to_string())? {
                found.insert(tag, digest);
            }
        }
        Ok(found)
    }

    /// The images that are on both sides now, with those that indexes name: what may be signed. They are all here.
    fn images(&self, way: &Way, source: &Tags) -> BTreeSet<Digest> {
        let here = match self.spec.direction {
            Direction::Push => &way.from,
            Direction::Pull => &way.to,
        };
        let own = self.own_tags(here);
        let meant = own.iter().filter(|(tag, _)| has_tag(self.spec, tag) && source.contains_key(*tag));
        let mut open: Vec<Digest> = meant.map(|(_, digest)| digest.clone()).collect();
        let mut found = BTreeSet::new();
        while let Some(digest) = open.pop() {
            if let Some(record) = self.registry.store().record(here, &digest)
                && found.insert(digest)
            {
                open.extend(record.manifests.iter().cloned());
            }
        }
        found
    }

    async fn tag(&mut self, way: &Way, tag: &Tag, current: Option<&Digest>) -> Result<(), String> {
        let copied = match self.spec.direction {
            Direction::Push => {
                let digest = self.registry.store().resolve(&way.from, tag);
                let Some(digest) = digest else { return Ok(()) };
                self.push(way, &digest, Some(tag), current, 0).await?
            }
            Direction::Pull => self.pull(way, tag.as_str(), Some(tag), current, 0).await?,
        };
        self.outcome.tags += u32::from(copied);
        Ok(())
    }

    /// What refers to an image, with what refers to that.
    async fn referrers(&mut self, way: &Way, image: &Digest) -> Result<(), String> {
        let mut open = vec![(image.clone(), 0)];
        while let Some((subject, depth)) = open.pop() {
            let found: Vec<Digest> = match self.spec.direction {
                Direction::Push => {
                    let found = self.registry.store().referrers(&way.from, &subject, None);
                    found.into_iter().map(|(digest, _)| digest).collect()
                }
                Direction::Pull => {
                    let found = self.client.referrers(&way.from, &subject, None).await;
                    found.map_err(|error| error.to_string())?
                }
            };
            for digest in found {
                match self.spec.direction {
                    Direction::Push => drop(self.push(way, &digest, None, None, 0).await?),
                    Direction::Pull => drop(self.pull(way, &digest.to_string(), None, None, 0).await?),
                }
                if depth < DEPTH_MAX {
                    open.push((digest, depth + 1));
                }
            }
        }
        Ok(())
    }

    /// Pushes a manifest after what it names. False: it was there.
    async fn push(
        &mut self,
        way: &Way,
        digest: &Digest,
        tag: Option<&Tag>,
        current: Option<&Digest>,
        depth: usize,
    ) -> Result<bool, String> {
        let text = |error: ClientError| error.to_string();
        let (name, wanted) = (way.from.clone(), digest.clone());
        let read = self.registry.blocking(move |r| r.store().manifest(&name, &wanted)).await;
        let bytes = read.map_err(|error| error.to_string())?;
        let record = self.registry.store().record(&way.from, digest);
        // Deleted meanwhile: the next run sees that.
        let (Some(bytes), Some(record)) = (bytes, record) else { return Ok(false) };
        let (bytes, digest, record) = self.fitted(bytes, digest.clone(), &record)?;
        if current == Some(&digest) {
            return Ok(false);
        }
        let there = self.client.has_manifest(&way.to, &digest).await.map_err(text)?;
        if there && tag.is_none() {
            return Ok(false);
        }
        if !there {
            if depth >= DEPTH_MAX {
                return Err(format!("{digest} is an index in too many indexes"));
            }
            for child in &record.manifests {
                Box::pin(self.push(way, child, None, None, depth + 1)).await?;
            }
            for blob in &record.blobs {
                self.push_blob(way, blob).await?;
            }
        }
        let reference = tag.map_or_else(|| digest.to_string(), Tag::to_string);
        match &record.subject {
            Some(subject) => {
                let manifest = (&digest, record.media_type.as_str(), bytes);
                self.client.put_referrer(&way.to, subject, manifest, &reference).await.map_err(text)?;
            }
            None => {
                let kind = &record.media_type;
                self.client.put_manifest(&way.to, &reference, kind, bytes).await.map_err(text)?;
            }
        }
        Ok(true)
    }

    async fn push_blob(&mut self, way: &Way, digest: &Digest) -> Result<(), String> {
        let Some(size_bytes) = self.registry.store().blob(&way.from, digest) else {
            return Err(format!("the blob {digest} is missing"));
        };
        let source = self.registry.store().content.source(digest, size_bytes);
        let blob = Blob { media_type: String::new(), digest: digest.clone(), size_bytes, source };
        let sent = std::sync::atomic::AtomicBool::new(false);
        let watch = |progress: gantry_oci::client::Progress| {
            sent.fetch_or(!progress.present, std::sync::atomic::Ordering::SeqCst);
        };
        self.client.push_blob(&way.to, &blob, &watch).await.map_err(|error| error.to_string())?;
        if sent.into_inner() {
            self.outcome.blobs += 1;
            self.outcome.bytes += size_bytes;
        }
        Ok(())
    }

    /// Pulls a manifest after what it names. False: it was there.
    async fn pull(
        &mut self,
        way: &Way,
        reference: &str,
        tag: Option<&Tag>,
        current: Option<&Digest>,
        depth: usize,
    ) -> Result<bool, String> {
        let known = reference.parse::<Digest>().ok();
        if tag.is_none() && known.is_some_and(|digest| self.is_whole(way, &digest)) {
            return Ok(false);
        }
        let found = self.client.manifest(&way.from, reference).await.map_err(|error| error.to_string())?;
        let max = self.registry.config().limits.manifest_references_max;
        let record = crate::validate::check(&found.bytes, Some(&found.media_type), max)?;
        let (bytes, digest, record) = self.fitted(found.bytes, found.digest, &record)?;
        if current == Some(&digest) {
            return Ok(false);
        }
        if !self.is_whole(way, &digest) {
            if depth >= DEPTH_MAX {
                return Err(format!("{digest} is an index in too many indexes"));
            }
            for child in &record.manifests {
                Box::pin(self.pull(way, &child.to_string(), None, None, depth + 1)).await?;
            }
            for blob in &record.blobs {
                self.pull_blob(way, blob).await?;
            }
        }
        self.keep(&way.to, (&digest, record), bytes, tag).await?;
        Ok(true)
    }

    fn is_whole(&self, way: &Way, digest: &Digest) -> bool {
        self.registry.store().record(&way.to, digest).is_some_and(|record| !record.partial)
    }

    async fn pull_blob(&mut self, way: &Way, digest: &Digest) -> Result<(), String> {
        // One that is in another repository alone is fetched, too: who names a digest has not shown the content.
        if self.registry.store().blob(&way.to, digest).is_some() {
            return Ok(());
        }
        let (from, to) = ((self.client, &way.from), (&way.to, digest));
        let size = crate::fetch::into_store(self.registry, from, to, &|_| {}).await;
        self.outcome.bytes += size.map_err(|error| format!("the blob {digest}: {error}"))?;
        self.outcome.blobs += 1;
        Ok(())
    }

    async fn keep(
        &self,
        repository: &RepositoryName,
        (digest, record): (&Digest, ManifestRecord),
        bytes: Bytes,
        tag: Option<&Tag>,
    ) -> Result<(), String> {
        let text = |error: crate::errors::ApiError| error.into_parts().message;
        self.registry.refuse_pushes_to_mirrors(repository).map_err(text)?;
        self.registry.inner.catalogue.admit(repository).await.map_err(text)?;
        let facts = self.registry.facts(repository);
        let rules = self.registry.rules(repository);
        let tag = tag.map(|tag| Tagging { immutable: is_immutable(&rules, tag), tag: tag.clone() });
        let stored =
            crate::manifests::store(self.registry, repository, facts, (digest, record), bytes, tag).await;
        self.registry.note(repository);
        stored.map_err(text)
    }

    /// The manifest as it goes: an index without the platforms that are not wanted.
    fn fitted(
        &self,
        bytes: Bytes,
        digest: Digest,
        record: &ManifestRecord,
    ) -> Result<(Bytes, Digest, ManifestRecord), String> {
        if record.manifests.is_empty() {
            return Ok((bytes, digest, record.clone()));
        }
        let Some(smaller) = reduced(&bytes, &self.spec.platforms) else {
            return Ok((bytes, digest, record.clone()));
        };
        let max = self.registry.config().limits.manifest_references_max;
        let record = crate::validate::check(&smaller, Some(&record.media_type), max)?;
        Ok((smaller.clone().into(), Digest::of(&smaller), record))
    }

    async fn delete(&self, way: &Way, tag: &Tag, target: &Tags) -> Result<(), String> {
        if self.spec.direction == Direction::Pull {
            if is_immutable(&self.registry.rules(&way.to), tag) {
                return Err("the tag is immutable".to_owned());
            }
            let (repository, tag) = (way.to.clone(), tag.clone());
            let deleted = self.registry.blocking(move |r| r.store().delete_tag(&repository, &tag)).await;
            self.registry.note(&way.to);
            return deleted.map(drop).map_err(|error| error.to_string());
        }
        match self.client.delete_manifest(&way.to, tag.as_str()).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            // Not every registry takes a tag off: some only delete an image with all its tags.
            Err(ClientError::Refused(refusal))
                if matches!(refusal.status, StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED) => {}
            Err(error) => return Err(error.to_string()),
        }
        let Some(digest) = target.get(tag) else { return Ok(()) };
        let mut counts: HashMap<&Digest, usize> = HashMap::new();
        for digest in target.values() {
            *counts.entry(digest).or_default() += 1;
        }
        if counts.get(digest).is_some_and(|count| *count > 1) {
            return Err("the registry cannot remove one of several tags of an image".to_owned());
        }
        self.client.delete_manifest(&way.to, &digest.to_string()).await.map_err(|error| error.to_string())
    }
}
