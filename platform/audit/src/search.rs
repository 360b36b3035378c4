//! Finding records: the newest first, segment by segment.

use std::fs::File;
use std::io;
use std::sync::Arc;

use gantry_audit_api::frame::Kind;
use gantry_audit_api::query::Query;
use gantry_audit_api::record::{Record, User};
use gantry_audit_api::segment::Segment;
use gantry_kube_types::audit_annotations;

use crate::catalog::{Catalog, Entry, State};
use crate::index::{Bits, Field, IndexFile, Term, of_query, term};

/// Which records a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// Own deeds, and everything in some namespaces, projects and domains.
    Some {
        own: Own,
        namespaces: Vec<String>,
        projects: Vec<String>,
        domains: Vec<String>,
    },
}

/// Whose own deeds are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Own {
    /// Names are given again, to others; ids are not.
    fn is(&self, user: &User<'_>) -> bool {
        if user.uid.is_empty() { user.username == *self.name } else { user.uid == *self.uid }
    }
}

impl Scope {
    /// Nothing but own deeds.
    pub(crate) fn is_own(&self) -> bool {
        match self {
            Self::All => false,
            Self::Some { namespaces, projects, domains, .. } => {
                namespaces.is_empty() && projects.is_empty() && domains.is_empty()
            }
        }
    }

    pub(crate) fn admits(&self, record: &Record<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Some { own, namespaces, projects, domains } => {
                own.is(&record.user)
                    || record.impersonated_user.as_ref().is_some_and(|user| own.is(user))
                    || namespaces.iter().any(|n| !n.is_empty() && *n == record.object_ref.namespace)
                    || projects.iter().any(|p| !p.is_empty() && p == record.project())
                    || domains.iter().any(|d| !d.is_empty() && d == record.object_domain())
            }
        }
    }

    /// Terms of which a record must have one; `None`: any record.
    fn terms(&self) -> Option<Vec<Term>> {
        let Self::Some { own, namespaces, projects, domains } = self else { return None };
        let mut terms = vec![term(Field::User, own.name.as_bytes())];
        terms.extend((!own.uid.is_empty()).then(|| term(Field::Uid, own.uid.as_bytes())));
        terms.extend(namespaces.iter().map(|n| term(Field::Namespace, n.as_bytes())));
        terms.extend(projects.iter().map(|p| term(Field::Project, p.as_bytes())));
        terms.extend(domains.iter().map(|d| term(Field::Domain, d.as_bytes())));
        Some(terms)
    }
}

/// Records that name one recording: of its request, at both ends, and of its own end.
const OF_SESSION_MAX: usize = 8;

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) sequence: u64,
    pub(crate) payload: Vec<u8>,
}

/// A page, and where the next one begins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) hits: Vec<Hit>,
    pub(crate) continue_: Option<u64>,
}

/// What a record must have, and what then decides.
struct Search<'a> {
    all: Vec<Term>,
    any: Option<Vec<Term>>,
    since_us: i64,
    until_us: i64,
    before: u64,
    kind: Kind,
    decide: &'a dyn Fn(&Record<'_>) -> bool,
}

/// The newest records that match, before the query's `continue`.
pub(crate) fn search(catalog: &Catalog, query: &Query, scope: &Scope) -> io::Result<Page> {
    let decide = |record: &Record<'_>| query.matches(record) && scope.admits(record);
    let wanted = Search {
        all: of_query(query),
        any: scope.terms(),
        since_us: query.since.map_or(i64::MIN, |t| t.as_microsecond()),
        until_us: query.until.map_or(i64::MAX, |t| t.as_microsecond()),
        before: query.continue_.as_ref().and_then(|t| t.parse().ok()).unwrap_or(u64::MAX),
        kind: Kind::Record,
        decide: &decide,
    };
    wanted.run(catalog, query.page())
}

