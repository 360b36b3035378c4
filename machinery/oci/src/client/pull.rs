//! A whole image from a registry into temporary files.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use reqwest::Body;

use super::{ClientError, Manifest, RegistryClient};
use crate::image::{Blob, FilePart, Image, MediaSource};
use crate::{Digest, Hasher, RepositoryName};

const LAYERS_MAX: usize = 512;

impl RegistryClient {
    /// Fetches an image by tag or digest and checks every digest. Of an index, the image of this machine's
    /// platform. `watch` is told how many bytes of how many have come.
    pub async fn pull(
        &self,
        repository: &RepositoryName,
        reference: &str,
        watch: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Image, ClientError> {
        let mut manifest = self.manifest(repository, reference).await?;
        if manifest.media_type.ends_with(".index.v1+json")
            || manifest.media_type.ends_with(".manifest.list.v2+json")
        {
            let digest = ours(&manifest)?;
            manifest = self.manifest(repository, &digest.to_string()).await?;
        }
        let parsed: ImageManifest = serde_json::from_slice(&manifest.bytes).map_err(protocol)?;
        if parsed.layers().len() > LAYERS_MAX {
            return Err(ClientError::Protocol(format!("the image has more than {LAYERS_MAX} layers")));
        }
        let total: u64 = parsed.layers().iter().map(Descriptor::size).sum();
        let done = Mutex::new(0);
        let count = |bytes: u64| {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            *done += bytes;
            watch(*done, total);
        };
        let digest = parsed.config().digest().to_string().parse().map_err(protocol)?;
        let bytes = self.small_blob(repository, &digest).await?;
        let config = Blob::of_bytes(parsed.config().media_type().to_string(), bytes);
        let mut layers = Vec::with_capacity(parsed.layers().len());
        for layer in parsed.layers() {
            layers.push(self.layer(repository, layer, &count).await?);
        }
        Ok(Image { manifest: manifest.bytes, media_type: manifest.media_type, config, layers })
    }

    async fn layer(
        &self,
        repository: &RepositoryName,
        descriptor: &Descriptor,
        count: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Blob, ClientError> {
        let digest: Digest = descriptor.digest().to_string().parse().map_err(protocol)?;
        let path = format!("v2/{repository}/blobs/{digest}");
        let mut response = self.send(Method::GET, &path, &[], Body::from("")).await?;
        let (mut file, path) = tempfile::NamedTempFile::new()?.into_parts();
        let mut hasher = Hasher::new(digest.algorithm());
        let mut size_bytes = 0;
        while let Some(piece) = response.chunk().await? {
            size_bytes += piece.len() as u64;
            if size_bytes > descriptor.size() {
                break;
            }
            hasher.update(&piece);
            file.write_all(&piece)?;
            count(piece.len() as u64);
        }
        if size_bytes != descriptor.size() || hasher.finish() != digest {
            return Err(ClientError::Protocol(format!("layer {digest} is not what its digest says")));
        }
        let part =
            FilePart { path: path.to_path_buf(), offset_bytes: 0, size_bytes, keep: Some(Arc::new(path)) };
        let media_type = descriptor.media_type().to_string();
        Ok(Blob { media_type, digest, size_bytes, source: MediaSource::File(part) })
    }
}

/// The image of an index that this machine runs.
fn ours(index: &Manifest) -> Result<Digest, ClientError> {
    let parsed: ImageIndex = serde_json::from_slice(&index.bytes).map_err(protocol)?;
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|platform| {
            *platform.architecture() == Arch::default() && *platform.os() == Os::Linux
        })
    };
    let manifests = parsed.manifests();
    let chosen = manifests.iter().find(fits).or(if manifests.len() == 1 { manifests.first() } else { None });
    let Some(chosen) = chosen else {
        return Err(ClientError::Protocol("it is an index without an image of this platform".to_owned()));
    };
    chosen.digest().to_string().parse().map_err(protocol)
}

fn protocol(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}
