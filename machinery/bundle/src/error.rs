//! What can be wrong with a bundle.

use std::io;

use gantry_oci::archive::ArchiveError;

/// Why a bundle is not written or not believed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("it cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("it is no bundle: {0}")]
    Archive(#[from] ArchiveError),
    /// `bundle.json` says what it cannot say.
    #[error("its bundle.json is not valid: {0}")]
    Manifest(String),
    #[error("it is not signed")]
    Unsigned,
    #[error("its signature is by none of the keys: somebody else signed it, or bundle.json was changed")]
    Signature,
    /// An entry is not what `bundle.json` says.
    #[error("its entry {entry} {why}")]
    Entry { entry: String, why: String },
}

impl BundleError {
    pub(crate) fn entry(entry: &str, why: impl Into<String>) -> Self {
        Self::Entry { entry: entry.to_owned(), why: why.into() }
    }
}
