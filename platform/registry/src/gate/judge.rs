//! Does an image meet what is required of it? A pure function of the report, the policy and the time. What is wrong is
//! told with what was found, the rule, and what mends it.

use gantry_registry_api::{Answer, Grade as Wanted, Requirements};
use gantry_scanner::Report;
use gantry_scanner::judgement::judge;
use gantry_scanner::rating::{Grade, Rating, ReasonKind, rate};
use jiff::{SignedDuration, Timestamp};

use super::policies::Effective;

/// Reasons that a refusal names; the report has all.
const REASONS_SHOWN: usize = 3;
const HOURS_PER_DAY: i64 = 24;

/// One rule that an image does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// What was found, against which rule.
    pub(crate) finding: String,
    pub(crate) remedy: String,
}

/// Enters exceptions and the grade into a report, which calls the image `name`.
pub(crate) fn rated(mut report: Report, name: &str, effective: &Effective, now: Timestamp) -> Report {
    report.rename(name);
    judge(&mut report, &[], &effective.exceptions, now);
    report.rating = rate(&report, &effective.rating, now);
    report
}

/// What the image called `name` does not meet. `report` is rated, or why there is none.
pub(crate) fn violations(
    name: &str,
    report: Result<&Report, &str>,
    required: &Requirements,
    now: Timestamp,
) -> Vec<Violation> {
    let rating = report.and_then(|report| Ok((report, report.rating.as_ref().ok_or(NOT_COMPARED)?)));
    let mut found = Vec::new();
    match rating {
        Err(why) if unscanned(required) == Answer::Refuse => {
            let remedy = if why == NOT_COMPARED {
                "the operator brings advisories with `gantry advisories update`".to_owned()
            } else {
                format!("`gantry image report {name}` waits for the scan; then try again")
            };
            found.push(Violation {
                finding: format!("{why}, and images without a grade are refused"),
                remedy,
            });
        }
        Err(_) => {}
        Ok((report, rating)) => found.extend(worse(name, report, rating, required.minimum_grade)),
    }
    if let (Ok(report), Some(days)) = (report, required.advisory_data_max_age_days) {
        found.extend(too_old(report, days, now));
    }
    found
}

const NOT_COMPARED: &str = "it was not compared with advisories";

/// Whether images without a grade are good enough.
fn unscanned(required: &Requirements) -> Answer {
    let wants_grade = required.minimum_grade.is_some() || required.advisory_data_max_age_days.is_some();
    required.unscanned.unwrap_or(if wants_grade { Answer::Refuse } else { Answer::Allow })
}

