//! Why a trail cannot be opened.

use std::io;
use std::path::{Path, PathBuf};

/// What stops the start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} says format {found:?}, this version knows \"1\"")]
    Format { path: PathBuf, found: String },
    #[error("{0} is no Ed25519 key (PKCS#8)")]
    Key(PathBuf),
    #[error("{path} is not readable: {why}")]
    File { path: PathBuf, why: String },
    #[error("the audit policy {path}: {source}")]
    Policy { path: PathBuf, source: crate::policy::PolicyError },
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
