//! Checks, judgements, ratings and reports of whole images.

use std::sync::Arc;

use gantry_oci::image::Image;
use gantry_scanner::advisories::{AdvisoryData, Severity, Vulnerability, compare};
use gantry_scanner::compliance::{Check, Compliance, MalwareList, Outcome};
use gantry_scanner::html::{Language, html};
use gantry_scanner::judgement::{Exceptions, Status, Vex, judge};
use gantry_scanner::rating::{Grade, RatingPolicy, ReasonKind, rate};
use gantry_scanner::sarif::sarif;
use gantry_scanner::{Options, Report, Scanner};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::advisories::advisory;
use crate::support::{Layer, STATUS, deb, directory, now};

fn checked(layers: Vec<Layer>, malware: &str) -> Report {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"User": "1000"},
                        "rootfs": {"type": "layers", "diff_ids": []}});
    let layers = layers.into_iter().map(Layer::gzip).collect();
    let image = Image::with_config(config.to_string().into(), layers).expect("an image");
    let malware = Arc::new(MalwareList::parse(malware).expect("a list"));
    let mut scanner = Scanner::new(Options { checks: true, malware, ..Options::default() });
    scanner.image("demo/app:1", &image, now()).expect("scanned")
}

fn check<'r>(report: &'r Report, id: &str) -> &'r Check {
    let checks = &report.compliance.as_ref().expect("checked").checks;
    checks.iter().find(|check| check.id == id).expect("a check")
}

fn found(report: &Report, id: &str) -> Vec<(String, String)> {
    let at = |check: &Check| {
        let each = check.evidence.iter();
        each.map(|e| (e.location.as_ref().map(|l| l.path.clone()).unwrap_or_default(), e.message.clone()))
            .collect()
    };
    at(check(report, id))
}

fn secret() -> String {
    format!("key = {}{}\n", "AK", "IAQ3EGDK2V7WXJ5TZR")
}

#[test]
fn what_a_later_layer_removes_is_still_there_for_secrets_alone() {
    let below = Layer::default()
        .file("opt/app/settings.txt", secret())
        .file("opt/app/kept.txt", secret())
        .raw_mode("usr/bin/su", 0o4755)
        .raw_mode("opt/open", 0o666)
        .file("usr/bin/apt-get", "")
        .file("var/lib/apt/lists/x_Packages", "a");
    let above = Layer::default()
        .file("opt/app/.wh.settings.txt", "")
        .file("usr/bin/.wh.su", "")
        .file("opt/.wh.open", "");
    let report = checked(vec![below, above], "");
    let secrets = found(&report, "secret-in-file");
    assert_eq!(secrets.len(), 2, "{secrets:?}");
    assert!(secrets[0].0.ends_with("kept.txt") && !secrets[0].1.contains("removes"), "{secrets:?}");
    assert!(secrets[1].1.contains("a later layer removes it"), "{secrets:?}");
    assert!(secrets.iter().all(|(_, message)| !message.contains("Q3EGDK2V7WXJ5TZR")), "{secrets:?}");
    for id in ["setuid-files", "world-writable-files"] {
        assert_eq!(check(&report, id).outcome, Outcome::Passed, "{id}");
    }
    assert_eq!(found(&report, "package-manager-cache")[0].1, "1 files that apt fetched");
    assert_eq!(check(&report, "shell-in-minimal-image").outcome, Outcome::NotApplicable);
    assert_eq!(check(&report, "malware").outcome, Outcome::NotApplicable);
    assert_eq!(check(&report, "runs-as-root").outcome, Outcome::Passed);
}

