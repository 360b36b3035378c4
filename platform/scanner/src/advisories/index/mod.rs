//! Advisories on disk, sorted by package: a scan reads a few blocks instead of everything.
//!
//! The directory holds a manifest and the table that it names. Neither ever changes: an update writes a table beside
//! the old one and then puts a new manifest in the place of the old, so that whoever reads sees one or the other, and
//! an update that ends half-way leaves what was there.

mod codec;
mod entry;
mod sort;
mod table;
mod transfer;
mod update;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::hits::{self, Hits};
use super::osv::{Advisory, Affected};
use super::{AdvisoryData, AdvisoryError, Vulnerability, ecosystem};
use crate::{Found, OperatingSystem, Package, Report};
use entry::{DOCUMENT_KEY_BYTES, Posting, Verdict};
use table::{Cursor, Table};
pub use transfer::{Exported, Installed, export, exported_manifest, install};
pub use update::{Given, SourceUpdate, update};

const MANIFEST: &str = "manifest.json";
/// Longest manifest of an index.
pub const MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// Of the directory's content; a newer one is refused.
const FORMAT_VERSION: u32 = 1;
/// Fewer packages are compared before a thread has begun.
const PACKAGES_PER_THREAD_MIN: usize = 100;
/// What a thread takes at once: a part may read a block that its neighbour has read.
const PACKAGES_PER_PART: usize = 16;
/// How often a table may be replaced between reading the manifest and opening it.
const OPEN_ATTEMPTS_MAX: usize = 16;

/// What the index holds, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format_version: u32,
    /// Counts the updates that changed something.
    pub generation: u64,
    table: String,
    /// What changed is known from the generation behind this one on.
    changes_since: u64,
    pub sources: Vec<SourceState>,
}

/// One source of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceState {
    /// A path or a URL.
    pub location: String,
    number: u32,
    pub advisories: u64,
    /// Documents that are no readable advisories.
    pub unreadable: u64,
    /// When the newest advisory in it was changed.
    pub newest_modified: Option<Timestamp>,
    /// When it was last looked at.
    pub checked_at: Timestamp,
    /// When that last changed the index.
    pub changed_at: Timestamp,
    /// What the server said of its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// A package as advisories name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageKey {
    /// Without a release: `Debian`, `PyPI`.
    pub ecosystem: String,
    pub name: String,
}

impl PackageKey {
    /// How advisories name `package` on `system`, if they do.
    pub fn of(package: &Package, system: Option<&OperatingSystem>) -> Option<Self> {
        let ecosystem = ecosystem::base(package.kind, system)?.to_owned();
        Some(Self { ecosystem, name: ecosystem::key(package).0 })
    }
}

/// Packages of which something else is known now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Too much, or too long ago, to tell.
    All,
    Packages(BTreeSet<PackageKey>),
}

/// An index as it was when it was opened, whatever is written meanwhile.
pub struct Index {
    directory: PathBuf,
    manifest: Manifest,
    table: Table,
}

impl Index {
    pub fn open(directory: &Path) -> Result<Self, AdvisoryError> {
        let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let manifest = manifest(directory)?;
            let manifest = manifest.ok_or_else(|| AdvisoryError::NoIndex { path: directory.to_owned() })?;
            let table = match File::open(directory.join(&manifest.table)) {
                Ok(file) => Table::open(file).map_err(|source| damaged(directory, &source))?,
                // An update came between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io(error)),
            };
            return Ok(Self { directory: directory.to_owned(), manifest, table });
        }
        let source = io::Error::new(io::ErrorKind::NotFound, "the table that its manifest names is missing");
        Err(damaged(directory, &source))
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn size_bytes(&self) -> u64 {
        self.table.size_bytes()
    }

    /// What a report says of it.
    pub fn data(&self) -> AdvisoryData {
        let sources = &self.manifest.sources;
        AdvisoryData {
            source: self.directory.display().to_string(),
            advisories: sources.iter().map(|source| source.advisories).sum(),
            unreadable: sources.iter().map(|source| source.unreadable).sum(),
            newest_modified: sources.iter().filter_map(|source| source.newest_modified).max(),
            checked_at: sources.iter().map(|source| source.checked_at).min(),
            generation: Some(self.manifest.generation),
        }
    }

