//! Advisories from a directory or a zip, one after the other: only what concerns a package of the report is kept,
//! so memory does not grow with the data.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::osv::Advisory;
use super::{AdvisoryData, Vulnerability, ecosystem, matching};
use crate::files::{Content, zip};
use crate::{Found, OperatingSystem, Report};

const ADVISORY_MAX_BYTES: u64 = 16 << 20;
const FILES_MAX: u64 = 4_000_000;
const DEPTH_MAX: usize = 16;

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum AdvisoryError {
    #[error("advisories in {path} cannot be read: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("advisories in {path} cannot be read: {message}")]
    Invalid { path: PathBuf, message: String },
    /// An empty directory says nothing of any package.
    #[error("{path} holds no advisory: OSV documents (*.json) or zips of them are expected")]
    Empty { path: PathBuf },
}

/// Compares the report's packages with the advisories at `path` and fills its vulnerabilities.
pub fn compare(report: &mut Report, path: &Path) -> Result<(), AdvisoryError> {
    let mut matcher = Matcher::new(report);
    let io = |source| AdvisoryError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(io)?.is_dir() {
        walk(path, 0, &mut matcher)?;
    } else {
        file(path, &mut matcher)?;
    }
    if matcher.advisories == 0 {
        return Err(AdvisoryError::Empty { path: path.to_owned() });
    }
    let data = AdvisoryData {
        source: path.display().to_string(),
        advisories: matcher.advisories,
        unreadable: matcher.unreadable,
        newest_modified: matcher.newest,
    };
    let found = matcher.finish();
    report.vulnerabilities = Some(found);
    report.advisory_data = Some(data);
    Ok(())
}

fn walk(directory: &Path, depth: usize, matcher: &mut Matcher<'_>) -> Result<(), AdvisoryError> {
    let io = |source| AdvisoryError::Io { path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        paths.push((entry.path(), entry.file_type().map_err(io)?));
    }
    paths.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (path, kind) in paths {
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&path, depth + 1, matcher)?;
        } else if kind.is_file() {
            file(&path, matcher)?;
        }
        if matcher.advisories + matcher.unreadable > FILES_MAX {
            let message = format!("there are more than {FILES_MAX} files");
            return Err(AdvisoryError::Invalid { path: directory.to_owned(), message });
        }
    }
    Ok(())
}

fn file(path: &Path, matcher: &mut Matcher<'_>) -> Result<(), AdvisoryError> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if !ending.eq_ignore_ascii_case("json") && !ending.eq_ignore_ascii_case("zip") {
        return Ok(());
    }
    let io = |source| AdvisoryError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let size_bytes = file.metadata().map_err(io)?.len();
    let content = Content::Part { file: Arc::new(file), offset_bytes: 0, size_bytes };
    if ending.eq_ignore_ascii_case("json") {
        match content.all(ADVISORY_MAX_BYTES) {
            Ok(bytes) => matcher.add(&bytes),
            Err(_) => matcher.unreadable += 1,
        }
        return Ok(());
    }
    let read = zip::entries(&content, |entry| {
        if entry.name.ends_with(".json") {
            match zip::read(&content, &entry, ADVISORY_MAX_BYTES) {
                Ok(bytes) => matcher.add(&bytes),
                Err(_) => matcher.unreadable += 1,
            }
        }
        true
    });
    read.map_err(|message| AdvisoryError::Invalid { path: path.to_owned(), message })
}

/// The packages by the name that advisories use, and what was found so far.
struct Matcher<'a> {
    packages: &'a [Found],
    system: Option<&'a OperatingSystem>,
    by_name: HashMap<String, Vec<usize>>,
    /// Of one package, with all names of each.
    hits: BTreeMap<usize, Vec<(BTreeSet<String>, Vulnerability)>>,
    advisories: u64,
    unreadable: u64,
    newest: Option<jiff::Timestamp>,
}

