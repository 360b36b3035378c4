//! A file of sorted entries that never changes once it is written: blocks of entries, each compressed with a
//! checksum of its own; then the first key of every block; then where that begins.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::codec::{Input, put_bytes, put_number};

const MAGIC: &[u8; 8] = b"GantryA1";
const TRAILER_BYTES: usize = 32;
/// Before compression. One lookup reads one block: small is fast, large is dense.
const BLOCK_BYTES: usize = 16 << 10;
/// A block holds at least one entry, which may be as long as an advisory.
const BLOCK_MAX_BYTES: u64 = 64 << 20;
const BLOCKS_MAX_BYTES: u64 = 512 << 20;
const LEVEL: i32 = 3;

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Writes entries in the order of their keys.
pub(super) struct Writer {
    file: BufWriter<File>,
    compressor: Compressor<'static>,
    block: Vec<u8>,
    first: Vec<u8>,
    blocks: Vec<u8>,
    at: u64,
}

impl Writer {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        let (block, first, blocks) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { file: BufWriter::new(file), compressor, block, first, blocks, at: 0 })
    }

    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if !self.block.is_empty() && self.block.len() + key.len() + value.len() > BLOCK_BYTES {
            self.flush()?;
        }
        if self.block.is_empty() {
            self.first = key.to_vec();
        }
        put_bytes(&mut self.block, key);
        put_bytes(&mut self.block, value);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = self.compressor.compress(&self.block)?;
        put_bytes(&mut self.blocks, &self.first);
        put_number(&mut self.blocks, packed.len() as u64);
        put_number(&mut self.blocks, self.block.len() as u64);
        self.file.write_all(&packed)?;
        self.at += packed.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Everything is on disk when this returns.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let packed = self.compressor.compress(&self.blocks)?;
        self.file.write_all(&packed)?;
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        for number in [self.at, packed.len() as u64, self.blocks.len() as u64] {
            trailer.extend(number.to_le_bytes());
        }
        trailer.extend(MAGIC);
        self.file.write_all(&trailer)?;
        self.file.into_inner().map_err(|error| error.into_error())?.sync_all()
    }
}

struct Block {
    first: Box<[u8]>,
    at: u64,
    packed_bytes: usize,
    bytes: usize,
}

/// Reads a table; what is kept in memory is the first key of every block.
pub(super) struct Table {
    file: File,
    blocks: Vec<Block>,
    size_bytes: u64,
}

impl Table {
    pub(super) fn open(file: File) -> io::Result<Self> {
        let size_bytes = file.metadata()?.len();
        let trailer_at =
            size_bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged("it is cut off"))?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, trailer_at)?;
        let mut input = Input(&trailer);
        let mut number = || input.fixed().map(u64::from_le_bytes).unwrap_or_default();
        let (at, packed_bytes, bytes) = (number(), number(), number());
        if &trailer[24..] != MAGIC
            || at.checked_add(packed_bytes) != Some(trailer_at)
            || bytes > BLOCKS_MAX_BYTES
        {
            return Err(damaged("its end is not one of an index"));
        }
        let small = |n: u64| usize::try_from(n).map_err(|_| damaged("it is too large"));
        let mut packed = vec![0; small(packed_bytes)?];
        file.read_exact_at(&mut packed, at)?;
        let list = zstd::bulk::decompress(&packed, small(bytes)?)?;
        let blocks = blocks(&list, at).ok_or_else(|| damaged("its list of blocks is damaged"))?;
        Ok(Self { file, blocks, size_bytes })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn cursor(&self) -> io::Result<Cursor<'_>> {
        Ok(Cursor { table: self, decompressor: Decompressor::new()?, block: None, bytes: Vec::new() })
    }
}

fn blocks(list: &[u8], end: u64) -> Option<Vec<Block>> {
    let mut input = Input(list);
    let (mut blocks, mut at) = (Vec::new(), 0_u64);
    while !input.0.is_empty() {
        let (first, packed, bytes) = (input.bytes()?, input.number()?, input.number()?);
        if bytes > BLOCK_MAX_BYTES || packed > BLOCK_MAX_BYTES {
            return None;
        }
        let (packed_bytes, bytes) = (usize::try_from(packed).ok()?, usize::try_from(bytes).ok()?);
        blocks.push(Block { first: first.into(), at, packed_bytes, bytes });
        at = at.checked_add(packed)?;
    }
    (at == end).then_some(blocks)
}

/// Reads one block after the other; keeps the last one.
pub(super) struct Cursor<'a> {
    table: &'a Table,
    decompressor: Decompressor<'static>,
    block: Option<usize>,
    bytes: Vec<u8>,
}

type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> io::Result<()>;
type Skipping<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> io::Result<Option<Vec<u8>>>;

impl Cursor<'_> {
    fn load(&mut self, n: usize) -> io::Result<()> {
        if self.block == Some(n) {
            return Ok(());
        }
        let block = &self.table.blocks[n];
        let mut packed = vec![0; block.packed_bytes];
        self.table.file.read_exact_at(&mut packed, block.at)?;
        self.block = None;
        self.bytes = self.decompressor.decompress(&packed, block.bytes)?;
        self.block = Some(n);
        Ok(())
    }

    /// Calls `each` with every entry whose key begins with `prefix`.
    pub(super) fn scan(&mut self, prefix: &[u8], each: Each<'_>) -> io::Result<()> {
        self.scan_skipping(prefix, &mut |key, value| each(key, value).map(|()| None))
    }

    /// The same; `each` may name a key that is the next of interest, and blocks before it are not read.
    pub(super) fn scan_skipping(&mut self, prefix: &[u8], each: Skipping<'_>) -> io::Result<()> {
        let table = self.table;
        // What is looked for may stand in the block before the first that begins behind it.
        let holding =
            |key: &[u8]| table.blocks.partition_point(|block| &*block.first <= key).saturating_sub(1);
        let mut from = prefix.to_vec();
        let mut n = holding(&from);
        while let Some(block) = table.blocks.get(n) {
            if &*block.first > prefix && !block.first.starts_with(prefix) {
                return Ok(());
            }
            self.load(n)?;
            let mut input = Input(&self.bytes);
            while !input.0.is_empty() {
                let entry = input.bytes().zip(input.bytes());
                let (key, value) = entry.ok_or_else(|| damaged("a block is damaged"))?;
                if key < from.as_slice() {
                    continue;
                }
                if !key.starts_with(prefix) {
                    return Ok(());
                }
                if let Some(next) = each(key, value)? {
                    from = next;
                }
            }
            n = holding(&from).max(n + 1);
        }
        Ok(())
    }
}
