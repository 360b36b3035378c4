//! Images Gantry brings itself, such as `gantry/pause`.

use std::io::{self, Write};

use gantry_oci::image::{Blob, Image};
use gantry_oci::{RepositoryName, Tag};

use crate::Registry;
use crate::store::Tagging;

/// Why an image could not be put in.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("the image is not valid: {0}")]
    Invalid(String),
    #[error("too many uploads are under way")]
    Busy,
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

    /// Stores a blob of this machine, unless the repository has it. `watch` is told of the bytes of each piece.
    pub(crate) fn put_blob_now(
        &self,
        repository: &RepositoryName,
        blob: &Blob,
        watch: &mut dyn FnMut(u64),
    ) -> Result<(), SeedError> {
        let store = self.store();
        if store.blob(repository, &blob.digest).is_some() {
            watch(blob.size_bytes);
            return Ok(());
        }
        let handle = store.begin_upload(repository, false)?;
        let handle = handle.ok_or(SeedError::Busy)?;
        let mut upload = handle.blocking_lock();
        let copied = blob
            .source
            .open()
            .and_then(|mut content| io::copy(&mut content, &mut Appender { upload: &mut upload, watch }));
        if let Err(error) = copied {
            store.cancel_upload(&mut upload)?;
            return Err(error.into());
        }
        let finished = store.finish_upload(repository, &mut upload, &blob.digest)?;
        finished.map_err(|found| SeedError::Invalid(format!("{} has the digest {found}", blob.digest)))
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
            self.put_blob_now(repository, blob, &mut |_| {})?;
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

/// Writes to an upload, and tells of it.
struct Appender<'a> {
    upload: &'a mut crate::store::Upload,
    watch: &'a mut dyn FnMut(u64),
}

impl Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.upload.append(bytes)?;
        (self.watch)(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
