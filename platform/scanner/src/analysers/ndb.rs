//! RPM's own database format, ndb (`Packages.db`): a table of slots, each of which says where a package's header lies.

use crate::files::Content;

const MAGIC: u32 = u32::from_le_bytes(*b"RpmP");
const SLOT: u32 = u32::from_le_bytes(*b"Slot");
const BLOB: u32 = u32::from_le_bytes(*b"BlbS");
const PAGE_BYTES: u64 = 4096;
const SLOT_BYTES: usize = 16;
/// Offsets and sizes of headers count blocks.
const BLOCK_BYTES: u64 = 16;
const SLOT_PAGES_MAX: u32 = 4096;
const BLOB_MAX_BYTES: usize = 64 << 20;
const CUT: &str = "it is cut off";

/// Calls `each` with every package's header.
pub(super) fn headers(
    content: &Content,
    each: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let read =
        |at: u64, bytes: usize| content.slice(at, bytes).map_err(|e| e.to_string())?.ok_or(CUT.to_owned());
    let start = read(0, 32)?;
    if u32_at(&start, 0)? != MAGIC {
        return Err("it is no ndb database of RPM".to_owned());
    }
    let version = u32_at(&start, 4)?;
    if version != 0 {
        return Err(format!("its version {version} is not known"));
    }
    let pages = u32_at(&start, 12)?;
    if pages == 0 || pages > SLOT_PAGES_MAX {
        return Err(format!("it has {pages} pages of slots"));
    }
    // An honest header belongs to one slot: no more is read than there is.
    let mut left = content.size_bytes();
    for page in 0..u64::from(pages) {
        let slots = read(page * PAGE_BYTES, 4096)?;
        // The first two slots' place is taken by what stands above.
        for slot in slots.chunks_exact(SLOT_BYTES).skip(if page == 0 { 2 } else { 0 }) {
            if u32_at(slot, 0)? != SLOT {
                return Err("a slot is damaged".to_owned());
            }
            let (number, at) = (u32_at(slot, 4)?, u32_at(slot, 8)?);
            if number == 0 {
                continue;
            }
            let at = u64::from(at) * BLOCK_BYTES;
            let head = read(at, 16)?;
            let length = usize::try_from(u32_at(&head, 12)?).unwrap_or(usize::MAX);
            if u32_at(&head, 0)? != BLOB || u32_at(&head, 4)? != number {
                return Err("a slot leads to something else than its package".to_owned());
            }
            left = left.checked_sub(length as u64).ok_or("its slots lead to the same place")?;
            if length > BLOB_MAX_BYTES {
                return Err("a package's header is too long".to_owned());
            }
            each(&read(at + 16, length)?)?;
        }
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let bytes: &[u8; 4] = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(CUT)?;
    Ok(u32::from_le_bytes(*bytes))
}