#[test]
fn rights_shells_age_and_malware_are_found() {
    let list = format!("{} Test-Virus\n", gantry_oci::Digest::of(b"evil\n").hex());
    let layer = Layer::default()
        .file("etc/os-release", "ID=alpine\nVERSION_ID=3.18.4\n")
        .raw_mode("usr/bin/su", 0o6755)
        .raw_mode("opt/open", 0o666)
        .link("bin/sh", "/bin/busybox")
        .file("opt/x", "evil\n");
    let report = checked(vec![layer], &list);
    assert_eq!(found(&report, "setuid-files").len(), 2);
    assert_eq!(found(&report, "world-writable-files")[0].0, "opt/open");
    assert_eq!(found(&report, "shell-in-minimal-image")[0].0, "bin/sh");
    assert_eq!(found(&report, "malware")[0].0, "opt/x");
    assert!(found(&report, "base-image-end-of-life")[0].1.contains("alpine 3.18"));
    assert_eq!(check(&report, "secret-in-file").outcome, Outcome::Passed);
}

fn compared() -> Report {
    let mut report = checked(
        vec![
            Layer::default()
                .file("etc/os-release", "ID=debian\nVERSION_ID=12\n")
                .file(STATUS, deb("curl", "1.0")),
        ],
        "",
    );
    let (_kept, data) = directory(&[(
        "a.json",
        advisory(
            "DEBIAN-CVE-2025-1",
            "Debian:12",
            "curl",
            "1.1",
            json!({
                "upstream": ["CVE-2025-1"], "database_specific": {"severity": "HIGH"},
                "published": "2025-10-01T00:00:00Z",
            }),
        )
        .as_bytes(),
    )]);
    compare(&mut report, &data).expect("compared");
    report
}

fn vex(status: &str, product: &Value, timestamp: &str) -> Vex {
    let document = json!({
        "@context": "https://openvex.dev/ns/v0.2.0", "@id": "x", "author": "maker@example.org", "version": 1,
        "timestamp": timestamp,
        "statements": [{"vulnerability": {"name": "CVE-2025-1"}, "products": [product], "status": status,
                        "justification": "vulnerable_code_not_present"}],
    });
    Vex::parse(document.to_string().as_bytes()).expect("a document")
}

