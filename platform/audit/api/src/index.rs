//! What the index of a closed segment is wrapped in, so that nobody makes a search miss a record.
//!
//! ```text
//! file   = content signed signed_bytes(u32) magic_end(8)
//! signed = JSON of a SignedIndex, over the SHA-256 of the content and the segment's last hash
//! ```
//!
//! What the content is, the server alone needs to know; it begins with [`MAGIC`]. A file that begins otherwise is of
//! another version: it is as good as none, and made again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ring::digest::{SHA256, digest};

use crate::chain::{self, Hash};
use crate::frame::u32_at;
use crate::sessions::sha256_of;
use crate::signed::{PublicKeys, SignedIndex, SigningKey};

/// Begins the content. The version before had no signature, and found nobody by their id.
pub const MAGIC: &[u8; 8] = b"GNTAIDX2";
const MAGIC_END: &[u8; 8] = b"GNTAIEND";
const FOOTER_BYTES: u64 = 12;
/// More than a signature takes.
const SIGNED_BYTES_MAX: u64 = 4 << 10;

/// An index file that was read whole.
#[derive(Clone, Debug)]
pub struct Wrapped {
    pub content_bytes: u64,
    signed: SignedIndex,
    sha256: Hash,
}

/// Ends the content of an index with the signature for it. `last` is the hash of the segment's last frame.
pub fn wrap(
    mut content: Vec<u8>,
    key: &SigningKey,
    segment: u64,
    last: &Hash,
) -> serde_json::Result<Vec<u8>> {
    let mut sha256 = Hash::default();
    // SHA-256 gives 32 bytes.
    sha256.copy_from_slice(digest(&SHA256, &content).as_ref());
    let signed = serde_json::to_vec(&SignedIndex::sign(key, segment, last, &sha256))?;
    content.extend_from_slice(&signed);
    content.extend_from_slice(&(signed.len() as u32).to_le_bytes());
    content.extend_from_slice(MAGIC_END);
    Ok(content)
}

impl Wrapped {
    /// Reads all of a file; `None`: it is of another version.
    pub fn read(file: &File) -> io::Result<Option<Self>> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the index has no readable signature");
        let bytes = file.metadata()?.len();
        let mut magic = [0; MAGIC.len()];
        if bytes < magic.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut magic, 0)?;
        if &magic != MAGIC {
            return Ok(None);
        }
        let footer_at = bytes.checked_sub(FOOTER_BYTES).ok_or_else(broken)?;
        let mut footer = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        let signed_bytes = u32_at(&footer, 0).map(u64::from).filter(|bytes| *bytes <= SIGNED_BYTES_MAX);
        let signed_bytes = signed_bytes.filter(|_| &footer[4..] == MAGIC_END).ok_or_else(broken)?;
        let content_bytes = footer_at.checked_sub(signed_bytes).ok_or_else(broken)?;
        let mut signed = vec![0; signed_bytes as usize];
        file.read_exact_at(&mut signed, content_bytes)?;
        let signed = serde_json::from_slice(&signed).map_err(|_| broken())?;
        let sha256 = sha256_of(file, content_bytes)?;
        Ok(Some(Self { content_bytes, signed, sha256 }))
    }

    /// Whether one of the keys signed it for this segment, and it is as it was then.
    pub fn is_of(&self, segment: u64, keys: &PublicKeys) -> bool {
        self.signed.segment == segment
            && chain::parse(&self.signed.sha256) == Some(self.sha256)
            && self.signed.is_signed_by(keys)
    }

    /// Whether it was made of a segment whose frames end with this hash.
    pub fn ends_with(&self, last: &Hash) -> bool {
        chain::parse(&self.signed.hash) == Some(*last)
    }
}
