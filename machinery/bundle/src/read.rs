//! A bundle as it is read.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_oci::archive::{ArchiveLimits, Source};
use gantry_oci::image::{Blob, MediaSource};
use gantry_oci::{Digest, Hasher};
use gantry_signatures::PublicKey;

use crate::manifest::MANIFEST_MAX_BYTES;
use crate::write::check;
use crate::{BundleError, Entry, MANIFEST, Manifest, SIGNATURE, blob_name};

const ENTRIES_MAX: usize = 1_000_000;
const SIGNATURE_MAX_BYTES: u64 = 64 << 10;
const PIECE_BYTES: usize = 1 << 20;

/// A bundle that lies in a file. What it says is not believed before [`Bundle::signed_by`], and what it holds not
/// before [`Bundle::check`].
pub struct Bundle {
    source: Source,
    manifest: Manifest,
    /// Where an entry is in the manifest, by its name.
    entries: HashMap<String, usize>,
    bytes: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl Bundle {
    /// Reads the names in the archive and `bundle.json`.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let limits = ArchiveLimits { entries_max: ENTRIES_MAX, ..ArchiveLimits::default() };
        let source = Source::open(path, &limits)?;
        let bytes = source.read(MANIFEST, MANIFEST_MAX_BYTES)?;
        let signature = match source.contains(SIGNATURE) {
            true => Some(source.read(SIGNATURE, SIGNATURE_MAX_BYTES)?),
            false => None,
        };
        let manifest = Manifest::parse(&bytes)?;
        let entries = manifest.entries.iter().enumerate().map(|(n, entry)| (entry.name.clone(), n)).collect();
        Ok(Self { source, manifest, entries, bytes, signature })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// The key that signed it, of those that are trusted.
    pub fn signed_by<'a>(&self, keys: &'a [PublicKey]) -> Result<&'a PublicKey, BundleError> {
        let signature = self.signature.as_ref().ok_or(BundleError::Unsigned)?;
        let signature = STANDARD.decode(signature.trim_ascii()).map_err(|_| BundleError::Signature)?;
        let signed = keys.iter().find(|key| key.verifies(&self.bytes, &signature));
        signed.ok_or(BundleError::Signature)
    }

    /// Reads everything: each entry has to be what `bundle.json` says, and nothing else may be there. `watch` is told of
    /// the bytes of each piece.
    pub fn check(&self, watch: &mut dyn FnMut(u64)) -> Result<(), BundleError> {
        let known = |name: &str| self.entries.contains_key(name) || matches!(name, MANIFEST | SIGNATURE);
        if let Some(name) = self.source.names().find(|name| !known(name)) {
            return Err(BundleError::entry(name, "is not in bundle.json"));
        }
        let mut buffer = vec![0; PIECE_BYTES];
        for entry in &self.manifest.entries {
            let mut content = self.content(entry)?.open()?;
            let mut hasher = Hasher::new(entry.digest.algorithm());
            let mut size_bytes = 0;
            loop {
                let n = content.read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
                size_bytes += n as u64;
                watch(n as u64);
            }
            check(entry, size_bytes, &hasher.finish())?;
        }
        Ok(())
    }

    fn content(&self, entry: &Entry) -> Result<MediaSource, BundleError> {
        let part = self.source.find(&entry.name);
        let part = part.map_err(|_| BundleError::entry(&entry.name, "is missing"))?;
        match part.size_bytes == entry.size_bytes {
            true => Ok(MediaSource::File(part)),
            false => {
                let why = format!("has {} bytes, not {}", part.size_bytes, entry.size_bytes);
                Err(BundleError::entry(&entry.name, why))
            }
        }
    }

    fn listed(&self, name: &str) -> Result<&Entry, BundleError> {
        let listed = self.entries.get(name).and_then(|n| self.manifest.entries.get(*n));
        listed.ok_or_else(|| BundleError::entry(name, "is not in bundle.json"))
    }

    /// A blob where it lies.
    pub fn blob(&self, digest: &Digest) -> Result<Blob, BundleError> {
        let entry = self.listed(&blob_name(digest))?;
        let (digest, size_bytes) = (digest.clone(), entry.size_bytes);
        Ok(Blob { media_type: String::new(), digest, size_bytes, source: self.content(entry)? })
    }

    /// A small blob in memory, of the digest that it has to have.
    pub fn bytes(&self, digest: &Digest, max_bytes: u64) -> Result<Bytes, BundleError> {
        let name = blob_name(digest);
        let bytes = self.source.read(&name, max_bytes)?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        check(self.listed(&name)?, bytes.len() as u64, &hasher.finish())?;
        Ok(bytes.into())
    }

    /// What one of the files has to hold.
    pub fn digest(&self, name: &str) -> Result<&Digest, BundleError> {
        self.listed(name).map(|entry| &entry.digest)
    }

    /// The content of one of the files that are no blobs.
    pub fn file(&self, name: &str) -> Result<MediaSource, BundleError> {
        self.content(self.listed(name)?)
    }
}
