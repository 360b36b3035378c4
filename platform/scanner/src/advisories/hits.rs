//! What was found for the packages of a report, put together: advisories that are aliases of each other are one
//! vulnerability.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::osv::{Advisory, Affected};
use super::{Vulnerability, matching};
use crate::{Found, Kind, versions};

/// Names of one vulnerability in one package, and what is known of it.
type Named = (BTreeSet<String>, Vulnerability);

/// Hits so far, by the number of the package.
#[derive(Default)]
pub(super) struct Hits(BTreeMap<usize, Vec<Named>>);

impl Hits {
    pub(super) fn add(
        &mut self,
        n: usize,
        found: &Found,
        advisory: &Advisory,
        affected: &Affected,
        fixed: Option<String>,
    ) {
        self.0.entry(n).or_default().push(vulnerability(advisory, affected, found, fixed));
    }

    /// One list, package by package.
    pub(super) fn finish(self, packages: &[Found]) -> Vec<Vulnerability> {
        let per_package = self.0.into_iter();
        per_package.flat_map(|(n, hits)| merged(packages[n].package.kind, hits)).collect()
    }
}

/// The worst first.
pub(super) fn sort(all: &mut [Vulnerability]) {
    let score = |v: &Vulnerability| v.score.unwrap_or_default();
    all.sort_by(|a, b| {
        b.severity
            .cmp(&a.severity)
            .then_with(|| score(b).total_cmp(&score(a)))
            .then_with(|| (&a.package, &a.id, &a.purl).cmp(&(&b.package, &b.id, &b.purl)))
    });
}

/// Advisories of one package that share a name, directly or through a third, are one vulnerability.
fn merged(kind: Kind, hits: Vec<Named>) -> Vec<Vulnerability> {
    let mut group_of: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Option<Named>> = Vec::new();
    for (mut names, mut hit) in hits {
        let same: BTreeSet<usize> = names.iter().filter_map(|name| group_of.get(name).copied()).collect();
        for (known, first) in same.into_iter().filter_map(|n| groups[n].take()) {
            names.extend(known);
            hit = join(kind, first, hit);
        }
        group_of.extend(names.iter().map(|name| (name.clone(), groups.len())));
        groups.push(Some((names, hit)));
    }
    let named = |(names, mut vulnerability): Named| {
        let number = names.iter().find(|name| name.starts_with("CVE-"));
        vulnerability.id = number.unwrap_or(&vulnerability.id).clone();
        vulnerability.aliases = names.into_iter().filter(|name| *name != vulnerability.id).collect();
        vulnerability
    };
    groups.into_iter().flatten().map(named).collect()
}

/// The worse severity, the earlier fix, and whatever one of them lacks.
fn join(kind: Kind, mut a: Vulnerability, b: Vulnerability) -> Vulnerability {
    if (b.severity, b.score.unwrap_or_default()) > (a.severity, a.score.unwrap_or_default()) {
        (a.severity, a.score, a.vector) = (b.severity, b.score, b.vector);
    }
    a.fixed_version = match (a.fixed_version.take(), b.fixed_version) {
        (Some(x), Some(y)) => Some(if versions::compare(kind, &x, &y).is_gt() { y } else { x }),
        (x, y) => x.or(y),
    };
    // Known since the first of them said so.
    a.published = [a.published, b.published].into_iter().flatten().min();
    if a.summary.is_empty() {
        a.summary = b.summary;
    }
    a
}

fn vulnerability(
    advisory: &Advisory,
    affected: &Affected,
    found: &Found,
    fixed_version: Option<String>,
) -> Named {
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
        published: advisory.published,
        judgement: None,
    };
    (names, vulnerability)
}
