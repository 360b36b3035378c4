//! Is a version affected, and which one mends it? Pure functions over one advisory and one package.

use std::cmp::Ordering;

use super::cvss::{Severity, base_score};
use super::osv::{Advisory, Affected, Event, Range, Score};
use crate::{Kind, versions};

/// `Some(fixed version)` if `version` is affected.
pub(super) fn affected(kind: Kind, version: &str, affected: &Affected) -> Option<Option<String>> {
    if let Some(hit) = in_ranges(kind, version, &affected.ranges) {
        return Some(hit);
    }
    let listed = affected.versions.iter().any(|listed| versions::compare(kind, listed, version).is_eq());
    listed.then_some(None)
}

/// A range whose events are versions, not commits.
pub(super) fn is_ordered(range: &Range) -> bool {
    matches!(&*range.kind, "ECOSYSTEM" | "SEMVER")
}

/// The same by ranges alone.
pub(super) fn in_ranges(kind: Kind, version: &str, ranges: &[Range]) -> Option<Option<String>> {
    let mut hits =
        ranges.iter().filter(|range| is_ordered(range)).filter_map(|range| in_range(kind, version, range));
    let hit = hits.next()?;
    let fixed = std::iter::once(hit).chain(hits).flatten();
    Some(fixed.min_by(|a, b| versions::compare(kind, a, b)))
}

/// OSV's evaluation: events in the order of versions, each turning it on or off.
fn in_range(kind: Kind, version: &str, range: &Range) -> Option<Option<String>> {
    let compare = |a: &str, b: &str| match (a, b) {
        ("0", "0") => Ordering::Equal,
        // Before every version.
        ("0", _) => Ordering::Less,
        (_, "0") => Ordering::Greater,
        _ => versions::compare(kind, a, b),
    };
    let mut events: Vec<(&str, &Event)> =
        range.events.iter().filter_map(|event| Some((at(event)?, event))).collect();
    events.sort_by(|(a, _), (b, _)| compare(a, b));
    let mut is_affected = false;
    let mut fixed = None;
    for (at, event) in events {
        // The installed version is never "before every version", whatever it is called.
        let order = if at == "0" { Ordering::Less } else { versions::compare(kind, at, version) };
        if event.introduced.is_some() && order.is_le() {
            is_affected = true;
        } else if (event.fixed.is_some() && order.is_le()) || (event.last_affected.is_some() && order.is_lt())
        {
            is_affected = false;
        } else if event.fixed.is_some() && fixed.is_none() {
            fixed = Some(at.to_owned());
        }
    }
    is_affected.then_some(fixed)
}

fn at(event: &Event) -> Option<&str> {
    event.introduced.as_deref().or(event.fixed.as_deref()).or(event.last_affected.as_deref())
}

/// How bad it is: the worst score of the vectors that can be computed, else the advisory's own word.
pub(super) fn severity(advisory: &Advisory, affected: &Affected) -> (Severity, Option<f64>, Option<String>) {
    let scores: &[Score] = if affected.severity.is_empty() { &advisory.severity } else { &affected.severity };
    let computed = scores.iter().filter_map(|score| Some((base_score(&score.score)?, score.score.clone())));
    if let Some((score, vector)) = computed.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        return (Severity::of_score(score), Some(score), Some(vector));
    }
    let words = [
        advisory.database_specific.severity.as_deref(),
        affected.ecosystem_specific.urgency.as_deref(),
        affected.ecosystem_specific.severity.as_deref(),
        scores.iter().find(|score| score.kind == "Ubuntu").map(|score| score.score.as_str()),
    ];
    let word = words.into_iter().flatten().map(Severity::of_word).max();
    let vector = scores.iter().find(|score| score.kind.starts_with("CVSS")).map(|score| score.score.clone());
    (word.unwrap_or_default(), None, vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, json: serde_json::Value, cases: &[(&str, Option<Option<&str>>)]) {
        let parsed: Affected = serde_json::from_value(json).expect("valid");
        for (version, want) in cases {
            let want = want.map(|fixed| fixed.map(str::to_owned));
            assert_eq!(affected(kind, version, &parsed), want, "{version}");
        }
    }

    #[test]
    fn events_turn_it_on_and_off() {
        let json = serde_json::json!({"ranges": [{"type": "ECOSYSTEM", "events": [
            {"fixed": "2.17.1"}, {"introduced": "2.0-beta9"}, {"introduced": "0"}, {"fixed": "1.3"},
        ]}]});
        check(
            Kind::Maven,
            json,
            &[
                ("1.2", Some(Some("1.3"))),
                ("1.3", None),
                ("2.0-beta8", None),
                ("2.0-beta9", Some(Some("2.17.1"))),
                ("2.17.0", Some(Some("2.17.1"))),
                ("2.17.1", None),
            ],
        );
    }

    #[test]
    fn last_affected_and_lists_have_no_fix() {
        let json = serde_json::json!({
            "ranges": [
                {"type": "GIT", "events": [{"introduced": "0"}]},
                {"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"last_affected": "1.5.0"}]},
            ],
            "versions": ["0.9.0-x"],
        });
        check(
            Kind::Npm,
            json,
            &[
                ("0.9.0", None),
                ("0.9.0-x", Some(None)),
                ("1.0.0", Some(None)),
                ("1.5.0", Some(None)),
                ("1.5.1", None),
            ],
        );
    }

    #[test]
    fn a_distribution_mends_it_in_its_revision() {
        let json = serde_json::json!({"ranges": [{"type": "ECOSYSTEM", "events": [
            {"introduced": "0"}, {"fixed": "7.88.1-10+deb12u4"},
        ]}]});
        check(
            Kind::Deb,
            json,
            &[
                ("7.88.1-10", Some(Some("7.88.1-10+deb12u4"))),
                ("7.88.1-10+deb12u10", None),
                ("0~git1", Some(Some("7.88.1-10+deb12u4"))),
            ],
        );
    }
}
