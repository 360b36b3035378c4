//! What belongs to an image: all that it names, and all that refers to it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use gantry_bundle::{Pushed, Repository};
use gantry_oci::client::{Manifest, RegistryClient};
use gantry_oci::image::is_elsewhere;
use gantry_oci::{Digest, RepositoryName};
use serde::Deserialize;

use crate::commands::image::manifest_of;

/// Indexes in indexes, and what refers to what refers to an image.
const DEPTH_MAX: usize = 8;
const MANIFESTS_MAX: usize = 100_000;
/// What cosign keeps beside an image: signatures, attestations, bills of materials.
const ATTACHED: &[&str] = &["sig", "att", "sbom"];

/// What several images of several repositories need.
pub struct Collected {
    client: RegistryClient,
    repositories: BTreeMap<RepositoryName, Repository>,
    /// Repositories that have a blob: it is fetched from one of them.
    pub blobs: BTreeMap<Digest, RepositoryName>,
    pub manifests: BTreeMap<Digest, Bytes>,
    pub sizes: BTreeMap<Digest, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    blobs: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Descriptor {
    fn fits(&self, wanted: &str) -> bool {
        self.platform.as_ref().is_some_and(|platform| {
            let short = format!("{}/{}", platform.os, platform.architecture);
            let long = platform.variant.as_ref().map(|variant| format!("{short}/{variant}"));
            short == wanted || long.is_some_and(|long| long == wanted)
        })
    }
}

fn parse(manifest: &Manifest) -> anyhow::Result<Named> {
    serde_json::from_slice(&manifest.bytes).with_context(|| format!("{} is no manifest", manifest.digest))
}

impl Collected {
    pub fn new(client: RegistryClient) -> Self {
        Self {
            client,
            repositories: BTreeMap::new(),
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            sizes: BTreeMap::new(),
        }
    }

    pub fn repositories(&self) -> Vec<Repository> {
        self.repositories.values().cloned().collect()
    }

    /// Takes an image, of an index the one of a platform where that is wanted.
    pub async fn image(&mut self, name: &str, platform: Option<&str>) -> anyhow::Result<()> {
        let image = crate::commands::image::parse_local(name)?;
        let (repository, identifier) = (&image.repository, image.identifier());
        let found = self.client.manifest(repository, &identifier).await;
        let mut manifest = found.with_context(|| format!("no such image: {name}"))?;
        if let Some(platform) = platform {
            let named = parse(&manifest)?;
            if !named.manifests.is_empty() {
                let fitting = named.manifests.iter().find(|d| d.fits(platform));
                let Some(fitting) = fitting else { bail!("{name} has no image of the platform {platform}") };
                manifest = self.client.manifest(repository, &fitting.digest.to_string()).await?;
            }
        }
        let tag = match (image.tag, image.digest) {
            (Some(tag), _) => Some(tag.to_string()),
            (None, None) => Some(identifier),
            (None, Some(_)) => None,
        };
        self.take(repository, manifest, tag, 0).await
    }

    /// Takes a manifest after what it names, and before what refers to it.
    async fn take(
        &mut self,
        repository: &RepositoryName,
        manifest: Manifest,
        tag: Option<String>,
        depth: usize,
    ) -> anyhow::Result<()> {
        let digest = manifest.digest.clone();
        if let Some(known) = self.known(repository, &digest) {
            known.tags.extend(tag.filter(|tag| !known.tags.contains(tag)));
            return Ok(());
        }
        if depth > DEPTH_MAX || self.manifests.len() >= MANIFESTS_MAX {
            bail!("what {repository}@{digest} leads to is too deep, or too much");
        }
        let named = parse(&manifest)?;
        for part in &named.manifests {
            let part = self.client.manifest(repository, &part.digest.to_string()).await;
            let part = part.with_context(|| format!("{repository}@{digest} is not whole"))?;
            Box::pin(self.take(repository, part, None, depth + 1)).await?;
        }
        let blobs = named.config.iter().chain(&named.layers).chain(&named.blobs);
        let blobs: BTreeSet<(&Digest, u64)> = blobs
            .filter(|d| !is_elsewhere(&d.media_type, d.urls.len()))
            .map(|d| (&d.digest, d.size))
            .collect();
        let entry = self.repositories.entry(repository.clone()).or_insert_with(|| Repository {
            name: repository.to_string(),
            blobs: Vec::new(),
            manifests: Vec::new(),
        });
        for (blob, size_bytes) in blobs {
            self.sizes.insert(blob.clone(), size_bytes);
            self.blobs.entry(blob.clone()).or_insert_with(|| repository.clone());
            if !entry.blobs.contains(blob) {
                entry.blobs.push(blob.clone());
            }
        }
        let config_type = named.config.as_ref().map(|config| config.media_type.clone());
        let subject = named.subject.as_ref().map(|subject| subject.digest.clone());
        entry.manifests.push(Pushed {
            digest: digest.clone(),
            media_type: manifest.media_type,
            tags: tag.into_iter().collect(),
            artifact_type: named.artifact_type.or_else(|| config_type.filter(|_| subject.is_some())),
            subject,
        });
        self.sizes.insert(digest.clone(), manifest.bytes.len() as u64);
        self.manifests.insert(digest.clone(), manifest.bytes);
        Box::pin(self.attached(repository, &digest, depth + 1)).await
    }

    fn known(&mut self, repository: &RepositoryName, digest: &Digest) -> Option<&mut Pushed> {
        self.repositories.get_mut(repository)?.manifests.iter_mut().find(|known| known.digest == *digest)
    }

    /// Takes what lies beside a manifest, under tags and among its referrers.
    async fn attached(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        depth: usize,
    ) -> anyhow::Result<()> {
        for kind in ATTACHED {
            let tag = format!("{}-{}.{kind}", digest.algorithm().as_str(), digest.hex());
            // Of a longer digest there is no such tag.
            if tag.parse::<gantry_oci::Tag>().is_err() {
                continue;
            }
            if let Some(manifest) = manifest_of(&self.client, repository, &tag).await? {
                self.take(repository, manifest, Some(tag), depth).await?;
            }
        }
        for referrer in self.client.referrers(repository, digest, None).await? {
            if self.known(repository, &referrer).is_some() {
                continue;
            }
            let manifest = self.client.manifest(repository, &referrer.to_string()).await?;
            self.take(repository, manifest, None, depth).await?;
        }
        Ok(())
    }
}
