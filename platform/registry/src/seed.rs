//! Images Gantry brings itself, such as `gantry/pause`.

use std::io::{self, Write};

use gantry_oci::image::{Image, MediaSource};
use gantry_oci::{RepositoryName, Tag};

use crate::Registry;
use crate::store::Tagging;

/// Why an image could not be put in.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("the image is not valid: {0}")]
    Invalid(String),
    #[error("the image could not be stored")]
    Storage(#[from] io::Error),
}

impl Registry {
    /// Stores `image` under `repository:tag`. Does nothing when the tag points to it already.
    pub async fn put_image(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        image: &Image,
    ) -> Result<(), SeedError> {
        let (repository, tag, image) = (repository.clone(), tag.clone(), image.clone());
        let registry = self.clone();
        tokio::task::spawn_blocking(move || {
            registry.put_image_now(&repository, &tag, &image)?;
            registry.note(&repository);
            Ok(())
        })
        .await
        .map_err(io::Error::other)?
    }

    fn put_image_now(&self, repository: &RepositoryName, tag: &Tag, image: &Image) -> Result<(), SeedError> {
        if self.store().resolve(repository, tag) == Some(image.digest()) {
            return Ok(());
        }
        self.put_manifest_now(repository, Some(tag), image)
    }

    /// Stores an image or another artifact, under a tag or by its digest alone.
    pub(crate) fn put_manifest_now(
        &self,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        image: &Image,
    ) -> Result<(), SeedError> {
        let digest = image.digest();
        let store = self.store();
        for blob in image.blobs() {
            if store.blob(repository, &blob.digest).is_some() {
                continue;
            }
            let handle = store.begin_upload(repository, false)?;
            let handle =
                handle.ok_or_else(|| SeedError::Invalid("too many uploads are under way".to_owned()))?;
            let mut upload = handle.blocking_lock();
            match &blob.source {
                MediaSource::Bytes(bytes) => upload.append(bytes)?,
                MediaSource::File(_) => {
                    let mut writer = Appender(&mut upload);
                    io::copy(&mut blob.source.open()?, &mut writer)?;
                }
            }
            let finished = store.finish_upload(repository, &mut upload, &blob.digest)?;
            finished
                .map_err(|found| SeedError::Invalid(format!("{} has the digest {found}", blob.digest)))?;
        }
        let limits = &self.config().limits;
        let mut record =
            crate::validate::check(&image.manifest, Some(&image.media_type), limits.manifest_references_max)
                .map_err(SeedError::Invalid)?;
        // What is made for another registry's image goes as that does, and makes no repository of our own of it.
        record.partial = self.is_mirror(repository);
        let tag = tag.map(|tag| Tagging { tag: tag.clone(), immutable: false });
        let pushed = record.clone();
        store
            .put_manifest(repository, &digest, record, &image.manifest, tag.as_ref())?
            .map_err(|refused| SeedError::Invalid(format!("{refused:?}")))?;
        self.scan_later(repository, &digest, &pushed);
        Ok(())
    }
}

struct Appender<'a>(&'a mut crate::store::Upload);

impl Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
