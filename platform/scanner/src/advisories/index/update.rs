//! A new generation of the index: what changed in the sources, merged with what was there.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use sha2::Digest as _;

use super::entry::{self, Document, DocumentKey};
use super::sort::{Entry, Sorted, Sorter};
use super::table::{self, Writer};
use super::{FORMAT_VERSION, Index, MANIFEST, Manifest, PackageKey, SourceState, is_table};
use crate::advisories::AdvisoryError;
use crate::advisories::documents::documents;
use crate::advisories::osv::Advisory;

const LOCK: &str = "lock";
const SOURCES_MAX: usize = 1000;
/// More packages than these in one update are "all".
const CHANGES_MAX: usize = 100_000;
/// For how many updates it is remembered which packages they changed.
const GENERATIONS_MAX: u64 = 32;

/// What is known of a source at an update.
pub struct SourceUpdate<'a> {
    /// Its name: a path or a URL.
    pub location: String,
    pub given: Given<'a>,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

pub enum Given<'a> {
    /// Its documents, to be read from here; those that did not change are not read.
    Files(&'a Path),
    /// It is what it was.
    Unchanged,
    /// It is no source any more.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not met in its source yet, and so gone from it.
    Missing,
    Same,
    /// Met, and its entries are with the new ones.
    New,
}

/// Documents of the sources that are read, with their tokens.
type Known = HashMap<DocumentKey, (u64, State)>;

/// Brings the index in `directory` up to date, and makes it if there is none. Nobody else updates meanwhile; whoever
/// reads is not disturbed. Memory grows by some 50 bytes per document, whatever the documents hold.
pub fn update(
    directory: &Path,
    updates: &[SourceUpdate<'_>],
    now: Timestamp,
) -> Result<Manifest, AdvisoryError> {
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    let (_lock, old) = locked(directory)?;
    let mut manifest = match &old {
        Some(index) => index.manifest.clone(),
        None => Manifest {
            format_version: FORMAT_VERSION,
            generation: 0,
            table: String::new(),
            changes_since: 0,
            sources: Vec::new(),
        },
    };
    let touched = take_sources(&mut manifest, updates, now)?;
    let mut known = known(old.as_ref(), &touched).map_err(|e| super::damaged(directory, &e))?;
    let mut sorter = Sorter::new(directory);
    for update in updates {
        if let Given::Files(path) = update.given {
            let number = touched.iter().find(|(location, _)| *location == update.location);
            let number = number.map(|(_, number)| *number).unwrap_or_default();
            read(path, update, number, &mut known, &mut sorter)?;
        }
    }
    let gone = updates.iter().any(|update| matches!(update.given, Given::Gone));
    let changed = !sorter.is_empty() || known.values().any(|(_, state)| *state != State::Same);
    if changed || gone || old.is_none() {
        let sorted = sorter.finish().map_err(io)?;
        write(directory, old.as_ref(), &mut manifest, &known, sorted, now)?;
    }
    publish(directory, &manifest).map_err(io)?;
    if let Some(old) = old.filter(|old| old.manifest.table != manifest.table) {
        // Whoever has it open keeps it.
        let _ = std::fs::remove_file(directory.join(&old.manifest.table));
    }
    Ok(manifest)
}

/// Keeps others from writing to the directory, which is made if it is not there; gives what is in it.
pub(super) fn locked(directory: &Path) -> Result<(Flock<File>, Option<Index>), AdvisoryError> {
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    gantry_base::fs::create_directory(directory, 0o755).map_err(io)?;
    let lock = File::options().create(true).append(true).open(directory.join(LOCK)).map_err(io)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|_| AdvisoryError::Busy { path: directory.to_owned() })?;
    let old = match Index::open(directory) {
        Ok(index) => Some(index),
        Err(AdvisoryError::NoIndex { .. }) => None,
        Err(error) => return Err(error),
    };
    clean(directory, old.as_ref()).map_err(io)?;
    Ok((lock, old))
}

