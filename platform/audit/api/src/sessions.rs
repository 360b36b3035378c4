//! What ties a recording of a terminal session to the trail: the record of its end has the SHA-256 of its file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use gantry_kube_types::audit_annotations;
use ring::digest::{Context, SHA256};

use crate::chain::{self, Hash};
use crate::record::Record;

/// The annotation with the hash, in hex.
pub const SHA256_KEY: &str = "audit.gantry.dev/session-sha256";

const PIECE_BYTES: usize = 64 << 10;

/// The end of a recording, as its record tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub id: String,
    pub sha256: Hash,
}

impl Closed {
    /// Reads a record's JSON; `None`: it closes no recording.
    pub fn of(payload: &[u8]) -> Option<Self> {
        // Most records are no such, and are not worth being parsed for it.
        payload.windows(SHA256_KEY.len()).rposition(|part| part == SHA256_KEY.as_bytes())?;
        let record = Record::parse(payload)?;
        let id = record.annotation(audit_annotations::SESSION).to_owned();
        let sha256 = chain::parse(record.annotation(SHA256_KEY))?;
        is_id(&id).then_some(Self { id, sha256 })
    }
}

/// Ids become names of files.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// The file of a closed recording, below [`crate::files::SESSIONS`].
pub fn recording_name(id: &str) -> String {
    format!("{id}.cast.zst")
}

/// Of a whole file.
pub fn sha256(file: &File) -> io::Result<Hash> {
    sha256_of(file, u64::MAX)
}

/// Of so many bytes of a file, from its beginning.
pub(crate) fn sha256_of(file: &File, bytes: u64) -> io::Result<Hash> {
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let wanted = usize::try_from(bytes - at).map_or(piece.len(), |left| left.min(piece.len()));
        match file.read_at(&mut piece[..wanted], at) {
            Ok(0) => break,
            Ok(count) => {
                context.update(&piece[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut hash = Hash::default();
    // SHA-256 gives 32 bytes.
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}
