//! The advisories that images are compared with: an index that somebody else keeps up to date
//! (`gantry advisories update`), opened again when it is another.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gantry_scanner::advisories::{AdvisoryError, Index};

/// The file of an index that is replaced with every change.
const MANIFEST: &str = "manifest.json";

/// The index at a place, as it is now.
pub(crate) struct Advisories {
    directory: PathBuf,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// What the manifest's file was when it was opened.
    seen: Option<(u64, i64, i64)>,
    index: Option<Arc<Index>>,
    /// Why there is none.
    problem: Option<String>,
}

impl Advisories {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, open: Mutex::default() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The newest index; nothing where there is none, or none that can be read. Looks at one file; run it where that
    /// may be waited for.
    pub(crate) fn current(&self) -> Option<Arc<Index>> {
        let manifest = std::fs::metadata(self.directory.join(MANIFEST)).ok();
        let seen = manifest.map(|found| (found.ino(), found.mtime(), found.mtime_nsec()));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if seen == open.seen && (open.index.is_some() || open.problem.is_some() || seen.is_none()) {
            return open.index.clone();
        }
        *open = match Index::open(&self.directory) {
            Ok(index) => Open { seen, index: Some(Arc::new(index)), problem: None },
            Err(AdvisoryError::NoIndex { .. }) => Open { seen, ..Open::default() },
            Err(error) => {
                tracing::error!(%error, "images cannot be compared with advisories");
                // What was read before is still true, only old; its age is shown with every result.
                Open { seen, index: open.index.take(), problem: Some(error.to_string()) }
            }
        };
        open.index.clone()
    }
}
