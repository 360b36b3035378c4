//! Advisories that are read through for one report: only what concerns its packages is kept, so memory does not grow
//! with the data. What is asked often wants an [`super::Index`].

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::documents::documents;
use super::hits::{self, Hits};
use super::osv::Advisory;
use super::{AdvisoryData, AdvisoryError, ecosystem, matching};
use crate::{Found, OperatingSystem, Report};

/// Compares the report's packages with the advisories at `path` and fills its vulnerabilities.
pub fn compare(report: &mut Report, path: &Path) -> Result<(), AdvisoryError> {
    let mut matcher = Matcher::new(report);
    documents(path, &mut |document| {
        match (document.read)() {
            Ok(bytes) => matcher.add(&bytes),
            Err(_) => matcher.unreadable += 1,
        }
        Ok(())
    })?;
    if matcher.advisories == 0 {
        return Err(AdvisoryError::Empty { path: path.to_owned() });
    }
    let data = AdvisoryData {
        source: path.display().to_string(),
        advisories: matcher.advisories,
        unreadable: matcher.unreadable,
        newest_modified: matcher.newest,
        checked_at: None,
        generation: None,
    };
    let mut found = matcher.hits.finish(&report.packages);
    hits::sort(&mut found);
    report.vulnerabilities = Some(found);
    report.advisory_data = Some(data);
    Ok(())
}

/// The packages by the name that advisories use, and what was found so far.
struct Matcher<'a> {
    packages: &'a [Found],
    system: Option<&'a OperatingSystem>,
    by_name: HashMap<String, Vec<usize>>,
    hits: Hits,
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
            hits: Hits::default(),
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
                    self.hits.add(*n, &self.packages[*n], &advisory, affected, fixed);
                }
            }
        }
    }
}