    /// Compares the report's packages with the index and fills its vulnerabilities.
    pub fn compare(&self, report: &mut Report) -> Result<(), AdvisoryError> {
        report.vulnerabilities = Some(self.matched(&report.packages, report.operating_system.as_ref())?);
        report.advisory_data = Some(self.data());
        Ok(())
    }

    /// The vulnerabilities of `packages`, the worst first.
    pub fn matched(
        &self,
        packages: &[Found],
        system: Option<&OperatingSystem>,
    ) -> Result<Vec<Vulnerability>, AdvisoryError> {
        // In the order of the table, so that each block is read once.
        let mut order: Vec<(Vec<u8>, usize)> = Vec::with_capacity(packages.len());
        for (n, found) in packages.iter().enumerate() {
            // Who installed it mends it, under a version of its own.
            let key = found.owner.is_none().then(|| PackageKey::of(&found.package, system)).flatten();
            order.extend(key.map(|key| (entry::package_prefix(&key.ecosystem, &key.name), n)));
        }
        order.sort_unstable();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(order.len() / PACKAGES_PER_THREAD_MIN);
        // A few packages have most advisories: who is done takes the next part.
        let parts = Mutex::new(order.chunks(PACKAGES_PER_PART));
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let parts = std::iter::from_fn(next);
            parts.map(|part| self.looked_up(part, packages, system)).collect::<Result<Vec<_>, _>>()
        };
        let done: Vec<_> = match threads {
            0 | 1 => vec![work()],
            _ => std::thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                running.into_iter().map(|one| one.join().unwrap_or_else(|p| resume_unwind(p))).collect()
            }),
        };
        let done = done.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<Vulnerability> = done.into_iter().flatten().flatten().collect();
        hits::sort(&mut all);
        Ok(all)
    }

    /// The vulnerabilities of the packages of these keys, package by package.
    fn looked_up(
        &self,
        order: &[(Vec<u8>, usize)],
        packages: &[Found],
        system: Option<&OperatingSystem>,
    ) -> Result<Vec<Vulnerability>, AdvisoryError> {
        let mut hits = Hits::default();
        let mut cursor = self.cursor()?;
        for (prefix, n) in order {
            let found = &packages[*n];
            let each = &mut |advisory: &Advisory, affected: &Affected, fixed| {
                hits.add(*n, found, advisory, affected, fixed);
            };
            lookup(&mut cursor, prefix, &found.package, system, each)
                .map_err(|source| damaged(&self.directory, &source))?;
        }
        Ok(hits.finish(packages))
    }

    /// The packages that changed after `generation`.
    pub fn changes_since(&self, generation: u64) -> Result<Changes, AdvisoryError> {
        if generation == self.manifest.generation {
            return Ok(Changes::Packages(BTreeSet::new()));
        }
        if generation > self.manifest.generation || generation < self.manifest.changes_since {
            return Ok(Changes::All);
        }
        let mut packages = BTreeSet::new();
        let read = self.cursor()?.scan(b"q", &mut |key, _| {
            let (at, package) = entry::change_of(key).ok_or_else(|| table::damaged("a change is damaged"))?;
            if at > generation {
                packages.insert(package);
            }
            Ok(())
        });
        read.map_err(|source| damaged(&self.directory, &source))?;
        Ok(Changes::Packages(packages))
    }

    fn cursor(&self) -> Result<Cursor<'_>, AdvisoryError> {
        self.table.cursor().map_err(|source| AdvisoryError::Io { path: self.directory.clone(), source })
    }
}

type Hit<'a> = &'a mut dyn FnMut(&Advisory, &Affected, Option<String>);

