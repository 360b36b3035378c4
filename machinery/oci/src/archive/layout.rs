//! OCI image layout, in a directory or a tar archive.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::source::Source;
use super::{ArchiveError, ArchiveLimits, ArchivedImage, invalid};
use crate::image::{Blob, Image, MediaSource};
use crate::{Digest, Hasher};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
pub(super) const DEPTH_MAX: usize = 4;

pub(crate) fn load(source: &Source, limits: &ArchiveLimits) -> Result<Vec<ArchivedImage>, ArchiveError> {
    let bytes = source.read("index.json", limits.json_max_bytes)?;
    let mut images = Vec::new();
    walk(source, &bytes, &[], 0, limits, &mut images)?;
    Ok(images)
}

fn walk(
    source: &Source,
    index: &[u8],
    inherited: &[String],
    depth: usize,
    limits: &ArchiveLimits,
    images: &mut Vec<ArchivedImage>,
) -> Result<(), ArchiveError> {
    let index: ImageIndex =
        serde_json::from_slice(index).map_err(|e| invalid(format!("an index is not valid: {e}")))?;
    for descriptor in index.manifests() {
        let names = name(descriptor).map_or_else(|| inherited.to_vec(), |name| vec![name]);
        let media_type = descriptor.media_type().to_string();
        let bytes = read(source, descriptor, limits)?;
        if is_index(&media_type) {
            if depth >= DEPTH_MAX {
                return Err(invalid(format!("indexes are nested more than {DEPTH_MAX} deep")));
            }
            walk(source, &bytes, &names, depth + 1, limits, images)?;
            continue;
        }
        // One platform's image: ours, where an index offers several.
        let other = descriptor.platform().as_ref().is_some_and(|platform| {
            *platform.architecture() != oci_spec::image::Arch::default() && depth > 0
        });
        if other {
            continue;
        }
        if images.len() >= limits.images_max {
            return Err(invalid(format!("the archive has more than {} images", limits.images_max)));
        }
        images.push(ArchivedImage { names, image: image(source, media_type, bytes, limits)? });
    }
    Ok(())
}

pub(super) fn is_index(media_type: &str) -> bool {
    media_type.ends_with(".index.v1+json") || media_type.ends_with(".manifest.list.v2+json")
}

/// What an index of the layout calls the image: its whole name where containerd wrote one, else what may be a tag alone.
pub(super) fn name(descriptor: &Descriptor) -> Option<String> {
    let annotation = |key: &str| descriptor.annotations().as_ref().and_then(|a| a.get(key)).cloned();
    annotation(CONTAINERD_NAME).or_else(|| annotation(REF_NAME))
}

fn image(
    source: &Source,
    media_type: String,
    bytes: Vec<u8>,
    limits: &ArchiveLimits,
) -> Result<Image, ArchiveError> {
    let manifest: ImageManifest =
        serde_json::from_slice(&bytes).map_err(|e| invalid(format!("a manifest is not valid: {e}")))?;
    if manifest.layers().len() > limits.layers_max {
        return Err(invalid(format!("an image has more than {} layers", limits.layers_max)));
    }
    let config = blob(source, manifest.config())?;
    let layers = manifest.layers().iter().map(|layer| blob(source, layer)).collect::<Result<_, _>>()?;
    Ok(Image { manifest: bytes.into(), media_type, config, layers })
}

pub(super) fn read(
    source: &Source,
    descriptor: &Descriptor,
    limits: &ArchiveLimits,
) -> Result<Vec<u8>, ArchiveError> {
    let digest = digest(descriptor)?;
    let bytes = source.read(&path(&digest), limits.json_max_bytes)?;
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    let found = hasher.finish();
    if found == digest {
        Ok(bytes)
    } else {
        Err(invalid(format!("{digest} in the archive has the digest {found}")))
    }
}

fn blob(source: &Source, descriptor: &Descriptor) -> Result<Blob, ArchiveError> {
    let blob = unread_blob(source, descriptor)?;
    let digest = &blob.digest;
    let (found, _) = Hasher::read(digest.algorithm(), blob.source.open()?)?;
    if found != *digest {
        return Err(invalid(format!("{digest} in the archive has the digest {found}")));
    }
    Ok(blob)
}

/// A blob of the right size, whose digest is for the reader to check.
pub(super) fn unread_blob(source: &Source, descriptor: &Descriptor) -> Result<Blob, ArchiveError> {
    let digest = digest(descriptor)?;
    let part = source.find(&path(&digest))?;
    if part.size_bytes != descriptor.size() {
        return Err(invalid(format!("{digest} has {} bytes, not {}", part.size_bytes, descriptor.size())));
    }
    let (size_bytes, content) = (part.size_bytes, MediaSource::File(part));
    Ok(Blob { media_type: descriptor.media_type().to_string(), digest, size_bytes, source: content })
}

pub(super) fn digest(descriptor: &Descriptor) -> Result<Digest, ArchiveError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|error| invalid(format!("digest {text:.200}: {error}")))
}

pub(super) fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}