/// Removes what an update left that did not come to its end.
fn clean(directory: &Path, index: Option<&Index>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_old = is_table(&name) && index.is_none_or(|index| index.manifest.table != name);
        let is_temporary = name.starts_with(&format!(".{MANIFEST}.")) && name.ends_with(".tmp");
        if is_old || is_temporary {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Enters what is known of the sources, and gives the numbers of those whose documents may change.
fn take_sources(
    manifest: &mut Manifest,
    updates: &[SourceUpdate<'_>],
    now: Timestamp,
) -> Result<Vec<(String, u32)>, AdvisoryError> {
    let mut touched = Vec::new();
    for update in updates {
        let at = manifest.sources.iter().position(|source| source.location == update.location);
        if let Given::Gone = update.given {
            let at = at.ok_or_else(|| AdvisoryError::NoSource { location: update.location.clone() })?;
            touched.push((update.location.clone(), manifest.sources.remove(at).number));
            continue;
        }
        let next = manifest.sources.iter().map(|source| source.number + 1).max().unwrap_or(0);
        let source = match at {
            Some(at) => &mut manifest.sources[at],
            None => {
                manifest.sources.push(SourceState {
                    location: update.location.clone(),
                    number: next,
                    advisories: 0,
                    unreadable: 0,
                    newest_modified: None,
                    checked_at: now,
                    changed_at: now,
                    etag: None,
                    last_modified: None,
                });
                // It was pushed in the line above.
                let last = manifest.sources.len() - 1;
                &mut manifest.sources[last]
            }
        };
        source.checked_at = now;
        if let Given::Files(_) = update.given {
            source.etag.clone_from(&update.etag);
            source.last_modified.clone_from(&update.last_modified);
            touched.push((update.location.clone(), source.number));
        }
    }
    if manifest.sources.len() > SOURCES_MAX {
        return Err(AdvisoryError::TooManySources { max: SOURCES_MAX });
    }
    Ok(touched)
}

fn known(old: Option<&Index>, touched: &[(String, u32)]) -> io::Result<Known> {
    let mut known = Known::new();
    let (Some(old), false) = (old, touched.is_empty()) else { return Ok(known) };
    old.table.cursor()?.scan(b"d", &mut |key, value| {
        let document = Document::decode(value).ok_or_else(|| table::damaged("a document is damaged"))?;
        if let (Some(key), true) =
            (entry::document_of(key), touched.iter().any(|(_, number)| *number == document.source))
        {
            known.insert(*key, (document.token, State::Missing));
        }
        Ok(())
    })?;
    Ok(known)
}

/// Reads the documents of a source that are not known.
fn read(
    path: &Path,
    update: &SourceUpdate<'_>,
    source: u32,
    known: &mut Known,
    sorter: &mut Sorter,
) -> Result<(), AdvisoryError> {
    let mut found = 0_u64;
    documents(path, &mut |document| {
        let mut key = [0; size_of::<DocumentKey>()];
        let digest = sha2::Sha256::new_with_prefix(update.location.as_bytes())
            .chain_update([0])
            .chain_update(document.name)
            .finalize();
        key.copy_from_slice(&digest[..size_of::<DocumentKey>()]);
        match known.get_mut(&key) {
            Some((token, state)) if *token == document.token => {
                found += u64::from(*state == State::Missing);
                if *state == State::Missing {
                    *state = State::Same;
                }
                return Ok(());
            }
            // The same name twice, as a zip may have it: the first counts.
            Some((_, State::Same | State::New)) => return Ok(()),
            _ => {}
        }
        known.insert(key, (document.token, State::New));
        let advisory =
            (document.read)().ok().and_then(|bytes| serde_json::from_slice::<Advisory>(&bytes).ok());
        found += u64::from(advisory.is_some());
        let entry = Document {
            source,
            token: document.token,
            readable: advisory.is_some(),
            modified: advisory.as_ref().and_then(|advisory| advisory.modified),
        };
        let postings = advisory.iter().flat_map(|advisory| entry::postings(advisory, &key));
        for (key, value) in postings.chain([(entry::document_key(&key), entry.encode())]) {
            sorter.push(key, value).map_err(|source| AdvisoryError::Io { path: path.to_owned(), source })?;
        }
        Ok(())
    })?;
    // An empty source is a mistake or a broken mirror: what was known of it stays.
    if found == 0 {
        return Err(AdvisoryError::Empty { path: update.location.clone().into() });
    }
    Ok(())
}

/// Writes the next table and says in the manifest what is in it.
fn write(
    directory: &Path,
    old: Option<&Index>,
    manifest: &mut Manifest,
    known: &Known,
    sorted: Sorted,
    now: Timestamp,
) -> Result<(), AdvisoryError> {
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    manifest.generation += 1;
    manifest.table = format!("advisories-{}.table", manifest.generation);
    let path = directory.join(&manifest.table);
    let file = File::options().write(true).create_new(true).open(&path).map_err(io)?;
    let mut merge = Merge {
        writer: Writer::new(file).map_err(io)?,
        known,
        sorted,
        changed: Some(BTreeSet::new()),
        counts: HashMap::new(),
        changed_sources: BTreeSet::new(),
    };
    let generation = manifest.generation;
    let result = merge.run(old, generation).and_then(|()| {
        manifest.changes_since = match (&merge.changed, old) {
            (Some(_), Some(old)) => {
                old.manifest.changes_since.max(generation.saturating_sub(GENERATIONS_MAX))
            }
            _ => generation,
        };
        merge.writer.finish()
    });
    if let Err(source) = result {
        let _ = std::fs::remove_file(&path);
        return Err(io(source));
    }
    for source in &mut manifest.sources {
        let counted = merge.counts.get(&source.number).copied().unwrap_or_default();
        (source.advisories, source.unreadable, source.newest_modified) = counted;
        if merge.changed_sources.contains(&source.number) {
            source.changed_at = now;
        }
    }
    Ok(())
}

/// Old and new entries on their way into the next table.
struct Merge<'a> {
    writer: Writer,
    known: &'a Known,
    sorted: Sorted,
    /// None: more than are worth remembering.
    changed: Option<BTreeSet<PackageKey>>,
    /// Of each source: advisories, documents that are none, and the newest.
    counts: HashMap<u32, (u64, u64, Option<Timestamp>)>,
    changed_sources: BTreeSet<u32>,
}

impl Merge<'_> {
    fn run(&mut self, old: Option<&Index>, generation: u64) -> io::Result<()> {
        // In the order of keys; what changed is known, and stands, at the end.
        for kind in [b"d", b"p"] {
            if let Some(old) = old {
                old.table.cursor()?.scan(kind, &mut |key, value| self.old(key, value))?;
            }
            while self.sorted.peek().is_some_and(|(key, _)| key.starts_with(kind)) {
                self.next_new()?;
            }
        }
        self.changes(old, generation)
    }

    /// Puts what is new before `key`, then `key`, unless its document changed or is gone.
    fn old(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        while self.sorted.peek().is_some_and(|(new, _)| new.as_slice() < key) {
            self.next_new()?;
        }
        let document = entry::document_of(key).ok_or_else(|| table::damaged("a key is damaged"))?;
        if self.known.get(document).is_some_and(|(_, state)| *state != State::Same) {
            return self.changed(key, value);
        }
        self.count(key, value)?;
        self.writer.push(key, value)
    }

    fn next_new(&mut self) -> io::Result<()> {
        let Some((key, value)): Option<Entry> = self.sorted.next()? else { return Ok(()) };
        self.changed(&key, &value)?;
        self.count(&key, &value)?;
        self.writer.push(&key, &value)
    }

    fn count(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.first() == Some(&b'd') {
            let document = Document::decode(value).ok_or_else(|| table::damaged("a document is damaged"))?;
            let (advisories, unreadable, newest) = self.counts.entry(document.source).or_default();
            *if document.readable { advisories } else { unreadable } += 1;
            *newest = (*newest).max(document.modified);
        }
        Ok(())
    }

    /// Something is said of a package now that was not, or no more.
    fn changed(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.first() == Some(&b'd') {
            self.changed_sources.extend(Document::decode(value).map(|document| document.source));
            return Ok(());
        }
        let (ecosystem, name, _) =
            entry::package_of(key).ok_or_else(|| table::damaged("a key is damaged"))?;
        if let Some(changed) = &mut self.changed {
            changed.insert(PackageKey { ecosystem: ecosystem.to_owned(), name: name.to_owned() });
            if changed.len() > CHANGES_MAX {
                self.changed = None;
            }
        }
        Ok(())
    }

    /// The changes of earlier generations that are still of use, and those of this one.
    fn changes(&mut self, old: Option<&Index>, generation: u64) -> io::Result<()> {
        let (Some(changed), Some(old)) = (&self.changed, old) else { return Ok(()) };
        let kept_from = generation.saturating_sub(GENERATIONS_MAX);
        let writer = &mut self.writer;
        old.table.cursor()?.scan(b"q", &mut |key, value| {
            let (at, _) = entry::change_of(key).ok_or_else(|| table::damaged("a change is damaged"))?;
            if at > kept_from { writer.push(key, value) } else { Ok(()) }
        })?;
        for package in changed {
            writer.push(&entry::change_key(generation, package), b"")?;
        }
        Ok(())
    }
}

pub(super) fn publish(directory: &Path, manifest: &Manifest) -> io::Result<()> {
    // The table's name in its directory has to outlive a power failure as well.
    gantry_base::fs::sync_directory(directory)?;
    let bytes = serde_json::to_vec_pretty(manifest)?;
    gantry_base::fs::write_atomic(&directory.join(MANIFEST), &bytes, 0o644)
}
