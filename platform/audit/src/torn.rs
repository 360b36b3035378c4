//! What a crash can leave at the end of a segment, told from what somebody did.
//!
//! Everything through the newest checkpoint was durable before that was signed. What came later may have been on its
//! way to the disk:
//!
//! - A process that is killed leaves what it wrote in the order in which it wrote it: whole frames, and the beginning
//!   of at most one.
//! - A loss of power leaves any of the last pages, those of up to [`crate::Config::sync_interval`]. One that is missing
//!   reads as zeros, as the file is only appended to: a hole to the end of a sector, with whole frames behind it
//!   perhaps, which chain to what is gone.
//!
//! Whatever else does not continue the chain was changed.

use gantry_audit_api::frame::{FRAME_BYTES, Frame, Kind, PAYLOAD_BYTES_MAX};

/// What disks write as one.
const SECTOR_BYTES: u64 = 512;
/// Zeros that are no end of a record: the tag of a frame is shorter.
const HOLE_BYTES_MIN: usize = 16;
/// A record that is like another has its id and little else.
const LIKE_BYTES_MAX: usize = 4 << 10;
/// So much is looked at: a frame, and the sector in which it ends.
pub(crate) const LOOK_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + FRAME_BYTES + SECTOR_BYTES as usize;

/// Why a segment's chain ends before its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The beginning of one frame.
    CutOff,
    /// A page did not reach the disk; what is behind it chains to what is gone.
    Hole,
    Changed,
}

impl End {
    /// `rest` is what follows the last frame that chains, as far as [`LOOK_BYTES_MAX`]; `offset` is where that is in
    /// the file.
    pub(crate) fn of(rest: &[u8], offset: u64) -> Self {
        if is_cut_off(rest) {
            Self::CutOff
        } else if has_hole(rest, offset) {
            Self::Hole
        } else {
            Self::Changed
        }
    }
}

/// Is there nothing but the beginning of a frame? A length that was made larger is told by what it swallows: JSON has
/// no NUL, and the frame that follows has one in its length, which is less than four bytes can say.
fn is_cut_off(rest: &[u8]) -> bool {
    if rest.iter().all(|byte| *byte == 0) {
        return true;
    }
    let Some((head, payload)) = rest.split_at_checked(5) else { return true };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > PAYLOAD_BYTES_MAX || Frame::decode(rest).is_some() {
        return false;
    }
    match Kind::of(head[4]) {
        Kind::Record | Kind::Checkpoint | Kind::Tombstone => {
            !payload.iter().take(length).any(|byte| *byte == 0)
        }
        Kind::Like => length <= LIKE_BYTES_MAX,
        Kind::Other(_) => false,
    }
}

/// Do zeros go to the end of a sector in which the first frame is?
fn has_hole(rest: &[u8], offset: u64) -> bool {
    let length = rest.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    let frame_bytes = length.min(PAYLOAD_BYTES_MAX) + FRAME_BYTES;
    // What is left of the sector in which it begins.
    let first = SECTOR_BYTES - offset % SECTOR_BYTES;
    let mut end = usize::try_from(first).unwrap_or(usize::MAX);
    loop {
        let found = rest.get(..end).and_then(|bytes| bytes.last_chunk::<HOLE_BYTES_MIN>());
        if found.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)) {
            return true;
        }
        if end >= frame_bytes || end >= rest.len() {
            return false;
        }
        end += SECTOR_BYTES as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_audit_api::chain::GENESIS;

    fn frames(count: u64) -> Vec<u8> {
        let (mut out, mut last) = (Vec::new(), GENESIS);
        for sequence in 0..count {
            let payload = format!(r#"{{"auditID":"id-{sequence}","requestURI":"/{}"}}"#, "x".repeat(100));
            last = Frame::append(&mut out, &last, sequence, Kind::Record, payload.as_bytes());
        }
        out
    }

    #[test]
    fn the_beginning_of_one_frame_is_what_a_kill_leaves() {
        let one = frames(1);
        for length in 1..one.len() {
            assert_eq!(End::of(&one[..length], 77), End::CutOff, "{length}");
        }
        assert_eq!(End::of(&one, 77), End::Changed, "it is whole");
        assert_eq!(End::of(&[0; 4000], 77), End::CutOff, "room, and nothing in it");
    }

    #[test]
    fn a_length_that_swallows_frames_is_a_change() {
        for (length, kind) in [(1_u32 << 20, 1), (4000, 1), (1 << 20, 4), (u32::MAX, 1), (1 << 20, 9)] {
            let mut rest = frames(5);
            rest[..4].copy_from_slice(&length.to_le_bytes());
            rest[4] = kind;
            assert_eq!(End::of(&rest, 77), End::Changed, "{length} {kind}");
        }
    }

    #[test]
    fn a_page_that_is_missing_is_what_a_loss_of_power_leaves() {
        let whole = frames(100);
        // The frame before ends at `offset`; the sectors from `sector` on, so many, are missing.
        for (offset, sector, count) in [(0, 0, 1), (300, 1, 8), (500, 1, 1), (400, 0, 1)] {
            let mut rest = whole.clone();
            let from = (sector * 512_usize).saturating_sub(offset);
            let to = (sector + count) * 512 - offset;
            // Only what is behind the start of the frame.
            rest[from..to].fill(0);
            // The first frame that is not whole is the one into which the hole reaches.
            let frame = Frame::decode(&whole).expect("a frame").len_bytes();
            let broken = from / frame * frame;
            assert_eq!(End::of(&rest[broken..], (offset + broken) as u64), End::Hole, "{offset} {sector}");
        }
        let mut rest = whole;
        rest[40] ^= 1;
        assert_eq!(End::of(&rest, 300), End::Changed);
    }
}
