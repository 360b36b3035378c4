//! One layer of an image: tar, plain or compressed with gzip or zstd, told apart by its first bytes.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::sync::Arc;

use gantry_oci::image::{Blob, MediaSource};

use super::tar::{TarReader, Uncompressed};
use super::{Limits, Visitor};
use crate::error::ScanError;

const BUFFER_BYTES: usize = 128 * 1024;

/// Visits every entry of the layer in its order.
pub(crate) fn read(blob: &Blob, limits: &Limits, visit: Visitor<'_>) -> Result<(), ScanError> {
    let wrong = |source| ScanError::io(format!("layer {}", blob.digest), source);
    let mut head = Vec::new();
    let mut content = blob.source.open().map_err(wrong)?;
    content.by_ref().take(4).read_to_end(&mut head).map_err(wrong)?;
    let is_plain = !matches!(head[..], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]);
    if let (true, MediaSource::File(part)) = (is_plain, &blob.source) {
        let file = Arc::new(File::open(&part.path).map_err(wrong)?);
        let (base_bytes, size_bytes) = (part.offset_bytes, part.size_bytes);
        let plain = Uncompressed { file, base_bytes, size_bytes, at: 0 };
        return TarReader::new(plain.clone(), Some(plain), limits).read(visit).map_err(|e| named(blob, e));
    }
    // Not opened again: it may come over a network.
    let whole = Box::new(io::Cursor::new(head.clone()).chain(content));
    let compressed = Counted { reader: whole, read: Rc::default() };
    let count = Rc::clone(&compressed.read);
    let buffered = BufReader::with_capacity(BUFFER_BYTES, compressed);
    let decoder: Box<dyn Read> = match head[..] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(buffered).map_err(wrong)?)
        }
        _ => Box::new(buffered),
    };
    let bounded = Bounded { reader: decoder, read_bytes: 0, compressed: count, limits };
    let buffered = BufReader::with_capacity(BUFFER_BYTES, bounded);
    TarReader::new(buffered, None, limits).read(visit).map_err(|e| named(blob, e))
}

fn named(blob: &Blob, error: ScanError) -> ScanError {
    match error {
        ScanError::Refused(message) => ScanError::Refused(format!("layer {}: {message}", blob.digest)),
        ScanError::Io { what, source } if what.is_empty() => {
            ScanError::io(format!("layer {}", blob.digest), source)
        }
        other => other,
    }
}

struct Counted {
    reader: Box<dyn Read + Send>,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

/// Ends a stream that grows beyond all measure.
struct Bounded<'a> {
    reader: Box<dyn Read>,
    read_bytes: u64,
    compressed: Rc<Cell<u64>>,
    limits: &'a Limits,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.read_bytes += n as u64;
        let Limits { uncompressed_max_bytes, ratio_max, ratio_from_bytes, .. } = *self.limits;
        if self.read_bytes > uncompressed_max_bytes {
            return Err(io::Error::other(format!("it has more than {uncompressed_max_bytes} bytes")));
        }
        let ratio = self.read_bytes / self.compressed.get().max(1);
        if self.read_bytes > ratio_from_bytes && ratio > ratio_max {
            return Err(io::Error::other(format!(
                "it grows to more than {ratio_max} times its size: a bomb?"
            )));
        }
        Ok(n)
    }
}
