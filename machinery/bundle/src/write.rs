//! A bundle as it is written.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_oci::{Digest, Hasher};
use gantry_signatures::PrivateKey;

use crate::{BundleError, Entry, MANIFEST, Manifest, SIGNATURE};

/// Writes the entries of a bundle, each checked against what was said of it.
pub struct Writer<W: Write> {
    tar: tar::Builder<W>,
    entries: std::vec::IntoIter<Entry>,
}

impl<W: Write> Writer<W> {
    /// Writes what stands before the blobs.
    pub fn new(writer: W, manifest: &Manifest, key: Option<&PrivateKey>) -> Result<Self, BundleError> {
        let bytes = manifest.to_bytes()?;
        let mut bundle =
            Self { tar: tar::Builder::new(writer), entries: manifest.entries.clone().into_iter() };
        bundle.file(MANIFEST, &bytes)?;
        if let Some(key) = key {
            let signature = key.sign(&bytes).map_err(|error| BundleError::Manifest(error.to_string()))?;
            bundle.file(SIGNATURE, &STANDARD.encode(signature).into())?;
        }
        for (_, bytes) in manifest.layout()? {
            bundle.append(&bytes[..])?;
        }
        Ok(bundle)
    }

    fn file(&mut self, name: &str, bytes: &Bytes) -> io::Result<()> {
        self.tar.append_data(&mut header(bytes.len() as u64), name, &bytes[..])
    }

    /// The entry that comes next.
    pub fn next(&self) -> Option<&Entry> {
        self.entries.as_slice().first()
    }

    /// Writes the next entry, whose content `reader` gives.
    pub fn append(&mut self, reader: impl Read) -> Result<(), BundleError> {
        let entry = self.entries.next().ok_or_else(|| BundleError::Manifest("all was written".to_owned()))?;
        let mut checked = Checked {
            reader: reader.take(entry.size_bytes),
            hasher: Hasher::new(entry.digest.algorithm()),
            size_bytes: 0,
        };
        self.tar.append_data(&mut header(entry.size_bytes), &entry.name, &mut checked)?;
        let (found, size_bytes) = (checked.hasher.finish(), checked.size_bytes);
        check(&entry, size_bytes, &found)
    }

    /// Ends the file, in which everything must be.
    pub fn finish(self) -> Result<W, BundleError> {
        if let Some(entry) = self.next() {
            return Err(BundleError::entry(&entry.name, "was not written"));
        }
        Ok(self.tar.into_inner()?)
    }
}

pub(crate) fn check(entry: &Entry, size_bytes: u64, digest: &Digest) -> Result<(), BundleError> {
    if size_bytes != entry.size_bytes {
        let why = format!("has {size_bytes} bytes, not {}", entry.size_bytes);
        return Err(BundleError::entry(&entry.name, why));
    }
    if *digest != entry.digest {
        return Err(BundleError::entry(
            &entry.name,
            format!("has the digest {digest}, not {}", entry.digest),
        ));
    }
    Ok(())
}

/// The same for everybody and at any time.
fn header(size_bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size_bytes);
    header
}

/// Passes bytes on, and counts and hashes them.
struct Checked<R> {
    reader: R,
    hasher: Hasher,
    size_bytes: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.size_bytes += n as u64;
        Ok(n)
    }
}
