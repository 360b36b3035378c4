//! Just enough of SQLite's file format (sqlite.org/fileformat2.html) to read all rows of one table. Pages that
//! are not yet moved out of a write-ahead log beside the file are not seen.

use crate::files::Content;

const MAGIC: &[u8] = b"SQLite format 3\0";
const PAYLOAD_MAX_BYTES: u64 = 64 << 20;
const DEPTH_MAX: usize = 24;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Bytes(Vec<u8>),
}

pub(super) struct Database<'a> {
    content: &'a Content,
    page_bytes: usize,
    usable_bytes: usize,
    pages: u64,
}

type Row<'a> = &'a mut dyn FnMut(Vec<Value>) -> Result<(), String>;

impl<'a> Database<'a> {
    pub(super) fn open(content: &'a Content) -> Result<Self, String> {
        let header = content.slice(0, 100).map_err(|e| e.to_string())?.unwrap_or_default();
        if !header.starts_with(MAGIC) {
            return Err("it is no SQLite database".to_owned());
        }
        let page_bytes = match usize::from(u16::from_be_bytes([header[16], header[17]])) {
            1 => 65_536,
            n if n >= 512 && n.is_power_of_two() => n,
            n => return Err(format!("its page size {n} is not valid")),
        };
        let usable_bytes = page_bytes - usize::from(header[20]);
        if usable_bytes < 480 {
            return Err("its pages have no room".to_owned());
        }
        Ok(Self { content, page_bytes, usable_bytes, pages: content.size_bytes() / page_bytes as u64 })
    }

    /// Calls `each` with every row of `table`. The column of an integer primary key is null in the row.
    pub(super) fn rows(&self, table: &str, each: Row<'_>) -> Result<(), String> {
        let mut root = None;
        self.table(1, &mut |row| {
            if let [Value::Bytes(kind), Value::Bytes(name), _, Value::Integer(page), ..] = &row[..]
                && kind == b"table"
                && name.eq_ignore_ascii_case(table.as_bytes())
            {
                root = u32::try_from(*page).ok();
            }
            Ok(())
        })?;
        self.table(root.ok_or_else(|| format!("it has no table {table}"))?, each)
    }

    fn table(&self, root: u32, each: Row<'_>) -> Result<(), String> {
        let mut visits = 0;
        self.walk(root, 0, &mut visits, each)
    }

    /// A table's tree: inner pages point to pages, leaves hold rows. A page that leads back to itself is found by
    /// counting.
    fn walk(&self, number: u32, depth: usize, visits: &mut u64, each: Row<'_>) -> Result<(), String> {
        *visits += 1;
        if *visits > self.pages || depth > DEPTH_MAX {
            return Err("its pages point in a circle".to_owned());
        }
        let page = self.page(number)?;
        let start = if number == 1 { 100 } else { 0 };
        let kind = page[start];
        let cells = usize::from(u16_at(&page, start + 3)?);
        let pointers = start + if kind == 5 { 12 } else { 8 };
        for n in 0..cells {
            let cell = usize::from(u16_at(&page, pointers + 2 * n)?);
            match kind {
                5 => self.walk(u32_at(&page, cell)?, depth + 1, visits, each)?,
                13 => each(self.row(&page, cell)?)?,
                _ => return Err("a page of a table is of another kind".to_owned()),
            }
        }
        if kind == 5 {
            self.walk(u32_at(&page, start + 8)?, depth + 1, visits, each)?;
        }
        Ok(())
    }

    fn page(&self, number: u32) -> Result<Vec<u8>, String> {
        let at = u64::from(number).checked_sub(1).ok_or("a page has the number 0")? * self.page_bytes as u64;
        let page = self.content.slice(at, self.page_bytes).map_err(|e| e.to_string())?;
        page.ok_or_else(|| "it is cut off".to_owned())
    }

    fn row(&self, page: &[u8], cell: usize) -> Result<Vec<Value>, String> {
        let mut rest = page.get(cell..self.usable_bytes).ok_or(CUT)?;
        let length = varint(&mut rest)?;
        let _row_id = varint(&mut rest)?;
        if length > PAYLOAD_MAX_BYTES || length > self.content.size_bytes() {
            return Err("a row is too long".to_owned());
        }
        let length = usize::try_from(length).map_err(|_| CUT)?;
        record(&self.payload(rest, length)?)
    }

    /// What does not fit a page goes on in a chain of others.
    fn payload(&self, rest: &[u8], length: usize) -> Result<Vec<u8>, String> {
        let usable = self.usable_bytes;
        let most = usable - 35;
        if length <= most {
            return Ok(rest.get(..length).ok_or(CUT)?.to_vec());
        }
        let least = (usable - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (usable - 4);
        let local = if fitting <= most { fitting } else { least };
        let mut payload = rest.get(..local).ok_or(CUT)?.to_vec();
        let mut next = u32_at(rest, local)?;
        while payload.len() < length {
            let page = self.page(next)?;
            let take = (length - payload.len()).min(usable - 4);
            payload.extend_from_slice(&page[4..4 + take]);
            next = u32_at(&page, 0)?;
        }
        Ok(payload)
    }
}

const CUT: &str = "a row is cut off";

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(CUT)?;
    Ok(u16::from_be_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(CUT)?;
    Ok(u32::from_be_bytes(*bytes))
}

/// Seven bits per byte, most significant first; the ninth byte has eight.
fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for n in 0..9 {
        let (byte, tail) = rest.split_first().ok_or(CUT)?;
        *rest = tail;
        if n == 8 {
            return Ok(value << 8 | u64::from(*byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(value)
}

/// A header of types, then the values.
fn record(payload: &[u8]) -> Result<Vec<Value>, String> {
    let mut rest = payload;
    let header_bytes = usize::try_from(varint(&mut rest)?).map_err(|_| CUT)?;
    let mut body = payload.get(header_bytes..).ok_or(CUT)?;
    let mut types = payload.get(payload.len() - rest.len()..header_bytes).ok_or(CUT)?;
    let mut values = Vec::new();
    while !types.is_empty() {
        let kind = varint(&mut types)?;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return Err("a value has no type".to_owned()),
            _ => (kind - 12) / 2,
        };
        let size = usize::try_from(size).map_err(|_| CUT)?;
        let (value, tail) = body.split_at_checked(size).ok_or(CUT)?;
        body = tail;
        values.push(match kind {
            0 | 7 => Value::Null,
            8 | 9 => Value::Integer(i64::from(kind == 9)),
            1..=6 => {
                let negative = value.first().is_some_and(|byte| byte & 0x80 != 0);
                let fold = |sum: i64, byte: &u8| sum << 8 | i64::from(*byte);
                Value::Integer(value.iter().fold(if negative { -1 } else { 0 }, fold))
            }
            _ => Value::Bytes(value.to_vec()),
        });
    }
    Ok(values)
}
