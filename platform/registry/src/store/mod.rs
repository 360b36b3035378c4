//! What the registry keeps on disk, and the index of it in memory.
//!
//! ```text
//! FORMAT                                          version of this layout
//! blobs/ALGORITHM/ab/HEX                          content, shared by all repositories, unless it is on S3 (`content`)
//! CONTENT                                         which bucket is this store's, if it is
//! uploads/ID, uploads/ID.json                     bytes received so far, and for which repository
//! repositories/NAME/_blobs/ALGORITHM-HEX          empty: the blob may be seen in this repository
//! repositories/NAME/_manifests/ALGORITHM-HEX      one line of JSON (`ManifestRecord`), then the manifest
//! repositories/NAME/_tags/TAG                     a digest
//! repositories/NAME/_pulled                       when manifests were last pulled, written now and then
//! ```
//!
//! A file is written under another name, fsynced, renamed, and its directory fsynced, before anybody is told
//! that it exists. The index is read from the names at start and changed only after the files are; everything
//! here blocks and is called from blocking threads.

mod blobs;
mod cached;
mod content;
mod fsck;
mod gc;
mod history;
mod index;
mod manifests;
mod sync;
mod uploads;
pub(crate) mod warm;

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gantry_oci::{Digest, RepositoryName};

pub(crate) use blobs::Removed;
pub(crate) use cached::{Cached, CachedBlob, Kept};
pub(crate) use content::Content;
pub use content::{AccessKeys, S3Settings};
pub use fsck::{Checked, Problem};
pub use gc::{Collected, Collecting};
#[cfg(test)]
pub(crate) use index::{BlobInfo, Repository};
pub(crate) use index::{Index, ManifestRecord};
pub(crate) use manifests::{Contents, Refused, Tagging};
pub(crate) use uploads::{Upload, UploadHandle};

use crate::config::Config;
use warm::Warm;

const FORMAT: &str = "1\n";
const STRIPES: usize = 64;

/// The files and the index over them.
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) content: Content,
    index: RwLock<Index>,
    directories: Arc<sync::Directories>,
    pub(crate) warm: Warm,
    /// Content that may be there although the index does not have it, until a collection has seen to it.
    doubtful: Mutex<HashSet<Digest>>,
    /// Orders changes of one repository, or of one blob's content: the content and the index change together.
    repository_locks: [Mutex<()>; STRIPES],
    blob_locks: [Mutex<()>; STRIPES],
    uploads: Mutex<uploads::Table>,
    temporary: AtomicU64,
}

impl Store {
    pub(crate) fn open(config: Config) -> io::Result<Self> {
        let root = config.root.clone();
        for directory in ["uploads", "repositories"] {
            gantry_base::fs::create_directory(&root.join(directory), 0o700)?;
        }
        let format = root.join("FORMAT");
        match gantry_base::fs::read_optional(&format)? {
            None => gantry_base::fs::write_atomic(&format, FORMAT.as_bytes(), 0o600)?,
            Some(bytes) if bytes == FORMAT.as_bytes() => {}
            Some(other) => {
                return Err(io::Error::other(format!(
                    "{} says format {:?}, this version knows {:?}",
                    format.display(),
                    String::from_utf8_lossy(&other).trim(),
                    FORMAT.trim()
                )));
            }
        }
        gantry_base::fs::sync_directory(&root)?;
        let directories = Arc::new(sync::Directories::new(root.clone()));
        let content = Content::open(&config, directories.clone())?;
        let index = Index::load(&root, content.list()?)?;
        let uploads = uploads::Table::load(&root.join("uploads"))?;
        Ok(Self {
            directories,
            config,
            content,
            warm: Warm::default(),
            doubtful: Mutex::default(),
            index: RwLock::new(index),
            repository_locks: std::array::from_fn(|_| Mutex::new(())),
            blob_locks: std::array::from_fn(|_| Mutex::new(())),
            uploads: Mutex::new(uploads),
            temporary: AtomicU64::new(0),
        })
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_repository(&self, name: &RepositoryName) -> MutexGuard<'_, ()> {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        name.hash(&mut hasher);
        let stripe = (hasher.finish() % STRIPES as u64) as usize;
        self.repository_locks[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_blob(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let stripe = usize::from(digest.as_bytes()[0]) % STRIPES;
        self.blob_locks[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repository_directory(&self, name: &RepositoryName, part: &str) -> PathBuf {
        let mut path = self.config.root.join("repositories");
        path.push(name.as_str());
        path.push(part);
        path
    }

    /// Writes and fsyncs `bytes` under a temporary name in `directory`, to be renamed by the caller.
    fn write_temporary(&self, directory: &Path, parts: &[&[u8]]) -> io::Result<PathBuf> {
        let path = directory.join(format!(".{}.tmp", self.temporary.fetch_add(1, Ordering::Relaxed)));
        let written = (|| {
            let mut file = std::fs::File::create(&path)?;
            for part in parts {
                file.write_all(part)?;
            }
            file.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        written.map(|()| path)
    }
}

/// A place where another thread's step may come in between: tests make that likely.
#[cfg(not(test))]
fn race() {}

#[cfg(test)]
fn race() {
    simulation::race();
}

#[cfg(test)]
mod simulation;

/// `sha256-HEX`, a digest as a file name.
fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

fn digest_of_file_name(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

/// Removes a file that may be gone; true if it was there.
fn remove_file(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