/// The records of one request, the newest first.
pub(crate) fn by_id(catalog: &Catalog, id: &str, scope: &Scope, count: usize) -> io::Result<Vec<Hit>> {
    let decide = |record: &Record<'_>| record.audit_id == id && scope.admits(record);
    let wanted = Search {
        all: vec![term(Field::Id, id.as_bytes())],
        any: None,
        since_us: i64::MIN,
        until_us: i64::MAX,
        before: u64::MAX,
        kind: Kind::Record,
        decide: &decide,
    };
    Ok(wanted.run(catalog, count)?.hits)
}

/// The records in the scope that name a recording.
pub(crate) fn by_session(catalog: &Catalog, session: &str, scope: &Scope) -> io::Result<Vec<Hit>> {
    let decide = |record: &Record<'_>| {
        record.annotation(audit_annotations::SESSION) == session && scope.admits(record)
    };
    let query = Query { q: Some(session.to_owned()), ..Query::default() };
    let wanted = Search {
        all: of_query(&query),
        any: None,
        since_us: i64::MIN,
        until_us: i64::MAX,
        before: u64::MAX,
        kind: Kind::Record,
        decide: &decide,
    };
    Ok(wanted.run(catalog, OF_SESSION_MAX)?.hits)
}

/// The newest checkpoints before a sequence number.
pub(crate) fn checkpoints(catalog: &Catalog, before: u64, count: usize) -> io::Result<Page> {
    let wanted = Search {
        all: vec![term(Field::Kind, b"checkpoint")],
        any: None,
        since_us: i64::MIN,
        until_us: i64::MAX,
        before,
        kind: Kind::Checkpoint,
        decide: &|_| true,
    };
    wanted.run(catalog, count)
}

/// Rows, and how to learn where they are.
struct Candidates {
    bits: Bits,
    places: Places,
}

enum Places {
    Memory(Vec<u32>),
    File(Arc<IndexFile>, File),
}

impl Candidates {
    fn none() -> Self {
        Self { bits: Bits::none(0), places: Places::Memory(Vec::new()) }
    }

    fn place(&self, row: u32) -> io::Result<Option<u64>> {
        match &self.places {
            Places::Memory(places) => Ok(places.get(row as usize).map(|place| u64::from(*place))),
            Places::File(index, file) => index.place(file, row).map(Some),
        }
    }
}

