//! The documents of a source, one after the other: `*.json` below a directory, in zips below it, or in one zip.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use sha2::Digest as _;

use super::AdvisoryError;
use crate::files::{Content, zip};

pub(super) const ADVISORY_MAX_BYTES: u64 = 16 << 20;
const FILES_MAX: u64 = 4_000_000;
const DEPTH_MAX: usize = 16;

/// One document before it is read.
pub(super) struct Document<'a> {
    /// Its path in the source; `ZIP!/NAME` within a zip.
    pub name: &'a str,
    /// Changes when the content does, as far as can be told without reading it.
    pub token: u64,
    pub read: &'a mut dyn FnMut() -> Result<Vec<u8>, String>,
}

type Each<'a> = &'a mut dyn FnMut(Document<'_>) -> Result<(), AdvisoryError>;

/// Calls `each` with every document at `path`, in the order of names.
pub(super) fn documents(path: &Path, each: Each<'_>) -> Result<(), AdvisoryError> {
    let io = |source| AdvisoryError::Io { path: path.to_owned(), source };
    let mut walk = Walk { each, count: 0 };
    if std::fs::metadata(path).map_err(io)?.is_dir() {
        walk.directory(path, "", 0)
    } else {
        walk.file(path, path.extension().and_then(|ending| ending.to_str()).unwrap_or("zip"), "")
    }
}

struct Walk<'a> {
    each: Each<'a>,
    count: u64,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path, name: &str, depth: usize) -> Result<(), AdvisoryError> {
        let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            paths.push((entry.path(), entry.file_type().map_err(io)?));
            self.counted(directory)?;
        }
        paths.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, kind) in paths {
            let last = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = if name.is_empty() { last } else { format!("{name}/{last}") };
            if kind.is_dir() && depth < DEPTH_MAX {
                self.directory(&path, &name, depth + 1)?;
            } else if kind.is_file() {
                let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
                self.file(&path, ending, &name)?;
            }
        }
        Ok(())
    }

    fn counted(&mut self, path: &Path) -> Result<(), AdvisoryError> {
        self.count += 1;
        if self.count <= FILES_MAX {
            return Ok(());
        }
        let message = format!("there are more than {FILES_MAX} files");
        Err(AdvisoryError::Invalid { path: path.to_owned(), message })
    }

    fn file(&mut self, path: &Path, ending: &str, name: &str) -> Result<(), AdvisoryError> {
        let is_zip = ending.eq_ignore_ascii_case("zip");
        if !is_zip && !ending.eq_ignore_ascii_case("json") {
            return Ok(());
        }
        let io = |source| AdvisoryError::Io { path: path.to_owned(), source };
        if is_zip {
            return self.zip(path, name);
        }
        let metadata = std::fs::metadata(path).map_err(io)?;
        let mut state = Vec::new();
        for part in [metadata.len(), metadata.ino()] {
            state.extend(part.to_le_bytes());
        }
        for part in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
            state.extend(part.to_le_bytes());
        }
        let mut read = || {
            let file = File::open(path).map_err(|error| error.to_string())?;
            let size_bytes = file.metadata().map_err(|error| error.to_string())?.len();
            let content = Content::Part { file: Arc::new(file), offset_bytes: 0, size_bytes };
            content.all(ADVISORY_MAX_BYTES).map(std::borrow::Cow::into_owned)
        };
        (self.each)(Document { name, token: token(&state), read: &mut read })
    }

    fn zip(&mut self, path: &Path, name: &str) -> Result<(), AdvisoryError> {
        let io = |source: io::Error| AdvisoryError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let size_bytes = file.metadata().map_err(io)?.len();
        let content = Content::Part { file: Arc::new(file), offset_bytes: 0, size_bytes };
        let mut failed = Ok(());
        let read = zip::entries(&content, |entry| {
            if !entry.name.ends_with(".json") {
                return true;
            }
            let name = format!("{name}!/{}", entry.name);
            let mut state = entry.size_bytes.to_le_bytes().to_vec();
            state.extend(entry.crc32.to_le_bytes());
            // Some tools write no checksum; then the content itself has to tell.
            if entry.crc32 == 0 {
                state.extend(zip::read(&content, &entry, ADVISORY_MAX_BYTES).unwrap_or_default());
            }
            let mut read = || zip::read(&content, &entry, ADVISORY_MAX_BYTES);
            failed = (self.each)(Document { name: &name, token: token(&state), read: &mut read })
                .and_then(|()| self.counted(path));
            failed.is_ok()
        });
        failed?;
        read.map_err(|message| AdvisoryError::Invalid { path: path.to_owned(), message })
    }
}

fn token(state: &[u8]) -> u64 {
    let digest: [u8; 32] = sha2::Sha256::digest(state).into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}
