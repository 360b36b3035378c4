//! All that an archive holds, for a registry: manifests byte by byte as they are, of every platform, and what refers to
//! them, with the blobs that they name.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex};

use super::layout::{self, DEPTH_MAX};
use super::source::Source;
use super::{ArchiveError, ArchiveLimits, PlainLayers, docker, invalid};
use crate::Digest;
use crate::image::{Blob, is_elsewhere};

/// A manifest of an archive.
#[derive(Clone, Debug)]
pub struct ArchivedManifest {
    /// `REPOSITORY:TAG` as written, perhaps with a registry's host; perhaps only a tag. Parts of an index and what
    /// refers to others have mostly none.
    pub names: Vec<String>,
    pub media_type: String,
    pub digest: Digest,
    pub bytes: Bytes,
    /// Of the sizes that the manifest says. Whoever reads one checks its digest.
    pub blobs: Vec<Blob>,
    /// The manifests that it names, where it is an index.
    pub parts: Vec<Digest>,
    /// An index of the archive names it.
    pub is_part: bool,
    /// What it refers to, such as the image that it is a signature of.
    pub subject: Option<Digest>,
}

/// Reads every manifest of the archive at `path`, each after those that it names. Layers of a docker-archive that are
/// not compressed are, into temporary files that go with the result.
pub fn contents(path: &Path, limits: &ArchiveLimits) -> Result<Vec<ArchivedManifest>, ArchiveError> {
    let source = Source::open(path, limits)?;
    let manifests = if is_layout(&source) {
        let mut reader =
            Reader { source: &source, limits, seen: HashSet::new(), json_bytes: 0, manifests: Vec::new() };
        reader.index(&source.read("index.json", limits.json_max_bytes)?, 0)?;
        reader.manifests
    } else if source.contains("manifest.json") {
        let images = docker::load(&source, limits, PlainLayers::Compress)?;
        images.into_iter().map(|image| of_image(image.names, image.image)).collect()
    } else {
        return Err(super::no_image());
    };
    if manifests.is_empty() { Err(invalid("the archive holds no image")) } else { Ok(manifests) }
}

/// The names of the images in the archive at `path`, as far as they have one; nothing but names is read.
pub fn names(path: &Path, limits: &ArchiveLimits) -> Result<Vec<String>, ArchiveError> {
    let source = Source::open(path, limits)?;
    if is_layout(&source) {
        let index = parse(&source.read("index.json", limits.json_max_bytes)?)?;
        Ok(index.manifests().iter().filter_map(layout::name).collect())
    } else if source.contains("manifest.json") {
        docker::names(&source, limits)
    } else {
        Err(super::no_image())
    }
}

pub(super) fn is_layout(source: &Source) -> bool {
    source.contains("index.json") && source.contains("oci-layout")
}

fn parse(index: &[u8]) -> Result<ImageIndex, ArchiveError> {
    serde_json::from_slice(index).map_err(|e| invalid(format!("an index is not valid: {e}")))
}

fn of_image(names: Vec<String>, image: crate::image::Image) -> ArchivedManifest {
    ArchivedManifest {
        names,
        digest: image.digest(),
        blobs: image.blobs().cloned().collect(),
        media_type: image.media_type,
        bytes: image.manifest,
        parts: Vec::new(),
        is_part: false,
        subject: None,
    }
}

/// What a manifest of any kind says of others (OCI image specification, *Image Manifest*; the artifact manifest of its
/// release candidate had `blobs`).
#[derive(serde::Deserialize)]
struct Named {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    blobs: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

/// What an index names.
#[derive(Default)]
struct Parts {
    all: Vec<Digest>,
    /// Those of them that run somewhere.
    images: Vec<Digest>,
    missing: usize,
}

struct Reader<'a> {
    source: &'a Source,
    limits: &'a ArchiveLimits,
    seen: HashSet<Digest>,
    json_bytes: u64,
    manifests: Vec<ArchivedManifest>,
}

