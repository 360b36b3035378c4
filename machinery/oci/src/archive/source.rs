//! Named content of a tar archive or of a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{ArchiveError, ArchiveLimits, invalid};
use crate::image::{FilePart, MediaSource};

const LINKS_MAX: usize = 8;

/// The named content of an archive or a directory. What it names is inside it: see [`Source::open`].
pub struct Source(Kind);

enum Kind {
    Archive { entries: HashMap<String, Place>, file: PathBuf, keep: Option<Arc<tempfile::TempPath>> },
    Directory(PathBuf),
}

enum Place {
    Content {
        offset_bytes: u64,
        size_bytes: u64,
    },
    /// To another name of the archive.
    Link(String),
}

impl Source {
    /// Reads the names of a tar archive, perhaps compressed by gzip or zstd, or takes a directory as it is. Refuses
    /// names and links that lead out, names that are there twice, kinds of entries that images do not have, entries
    /// that are cut off, and more than `limits` allow.
    pub fn open(path: &Path, limits: &ArchiveLimits) -> Result<Self, ArchiveError> {
        let metadata = std::fs::metadata(path)?;
        if metadata.is_dir() {
            return Ok(Self(Kind::Directory(path.canonicalize()?)));
        }
        let mut head = [0; 4];
        let n = File::open(path)?.take(4).read(&mut head)?;
        let decoder: Option<Box<dyn Read>> = match &head[..n] {
            [0x1f, 0x8b, ..] => Some(Box::new(flate2::read::MultiGzDecoder::new(File::open(path)?))),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Box::new(zstd::stream::read::Decoder::new(File::open(path)?)?)),
            _ => None,
        };
        let (file, keep) = match decoder {
            None => (path.to_owned(), None),
            Some(decoder) => {
                let mut plain = limits.temporary()?;
                let max = limits.uncompressed_max(metadata.len());
                if io::copy(&mut decoder.take(max + 1), &mut plain)? > max {
                    return Err(invalid(format!("the archive has more than {max} bytes uncompressed")));
                }
                let path = plain.into_temp_path();
                (path.to_path_buf(), Some(Arc::new(path)))
            }
        };
        Ok(Self(Kind::Archive { entries: index(&file, limits)?, file, keep }))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The names of an archive's files and links, in no order; of a directory, none.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let entries = match &self.0 {
            Kind::Archive { entries, .. } => Some(entries.keys()),
            Kind::Directory(_) => None,
        };
        entries.into_iter().flatten().map(String::as_str)
    }

    /// The content of `name`, wherever links lead.
    pub fn find(&self, name: &str) -> Result<FilePart, ArchiveError> {
        let missing = || invalid(format!("{name:?} is named and not in the archive"));
        let clean = normalise("", name).ok_or_else(|| invalid(format!("the name {name:?} leads out")))?;
        match &self.0 {
            Kind::Directory(root) => {
                let path = root.join(&clean).canonicalize().map_err(|_| missing())?;
                if !path.starts_with(root) {
                    return Err(invalid(format!("{name:?} is a link that leads out")));
                }
                let meta = path.metadata()?;
                let part = FilePart { path, offset_bytes: 0, size_bytes: meta.len(), keep: None };
                if meta.is_file() { Ok(part) } else { Err(missing()) }
            }
            Kind::Archive { entries, file, keep } => {
                let mut at = clean;
                for _ in 0..=LINKS_MAX {
                    match entries.get(&at).ok_or_else(missing)? {
                        Place::Link(target) => at.clone_from(target),
                        Place::Content { offset_bytes, size_bytes } => {
                            return Ok(FilePart {
                                path: file.clone(),
                                offset_bytes: *offset_bytes,
                                size_bytes: *size_bytes,
                                keep: keep.clone(),
                            });
                        }
                    }
                }
                Err(invalid(format!("{name:?} is a link to a link to a link")))
            }
        }
    }

    /// Small content, read whole.
    pub fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, ArchiveError> {
        let part = self.find(name)?;
        if part.size_bytes > max_bytes {
            return Err(invalid(format!("{name:?} has {} bytes, {max_bytes} are allowed", part.size_bytes)));
        }
        let mut bytes = Vec::new();
        MediaSource::File(part).open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn index(file: &Path, limits: &ArchiveLimits) -> Result<HashMap<String, Place>, ArchiveError> {
    let length = std::fs::metadata(file)?.len();
    let mut archive = tar::Archive::new(File::open(file)?);
    let mut entries = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = entry.path()?;
        let text = path.to_str().ok_or_else(|| invalid("a name in the archive is not UTF-8"))?;
        let name = normalise("", text)
            .filter(|_| !path.is_absolute())
            .ok_or_else(|| invalid(format!("the archive has the name {text:?}, which leads out of it")))?;
        let place = match entry.header().entry_type() {
            kind if kind.is_file() => {
                let (offset_bytes, size_bytes) = (entry.raw_file_position(), entry.size());
                if offset_bytes.checked_add(size_bytes).is_none_or(|end| end > length) {
                    return Err(invalid(format!("the archive ends within {name:?}")));
                }
                Place::Content { offset_bytes, size_bytes }
            }
            kind if kind.is_symlink() || kind.is_hard_link() => {
                let link = entry.link_name()?.ok_or_else(|| invalid(format!("{name:?} links to nothing")))?;
                let text = link.to_str().unwrap_or("/");
                let parent =
                    if kind.is_symlink() { name.rsplit_once('/').map_or("", |(p, _)| p) } else { "" };
                let target = normalise(parent, text).filter(|_| !link.is_absolute());
                Place::Link(target.ok_or_else(|| invalid(format!("{name:?} is a link that leads out")))?)
            }
            kind if kind.is_dir() || kind.is_pax_global_extensions() => continue,
            kind => return Err(invalid(format!("{name:?} is of kind {kind:?}, which images do not have"))),
        };
        if entries.insert(name.clone(), place).is_some() {
            return Err(invalid(format!("{name:?} is twice in the archive")));
        }
        if entries.len() > limits.entries_max {
            return Err(invalid(format!("the archive has more than {} entries", limits.entries_max)));
        }
    }
    Ok(entries)
}

/// `name` seen from the directory `from`, without dots; `None` if it leads above the top.
fn normalise(from: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').filter(|p| !p.is_empty()).collect();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}
