//! What the writer knows of the frames it has just made, so that the index need not read them again.

use std::sync::Arc;

use super::terms::Term;

/// Terms that wait to be taken into an index; what is more is read from the segment instead.
const TERMS_MAX: usize = 512 << 10;

/// Rows in the order of their frames.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    rows: Vec<Row>,
    terms: Vec<Term>,
}

#[derive(Debug)]
struct Row {
    frame_bytes: u32,
    time_us: i64,
    /// Where its terms end; they begin where those of the row before end.
    terms_end: usize,
    /// Further ones.
    shared: Option<Arc<[Term]>>,
}

/// One row as it is taken into an index.
pub(super) struct Taken<'a> {
    pub(super) frame_bytes: u32,
    pub(super) time_us: i64,
    pub(super) terms: &'a [Term],
    /// Those it has in common with rows like it.
    pub(super) shared: Option<&'a Arc<[Term]>>,
}

impl Fresh {
    fn terms_begin(&self) -> usize {
        self.rows.last().map_or(0, |row| row.terms_end)
    }

    /// Begins a row, or the same one anew.
    pub(crate) fn begin_row(&mut self) {
        self.terms.truncate(self.terms_begin());
    }

    pub(crate) fn push(&mut self, term: Term) {
        self.terms.push(term);
    }

    /// The terms of the row that is begun.
    pub(crate) fn begun(&self) -> &[Term] {
        &self.terms[self.terms_begin()..]
    }

    /// Ends a row whose frame has so many bytes; `time_us` is 0 for what is no record.
    pub(crate) fn end_row(&mut self, frame_bytes: usize, time_us: i64, shared: Option<Arc<[Term]>>) {
        // A frame's length is 32 bits in the file, too.
        let frame_bytes = frame_bytes as u32;
        self.rows.push(Row { frame_bytes, time_us, terms_end: self.terms.len(), shared });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.terms.clear();
    }

    /// Takes all of another one's rows.
    fn append(&mut self, other: &mut Self) {
        let offset = self.terms_begin();
        self.terms.append(&mut other.terms);
        let moved = |row: Row| Row { terms_end: row.terms_end + offset, ..row };
        self.rows.extend(other.rows.drain(..).map(moved));
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Taken<'_>> {
        let mut begin = 0;
        self.rows.iter().map(move |row| {
            let terms = &self.terms[begin..row.terms_end];
            begin = row.terms_end;
            let shared = row.shared.as_ref();
            Taken { frame_bytes: row.frame_bytes, time_us: row.time_us, terms, shared }
        })
    }
}

/// Rows that wait for the index of their segment.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Where the first one's frame begins.
    pub(crate) place: u64,
    pub(crate) fresh: Fresh,
}

impl Waiting {
    /// Takes rows whose frames begin at `place`, right after those that wait. The given is empty afterwards.
    pub(crate) fn put(&mut self, place: u64, fresh: &mut Fresh) {
        if self.fresh.terms.len() + fresh.terms.len() > TERMS_MAX {
            self.fresh.clear();
            return fresh.clear();
        }
        if self.fresh.is_empty() {
            self.place = place;
        }
        self.fresh.append(fresh);
    }
}