fn worse(name: &str, report: &Report, rating: &Rating, wanted: Option<Wanted>) -> Option<Violation> {
    let wanted = grade(wanted?);
    if rating.grade <= wanted {
        return None;
    }
    let reasons: Vec<String> = rating.reasons.iter().take(REASONS_SHOWN).map(shown).collect();
    let more = (rating.reasons.len() as u64 + rating.more).saturating_sub(reasons.len() as u64);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let (is, points) = (rating.grade.as_str(), rating.points);
    let newest = report.advisory_data.as_ref().and_then(|data| data.newest_modified);
    let newest = newest.map_or("unknown age".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
    Some(Violation {
        finding: format!(
            "it is rated {is} ({points} points, by advisories of {newest}), {} is required: {}{more}",
            wanted.as_str(),
            reasons.join("; ")
        ),
        remedy: format!("mend what is found and push again; `gantry image report {name}` lists it"),
    })
}

fn shown(reason: &gantry_scanner::rating::Reason) -> String {
    match reason.kind {
        ReasonKind::StaleData => reason.message.clone(),
        ReasonKind::Blocker => format!("{} blocks: {}", reason.subject, reason.message),
        _ => format!("{} {}", reason.subject, reason.message),
    }
}

fn too_old(report: &Report, days: u32, now: Timestamp) -> Option<Violation> {
    let age = report.advisory_data.as_ref().and_then(|data| data.age(now));
    let is = match age {
        Some(age) if age <= SignedDuration::from_hours(i64::from(days) * HOURS_PER_DAY) => return None,
        Some(age) => format!("are {} days old", age.as_hours() / HOURS_PER_DAY),
        None => "are of unknown age".to_owned(),
    };
    Some(Violation {
        finding: format!("the advisories it was compared with {is}, {days} days are allowed"),
        remedy: "the operator brings newer ones with `gantry advisories update`".to_owned(),
    })
}

fn grade(wanted: Wanted) -> Grade {
    match wanted {
        Wanted::A => Grade::A,
        Wanted::B => Grade::B,
        Wanted::C => Grade::C,
        Wanted::D => Grade::D,
        Wanted::E => Grade::E,
        Wanted::F => Grade::F,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::policies::{Act, Book, Place};
    use gantry_registry_api::{ImagePolicy, ImagePolicySpec};
    use serde_json::json;

    const NOW: &str = "2026-06-10T00:00:00Z";

    /// With openssl, which has a hole that a newer version mends.
    fn report(newest: &str) -> Report {
        serde_json::from_value(json!({
            "schemaVersion": 1, "scannedAt": NOW, "packages": [], "problems": [],
            "target": { "kind": "image", "name": "x" },
            "operatingSystem": null, "rating": null,
            "compliance": { "checks": [] },
            "vulnerabilities": [{
                "id": "CVE-1", "purl": "pkg:deb/debian/openssl@1", "package": "openssl", "version": "1",
                "fixedVersion": "2", "severity": "critical", "score": 9.8, "vector": null,
                "published": "2020-01-01T00:00:00Z",
            }],
            "advisoryData": { "source": "x", "advisories": 1, "unreadable": 0, "newestModified": newest },
        }))
        .expect("a report")
    }

    #[test]
    fn what_is_required_is_told_with_its_remedy() {
        let now: Timestamp = NOW.parse().expect("a time");
        let fresh = "2026-06-08T00:00:00Z";
        let exception = json!([{ "vulnerability": "CVE-1", "target": "demo/*", "author": "a", "reason": "r",
            "expires": "2026-06-11T00:00:00Z" }]);
        let expired = json!([{ "vulnerability": "CVE-1", "author": "a", "reason": "r",
            "expires": "2026-06-09T00:00:00Z" }]);
        let none = json!([]);
        for (required, exceptions, report, want) in [
            (json!({}), &none, Some(report(fresh)), ""),
            (json!({}), &none, None, ""),
            (json!({ "minimumGrade": "F" }), &none, Some(report(fresh)), ""),
            (
                json!({ "minimumGrade": "C" }),
                &none,
                Some(report(fresh)),
                "it is rated F (40 points, by advisories of 2026-06-08), C is required: CVE-1 blocks: critical in openssl \
                 1, mended in 2",
            ),
            (json!({ "minimumGrade": "A" }), &exception, Some(report(fresh)), ""),
            (json!({ "minimumGrade": "A" }), &expired, Some(report(fresh)), "rated F"),
            (
                json!({ "minimumGrade": "E" }),
                &none,
                None,
                "no report, and images without a grade are refused",
            ),
            (json!({ "minimumGrade": "E", "unscanned": "allow" }), &none, None, ""),
            (json!({ "unscanned": "refuse" }), &none, Some(report(fresh)), ""),
            (json!({ "unscanned": "refuse" }), &none, None, "without a grade"),
            (json!({ "advisoryDataMaxAgeDays": 2 }), &none, Some(report(fresh)), ""),
            (
                json!({ "advisoryDataMaxAgeDays": 2 }),
                &none,
                Some(report("2026-06-01T00:00:00Z")),
                "are 9 days old, 2 days are allowed",
            ),
            // Old data cannot tell that an image is good.
            (
                json!({ "minimumGrade": "B" }),
                &exception,
                Some(report("2026-06-01T00:00:00Z")),
                "B is required: the advisory data is 9 days old",
            ),
        ] {
            let spec: ImagePolicySpec =
                serde_json::from_value(json!({ "deploy": required, "exceptions": exceptions }))
                    .expect("a policy");
            let book = Book::new(&[ImagePolicy::new("p", spec)]);
            let effective = book.at(&Place::default(), Act::Deploy);
            let report = report.map(|report| rated(report, "demo/x:1", &effective, now));
            let (_, asked) = effective.requirements.clone().unwrap_or_default();
            let found = violations("demo/x:1", report.as_ref().ok_or("no report"), &asked, now);
            let text: Vec<&str> = found.iter().map(|one| one.finding.as_str()).collect();
            assert_eq!(text.is_empty(), want.is_empty(), "{required} {text:?}");
            assert!(text.join("; ").contains(want), "{required}: {text:?}, not {want}");
            assert!(found.iter().all(|one| !one.remedy.is_empty()));
        }
    }
}