impl Reader<'_> {
    /// Takes what an index names, `depth` below that of the layout. Parts of inner ones need not be in the archive:
    /// `docker save` writes the index of all platforms with the image of one.
    fn index(&mut self, bytes: &[u8], depth: usize) -> Result<Parts, ArchiveError> {
        if depth > DEPTH_MAX {
            return Err(invalid(format!("indexes are nested more than {DEPTH_MAX} deep")));
        }
        let index = parse(bytes)?;
        let mut parts = Parts::default();
        for descriptor in index.manifests() {
            let digest = layout::digest(descriptor)?;
            if depth > 0 && !self.source.contains(&layout::path(&digest)) {
                parts.missing += 1;
                continue;
            }
            self.manifest(descriptor, &digest, depth)?;
            // Builders attest beside the images, for a platform that is none.
            let platform = descriptor.platform().as_ref();
            if platform.is_none_or(|platform| platform.architecture().to_string() != "unknown") {
                parts.images.push(digest.clone());
            }
            parts.all.push(digest);
        }
        Ok(parts)
    }

    fn manifest(
        &mut self,
        descriptor: &Descriptor,
        digest: &Digest,
        depth: usize,
    ) -> Result<(), ArchiveError> {
        let names: Vec<String> = layout::name(descriptor).into_iter().collect();
        if !self.seen.insert(digest.clone()) {
            // The same image under one more name.
            if let Some(known) = self.manifests.iter_mut().find(|known| known.digest == *digest) {
                known.names.extend(names);
                known.is_part &= depth > 0;
            }
            return Ok(());
        }
        if self.seen.len() > self.limits.images_max {
            return Err(invalid(format!("the archive has more than {} images", self.limits.images_max)));
        }
        let bytes: Bytes = layout::read(self.source, descriptor, self.limits)?.into();
        self.json_bytes += bytes.len() as u64;
        if self.json_bytes > self.limits.json_total_max_bytes {
            let max = self.limits.json_total_max_bytes;
            return Err(invalid(format!("the manifests of the archive have more than {max} bytes")));
        }
        let media_type = descriptor.media_type().to_string();
        let mut parts = Parts::default();
        if layout::is_index(&media_type) {
            parts = self.index(&bytes, depth + 1)?;
            if parts.missing > 0 {
                return self.instead(digest, names, &parts);
            }
        }
        let named: Named =
            serde_json::from_slice(&bytes).map_err(|e| invalid(format!("a manifest is not valid: {e}")))?;
        let listed: Vec<&Descriptor> =
            named.config.iter().chain(&named.layers).chain(&named.blobs).filter(|d| !is_foreign(d)).collect();
        if listed.len() > self.limits.layers_max {
            return Err(invalid(format!("an image has more than {} layers", self.limits.layers_max)));
        }
        let blobs =
            listed.into_iter().map(|d| layout::unread_blob(self.source, d)).collect::<Result<_, _>>()?;
        let subject = named.subject.as_ref().map(layout::digest).transpose()?;
        let (digest, parts, is_part) = (digest.clone(), parts.all, depth > 0);
        self.manifests.push(ArchivedManifest {
            names,
            media_type,
            digest,
            bytes,
            blobs,
            parts,
            is_part,
            subject,
        });
        Ok(())
    }

    /// An index that is not whole cannot be kept: its one image has its name.
    fn instead(&mut self, index: &Digest, names: Vec<String>, parts: &Parts) -> Result<(), ArchiveError> {
        let [part] = &parts.images[..] else {
            let missing = parts.missing;
            return Err(invalid(format!(
                "the index {index} names {missing} images that are not in the archive"
            )));
        };
        if let Some(known) = self.manifests.iter_mut().find(|known| known.digest == *part) {
            known.names.extend(names);
            known.is_part = false;
        }
        Ok(())
    }
}

fn is_foreign(descriptor: &Descriptor) -> bool {
    let urls = descriptor.urls().as_ref().map_or(0, Vec::len);
    is_elsewhere(descriptor.media_type().as_ref(), urls)
}
