//! Images as the store has them, and the bills of materials that hang on them.

use std::collections::{BTreeMap, HashSet};
use std::io;

use gantry_oci::image::{Blob, Image};
use gantry_oci::{Digest, RepositoryName};
use gantry_scanner::{Report, sbom};
use serde::Deserialize;
use serde_json::json;

use crate::Registry;
use crate::store::{ManifestRecord, Removed, Store};

/// Media types of an image's configuration.
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The kind of artifact that a bill of materials is.
pub(crate) const CYCLONEDX: &str = "application/vnd.cyclonedx+json";
/// The annotation of those that were made here: they go with their image.
const MADE_HERE: &str = "dev.gantry.scanner.version";

/// Does the manifest look like one of an image that runs, and not of an artifact or an index?
pub(crate) fn is_image(record: &ManifestRecord) -> bool {
    let kind = record.artifact_type.as_deref();
    record.subject.is_none() && kind.is_some_and(|kind| CONFIGURATIONS.contains(&kind))
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
}

impl Manifest {
    /// Signatures and attestations look like images but for what is in their layers.
    fn has_file_system(&self) -> bool {
        self.layers.is_empty() || self.layers.iter().any(is_layer)
    }
}

fn is_layer(layer: &Descriptor) -> bool {
    layer.media_type.contains("tar") || layer.media_type.contains(".layer.")
}

/// Whether what looks like an image is one that can run.
pub(crate) fn has_file_system(manifest: &[u8]) -> bool {
    serde_json::from_slice::<Manifest>(manifest).is_ok_and(|manifest| manifest.has_file_system())
}

/// The image, its blobs being the store's; nothing where it is not there, or no file system.
pub(super) fn read(store: &Store, repository: &RepositoryName, digest: &Digest) -> io::Result<Option<Image>> {
    let Some(record) = store.record(repository, digest).filter(|record| is_image(record)) else {
        return Ok(None);
    };
    let Some(bytes) = store.manifest(repository, digest)? else { return Ok(None) };
    let mut manifest: Manifest = serde_json::from_slice(&bytes)?;
    if !manifest.has_file_system() {
        return Ok(None);
    }
    manifest.layers.retain(is_layer);
    let blob = |descriptor: Descriptor| {
        let size_bytes = store.blob(repository, &descriptor.digest).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{} is kept elsewhere", descriptor.digest))
        })?;
        let source = store.content.source(&descriptor.digest, size_bytes);
        let Descriptor { media_type, digest } = descriptor;
        io::Result::Ok(Blob { media_type, digest, size_bytes, source })
    };
    let config = blob(manifest.config)?;
    let layers = manifest.layers.into_iter().map(blob).collect::<io::Result<_>>()?;
    Ok(Some(Image { manifest: bytes, media_type: record.media_type.clone(), config, layers }))
}

/// Images that have no report, or no bill of materials in a repository they are in: at most `max`, and whether there
/// are more.
pub(super) fn unscanned(
    store: &Store,
    known: &dyn Fn(&Digest) -> bool,
    failed: &HashSet<Digest>,
    max: usize,
) -> (Vec<(RepositoryName, Digest)>, bool) {
    let index = store.index();
    let mut found = Vec::new();
    for (name, entry) in &index.repositories {
        let images = entry.manifests.iter().filter(|(_, record)| is_image(record));
        for (digest, _) in images {
            let referrers = entry.referrers.get(digest).into_iter().flatten();
            let mut records = referrers.filter_map(|referrer| entry.manifests.get(referrer));
            if failed.contains(digest) || known(digest) && records.any(|record| is_made_here(record)) {
                continue;
            }
            if found.len() == max {
                return (found, true);
            }
            found.push((name.clone(), digest.clone()));
        }
    }
    (found, false)
}

fn is_made_here(record: &ManifestRecord) -> bool {
    record.artifact_type.as_deref() == Some(CYCLONEDX) && record.annotations.contains_key(MADE_HERE)
}

/// Puts the report's bill of materials beside the image, unless one is there.
pub(super) fn describe(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    mut report: Report,
) -> io::Result<()> {
    let store = registry.store();
    let referrers = store.referrers(repository, digest, None);
    let Some(subject) = store.record(repository, digest) else { return Ok(()) };
    if referrers.iter().any(|(_, record)| is_made_here(record)) {
        return Ok(());
    }
    report.rename(&format!("{repository}@{digest}"));
    let document = serde_json::to_vec(&sbom::cyclonedx(&report))?;
    let (config, document) = (Blob::of_bytes(EMPTY, &b"{}"[..]), Blob::of_bytes(CYCLONEDX, document));
    let named =
        |blob: &Blob| json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size_bytes });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": CYCLONEDX,
        "config": named(&config),
        "layers": [named(&document)],
        "subject": { "mediaType": subject.media_type, "digest": digest, "size": subject.size },
        "annotations": {
            "org.opencontainers.image.created": report.scanned_at,
            (MADE_HERE): env!("CARGO_PKG_VERSION"),
        },
    });
    let artifact = Image {
        manifest: serde_json::to_vec(&manifest)?.into(),
        media_type: MANIFEST.to_owned(),
        config,
        layers: vec![document],
    };
    registry.put_manifest_now(repository, None, &artifact).map_err(io::Error::other)
}

/// The repositories that have the image.
pub(super) fn holders(store: &Store, image: &Digest) -> Vec<RepositoryName> {
    let index = store.index();
    let have = index.repositories.iter().filter(|(_, entry)| entry.manifests.contains_key(image));
    have.map(|(name, _)| name.clone()).collect()
}

/// Takes bills of materials away that were made here and whose image is gone. Gives all images there are.
pub(super) fn sweep(store: &Store) -> io::Result<HashSet<Digest>> {
    let mut left: BTreeMap<RepositoryName, Vec<Digest>> = BTreeMap::new();
    let mut images = HashSet::new();
    {
        let index = store.index();
        for (name, entry) in &index.repositories {
            images.extend(entry.manifests.keys().cloned());
            let gone = |record: &ManifestRecord| {
                record.subject.as_ref().is_some_and(|subject| !entry.manifests.contains_key(subject))
            };
            let alone = entry.manifests.iter().filter(|(_, record)| is_made_here(record) && gone(record));
            let alone: Vec<Digest> = alone.map(|(digest, _)| digest.clone()).collect();
            if !alone.is_empty() {
                left.insert(name.clone(), alone);
            }
        }
    }
    for (name, alone) in left {
        for digest in alone {
            // Somebody may have pushed the image again meanwhile.
            let removed = store.delete_manifest_if(&name, &digest, &|entry| {
                let record = entry.manifests.get(&digest).and_then(|record| record.subject.as_ref());
                !record.is_some_and(|subject| entry.manifests.contains_key(subject))
            })?;
            if removed == Removed::InUse {
                tracing::debug!(repository = %name, %digest, "a bill of materials stays in an index");
            }
        }
    }
    Ok(images)
}
