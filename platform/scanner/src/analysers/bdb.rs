//! Just enough of Berkeley DB's hash files to read all values: what RPM kept its packages in before 4.16. Numbers are
//! in the order of the machine that wrote the file; the magic number tells which.

use crate::files::Content;

const MAGIC: u32 = 0x0006_1561;
const META_BYTES: usize = 72;
const HEADER_BYTES: usize = 26;
const PAGE_HASH_UNSORTED: u8 = 2;
const PAGE_OVERFLOW: u8 = 7;
const PAGE_HASH: u8 = 13;
const ITEM_DATA: u8 = 1;
const ITEM_OFF_PAGE: u8 = 3;
const VALUE_MAX_BYTES: usize = 64 << 20;
const CUT: &str = "it is cut off";

pub(super) struct Database<'a> {
    content: &'a Content,
    big_endian: bool,
    page_bytes: usize,
    pages: u32,
}

type Each<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

impl<'a> Database<'a> {
    pub(super) fn open(content: &'a Content) -> Result<Self, String> {
        let meta = content.slice(0, META_BYTES).map_err(|e| e.to_string())?.ok_or(CUT)?;
        let big_endian = match u32_at(&meta, 12, false)? {
            MAGIC => false,
            magic if magic.swap_bytes() == MAGIC => true,
            _ => return Err("it is no hash file of Berkeley DB".to_owned()),
        };
        if meta.get(24).is_some_and(|algorithm| *algorithm != 0) {
            return Err("it is encrypted".to_owned());
        }
        let page_bytes = usize::try_from(u32_at(&meta, 20, big_endian)?).unwrap_or(usize::MAX);
        if !(512..=65_536).contains(&page_bytes) || !page_bytes.is_power_of_two() {
            return Err(format!("its page size {page_bytes} is not valid"));
        }
        let there = content.size_bytes() / page_bytes as u64;
        let pages = u64::from(u32_at(&meta, 32, big_endian)?) + 1;
        if pages > there {
            return Err(CUT.to_owned());
        }
        let pages = u32::try_from(pages).map_err(|_| "it has too many pages")?;
        Ok(Self { content, big_endian, page_bytes, pages })
    }

    /// Calls `each` with every value. Pages of the hash are read one after the other, whatever their bucket is.
    pub(super) fn values(&self, each: Each<'_>) -> Result<(), String> {
        // An honest chain of pages belongs to one value: no more are followed than there are.
        let mut followed = 0;
        for number in 1..self.pages {
            let page = self.page(number)?;
            if !matches!(page.get(25), Some(&(PAGE_HASH | PAGE_HASH_UNSORTED))) {
                continue;
            }
            let entries = usize::from(self.u16_at(&page, 20)?);
            // Keys and values in turns, from the end of the page on.
            for n in (1..entries).step_by(2) {
                let start = usize::from(self.u16_at(&page, HEADER_BYTES + 2 * n)?);
                let end = usize::from(self.u16_at(&page, HEADER_BYTES + 2 * (n - 1))?);
                let item = page.get(start..end).ok_or("an entry leads out of its page")?;
                match item.first() {
                    Some(&ITEM_DATA) => each(&item[1..])?,
                    Some(&ITEM_OFF_PAGE) => each(&self.chain(item, &mut followed)?)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn chain(&self, item: &[u8], followed: &mut u32) -> Result<Vec<u8>, String> {
        let mut next = u32_at(item, 4, self.big_endian)?;
        let length = usize::try_from(u32_at(item, 8, self.big_endian)?).map_err(|_| CUT)?;
        if length > VALUE_MAX_BYTES || length as u64 > self.content.size_bytes() {
            return Err("a value is too long".to_owned());
        }
        let mut value = Vec::new();
        while value.len() < length {
            *followed += 1;
            if *followed > self.pages {
                return Err("its pages point in a circle".to_owned());
            }
            let page = self.page(next)?;
            let used = usize::from(self.u16_at(&page, 22)?);
            if page.get(25) != Some(&PAGE_OVERFLOW) || used == 0 {
                return Err("a value goes on in a page of another kind".to_owned());
            }
            let data = page.get(HEADER_BYTES..HEADER_BYTES + used).ok_or(CUT)?;
            value.extend_from_slice(&data[..used.min(length - value.len())]);
            next = u32_at(&page, 16, self.big_endian)?;
        }
        Ok(value)
    }

    fn page(&self, number: u32) -> Result<Vec<u8>, String> {
        let at = u64::from(number) * self.page_bytes as u64;
        self.content.slice(at, self.page_bytes).map_err(|e| e.to_string())?.ok_or_else(|| CUT.to_owned())
    }

    fn u16_at(&self, bytes: &[u8], at: usize) -> Result<u16, String> {
        let bytes: &[u8; 2] = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(CUT)?;
        Ok(if self.big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    }
}

fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> Result<u32, String> {
    let bytes: &[u8; 4] = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(CUT)?;
    Ok(if big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
}