/// Calls `each` with what is known of `package`, whose entries begin with `prefix`.
fn lookup(
    cursor: &mut Cursor<'_>,
    prefix: &[u8],
    package: &Package,
    system: Option<&OperatingSystem>,
    each: Hit<'_>,
) -> io::Result<()> {
    let bad = || table::damaged("an entry is damaged");
    let (_, version) = ecosystem::key(package);
    // The key up to the release whose entries come now, if they are of this system.
    let mut fitting: Option<Vec<u8>> = None;
    cursor.scan_skipping(prefix, &mut |key, value| {
        let of_release = key.get(..key.len().saturating_sub(DOCUMENT_KEY_BYTES)).ok_or_else(bad)?;
        if fitting.as_deref() != Some(of_release) {
            let (name, _, release) = entry::package_of(key).ok_or_else(bad)?;
            let ecosystem = if release.is_empty() { name.to_owned() } else { format!("{name}:{release}") };
            if !ecosystem::fits(&ecosystem, package.kind, system) {
                // The next release begins behind all documents of this one.
                return Ok(Some([of_release, &[0xff; DOCUMENT_KEY_BYTES]].concat()));
            }
            fitting = Some(of_release.to_vec());
        }
        let mut posting = Posting::decode(value).ok_or_else(bad)?;
        while let Some(verdict) = posting.next(package.kind, version).ok_or_else(bad)? {
            if let Verdict::Affected { fixed, more } = verdict {
                each(&posting.advisory().ok_or_else(bad)?, &more, fixed);
            }
        }
        Ok(None)
    })
}

/// The manifest, if there is one that can be read by this version.
fn manifest(directory: &Path) -> Result<Option<Manifest>, AdvisoryError> {
    let path = directory.join(MANIFEST);
    let bytes = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() > MANIFEST_MAX_BYTES => {
            return Err(damaged(directory, &table::damaged("its manifest is too large")));
        }
        Ok(_) => {
            std::fs::read(&path).map_err(|source| AdvisoryError::Io { path: directory.to_owned(), source })?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(AdvisoryError::Io { path: directory.to_owned(), source }),
    };
    match parse(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(ManifestError::Newer) => Err(AdvisoryError::Newer { path: directory.to_owned() }),
        Err(ManifestError::Damaged(error)) => Err(damaged(directory, &error)),
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
enum ManifestError {
    #[error("the advisories were written by a newer gantry")]
    Newer,
    #[error("the manifest of the advisories is damaged: {0}")]
    Damaged(io::Error),
}

fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let bad = |error: serde_json::Error| ManifestError::Damaged(error.into());
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(bad)?;
    let version = value["formatVersion"].as_u64().unwrap_or_default();
    if version > u64::from(FORMAT_VERSION) {
        return Err(ManifestError::Newer);
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(bad)?;
    // The name is joined to the directory, and an update removes tables by name.
    match is_table(&manifest.table) {
        true => Ok(manifest),
        false => Err(ManifestError::Damaged(table::damaged("its manifest names no table"))),
    }
}

fn is_table(name: &str) -> bool {
    name.starts_with("advisories-") && name.ends_with(".table") && !name.contains('/')
}

fn damaged(directory: &Path, source: &io::Error) -> AdvisoryError {
    AdvisoryError::Damaged { path: directory.to_owned(), message: source.to_string() }
}

/// The parsers of this folder as functions of bytes; see [`crate::fuzz`].
pub(super) mod fuzz {
    use std::fs::File;

    use super::entry::{self, Posting};
    use super::table::Table;
    use crate::Kind;
    use crate::advisories::osv::Advisory;

    pub(in crate::advisories) fn postings(advisory: &Advisory) -> Vec<(Vec<u8>, Vec<u8>)> {
        entry::postings(advisory, &[7; 16])
    }

    pub(in crate::advisories) fn posting(bytes: &[u8]) {
        let Some(mut posting) = Posting::decode(bytes) else { return };
        while let Some(Some(_)) = posting.next(Kind::Deb, "1.0-1") {}
        let _ = posting.advisory();
    }

    pub(in crate::advisories) fn table(file: File) {
        let Ok(table) = Table::open(file) else { return };
        if let Ok(mut cursor) = table.cursor() {
            let _ = cursor.scan(b"p", &mut |_, _| Ok(()));
        }
    }
}
