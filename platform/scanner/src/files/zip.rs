//! Zip archives (APPNOTE 6.3, with zip64), read in place and entry by entry.

use std::io::{BufReader, Read};

use super::Content;

const END: u32 = 0x0605_4b50;
const END_BYTES: usize = 22;
const END_64: u32 = 0x0606_4b50;
const END_64_BYTES: usize = 56;
const LOCATOR_64: u32 = 0x0706_4b50;
const LOCATOR_64_BYTES: usize = 20;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const LOCAL_BYTES: usize = 30;
const COMMENT_MAX_BYTES: usize = 65_535;
const ENTRIES_MAX: u64 = 4_000_000;

/// One file of the archive.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: String,
    pub size_bytes: u64,
    pub crc32: u32,
    method: u16,
    compressed_bytes: u64,
    header_at: u64,
}

/// Calls `each` for every entry of the directory, which says whether to go on.
pub(crate) fn entries(content: &Content, mut each: impl FnMut(Entry) -> bool) -> Result<(), String> {
    let (count, at) = directory(content)?;
    if count > ENTRIES_MAX {
        return Err(format!("the zip has more than {ENTRIES_MAX} entries"));
    }
    let mut reader = BufReader::with_capacity(64 * 1024, content.reader(at));
    let mut variable = Vec::new();
    for _ in 0..count {
        let mut fixed = [0; 46];
        reader.read_exact(&mut fixed).map_err(|_| "the zip's directory is cut off".to_owned())?;
        if u32_at(&fixed, 0) != CENTRAL {
            return Err("the zip's directory is damaged".to_owned());
        }
        let lengths = [28, 30, 32].map(|at| usize::from(u16_at(&fixed, at)));
        variable.resize(lengths.iter().sum(), 0);
        reader.read_exact(&mut variable).map_err(|_| "the zip's directory is cut off".to_owned())?;
        let mut entry = Entry {
            name: String::from_utf8_lossy(&variable[..lengths[0]]).into_owned(),
            method: u16_at(&fixed, 10),
            crc32: u32_at(&fixed, 16),
            compressed_bytes: u32_at(&fixed, 20).into(),
            size_bytes: u32_at(&fixed, 24).into(),
            header_at: u32_at(&fixed, 42).into(),
        };
        zip64(&mut entry, &variable[lengths[0]..lengths[0] + lengths[1]]);
        if !each(entry) {
            break;
        }
    }
    Ok(())
}

/// The content of an entry, if it is no more than `max_bytes`, whatever the directory says.
pub(crate) fn read(content: &Content, entry: &Entry, max_bytes: u64) -> Result<Vec<u8>, String> {
    let header = content.slice(entry.header_at, LOCAL_BYTES).map_err(|e| e.to_string())?;
    let header = header.filter(|h| u32_at(h, 0) == LOCAL).ok_or("an entry of the zip is damaged")?;
    let skip = LOCAL_BYTES + usize::from(u16_at(&header, 26)) + usize::from(u16_at(&header, 28));
    let stored = content.reader(entry.header_at.saturating_add(skip as u64)).take(entry.compressed_bytes);
    let mut reader: Box<dyn Read> = match entry.method {
        0 => Box::new(stored),
        8 => Box::new(flate2::read::DeflateDecoder::new(stored)),
        method => return Err(format!("compression {method} of a zip is not known")),
    };
    let mut bytes = Vec::new();
    reader
        .by_ref()
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{}: {e}", entry.name))?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("{:.200} has more than {max_bytes} bytes", entry.name));
    }
    Ok(bytes)
}

/// Number of entries and place of the directory.
fn directory(content: &Content) -> Result<(u64, u64), String> {
    let size = content.size_bytes();
    let tail_bytes = (END_BYTES + COMMENT_MAX_BYTES).min(usize::try_from(size).unwrap_or(usize::MAX));
    let tail_at = size - tail_bytes as u64;
    let tail = content.slice(tail_at, tail_bytes).map_err(|e| e.to_string())?.unwrap_or_default();
    let last = tail.len().checked_sub(END_BYTES).ok_or("it is no zip")?;
    let end = (0..=last).rev().find(|at| u32_at(&tail, *at) == END).ok_or("it is no zip")?;
    let (count, at) = (u64::from(u16_at(&tail, end + 10)), u64::from(u32_at(&tail, end + 16)));
    if count != 0xffff && at != 0xffff_ffff {
        return Ok((count, at));
    }
    let locator_at = (tail_at + end as u64).checked_sub(LOCATOR_64_BYTES as u64);
    let locator = locator_at.and_then(|at| content.slice(at, LOCATOR_64_BYTES).ok().flatten());
    let Some(locator) = locator.filter(|bytes| u32_at(bytes, 0) == LOCATOR_64) else {
        return Ok((count, at));
    };
    let record = content.slice(u64_at(&locator, 8), END_64_BYTES).map_err(|e| e.to_string())?;
    let record = record.filter(|r| u32_at(r, 0) == END_64).ok_or("the zip's end is damaged")?;
    Ok((u64_at(&record, 32), u64_at(&record, 48)))
}

/// Sizes and places that do not fit 32 bits stand in an extra field, in this order.
fn zip64(entry: &mut Entry, mut extra: &[u8]) {
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(mut value) = extra.get(4..4 + length) else { return };
        if id == 1 {
            for field in [&mut entry.size_bytes, &mut entry.compressed_bytes, &mut entry.header_at] {
                if *field == 0xffff_ffff && value.len() >= 8 {
                    *field = u64_at(value, 0);
                    value = &value[8..];
                }
            }
        }
        extra = &extra[4 + length..];
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
