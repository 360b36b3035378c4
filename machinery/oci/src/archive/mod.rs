//! Images in archives and directories made by other tools: docker-archive (`docker save`) and OCI layouts.
//!
//! Nothing is extracted: an archive is read once for its index of names, and content is read from its place in
//! the file. Names that leave the archive, links that lead out or in circles, JSON and entry counts past the
//! bounds, and content that is not what its digest says, are refused.

mod contents;
mod docker;
mod layout;
mod source;

use std::io;
use std::path::{Path, PathBuf};

pub use contents::{ArchivedManifest, contents, names};
pub use source::Source;

use crate::image::Image;

/// Bounds on what an archive may make the reader hold or write.
#[derive(Clone, Debug)]
pub struct ArchiveLimits {
    pub entries_max: usize,
    pub json_max_bytes: u64,
    /// Of all manifests and configurations together, which are held in memory.
    pub json_total_max_bytes: u64,
    /// Of a whole archive that is compressed, once it is not.
    pub uncompressed_max_bytes: u64,
    /// How many times its own size a compressed archive or layer may have once it is not.
    pub expansion_max: u64,
    pub images_max: usize,
    pub layers_max: usize,
    /// Where temporary files are made; absent: where the system has them.
    pub scratch: Option<PathBuf>,
}

/// Below it, no ratio is suspicious.
const UNCOMPRESSED_ALWAYS_BYTES: u64 = 256 << 20;

impl ArchiveLimits {
    /// What something of this size may have once it is not compressed.
    fn uncompressed_max(&self, size_bytes: u64) -> u64 {
        let expanded = size_bytes.saturating_mul(self.expansion_max);
        self.uncompressed_max_bytes.min(expanded.max(UNCOMPRESSED_ALWAYS_BYTES))
    }

    pub(crate) fn temporary(&self) -> io::Result<tempfile::NamedTempFile> {
        match &self.scratch {
            Some(directory) => tempfile::NamedTempFile::new_in(directory),
            None => tempfile::NamedTempFile::new(),
        }
    }
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            entries_max: 100_000,
            json_max_bytes: 4 << 20,
            json_total_max_bytes: 64 << 20,
            uncompressed_max_bytes: 64 << 30,
            expansion_max: 200,
            images_max: 256,
            layers_max: 512,
            scratch: None,
        }
    }
}

/// Why an archive cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Invalid(String),
}

pub(crate) fn invalid(message: impl Into<String>) -> ArchiveError {
    ArchiveError::Invalid(message.into())
}

fn no_image() -> ArchiveError {
    invalid("this is no image: neither manifest.json (docker save) nor index.json (OCI) is in it")
}

/// An image of an archive, with the names the archive gives it.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    /// `REPOSITORY:TAG` as written, perhaps with a registry's host; perhaps only a tag.
    pub names: Vec<String>,
    pub image: Image,
}

/// What becomes of layers that the archive holds uncompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainLayers {
    Compress,
    Keep,
}

/// Reads every image of the archive or layout directory at `path`, ready to be pushed: layers are compressed.
pub fn load(path: &Path, limits: &ArchiveLimits) -> Result<Vec<ArchivedImage>, ArchiveError> {
    images(path, limits, PlainLayers::Compress)
}

/// The same with layers as they are in the archive: for who looks into them.
pub fn open(path: &Path, limits: &ArchiveLimits) -> Result<Vec<ArchivedImage>, ArchiveError> {
    images(path, limits, PlainLayers::Keep)
}

fn images(
    path: &Path,
    limits: &ArchiveLimits,
    plain: PlainLayers,
) -> Result<Vec<ArchivedImage>, ArchiveError> {
    let source = source::Source::open(path, limits)?;
    let images = if contents::is_layout(&source) {
        layout::load(&source, limits)?
    } else if source.contains("manifest.json") {
        docker::load(&source, limits, plain)?
    } else {
        return Err(no_image());
    };
    if images.is_empty() { Err(invalid("the archive holds no image")) } else { Ok(images) }
}
