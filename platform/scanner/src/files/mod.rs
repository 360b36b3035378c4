//! A root file system as a stream of entries, from a directory or from one layer of an image. Nothing is
//! extracted, no link is followed, and every quantity that the input chooses has a bound.

mod content;
mod directory;
mod layer;
mod tar;
pub(crate) mod zip;

use std::io;

pub(crate) use content::Content;
pub(crate) use directory::{some, walk as directory};
pub(crate) use layer::read as layer;

use crate::error::{ScanError, refused};

/// Bounds on what one layer or directory may make the reader do.
#[derive(Clone, Debug)]
pub struct Limits {
    pub entries_max: u64,
    pub path_max_bytes: usize,
    /// How deep directories are nested.
    pub depth_max: usize,
    /// Of one layer once it is not compressed.
    pub uncompressed_max_bytes: u64,
    /// Uncompressed to compressed size, once [`Self::ratio_from_bytes`] are read.
    pub ratio_max: u64,
    pub ratio_from_bytes: u64,
    /// Of one file that is looked into.
    pub file_max_bytes: u64,
    /// Of all packages in one layer or directory.
    pub packages_max: usize,
    /// Archives within archives.
    pub nesting_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: 4_000_000,
            path_max_bytes: 4096,
            depth_max: 256,
            uncompressed_max_bytes: 64 << 30,
            ratio_max: 400,
            ratio_from_bytes: 512 << 20,
            file_max_bytes: 1 << 30,
            packages_max: 500_000,
            nesting_max: 6,
        }
    }
}

/// One path of the file system; without leading slash, parts joined by `/`.
pub(crate) struct Entry<'a> {
    pub path: &'a str,
    pub kind: Kind<'a>,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
}

/// What stands at a path.
pub(crate) enum Kind<'a> {
    Directory,
    File(File<'a>),
    Symlink(&'a str),
    /// To a path of the same layer that came before.
    HardLink(&'a str),
    /// A device, a pipe or a socket: never opened.
    Special,
}

pub(crate) struct File<'a> {
    pub size_bytes: u64,
    pub executable: bool,
    pub content: &'a mut dyn FnMut() -> io::Result<Content>,
}

/// Takes every entry, parents before their children where the source has them so.
pub(crate) type Visitor<'a> = &'a mut dyn FnMut(Entry<'_>) -> Result<(), ScanError>;

/// `path` without dots and doubled slashes, confined to the root as a leading slash is; `..` is refused, as no
/// tool that makes layers writes it.
pub(crate) fn normalise(path: &str, limits: &Limits) -> Result<String, ScanError> {
    let shown = || path.chars().take(200).collect::<String>();
    if path.len() > limits.path_max_bytes {
        return Err(refused(format!(
            "a path has {} bytes, {} are allowed: {:?}",
            path.len(),
            limits.path_max_bytes,
            shown()
        )));
    }
    if path.contains('\0') {
        return Err(refused(format!("a path has a zero byte: {:?}", shown())));
    }
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(refused(format!("the path {:?} leads out of its layer", shown())));
        }
        parts.push(part);
    }
    if parts.len() > limits.depth_max {
        return Err(refused(format!("a path is nested more than {} deep: {:?}", limits.depth_max, shown())));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain_or_refused() {
        let limits = Limits::default();
        let plain = |path: &str| normalise(path, &limits).ok();
        assert_eq!(plain("./a//b/./c/").as_deref(), Some("a/b/c"));
        assert_eq!(plain("/etc/passwd").as_deref(), Some("etc/passwd"));
        assert_eq!(plain("./").as_deref(), Some(""));
        for bad in ["../x", "a/../../x", "a\0b", "a/..", &"x/".repeat(300), &"x".repeat(5000)] {
            assert_eq!(plain(bad), None, "{bad:.20}");
        }
    }
}
