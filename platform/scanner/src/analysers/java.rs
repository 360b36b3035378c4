//! Java archives, also those within others: `pom.properties` of Maven, else the manifest and the file's name.

use std::sync::Arc;

use super::{Analyser, Candidate, Finding, plausible};
use crate::files::{Content, zip};
use crate::package::{Kind, Package};

const ARCHIVES: &[&str] = &[".jar", ".war", ".ear", ".par", ".sar", ".rar", ".jpi", ".hpi", ".kar"];
const TEXT_MAX_BYTES: u64 = 1 << 20;
/// Of an archive within an archive, held in memory while it is looked into.
const INNER_MAX_BYTES: u64 = 256 << 20;
const FINDINGS_MAX: usize = 50_000;

pub(super) const ANALYSER: Analyser = Analyser {
    os: false,
    wants: |file| is_archive(file.name) && file.name != ".rar",
    read: |file: &Candidate<'_>, content: &Content| {
        let mut findings = Vec::new();
        let mut budget = INNER_MAX_BYTES * 4;
        archive(file.name, "", content, file.nesting_max, &mut budget, &mut findings)?;
        Ok(findings)
    },
};

fn is_archive(name: &str) -> bool {
    let at = name.rfind('.').unwrap_or(name.len());
    ARCHIVES.iter().any(|ending| name[at..].eq_ignore_ascii_case(ending))
}

fn archive(
    name: &str,
    inner: &str,
    content: &Content,
    nesting_left: usize,
    budget: &mut u64,
    findings: &mut Vec<Finding>,
) -> Result<(), String> {
    let (mut poms, mut manifest, mut archives) = (Vec::new(), None, Vec::new());
    zip::entries(content, |entry| {
        if entry.name.starts_with("META-INF/maven/") && entry.name.ends_with("/pom.properties") {
            poms.push(entry);
        } else if entry.name.eq_ignore_ascii_case("META-INF/MANIFEST.MF") {
            manifest = Some(entry);
        } else if is_archive(&entry.name) {
            archives.push(entry);
        }
        poms.len() + archives.len() < FINDINGS_MAX
    })?;
    let mut found = Vec::new();
    for pom in &poms {
        found.extend(properties(&text(content, pom)?));
    }
    // A jar that bundles others has their pom.properties too; its own has its name.
    let stem = name.rsplit('/').next().unwrap_or(name).rsplit_once('.').map_or(name, |(stem, _)| stem);
    let own = found.iter().any(|package| {
        let artifact = package.name.rsplit(':').next().unwrap_or_default();
        stem.starts_with(artifact)
    });
    if !own && let Some(manifest) = &manifest {
        found.extend(from_manifest(&text(content, manifest)?, stem));
    }
    findings.extend(found.into_iter().map(|package| {
        if inner.is_empty() {
            Finding::Package(package)
        } else {
            Finding::Within { inner: inner.to_owned(), package }
        }
    }));
    for entry in archives {
        if nesting_left == 0 || findings.len() >= FINDINGS_MAX {
            return Err("archives are nested too deep or hold too much; the rest was not looked into".into());
        }
        let bytes = zip::read(content, &entry, INNER_MAX_BYTES.min(*budget))?;
        *budget = budget.saturating_sub(bytes.len() as u64);
        let content = Content::Bytes(Arc::from(bytes));
        let path = format!("{inner}!/{}", entry.name);
        archive(&entry.name, &path, &content, nesting_left - 1, budget, findings)?;
    }
    Ok(())
}

fn text(content: &Content, entry: &zip::Entry) -> Result<String, String> {
    zip::read(content, entry, TEXT_MAX_BYTES).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn properties(text: &str) -> Option<Package> {
    let value = |key: &str| {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let mut values = pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim());
        values.next().filter(|value| plausible(value))
    };
    let name = format!("{}:{}", value("groupId")?, value("artifactId")?);
    Some(Package::new(Kind::Maven, name, value("version")?))
}

/// The name and version of `NAME-VERSION.jar`, else of the manifest; the group is a vendor id or a bundle's name.
fn from_manifest(text: &str, stem: &str) -> Option<Package> {
    // A line of 72 bytes goes on in the next one, behind a blank.
    let unfolded = text.replace("\r\n", "\n").replace("\n ", "");
    let value = |key: &str| {
        let fields = unfolded.lines().filter_map(|line| line.split_once(": "));
        let mut values = fields.filter(|(name, _)| *name == key).map(|(_, value)| value.trim());
        values.next().filter(|value| plausible(value))
    };
    let dash = stem.match_indices('-').map(|(at, _)| at);
    let dash = dash.filter(|at| stem[at + 1..].starts_with(|c: char| c.is_ascii_digit())).min();
    let (name, version) = match dash {
        Some(at) => (&stem[..at], Some(&stem[at + 1..])),
        None => (stem, None),
    };
    let version = version.or_else(|| value("Implementation-Version")).or_else(|| value("Bundle-Version"))?;
    let bundle = value("Bundle-SymbolicName").map(|name| name.split(';').next().unwrap_or(name));
    let vendor = value("Implementation-Vendor-Id").filter(|id| id.contains('.'));
    let group = vendor.or_else(|| {
        let bundle = bundle?;
        bundle.strip_suffix(name).map(|group| group.trim_end_matches('.')).filter(|g| !g.is_empty())
    });
    let name = group.map_or_else(|| name.to_owned(), |group| format!("{group}:{name}"));
    (plausible(&name) && plausible(version)).then(|| Package::new(Kind::Maven, name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_and_manifests_name_artifacts() {
        let pom = properties("#x\nversion=2.14.1\ngroupId=org.apache.logging.log4j\nartifactId=log4j-core\n");
        let pom = pom.expect("a package");
        assert_eq!((&*pom.name, &*pom.version), ("org.apache.logging.log4j:log4j-core", "2.14.1"));
        let manifest = "Manifest-Version: 1.0\r\nBundle-SymbolicName: com.google.gu\r\n ava\r\n";
        let guava = from_manifest(manifest, "guava-31.1-jre").expect("a package");
        assert_eq!((&*guava.name, &*guava.version), ("com.google:guava", "31.1-jre"));
        assert_eq!(from_manifest("Manifest-Version: 1.0\n", "app"), None);
    }
}
