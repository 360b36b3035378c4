//! A tar stream, entry by entry, with every name and header bounded: ustar, GNU and pax (POSIX.1-2001).

use std::fs::File as StdFile;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tar::{EntryType, Header, PaxExtensions};

use super::{Content, Entry, File, Kind, Limits, Visitor, normalise};
use crate::error::{ScanError, refused};

const BLOCK_BYTES: u64 = 512;
/// Of a pax header: paths and times, perhaps extended attributes.
const PAX_MAX_BYTES: u64 = 1 << 20;
const SPARSE_HEADERS_MAX: usize = 100_000;

/// What a tar is read from: a decoder, or the part of a file, which skips without reading.
pub(crate) trait Stream: Read {
    /// Returns how many bytes were there to skip.
    fn skip(&mut self, bytes: u64) -> io::Result<u64>;
}

impl<R: Read> Stream for io::BufReader<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        io::copy(&mut self.take(bytes), &mut io::sink())
    }
}

/// A tar that lies uncompressed in a file.
#[derive(Clone)]
pub(crate) struct Uncompressed {
    pub file: Arc<StdFile>,
    pub base_bytes: u64,
    pub size_bytes: u64,
    pub at: u64,
}

impl Read for Uncompressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size_bytes - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..left], self.base_bytes + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Stream for Uncompressed {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let skipped = bytes.min(self.size_bytes - self.at);
        self.at += skipped;
        Ok(skipped)
    }
}

pub(crate) struct TarReader<'a, R> {
    reader: R,
    /// How many bytes of the stream are read.
    at: u64,
    plain: Option<Uncompressed>,
    limits: &'a Limits,
}

/// What headers before an entry say of it.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size_bytes: Option<u64>,
    sparse: bool,
}

impl<'a, R: Stream> TarReader<'a, R> {
    pub(crate) fn new(reader: R, plain: Option<Uncompressed>, limits: &'a Limits) -> Self {
        Self { reader, at: 0, plain, limits }
    }

