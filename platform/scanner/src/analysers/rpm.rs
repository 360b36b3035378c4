//! RPM's database: one header per package, in SQLite (RPM 4.16 and later), RPM's own ndb (SUSE), or Berkeley DB (before).

use super::sqlite::{Database, Value};
use super::{Analyser, Candidate, Finding, bdb, may_hold_language_packages, ndb, plausible};
use crate::files::Content;
use crate::package::{Kind, Package, Source};

const ENTRIES_MAX: usize = 4096;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCHITECTURE: u32 = 1022;
const SOURCE: u32 = 1044;
const DIRECTORY_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIRECTORY_NAMES: u32 = 1118;

const DIRECTORIES: &[&str] = &["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];

pub(super) const ANALYSER: Analyser = Analyser {
    os: true,
    wants: |file| {
        matches!(file.name, "rpmdb.sqlite" | "Packages" | "Packages.db")
            && file.path.rsplit_once('/').is_some_and(|(parent, _)| DIRECTORIES.contains(&parent))
    },
    read,
};

fn read(file: &Candidate<'_>, content: &Content) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let mut add = |blob: &[u8]| {
        findings.extend(package(&Header::parse(blob)?));
        Ok(())
    };
    match file.name {
        "rpmdb.sqlite" => Database::open(content)?.rows("Packages", &mut |row| match &row[..] {
            [_, Value::Bytes(blob), ..] => add(blob),
            _ => Ok(()),
        })?,
        "Packages.db" => ndb::headers(content, &mut add)?,
        // What is shorter than a header is the counter that stands under number 0.
        _ => bdb::Database::open(content)?
            .values(&mut |value| if value.len() < 16 { Ok(()) } else { add(value) })?,
    }
    Ok(findings)
}

/// A header without lead: a number of entries (tag, type, offset, count), then the store of their values.
struct Header<'a> {
    entries: Vec<[u32; 4]>,
    store: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self, String> {
        let number = |at: usize| {
            let bytes = blob.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or("a package's header is cut off")
        };
        let count = usize::try_from(number(0)?).unwrap_or(usize::MAX);
        if count > ENTRIES_MAX {
            return Err("a package's header has too many entries".to_owned());
        }
        let mut entries = Vec::with_capacity(count);
        for n in 0..count {
            let at = 8 + 16 * n;
            entries.push([number(at)?, number(at + 4)?, number(at + 8)?, number(at + 12)?]);
        }
        Ok(Self { entries, store: blob.get(8 + 16 * count..).unwrap_or_default() })
    }

    fn entry(&self, tag: u32) -> Option<(&'a [u8], usize)> {
        let [_, _, offset, count] = self.entries.iter().find(|entry| entry[0] == tag)?;
        let value = self.store.get(usize::try_from(*offset).ok()?..)?;
        Some((value, usize::try_from(*count).ok()?))
    }

    fn strings(&self, tag: u32) -> impl Iterator<Item = &'a str> {
        let (value, count) = self.entry(tag).unwrap_or_default();
        let parts = value.split(|byte| *byte == 0).take(count);
        parts.map(|part| std::str::from_utf8(part).unwrap_or_default())
    }

    fn string(&self, tag: u32) -> Option<&'a str> {
        self.strings(tag).next().filter(|text| plausible(text))
    }

    fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> {
        let (value, count) = self.entry(tag).unwrap_or_default();
        value.chunks_exact(4).take(count).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }
}

fn package(header: &Header<'_>) -> Vec<Finding> {
    let (Some(name), Some(version), Some(release)) =
        (header.string(NAME), header.string(VERSION), header.string(RELEASE))
    else {
        return Vec::new();
    };
    // Keys that were imported stand there as packages.
    if name == "gpg-pubkey" {
        return Vec::new();
    }
    let epoch = header.numbers(EPOCH).next().filter(|epoch| *epoch != 0);
    let epoch = epoch.map_or_else(String::new, |epoch| format!("{epoch}:"));
    let full = format!("{epoch}{version}-{release}");
    let mut package = Package::new(Kind::Rpm, name, &*full);
    package.architecture = header.string(ARCHITECTURE).map(str::to_owned);
    package.licenses.extend(header.string(LICENSE).map(str::to_owned));
    package.source = header
        .string(SOURCE)
        .and_then(source)
        .map(|(source, version)| Source { name: source.to_owned(), version: format!("{epoch}{version}") });
    let mut findings = vec![Finding::Package(package)];
    let directories: Vec<&str> = header.strings(DIRECTORY_NAMES).collect();
    let paths: Vec<String> = header
        .strings(BASE_NAMES)
        .zip(header.numbers(DIRECTORY_INDEXES))
        .filter_map(|(base, at)| {
            let directory = directories.get(usize::try_from(at).ok()?)?;
            let path = format!("{}{base}", directory.trim_start_matches('/'));
            may_hold_language_packages(&path).then_some(path)
        })
        .collect();
    if !paths.is_empty() {
        findings.push(Finding::Owned { package: name.to_owned(), paths });
    }
    findings
}

/// `NAME-VERSION-RELEASE.src.rpm` → name and `VERSION-RELEASE`.
fn source(file: &str) -> Option<(&str, &str)> {
    let stem = file.strip_suffix(".src.rpm").or_else(|| file.strip_suffix(".nosrc.rpm"))?;
    let release = stem.rfind('-')?;
    let version = stem[..release].rfind('-')?;
    Some((&stem[..version], &stem[version + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_packages_are_taken_from_file_names() {
        assert_eq!(source("openssl-libs-3.0.7-24.el9.src.rpm"), Some(("openssl-libs", "3.0.7-24.el9")));
        assert_eq!(source("x.src.rpm"), None);
    }
}