#[test]
fn statements_settle_what_they_name() {
    let mut report = compared();
    let purl = report.packages[0].purl.clone();
    let image = json!({"@id": format!("pkg:oci/app@{}", report.target.digest.as_ref().expect("a digest")),
                       "subcomponents": [{"@id": "pkg:deb/debian/curl"}]});
    let other = json!({"@id": "pkg:oci/app@sha256:00"});
    let mut status = |documents: &[Vex]| {
        judge(&mut report, documents, &Exceptions::default(), now());
        report.vulnerabilities.as_ref().expect("compared")[0].judgement.as_ref().map(|j| j.status)
    };
    let (early, late) = ("2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z");
    assert_eq!(status(&[]), None);
    assert_eq!(status(&[vex("not_affected", &json!({"@id": purl}), early)]), Some(Status::NotAffected));
    assert_eq!(status(&[vex("not_affected", &image, early)]), Some(Status::NotAffected));
    assert_eq!(status(&[vex("not_affected", &other, early)]), None);
    // The latest counts, in whatever order they are given.
    let both =
        [vex("affected", &json!({"@id": purl}), late), vex("not_affected", &json!({"@id": purl}), early)];
    assert_eq!(status(&both), Some(Status::Affected));
    for bad in [
        "{}",
        r#"{"@context": "https://example.org", "author": "a"}"#,
        r#"{"@context": "https://openvex.dev/ns"}"#,
    ] {
        assert!(Vex::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn exceptions_hold_until_they_expire() {
    let mut report = compared();
    let exceptions = |target: &str, expires: Timestamp| {
        Exceptions::parse(&format!(
            "exceptions:\n- vulnerability: CVE-2025-1\n  package: pkg:deb/debian/curl\n  target: '{target}'\n  \
             author: alice\n  reason: behind a proxy\n  expires: {expires}\n- check: no-health-check\n  \
             author: alice\n  reason: probes\n  expires: {expires}\n"
        ))
        .expect("a document")
    };
    let (before, after) = (now() - SignedDuration::from_secs(1), now() + SignedDuration::from_secs(1));
    let policy = RatingPolicy { data_age_max_days: 3650, ..RatingPolicy::default() };
    let mut settled = |exceptions: &Exceptions| {
        judge(&mut report, &[], exceptions, now());
        rate(&report, &policy, now()).expect("rated").settled
    };
    assert_eq!(settled(&exceptions("demo/*", after)), 2);
    assert_eq!(settled(&exceptions("other/*", after)), 1);
    assert_eq!(settled(&exceptions("demo/*", before)), 0);
    assert_eq!(settled(&exceptions("demo/*", now())), 0);
}

/// A report with these vulnerabilities, whose data is one day old.
fn rated(severities: &[(Severity, Option<i64>, bool)]) -> Report {
    let mut report = checked(vec![Layer::default()], "");
    report.compliance = Some(Compliance::default());
    let day = |days: i64| now() - SignedDuration::from_hours(24 * days);
    report.advisory_data = Some(AdvisoryData {
        source: "x".into(),
        advisories: 1,
        unreadable: 0,
        newest_modified: Some(day(1)),
        checked_at: None,
        generation: None,
    });
    let each = severities.iter().enumerate().map(|(n, (severity, known_days, fixed))| Vulnerability {
        id: format!("CVE-{n}"),
        aliases: vec![],
        purl: "pkg:deb/x".into(),
        package: "x".into(),
        version: "1".into(),
        fixed_version: fixed.then(|| "2".to_owned()),
        severity: *severity,
        score: None,
        vector: None,
        summary: String::new(),
        published: known_days.map(day),
        judgement: None,
    });
    report.vulnerabilities = Some(each.collect());
    report
}

#[test]
fn a_policy_makes_grades() {
    use Severity::{Critical, High, Low, Medium};
    let policy = RatingPolicy::default();
    let grade = |found: &[(Severity, Option<i64>, bool)], policy: &RatingPolicy| {
        rate(&rated(found), policy, now()).expect("rated").grade
    };
    for (found, want) in [
        (vec![], Grade::A),
        (vec![(Low, None, false); 5], Grade::A),
        (vec![(Low, None, false); 6], Grade::B),
        (vec![(High, None, false); 3], Grade::C),
        (vec![(High, None, true); 21], Grade::E),
        (vec![(Medium, None, false); 200], Grade::F),
        // A critical one that can be mended blocks, one that cannot costs its points.
        (vec![(Critical, None, true)], Grade::F),
        (vec![(Critical, None, false)], Grade::C),
        // Within its days of grace it costs nothing.
        (vec![(Critical, Some(1), true)], Grade::A),
        (vec![(Critical, Some(3), true)], Grade::F),
        (vec![(High, Some(6), true), (High, Some(8), true)], Grade::B),
    ] {
        assert_eq!(grade(&found, &policy), want, "{found:?}");
    }
    let stale = RatingPolicy { data_age_max_days: 0, ..RatingPolicy::default() };
    let rating = rate(&rated(&[]), &stale, now()).expect("rated");
    assert_eq!((rating.grade, rating.reasons[0].kind), (Grade::C, ReasonKind::StaleData));
    assert_eq!(grade(&[(Critical, None, true)], &stale), Grade::F);
    let mut undated = rated(&[]);
    undated.advisory_data = None;
    assert_eq!(rate(&undated, &policy, now()).expect("rated").grade, Grade::C);
    undated.vulnerabilities = None;
    assert_eq!(rate(&undated, &policy, now()), None, "nothing is known, so nothing is said");
}

#[test]
fn policies_say_where_they_are_wrong() {
    let parsed = RatingPolicy::parse("dataAgeMaxDays: 2\nblockers:\n- check: malware\n").expect("a policy");
    assert_eq!((parsed.data_age_max_days, parsed.blockers.len()), (2, 1));
    assert_eq!(parsed.grades, RatingPolicy::default().grades);
    for (text, want) in [
        ("grades: {a: 9, b: 1, c: 2, d: 3, e: 4}", "grades:"),
        ("blockers: [{}]", "blockers[0]: it names nothing"),
        ("blockers: [{check: nope}]", "blockers[0]: there is no check \"nope\""),
        ("blockers: [{check: malware, severity: high}]", "blockers[0]: check stands alone"),
        ("gracePeriodDays: {critical: 99999}", "gracePeriodDays"),
        ("dataAgeDays: 1", "dataAgeDays"),
    ] {
        let error = RatingPolicy::parse(text).expect_err(text).to_string();
        assert!(error.contains(want), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// One more vulnerability never makes a rating better.
    #[test]
    fn more_is_never_better(picks in proptest::collection::vec((0..6_usize, 0..40_i64, any::<bool>()), 1..30)) {
        let all = [Severity::Unknown, Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
        let found: Vec<_> = picks.iter().map(|(n, days, fixed)| (all[*n], Some(*days), *fixed)).collect();
        let policy = RatingPolicy::default();
        let with = rate(&rated(&found), &policy, now()).expect("rated");
        let without = rate(&rated(&found[1..]), &policy, now()).expect("rated");
        prop_assert!(with.grade >= without.grade && with.points >= without.points);
    }
}

const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&\u{202e}";

fn hostile() -> Report {
    let mut report = compared();
    report.target.name = HOSTILE.to_owned();
    for found in &mut report.packages {
        found.package.name = HOSTILE.to_owned();
        found.package.version = HOSTILE.to_owned();
        for at in &mut found.locations {
            at.path = format!("opt/{HOSTILE}");
        }
    }
    for found in report.vulnerabilities.iter_mut().flatten() {
        found.id = HOSTILE.to_owned();
        found.summary = HOSTILE.to_owned();
        found.package = HOSTILE.to_owned();
        found.fixed_version = Some(HOSTILE.to_owned());
    }
    if let Some(compliance) = &mut report.compliance {
        for check in &mut compliance.checks {
            check.outcome = Outcome::Failed;
            check.evidence =
                vec![gantry_scanner::compliance::Evidence { location: None, message: HOSTILE.to_owned() }];
        }
    }
    report.problems.push(gantry_scanner::Problem {
        location: gantry_scanner::Location { path: HOSTILE.to_owned(), layer: None },
        message: HOSTILE.to_owned(),
    });
    report.rating = rate(&report, &RatingPolicy::default(), now());
    report
}

#[test]
fn pages_escape_hostile_names_and_fetch_nothing() {
    for language in [Language::English, Language::Chinese] {
        let page = html(&hostile(), language);
        for bad in ["<script", "<img", "\u{202e}", "src=", "href=", "url(", "@import"] {
            let plain = page.replace("img src=x onerror", "");
            assert!(!plain.contains(bad), "{bad}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;"));
        // Every element that is opened is closed, whatever the names are.
        for tag in ["table", "tr", "td", "ul", "li", "div", "span", "code", "details", "main", "dl"] {
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
    let page = html(&compared(), Language::Chinese);
    assert!(page.contains("已知漏洞") && page.contains("CVE-2025-1") && page.contains("添加 HEALTHCHECK"));
}

#[test]
fn sarif_has_what_readers_need() {
    let mut report = compared();
    let exceptions = "exceptions: [{vulnerability: CVE-2025-1, author: alice, reason: proxy, expires: 2099-01-01T00:00:00Z}]";
    judge(&mut report, &[], &Exceptions::parse(exceptions).expect("a document"), now());
    let document = sarif(&report);
    let run = &document["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results");
    assert!(results.len() >= 2);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("a number")).expect("small");
        assert_eq!(result["ruleId"], rules[index]["id"]);
    }
    assert_eq!(results[0]["ruleId"], "CVE-2025-1");
    assert_eq!(results[0]["level"], "error");
    assert_eq!(results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], STATUS);
    let said = results[0]["suppressions"][0]["justification"].as_str().expect("a reason");
    assert!(said.starts_with("accepted, says alice, until 2099"), "{said}");
    let uri = sarif(&hostile())["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].clone();
    assert!(
        uri.as_str().expect("a URI").bytes().all(|b| b.is_ascii_graphic() && !b"<>\"'".contains(&b)),
        "{uri}"
    );
}

/// What SARIF 2.1.0 (errata 01) says, by section, and what code hosts want beyond it. Microsoft's `Sarif.Multitool
/// validate` says the same of what `gantry image scan --format sarif` prints.
#[test]
fn sarif_is_as_the_standard_says() {
    let text = |value: &Value, what: &str| {
        let text = value.as_str().unwrap_or_default().to_owned();
        assert!(!text.is_empty(), "{what}: {value}");
        text
    };
    let relative = |uri: &str| {
        let base: reqwest::Url = "https://image.example.org/root/".parse().expect("an address");
        let joined = base.join(uri).expect("a reference (3.4.3)");
        assert!(joined.as_str().starts_with(base.as_str()), "{uri} stays inside (3.4.3)");
    };
    let mut bare = compared();
    bare.target.name = "/srv/acme web:1".to_owned();
    for found in &mut bare.packages {
        found.locations.clear();
    }
    for report in [compared(), hostile(), bare] {
        let document = sarif(&report);
        assert_eq!(document["version"], "2.1.0", "3.13.2");
        text(&document["$schema"], "3.13.3");
        let run = &document["runs"][0];
        text(&run["tool"]["driver"]["name"], "3.19.8");
        let rules = run["tool"]["driver"]["rules"].as_array().expect("3.19.23");
        let mut ids = std::collections::BTreeSet::new();
        for rule in rules {
            assert!(ids.insert(text(&rule["id"], "3.49.3")), "an id twice: {rule}");
            for (field, section) in
                [("shortDescription", "3.49.9"), ("fullDescription", "3.49.10"), ("help", "3.49.13")]
            {
                text(&rule[field]["text"], section);
            }
            if let Some(uri) = rule["helpUri"].as_str() {
                uri.parse::<reqwest::Url>().expect("an absolute address (3.49.12)");
            }
        }
        for invocation in run["invocations"].as_array().expect("3.14.11") {
            assert!(invocation["executionSuccessful"].is_boolean(), "3.20.14");
            text(&invocation["endTimeUtc"], "3.20.8").parse::<jiff::Timestamp>().expect("a time (3.9)");
            for notification in invocation["toolExecutionNotifications"].as_array().expect("3.20.21") {
                text(&notification["message"]["text"], "3.58.5");
            }
        }
        let results = run["results"].as_array().expect("3.14.23");
        assert!(!results.is_empty());
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().expect("3.27.6")).expect("small");
            assert_eq!(rules[index]["id"], result["ruleId"], "3.27.5");
            text(&result["message"]["text"], "3.27.11");
            let level = text(&result["level"], "3.27.10");
            assert!(["none", "note", "warning", "error"].contains(&&*level), "3.27.10: {level}");
            let locations = result["locations"].as_array().expect("3.27.12");
            assert!(!locations.is_empty());
            for location in locations {
                let physical = &location["physicalLocation"];
                relative(&text(&physical["artifactLocation"]["uri"], "3.4.3"));
                assert!(physical["region"].is_null() || physical["region"]["startLine"] == 1, "3.30.5");
            }
            for suppression in result["suppressions"].as_array().into_iter().flatten() {
                assert_eq!(
                    (&suppression["kind"], &suppression["status"]),
                    (&"external".into(), &"accepted".into())
                );
                text(&suppression["justification"], "3.35.4");
            }
        }
    }
}

#[test]
fn the_guide_shows_the_policy_and_the_checks_that_are() {
    let guide = include_str!("../../../docs/guides/scanner.md");
    let blocks = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks: Vec<&str> = blocks.collect();
    let policy = blocks.iter().find(|block| block.starts_with("weights:")).expect("a policy");
    assert_eq!(RatingPolicy::parse(policy).expect("a policy"), RatingPolicy::default());
    let exceptions = blocks.iter().find(|block| block.starts_with("exceptions:")).expect("exceptions");
    assert_eq!(Exceptions::parse(exceptions).expect("exceptions").exceptions.len(), 2);
    for check in gantry_scanner::compliance::CHECKS {
        let row = format!("| `{}` | {} |", check.id, check.severity.as_str());
        assert!(guide.contains(&row), "{row}");
    }
}