    pub(crate) fn read(mut self, visit: Visitor<'_>) -> Result<(), ScanError> {
        let mut said = Said::default();
        let mut entries = 0_u64;
        while let Some(header) = self.header().map_err(io_error)? {
            entries += 1;
            if entries > self.limits.entries_max {
                return Err(refused(format!("there are more than {} entries", self.limits.entries_max)));
            }
            let size = header.entry_size().map_err(io_error)?;
            match header.entry_type() {
                EntryType::GNULongName => said.path = Some(self.name(size)?),
                EntryType::GNULongLink => said.link = Some(self.name(size)?),
                EntryType::XHeader => self.pax(size, &mut said)?,
                EntryType::XGlobalHeader => self.skip(size)?,
                _ => self.entry(&header, std::mem::take(&mut said), visit)?,
            }
        }
        Ok(())
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut done = 0;
        while done < block.len() {
            match self.reader.read(&mut block[done..]) {
                // Archives without the two empty blocks at their end are common.
                Ok(0) if done == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a header")),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += BLOCK_BYTES;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum = |from: &[u8]| from.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let found = sum(&bytes[..148]) + 8 * 32 + sum(&bytes[156..]);
        if header.cksum().ok() != Some(found) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no tar: a header's sum is wrong"));
        }
        Ok(Some(header))
    }

    fn name(&mut self, size: u64) -> Result<Vec<u8>, ScanError> {
        if size > self.limits.path_max_bytes as u64 + 1 {
            return Err(refused(format!(
                "a path has {size} bytes, {} are allowed",
                self.limits.path_max_bytes
            )));
        }
        let mut name = self.small(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn pax(&mut self, size: u64, said: &mut Said) -> Result<(), ScanError> {
        if size > PAX_MAX_BYTES {
            return Err(refused(format!("a header has {size} bytes, {PAX_MAX_BYTES} are allowed")));
        }
        let bytes = self.small(size)?;
        for extension in PaxExtensions::new(&bytes) {
            let extension = extension.map_err(io_error)?;
            let value = extension.value_bytes();
            match extension.key_bytes() {
                b"path" if said.path.is_none() || !said.sparse => said.path = Some(value.to_vec()),
                b"linkpath" => said.link = Some(value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    said.size_bytes =
                        Some(text.ok_or_else(|| refused("a size in a pax header is no number"))?);
                }
                b"GNU.sparse.name" => {
                    said.path = Some(value.to_vec());
                    said.sparse = true;
                }
                key if key.starts_with(b"GNU.sparse.") => said.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header, said: Said, visit: Visitor<'_>) -> Result<(), ScanError> {
        let kind = header.entry_type();
        let size = said.size_bytes.map_or_else(|| header.entry_size(), Ok).map_err(io_error)?;
        let raw = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = normalise(&String::from_utf8_lossy(&raw), self.limits)?;
        let link = said.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let link = String::from_utf8_lossy(&link.unwrap_or_default()).into_owned();
        let sparse = said.sparse || kind == EntryType::GNUSparse;
        if kind == EntryType::GNUSparse {
            self.sparse_headers(header)?;
        }
        if path.is_empty() {
            return self.skip(size);
        }
        let mode = header.mode().unwrap_or(0) & 0o7777;
        let plain = |kind| Entry { path: &path, kind, mode };
        match kind {
            EntryType::Directory => visit(plain(Kind::Directory))?,
            EntryType::Symlink => visit(plain(Kind::Symlink(&link)))?,
            EntryType::Link => visit(plain(Kind::HardLink(&normalise(&link, self.limits)?)))?,
            EntryType::Char | EntryType::Block | EntryType::Fifo => visit(plain(Kind::Special))?,
            _ => {
                return self.file(&path, size, mode, sparse, visit);
            }
        }
        self.skip(size)
    }

    fn file(
        &mut self,
        path: &str,
        size_bytes: u64,
        mode: u32,
        sparse: bool,
        visit: Visitor<'_>,
    ) -> Result<(), ScanError> {
        let mut taken = 0;
        let (reader, plain, at) = (&mut self.reader, &self.plain, self.at);
        let mut content = || {
            if sparse {
                return Err(io::Error::other("sparse files are not read"));
            }
            if let Some(plain) = plain {
                if at.checked_add(size_bytes).is_none_or(|end| end > plain.size_bytes) {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the layer ends within it"));
                }
                let offset_bytes = plain.base_bytes + at;
                return Ok(Content::Part { file: Arc::clone(&plain.file), offset_bytes, size_bytes });
            }
            let content = Content::spool(reader, size_bytes - taken)?;
            taken += content.size_bytes();
            Ok(content)
        };
        let executable = mode & 0o111 != 0 && !sparse;
        let file = File { size_bytes, executable, content: &mut content };
        visit(Entry { path, kind: Kind::File(file), mode })?;
        self.at += taken;
        self.skip_from(size_bytes - taken, size_bytes)
    }

    /// Extended headers of the old GNU format of sparse files.
    fn sparse_headers(&mut self, header: &Header) -> Result<(), ScanError> {
        let mut more = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        let mut count = 0;
        while more {
            let block = self.small_unpadded(BLOCK_BYTES)?;
            more = block.get(504) == Some(&1);
            count += 1;
            if count > SPARSE_HEADERS_MAX {
                return Err(refused("a sparse file has too many parts"));
            }
        }
        Ok(())
    }

    /// Small content with the padding behind it.
    fn small(&mut self, size: u64) -> Result<Vec<u8>, ScanError> {
        let bytes = self.small_unpadded(size)?;
        self.skip_from(0, size)?;
        Ok(bytes)
    }

    fn small_unpadded(&mut self, size: u64) -> Result<Vec<u8>, ScanError> {
        let mut bytes = Vec::new();
        (&mut self.reader).take(size).read_to_end(&mut bytes).map_err(io_error)?;
        self.at += bytes.len() as u64;
        if (bytes.len() as u64) < size {
            return Err(refused("it ends within a header"));
        }
        Ok(bytes)
    }

    fn skip(&mut self, size: u64) -> Result<(), ScanError> {
        self.skip_from(size, size)
    }

    /// Skips the `left` bytes of content that has `size`, and the padding.
    fn skip_from(&mut self, left: u64, size: u64) -> Result<(), ScanError> {
        let padding = (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
        let want = left.checked_add(padding).ok_or_else(|| refused("an entry's size is no size"))?;
        let skipped = self.reader.skip(want).map_err(io_error)?;
        self.at += skipped;
        // The last entry's padding is missing in some archives; its content is not.
        if skipped < left {
            return Err(refused("it ends within an entry"));
        }
        Ok(())
    }
}

/// The layer's name is added by who knows it.
fn io_error(error: io::Error) -> ScanError {
    ScanError::io("", error)
}
