//! A directory as a root file system. Every step goes through the descriptor of the directory before, without
//! following links, so that nothing that changes meanwhile leads out of it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::{Content, Entry, File, Kind, Limits, Visitor};
use crate::error::{ScanError, refused};

const OPEN: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Kernel file systems hold no packages and never end.
const SKIPPED: &[&str] = &["proc", "sys", "dev"];

/// Visits everything below `root`. Other file systems that are mounted there are not entered.
pub(crate) fn walk(root: &Path, limits: &Limits, visit: Visitor<'_>) -> Result<(), ScanError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let top = nix::fcntl::open(root, flags, Mode::empty()).map_err(|e| ScanError::path(root, e.into()))?;
    let device = fstat(&top).map_err(|e| ScanError::path(root, e.into()))?.st_dev;
    let mut walker = Walker { limits, visit, device, entries: 0, path: String::new() };
    walker.directory(top, 0)
}

/// Visits `paths` and what is below them only. Links on the way are not followed.
pub(crate) fn some(
    root: &Path,
    paths: &[&str],
    limits: &Limits,
    visit: Visitor<'_>,
) -> Result<(), ScanError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let top = nix::fcntl::open(root, flags, Mode::empty()).map_err(|e| ScanError::path(root, e.into()))?;
    let device = fstat(&top).map_err(|e| ScanError::path(root, e.into()))?.st_dev;
    let mut walker = Walker { limits, visit, device, entries: 0, path: String::new() };
    for path in paths {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut parent = Dir::from_fd(top.try_clone().map_err(|e| ScanError::path(root, e))?)
            .map_err(|e| ScanError::path(root, e.into()))?;
        let reached = parents.split('/').filter(|part| !part.is_empty()).all(|part| {
            match Dir::openat(&parent, part, OPEN | OFlag::O_DIRECTORY, Mode::empty()) {
                Ok(next) => {
                    parent = next;
                    true
                }
                Err(_) => false,
            }
        });
        if reached {
            (*path).clone_into(&mut walker.path);
            let name = std::ffi::CString::new(name).unwrap_or_default();
            walker.entry(&parent, &name, path.matches('/').count())?;
        }
    }
    Ok(())
}

struct Walker<'a> {
    limits: &'a Limits,
    visit: Visitor<'a>,
    device: u64,
    entries: u64,
    path: String,
}

impl Walker<'_> {
    /// Names first, then each of them: one descriptor per level is open, and depth is bounded.
    fn directory(&mut self, descriptor: OwnedFd, depth: usize) -> Result<(), ScanError> {
        if depth > self.limits.depth_max {
            return Err(refused(format!(
                "directories are nested more than {} deep: {:.200}",
                self.limits.depth_max, self.path
            )));
        }
        let mut directory = Dir::from_fd(descriptor).map_err(|e| ScanError::io(&*self.path, e.into()))?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(|e| ScanError::io(&*self.path, e.into()))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > self.limits.entries_max {
                return Err(refused(format!("there are more than {} entries", self.limits.entries_max)));
            }
            names.push(name.to_owned());
        }
        names.sort_unstable();
        for name in names {
            let length = self.path.len();
            if length > 0 {
                self.path.push('/');
            }
            self.path.push_str(&name.to_string_lossy());
            let visited = self.entry(&directory, &name, depth);
            self.path.truncate(length);
            visited?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: &Dir, name: &CStr, depth: usize) -> Result<(), ScanError> {
        if self.path.len() > self.limits.path_max_bytes {
            return Err(refused(format!("a path is too long: {:.200}", self.path)));
        }
        let Ok(stat) = fstatat(parent, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) else {
            return Ok(()); // Gone meanwhile.
        };
        let mode = stat.st_mode & 0o7777;
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => {
                (self.visit)(Entry { path: &self.path, kind: Kind::Directory, mode })?;
                if stat.st_dev != self.device || (depth == 0 && SKIPPED.contains(&self.path.as_str())) {
                    return Ok(());
                }
                match openat(parent, name, OPEN | OFlag::O_DIRECTORY, Mode::empty()) {
                    Ok(descriptor) => self.directory(descriptor, depth + 1),
                    Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) => Ok(()),
                    Err(error) => Err(ScanError::io(&*self.path, error.into())),
                }
            }
            SFlag::S_IFREG => self.file(parent, name, &stat),
            SFlag::S_IFLNK => {
                let target = readlinkat(parent, name).unwrap_or_default();
                let target = target.to_string_lossy();
                (self.visit)(Entry { path: &self.path, kind: Kind::Symlink(&target), mode })
            }
            _ => (self.visit)(Entry { path: &self.path, kind: Kind::Special, mode }),
        }
    }

    fn file(&mut self, parent: &Dir, name: &CStr, stat: &FileStat) -> Result<(), ScanError> {
        let parent = parent.as_fd();
        let mut content = || open(parent, name);
        let file = File {
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            executable: stat.st_mode & 0o111 != 0,
            content: &mut content,
        };
        (self.visit)(Entry { path: &self.path, kind: Kind::File(file), mode: stat.st_mode & 0o7777 })
    }
}

/// Opens a regular file; what became a pipe or a device meanwhile is not read.
fn open(parent: std::os::fd::BorrowedFd<'_>, name: &CStr) -> io::Result<Content> {
    let descriptor = openat(parent, name, OPEN | OFlag::O_NONBLOCK, Mode::empty())?;
    let stat = fstat(&descriptor)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(io::Error::other("it is no regular file any more"));
    }
    let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Content::Part { file: Arc::new(descriptor.into()), offset_bytes: 0, size_bytes })
}
