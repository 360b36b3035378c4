//! The index of the segment that is being written.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use gantry_audit_api::frame::Kind;
use gantry_audit_api::record::Record;
use gantry_audit_api::segment::Entry;

use super::bits::Bits;
use super::fresh::Waiting;
use super::terms::{self, Term, Texts};

/// Frames that have a term: in order, mostly few.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    One(u32),
    Many(Vec<u32>),
}

impl Rows {
    fn push(&mut self, row: u32) {
        match self {
            Self::One(first) if *first == row => {}
            Self::One(first) => *self = Self::Many(vec![*first, row]),
            Self::Many(rows) if rows.last() == Some(&row) => {}
            Self::Many(rows) => rows.push(row),
        }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(row) => std::slice::from_ref(row),
            Self::Many(rows) => rows,
        }
    }
}

/// Terms are hashes already.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Terms = HashMap<Term, Rows, BuildHasherDefault<AsItIs>>;

fn add(terms: &mut Terms, term: Term, row: u32) {
    terms.entry(term).and_modify(|rows| rows.push(row)).or_insert(Rows::One(row));
}

struct Shared {
    /// In order.
    terms: Arc<[Term]>,
    rows: Vec<u32>,
}

/// Grows with its segment and becomes the segment's index file.
#[derive(Default)]
pub(crate) struct MemoryIndex {
    terms: Terms,
    /// Terms of frames that have the rest from a list, which are ids: seldom asked for, and of one frame each.
    once: Vec<(Term, u32)>,
    /// Lists of terms that many frames have, by their address.
    shared: HashMap<usize, Shared>,
    /// Where each frame is in the segment.
    pub(super) places: Vec<u32>,
    /// When each was received, microseconds since 1970; 0 for what is no record.
    pub(super) times_us: Vec<i64>,
    /// Where the next frame begins.
    pub(crate) next_place: u64,
    texts: Texts,
}

impl MemoryIndex {
    pub(crate) fn rows(&self) -> u32 {
        self.places.len() as u32
    }

    /// Takes what is at `next_place`.
    pub(crate) fn push(&mut self, frame: &Entry<'_>) {
        let row = self.begin(frame.len_bytes);
        let record = (frame.kind == Kind::Record).then(|| Record::parse(frame.payload)).flatten();
        let terms = &mut self.terms;
        match &record {
            Some(record) => terms::of_record(record, &mut self.texts, |term| add(terms, term, row)),
            None => terms::of_kind(frame.kind).into_iter().for_each(|term| add(terms, term, row)),
        }
        self.times_us.push(record.map_or(0, |record| record.received_us()));
    }

    /// Takes those of the rows that are not in it yet, where they follow what is.
    pub(crate) fn take(&mut self, waiting: &Waiting) {
        let mut place = waiting.place;
        for taken in waiting.fresh.rows() {
            let frame_bytes = u64::from(taken.frame_bytes);
            if place == self.next_place {
                let row = self.begin(frame_bytes);
                self.times_us.push(taken.time_us);
                match taken.shared {
                    Some(terms) => {
                        let address = Arc::as_ptr(terms).addr();
                        let new = || Shared { terms: terms.clone(), rows: Vec::new() };
                        self.shared.entry(address).or_insert_with(new).rows.push(row);
                        self.once.extend(taken.terms.iter().map(|term| (*term, row)));
                    }
                    None => taken.terms.iter().for_each(|term| add(&mut self.terms, *term, row)),
                }
            }
            place += frame_bytes;
        }
    }

    fn begin(&mut self, frame_bytes: u64) -> u32 {
        let row = self.rows();
        // A segment is closed long before 4 GiB.
        self.places.push(self.next_place as u32);
        self.next_place += frame_bytes;
        row
    }

    pub(crate) fn bits(&self, term: Term) -> Bits {
        let mut bits = Bits::none(self.rows());
        if let Some(rows) = self.terms.get(&term) {
            rows.as_slice().iter().for_each(|row| bits.set(*row));
        }
        let once = self.once.iter().filter(|(of_one, _)| *of_one == term);
        once.for_each(|(_, row)| bits.set(*row));
        for shared in self.shared.values().filter(|shared| shared.terms.binary_search(&term).is_ok()) {
            shared.rows.iter().for_each(|row| bits.set(*row));
        }
        bits
    }

    /// The rows of every term; a term may come several times.
    pub(super) fn lists(&self) -> Vec<(Term, &[u32])> {
        let shared = self.shared.values().flat_map(|s| s.terms.iter().map(|t| (*t, s.rows.as_slice())));
        let once = self.once.iter().map(|(term, row)| (*term, std::slice::from_ref(row)));
        self.terms.iter().map(|(term, rows)| (*term, rows.as_slice())).chain(once).chain(shared).collect()
    }

    /// Where each frame is in the segment.
    pub(crate) fn places(&self) -> &[u32] {
        &self.places
    }

    /// Leaves the frames received within the bounds.
    pub(crate) fn within(&self, bits: &mut Bits, since_us: i64, until_us: i64) {
        bits.retain(|row| self.times_us.get(row as usize).is_some_and(|t| (since_us..=until_us).contains(t)));
    }

    /// The earliest and the latest time of its records.
    pub(crate) fn span_us(&self) -> (i64, i64) {
        let times = self.times_us.iter().copied().filter(|time| *time != 0);
        times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)))
    }
}
