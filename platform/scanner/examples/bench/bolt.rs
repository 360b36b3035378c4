//! Writes bbolt's file format, version 2, as Trivy's database has it: buckets in buckets, every one a single leaf page
//! with as many pages of overflow as it needs. (etcd-io/bbolt, `internal/common/{page,meta,inbucket}.go`.)

use std::collections::BTreeMap;

const PAGE_BYTES: usize = 4096;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Of pages.
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;
/// Of a leaf's element.
const IS_BUCKET: u32 = 0x01;
const HEADER_BYTES: usize = 16;

/// What a key stands for.
#[derive(Debug)]
pub enum Entry {
    Value(Vec<u8>),
    Bucket(Bucket),
}

#[derive(Debug, Default)]
pub struct Bucket(BTreeMap<Vec<u8>, Entry>);

impl Bucket {
    /// The bucket below this one, made if it is not there.
    pub fn bucket(&mut self, name: &str) -> &mut Bucket {
        let entry = self.0.entry(name.into()).or_insert_with(|| Entry::Bucket(Bucket::default()));
        match entry {
            Entry::Bucket(bucket) => bucket,
            Entry::Value(_) => unreachable!("a name is a bucket's or a value's"),
        }
    }

    pub fn put(&mut self, key: &str, value: &serde_json::Value) {
        self.0.insert(key.into(), Entry::Value(value.to_string().into_bytes()));
    }
}

/// The file that has `root` as its buckets.
pub fn file(root: &Bucket) -> Vec<u8> {
    // Two meta pages and the list of free ones come first.
    let mut pages = vec![0; 3 * PAGE_BYTES];
    let root = write(root, &mut pages);
    header(&mut pages[2 * PAGE_BYTES..], 2, FREE_LIST, 0, 0);
    let end = number(pages.len() / PAGE_BYTES);
    for transaction in [0_u64, 1] {
        let at = transaction as usize * PAGE_BYTES;
        header(&mut pages[at..], transaction, META, 0, 0);
        let mut meta = Vec::new();
        for field in [MAGIC, VERSION, PAGE_BYTES as u32, 0] {
            meta.extend(field.to_le_bytes());
        }
        // The root bucket with its sequence, the list of free pages, the first page behind all, the transaction.
        for field in [root, 0, 2, end, transaction] {
            meta.extend(field.to_le_bytes());
        }
        meta.extend(fnv1a(&meta).to_le_bytes());
        pages[at + HEADER_BYTES..][..meta.len()].copy_from_slice(&meta);
    }
    pages
}

/// Writes a bucket behind what is there and gives its page.
fn write(bucket: &Bucket, pages: &mut Vec<u8>) -> u64 {
    let values: Vec<(u32, &[u8], Vec<u8>)> = bucket
        .0
        .iter()
        .map(|(key, entry)| match entry {
            Entry::Value(value) => (0, &key[..], value.clone()),
            // Its page, and a sequence that nobody uses.
            Entry::Bucket(below) => {
                (IS_BUCKET, &key[..], [write(below, pages).to_le_bytes(), [0; 8]].concat())
            }
        })
        .collect();
    let (mut elements, mut data) = (Vec::new(), Vec::new());
    for (at, (flags, key, value)) in values.iter().enumerate() {
        // From where this element begins.
        let position = (values.len() - at) * HEADER_BYTES + data.len();
        for field in [*flags, position as u32, key.len() as u32, value.len() as u32] {
            elements.extend(field.to_le_bytes());
        }
        data.extend_from_slice(key);
        data.extend_from_slice(value);
    }
    let page = pages.len() / PAGE_BYTES;
    let length = (HEADER_BYTES + elements.len() + data.len()).div_ceil(PAGE_BYTES);
    pages.resize((page + length) * PAGE_BYTES, 0);
    let count = u16::try_from(values.len()).unwrap_or_else(|_| panic!("a leaf has 65,535 elements at most"));
    let own = &mut pages[page * PAGE_BYTES..];
    header(own, number(page), LEAF, count, length as u32 - 1);
    own[HEADER_BYTES..][..elements.len()].copy_from_slice(&elements);
    own[HEADER_BYTES + elements.len()..][..data.len()].copy_from_slice(&data);
    number(page)
}

fn header(page: &mut [u8], id: u64, flags: u16, count: u16, overflow: u32) {
    page[..8].copy_from_slice(&id.to_le_bytes());
    page[8..10].copy_from_slice(&flags.to_le_bytes());
    page[10..12].copy_from_slice(&count.to_le_bytes());
    page[12..16].copy_from_slice(&overflow.to_le_bytes());
}

fn number(page: usize) -> u64 {
    page as u64
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
