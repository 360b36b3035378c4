//! Why a scan ends without a result. What concerns one file only is a [`crate::Problem`] of the report instead.

use std::io;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("{what} cannot be read: {source}")]
    Io { what: String, source: io::Error },
    /// The archive is none, or not what its digests say.
    #[error(transparent)]
    Archive(gantry_oci::archive::ArchiveError),
    /// What is scanned breaks a rule or a bound of the reader.
    #[error("{0}")]
    Refused(String),
}

impl ScanError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(crate) fn path(path: &Path, source: io::Error) -> Self {
        Self::io(path.display().to_string(), source)
    }
}

/// Shorthand for [`ScanError::Refused`].
pub(crate) fn refused(message: impl Into<String>) -> ScanError {
    ScanError::Refused(message.into())
}