impl<'a> Matcher<'a> {
    fn new(report: &'a Report) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (n, found) in report.packages.iter().enumerate() {
            // Who installed it mends it, under a version of its own.
            if found.owner.is_none() {
                by_name.entry(ecosystem::key(&found.package).0).or_default().push(n);
            }
        }
        Self {
            packages: &report.packages,
            system: report.operating_system.as_ref(),
            by_name,
            hits: BTreeMap::new(),
            advisories: 0,
            unreadable: 0,
            newest: None,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let Ok(advisory) = serde_json::from_slice::<Advisory>(bytes) else {
            self.unreadable += 1;
            return;
        };
        self.advisories += 1;
        self.newest = self.newest.max(advisory.modified);
        if advisory.withdrawn.is_some() {
            return;
        }
        for affected in &advisory.affected {
            let Some(name) = &affected.package else { continue };
            // Names differ in spelling by ecosystem; each spelling that packages may have is looked up.
            let spellings = BTreeSet::from([
                name.name.clone(),
                name.name.to_ascii_lowercase(),
                ecosystem::name(crate::Kind::Pypi, &name.name),
            ]);
            for n in spellings.iter().filter_map(|name| self.by_name.get(name)).flatten() {
                let package = &self.packages[*n].package;
                let (key, version) = ecosystem::key(package);
                if key != ecosystem::name(package.kind, &name.name)
                    || !ecosystem::fits(&name.ecosystem, package.kind, self.system)
                {
                    continue;
                }
                if let Some(fixed) = matching::affected(package.kind, version, affected) {
                    let found = vulnerability(&advisory, affected, &self.packages[*n], fixed);
                    self.hits.entry(*n).or_default().push(found);
                }
            }
        }
    }

    /// Advisories of one package that share a name are one vulnerability.
    fn finish(self) -> Vec<Vulnerability> {
        let mut all = Vec::new();
        for hits in self.hits.into_values() {
            let kind = |merged: &Vulnerability| self.packages.iter().find(|f| f.purl == merged.purl);
            let mut merged: Vec<(BTreeSet<String>, Vulnerability)> = Vec::new();
            for (mut names, mut hit) in hits {
                // What the new one has in common with joins it, and so each other.
                let (same, other) = merged
                    .into_iter()
                    .partition(|(known, _): &(BTreeSet<String>, _)| !known.is_disjoint(&names));
                merged = other;
                let same: Vec<(BTreeSet<String>, Vulnerability)> = same;
                for (known, first) in same {
                    names.extend(known);
                    hit = join(first, hit, kind);
                }
                merged.push((names, hit));
            }
            all.extend(merged.into_iter().map(|(names, mut vulnerability)| {
                let number = names.iter().find(|name| name.starts_with("CVE-"));
                vulnerability.id = number.unwrap_or(&vulnerability.id).clone();
                vulnerability.aliases = names.into_iter().filter(|name| *name != vulnerability.id).collect();
                vulnerability
            }));
        }
        let score = |v: &Vulnerability| v.score.unwrap_or_default();
        all.sort_by(|a, b| {
            b.severity
                .cmp(&a.severity)
                .then_with(|| score(b).total_cmp(&score(a)))
                .then_with(|| (&a.package, &a.id, &a.purl).cmp(&(&b.package, &b.id, &b.purl)))
        });
        all
    }
}

/// The worse severity, the earlier fix, and whatever one of them lacks.
fn join<'f>(
    mut a: Vulnerability,
    b: Vulnerability,
    found: impl Fn(&Vulnerability) -> Option<&'f Found>,
) -> Vulnerability {
    if (b.severity, b.score.unwrap_or_default()) > (a.severity, a.score.unwrap_or_default()) {
        (a.severity, a.score, a.vector) = (b.severity, b.score, b.vector);
    }
    a.fixed_version = match (a.fixed_version.take(), b.fixed_version) {
        (Some(x), Some(y)) => {
            let later = found(&a).is_some_and(|f| crate::versions::compare(f.package.kind, &x, &y).is_gt());
            Some(if later { y } else { x })
        }
        (x, y) => x.or(y),
    };
    if a.summary.is_empty() {
        a.summary = b.summary;
    }
    a
}

fn vulnerability(
    advisory: &Advisory,
    affected: &super::osv::Affected,
    found: &Found,
    fixed_version: Option<String>,
) -> (BTreeSet<String>, Vulnerability) {
    let mut names: BTreeSet<String> = advisory.aliases.iter().cloned().collect();
    names.insert(advisory.id.clone());
    // An advisory that is made from several names a group of vulnerabilities, not one.
    if let [one] = &advisory.upstream[..] {
        names.insert(one.clone());
    }
    let (severity, score, vector) = matching::severity(advisory, affected);
    let vulnerability = Vulnerability {
        id: advisory.id.clone(),
        aliases: Vec::new(),
        purl: found.purl.clone(),
        package: found.package.name.clone(),
        version: found.package.version.clone(),
        fixed_version,
        severity,
        score,
        vector,
        summary: advisory.summary.clone().unwrap_or_default(),
    };
    (names, vulnerability)
}
