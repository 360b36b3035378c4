//! Writing layers that are the same bytes every time: sorted entries, fixed times and owners, a fixed gzip
//! header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};

use crate::image::{Blob, FilePart, MediaSource};
use crate::{Algorithm, Digest, Hasher};

const MEDIA_TYPE_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Fast, and large enough a part of what slower levels gain.
const COMPRESSION_LEVEL: u32 = 5;

/// What stands at one path of a layer.
#[derive(Clone, Debug)]
pub enum Entry {
    Directory {
        mode: u32,
    },
    /// Content of a file of this machine.
    File {
        source: PathBuf,
        mode: u32,
    },
    Bytes {
        content: Bytes,
        mode: u32,
    },
    Symlink {
        target: String,
    },
}

/// A root file system under construction: paths without a leading slash, in order.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Puts an entry at the absolute `path`, and the directories above it. What stands there already stays.
    pub fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return;
        }
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.entry(path.to_owned()).or_insert(entry);
    }

    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path.trim_matches('/'))
    }

    /// Paths without leading slash.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Writes the layer to a temporary file; returns it and the digest of the uncompressed tar (`diff_id`).
    pub fn to_layer(&self) -> io::Result<(Blob, Digest)> {
        compress(tempfile::NamedTempFile::new()?, |writer| self.write_tar(writer))
    }

    fn write_tar(&self, writer: &mut dyn Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(writer);
        for (path, entry) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match entry {
                Entry::Directory { mode } => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Entry::Symlink { target } => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, path, target)?;
                }
                Entry::Bytes { content, mode } => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, &content[..])?;
                }
                Entry::File { source, mode } => {
                    let file = File::open(source)?;
                    let size = file.metadata()?.len();
                    header.set_mode(*mode);
                    header.set_size(size);
                    let mut counted = Counted { reader: file.take(size), left: size };
                    tar.append_data(&mut header, path, &mut counted)?;
                    if counted.left > 0 {
                        return Err(io::Error::other(format!("{} shrank meanwhile", source.display())));
                    }
                }
            }
        }
        tar.finish()
    }
}

struct Counted<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Compresses what `write` writes into a temporary file; returns the layer and its `diff_id`.
pub(crate) fn compress(
    into: tempfile::NamedTempFile,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(Blob, Digest)> {
    let (file, path) = into.into_parts();
    let compressed = Hashing::new(io::BufWriter::with_capacity(256 * 1024, file));
    // No name, no time: the header says only that it is gzip.
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(compressed, Compression::new(COMPRESSION_LEVEL));
    let mut plain = Hashing::new(gzip);
    write(&mut plain)?;
    let (gzip, diff_id, _) = plain.finish();
    let (mut buffered, digest, size_bytes) = gzip.finish()?.finish();
    buffered.flush()?;
    let part = FilePart {
        path: path.to_path_buf(),
        offset_bytes: 0,
        size_bytes,
        keep: Some(std::sync::Arc::new(path)),
    };
    let source = MediaSource::File(part);
    Ok((Blob { media_type: MEDIA_TYPE_GZIP.to_owned(), digest, size_bytes, source }, diff_id))
}

struct Hashing<W> {
    writer: W,
    hasher: Hasher,
    size_bytes: u64,
}

impl<W: Write> Hashing<W> {
    fn new(writer: W) -> Self {
        Self { writer, hasher: Hasher::new(Algorithm::Sha256), size_bytes: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.writer, self.hasher.finish(), self.size_bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
