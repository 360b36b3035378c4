//! Durable names at the price of few fsyncs: callers that made names in the same directory at the same time
//! share one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;

/// Makes directories and fsyncs them.
pub(crate) struct Directories {
    root: PathBuf,
    groups: Mutex<HashMap<PathBuf, Arc<Group>>>,
    /// Directories known to exist durably.
    known: Mutex<HashSet<PathBuf>>,
}

#[derive(Default)]
struct Group {
    tickets: AtomicU64,
    /// The highest ticket whose names are durable.
    done: Mutex<u64>,
}

/// Bound on remembered directories; past it they are only looked at again.
const REMEMBERED_MAX: usize = 100_000;

impl Directories {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, groups: Mutex::default(), known: Mutex::default() }
    }

    /// Returns once every name made in `directory` before the call is durable.
    pub(crate) fn sync(&self, directory: &Path) -> io::Result<()> {
        let group = {
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            if groups.len() > REMEMBERED_MAX {
                groups.retain(|_, group| Arc::strong_count(group) > 1);
            }
            groups.entry(directory.to_owned()).or_default().clone()
        };
        let ticket = group.tickets.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = group.done.lock().unwrap_or_else(PoisonError::into_inner);
        if *done >= ticket {
            return Ok(());
        }
        // Everybody who drew a ticket until here made its names before this fsync begins.
        let covered = group.tickets.load(Ordering::SeqCst);
        gantry_base::fs::sync_directory(directory)?;
        *done = covered;
        Ok(())
    }

    /// Makes `directory` and what is missing above it, durably.
    pub(crate) fn ensure(&self, directory: &Path) -> io::Result<()> {
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(directory) {
            return Ok(());
        }
        gantry_base::fs::create_directory(directory, 0o700)?;
        // All the way up: another thread may have made some of them and not have synced them yet.
        for parent in directory.ancestors().skip(1).take_while(|p| p.starts_with(&self.root)) {
            self.sync(parent)?;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED_MAX {
            known.insert(directory.to_owned());
        }
        Ok(())
    }
}

/// Has the disk begin with a part of a file, and does not wait for it. A hint: durable it becomes by a sync, which finds
/// less to do.
pub(super) fn begin_writing(file: &File, start: u64, end: u64) {
    let (Ok(start), Ok(length)) = (i64::try_from(start), i64::try_from(end - start)) else { return };
    // SAFETY: numbers alone, of a file that is open.
    unsafe { libc::sync_file_range(file.as_raw_fd(), start, length, libc::SYNC_FILE_RANGE_WRITE) };
}