impl Search<'_> {
    fn run(&self, catalog: &Catalog, count: usize) -> io::Result<Page> {
        let mut page = Page::default();
        for entry in catalog.entries().iter().rev() {
            if entry.first_sequence >= self.before {
                continue;
            }
            let found = self.segment(catalog, entry, count, &mut page);
            match found {
                // It expired while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            if page.hits.len() >= count {
                page.continue_ = page.hits.last().map(|hit| hit.sequence).filter(|s| *s > 1);
                break;
            }
        }
        Ok(page)
    }

    fn segment(
        &self,
        catalog: &Catalog,
        entry: &Arc<Entry>,
        count: usize,
        page: &mut Page,
    ) -> io::Result<()> {
        let candidates = self.candidates(catalog, entry)?;
        if candidates.bits.is_empty() {
            return Ok(());
        }
        let mut segment: Option<Segment> = None;
        for row in candidates.bits.descending() {
            let Some(place) = candidates.place(row)? else { continue };
            let segment = match &mut segment {
                Some(segment) => segment,
                none => none.insert(catalog.open(entry.number).map_err(not_found)?),
            };
            let Some(found) = segment.entry_at(place)? else { continue };
            let decided = found.kind == self.kind
                && (self.kind != Kind::Record
                    || Record::parse(found.payload).is_some_and(|record| (self.decide)(&record)));
            if decided {
                let sequence = entry.first_sequence + u64::from(row);
                page.hits.push(Hit { sequence, payload: found.payload.to_vec() });
                if page.hits.len() >= count {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The rows that have the terms.
    fn candidates(&self, catalog: &Catalog, entry: &Entry) -> io::Result<Candidates> {
        let bounded = (self.since_us, self.until_us) != (i64::MIN, i64::MAX);
        let sealed = {
            let mut state = entry.lock();
            let sealed = catalog.index(entry, &mut state)?;
            if let State::Open(index) = &mut *state {
                catalog.catch_up(entry, index)?;
                let mut bits = self.narrow(index.rows(), entry, |term| Ok(index.bits(term)))?;
                if bounded {
                    index.within(&mut bits, self.since_us, self.until_us);
                }
                // Copied, so that the lock is not held while records are read.
                let places = if bits.is_empty() { Vec::new() } else { index.places().to_vec() };
                return Ok(Candidates { bits, places: Places::Memory(places) });
            }
            sealed
        };
        // What is not in memory is a file.
        let Some((sealed, file)) = sealed else { return Ok(Candidates::none()) };
        if bounded && (self.since_us > sealed.max_us || self.until_us < sealed.min_us) {
            return Ok(Candidates::none());
        }
        let mut bits = self.narrow(sealed.rows(), entry, |term| sealed.bits(&file, term))?;
        if bounded && !bits.is_empty() {
            sealed.within(&file, &mut bits, self.since_us, self.until_us)?;
        }
        Ok(Candidates { bits, places: Places::File(sealed, file) })
    }

    fn narrow(
        &self,
        rows: u32,
        entry: &Entry,
        mut bits_of: impl FnMut(Term) -> io::Result<Bits>,
    ) -> io::Result<Bits> {
        let mut bits = Bits::all(rows);
        for term in &self.all {
            bits.and(&bits_of(*term)?);
            if bits.is_empty() {
                return Ok(bits);
            }
        }
        if let Some(any) = &self.any {
            let mut either = Bits::none(rows);
            for term in any {
                either.or(&bits_of(*term)?);
            }
            bits.and(&either);
        }
        if self.before < entry.first_sequence + u64::from(rows) {
            bits.retain(|row| entry.first_sequence + u64::from(row) < self.before);
        }
        Ok(bits)
    }
}

fn not_found(error: gantry_audit_api::segment::SegmentError) -> io::Error {
    match error {
        gantry_audit_api::segment::SegmentError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

/// Records in their order, from one sequence number on: for those who follow, export and send on.
pub(crate) struct Cursor {
    next_sequence: u64,
    at: Option<(u64, Segment, u64)>,
}

impl Cursor {
    pub(crate) fn from(next_sequence: u64) -> Self {
        Self { next_sequence, at: None }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Visits what is written and not visited yet, up to `count` frames; false when there was nothing.
    /// What expired meanwhile is left out.
    pub(crate) fn advance(
        &mut self,
        catalog: &Catalog,
        count: usize,
        mut visit: impl FnMut(u64, Kind, &[u8]),
    ) -> io::Result<bool> {
        let written = catalog.tip.borrow().next_sequence;
        let mut visited = 0;
        while visited < count && self.next_sequence < written {
            if self.at.is_none() && !self.find(catalog)? {
                break;
            }
            let Some((number, segment, place)) = &mut self.at else { break };
            let number = *number;
            match segment.entry_at(*place)? {
                Some(entry) => {
                    *place += entry.len_bytes;
                    visit(self.next_sequence, entry.kind, entry.payload);
                    self.next_sequence += 1;
                    visited += 1;
                }
                None => {
                    // The end of a segment, and the next one is there since more is written; where frames
                    // are missing it begins later.
                    let next = catalog.entries().iter().find(|e| e.number > number).map(|e| e.first_sequence);
                    let Some(first) = next else { break };
                    self.next_sequence = self.next_sequence.max(first);
                    self.at = None;
                }
            }
        }
        Ok(visited > 0)
    }

    /// Opens the segment that has the next frame.
    fn find(&mut self, catalog: &Catalog) -> io::Result<bool> {
        let entries = catalog.entries();
        let found = entries.partition_point(|entry| entry.first_sequence <= self.next_sequence);
        let Some(entry) = entries.get(found.saturating_sub(1)) else { return Ok(false) };
        self.next_sequence = self.next_sequence.max(entry.first_sequence);
        let mut segment = catalog.open(entry.number).map_err(not_found)?;
        let mut place = 0;
        for _ in entry.first_sequence..self.next_sequence {
            let Some(frame) = segment.frame_at(place)? else { break };
            place += frame.len_bytes() as u64;
        }
        self.at = Some((entry.number, segment, place));
        Ok(true)
    }
}
