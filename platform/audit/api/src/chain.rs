//! The chain of hashes: SHA-256 over the hash before, the sequence number and the frame.

use ring::digest::{Context, SHA256};

/// SHA-256.
pub type Hash = [u8; 32];

/// What precedes the first segment of a trail.
pub const GENESIS: Hash = [0; 32];
/// So much of a frame's hash stands beside it, to name the first frame that does not fit. The whole hash
/// is in headers and checkpoints.
pub const TAG_BYTES: usize = 8;

/// The hash of a frame that follows `previous`.
pub fn link(previous: &Hash, sequence: u64, kind: u8, payload: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    let mut head = [0_u8; 45];
    head[..32].copy_from_slice(previous);
    head[32..40].copy_from_slice(&sequence.to_le_bytes());
    head[40] = kind;
    // A payload of 4 GiB is refused by the frame already.
    head[41..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    context.update(&head);
    context.update(payload);
    finish(context)
}

/// The hash that the first frame of a segment follows: it covers the header, which names the last hash of
/// the segment before.
pub fn start(header: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(b"gantry audit segment 1\n");
    context.update(header);
    finish(context)
}

fn finish(context: Context) -> Hash {
    let mut hash = GENESIS;
    // SHA-256 gives 32 bytes.
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The part of a hash that stands beside its frame.
pub fn tag(hash: &Hash) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hash[..TAG_BYTES]);
    tag
}

/// Reads 64 hex digits.
pub fn parse(text: &str) -> Option<Hash> {
    let mut hash = GENESIS;
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}
