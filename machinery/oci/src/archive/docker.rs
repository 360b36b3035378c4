//! docker-archive: `manifest.json` with configuration and layers by name, also in its legacy layout.

use std::io::{self, Read};

use oci_spec::image::ImageConfiguration;

use super::source::Source;
use super::{ArchiveError, ArchiveLimits, ArchivedImage, PlainLayers, invalid};
use crate::image::{Blob, Image, MediaSource};
use crate::{Algorithm, Digest, Hasher};

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(crate) fn load(
    source: &Source,
    limits: &ArchiveLimits,
    plain: PlainLayers,
) -> Result<Vec<ArchivedImage>, ArchiveError> {
    let (mut images, mut json_bytes) = (Vec::new(), 0);
    for item in items(source, limits)? {
        let image = load_item(source, item, limits, plain)?;
        json_bytes += image.image.config.size_bytes + image.image.manifest.len() as u64;
        if json_bytes > limits.json_total_max_bytes {
            let max = limits.json_total_max_bytes;
            return Err(invalid(format!("the configurations of the archive have more than {max} bytes")));
        }
        images.push(image);
    }
    Ok(images)
}

/// The names of all images, as far as they have one.
pub(crate) fn names(source: &Source, limits: &ArchiveLimits) -> Result<Vec<String>, ArchiveError> {
    Ok(items(source, limits)?.into_iter().flat_map(|item| item.repo_tags.unwrap_or_default()).collect())
}

fn items(source: &Source, limits: &ArchiveLimits) -> Result<Vec<Item>, ArchiveError> {
    let bytes = source.read("manifest.json", limits.json_max_bytes)?;
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|e| invalid(format!("manifest.json is not valid: {e}")))?;
    if items.len() > limits.images_max {
        return Err(invalid(format!("the archive has more than {} images", limits.images_max)));
    }
    Ok(items)
}

fn load_item(
    source: &Source,
    item: Item,
    limits: &ArchiveLimits,
    plain: PlainLayers,
) -> Result<ArchivedImage, ArchiveError> {
    let bytes = source.read(&item.config, limits.json_max_bytes)?;
    let config: ImageConfiguration = serde_json::from_slice(&bytes)
        .map_err(|e| invalid(format!("the configuration {:?} is not valid: {e}", item.config)))?;
    let names = item.layers.unwrap_or_default();
    let diff_ids = config.rootfs().diff_ids();
    if names.len() != diff_ids.len() || names.len() > limits.layers_max {
        return Err(invalid(format!(
            "{} layers are listed, the configuration has {}, {} are allowed",
            names.len(),
            diff_ids.len(),
            limits.layers_max
        )));
    }
    let mut layers = Vec::with_capacity(names.len());
    for (name, diff_id) in names.iter().zip(diff_ids) {
        let expected: Digest = diff_id.parse().map_err(|e| invalid(format!("diff_id {diff_id:?}: {e}")))?;
        layers.push(layer(source, name, &expected, limits, plain)?);
    }
    // The configuration's exact bytes stay: its digest is the image's identity in Docker.
    let image = Image::with_config(bytes.into(), layers).map_err(|e| invalid(e.to_string()))?;
    Ok(ArchivedImage { names: item.repo_tags.unwrap_or_default(), image })
}

/// A layer as a blob: compressed ones as they are, others compressed now if that is wanted; either way the content must have the
/// digest that the configuration says.
fn layer(
    source: &Source,
    name: &str,
    expected: &Digest,
    limits: &ArchiveLimits,
    plain: PlainLayers,
) -> Result<Blob, ArchiveError> {
    let part = source.find(name)?;
    let max = limits.uncompressed_max(part.size_bytes);
    let content = MediaSource::File(part);
    let mut head = Vec::new();
    content.open()?.take(4).read_to_end(&mut head)?;
    let decoder: Option<(&str, Box<dyn Read>)> = match head[..] {
        [0x1f, 0x8b, ..] => Some(("gzip", Box::new(flate2::read::MultiGzDecoder::new(content.open()?)))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Some(("zstd", Box::new(zstd::stream::read::Decoder::new(content.open()?)?)))
        }
        _ => None,
    };
    let (blob, found) = match decoder {
        Some((kind, decoder)) => {
            let (found, size) = Hasher::read(expected.algorithm(), decoder.take(max + 1))?;
            if size > max {
                return Err(invalid(format!("layer {name:?} has more than {max} bytes uncompressed")));
            }
            let (digest, size_bytes) = Hasher::read(Algorithm::Sha256, content.open()?)?;
            let media_type = format!("application/vnd.oci.image.layer.v1.tar+{kind}");
            (Blob { media_type, digest, size_bytes, source: content }, found)
        }
        None if plain == PlainLayers::Keep => {
            let (digest, size_bytes) = Hasher::read(expected.algorithm(), content.open()?)?;
            let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
            (Blob { media_type, digest: digest.clone(), size_bytes, source: content }, digest)
        }
        None => crate::layer::compress(limits.temporary()?, |writer| {
            io::copy(&mut content.open()?, writer).map(|_| ())
        })?,
    };
    if found != *expected {
        return Err(invalid(format!(
            "layer {name:?} has the digest {found}, the configuration says {expected}"
        )));
    }
    Ok(blob)
}
