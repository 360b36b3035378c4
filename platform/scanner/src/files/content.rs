//! The bytes of one file, readable at any place.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Larger content of a compressed layer goes to a temporary file.
const MEMORY_MAX_BYTES: u64 = 4 << 20;

#[derive(Clone)]
pub(crate) enum Content {
    Bytes(Arc<[u8]>),
    Part { file: Arc<File>, offset_bytes: u64, size_bytes: u64 },
}

impl Content {
    /// Takes `size_bytes` from a stream, to memory or to a temporary file.
    pub(crate) fn spool(reader: &mut dyn Read, size_bytes: u64) -> io::Result<Self> {
        if size_bytes <= MEMORY_MAX_BYTES {
            let mut bytes = Vec::new();
            reader.take(size_bytes).read_to_end(&mut bytes)?;
            return Ok(Self::Bytes(bytes.into()));
        }
        let mut file = tempfile::tempfile()?;
        let size_bytes = io::copy(&mut reader.take(size_bytes), &mut file)?;
        file.flush()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self::Part { file: Arc::new(file), offset_bytes: 0, size_bytes })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part { size_bytes, .. } => *size_bytes,
        }
    }

    /// Fills `buffer` from `offset_bytes` on, up to the end; returns how much there was.
    pub(crate) fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => {
                let at = usize::try_from(offset_bytes).unwrap_or(usize::MAX).min(bytes.len());
                let n = buffer.len().min(bytes.len() - at);
                buffer[..n].copy_from_slice(&bytes[at..at + n]);
                Ok(n)
            }
            Self::Part { file, offset_bytes: base, size_bytes } => {
                let left = size_bytes.saturating_sub(offset_bytes);
                let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let mut done = 0;
                while done < want {
                    match file.read_at(&mut buffer[done..want], base + offset_bytes + done as u64) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(done)
            }
        }
    }

    /// `size_bytes` bytes from `offset_bytes` on; `None` if they are not all there.
    pub(crate) fn slice(&self, offset_bytes: u64, size_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        if offset_bytes.checked_add(size_bytes as u64).is_none_or(|end| end > self.size_bytes()) {
            return Ok(None);
        }
        let mut buffer = vec![0; size_bytes];
        let n = self.read_at(offset_bytes, &mut buffer)?;
        Ok((n == size_bytes).then_some(buffer))
    }

    /// Everything, if it is no more than `max_bytes`.
    pub(crate) fn all(&self, max_bytes: u64) -> Result<Cow<'_, [u8]>, String> {
        let size = self.size_bytes();
        if size > max_bytes {
            return Err(format!("it has {size} bytes, {max_bytes} are allowed"));
        }
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Part { .. } => {
                let size = usize::try_from(size).map_err(|_| "it is too large".to_owned())?;
                let mut buffer = vec![0; size];
                let n = self.read_at(0, &mut buffer).map_err(|error| error.to_string())?;
                buffer.truncate(n);
                Ok(Cow::Owned(buffer))
            }
        }
    }

    /// Everything as text, with what is no UTF-8 replaced.
    pub(crate) fn text(&self, max_bytes: u64) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.all(max_bytes)?).into_owned())
    }

    /// A reader from `offset_bytes` on.
    pub(crate) fn reader(&self, offset_bytes: u64) -> Reader<'_> {
        Reader { content: self, at: offset_bytes }
    }
}

/// Reads on from a place.
pub(crate) struct Reader<'a> {
    content: &'a Content,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read_at(self.at, buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}
