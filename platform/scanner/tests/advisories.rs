//! Advisories of several sources against packages of several ecosystems.

use std::path::Path;

use gantry_scanner::advisories::{AdvisoryError, Severity, compare};
use gantry_scanner::{Options, Report, Scanner};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{STATUS, deb, directory, now, zip};

const VECTOR: &str = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H";

pub fn report() -> Report {
    let source = "Package: libcurl4\nStatus: install ok installed\nSource: curl\nVersion: 7.88.1-10\n\n";
    let metadata = "usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO";
    let (_kept, root) = directory(&[
        ("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"),
        (STATUS, (source.to_owned() + &deb("python3-six", "1.16.0-4")).as_bytes()),
        ("var/lib/dpkg/info/python3-six.list", format!("/{metadata}\n").as_bytes()),
        (metadata, b"Name: six\nVersion: 1.16.0\n"),
        ("opt/lib/Py_YAML-5.3.dist-info/METADATA", b"Name: Py_YAML\nVersion: 5.3\n"),
        ("opt/node_modules/left-pad/package.json", br#"{"name":"left-pad","version":"1.3.0"}"#),
    ]);
    Scanner::new(Options::default()).directory(&root, now()).expect("scanned")
}

pub fn advisory(id: &str, ecosystem: &str, name: &str, fixed: &str, more: Value) -> String {
    let mut value = json!({
        "id": id, "modified": "2025-11-20T10:00:00Z",
        "affected": [{
            "package": {"ecosystem": ecosystem, "name": name},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
        }],
    });
    for (key, field) in more.as_object().into_iter().flatten() {
        value[key] = field.clone();
    }
    value.to_string()
}

pub fn all() -> Vec<(&'static str, String)> {
    vec![
        (
            "debian/DEBIAN-CVE-2023-38545.json",
            advisory(
                "DEBIAN-CVE-2023-38545",
                "Debian:12",
                "curl",
                "7.88.1-10+deb12u4",
                json!({"upstream": ["CVE-2023-38545"]}),
            ),
        ),
        ("debian/other.json", advisory("DEBIAN-CVE-2020-1", "Debian:11", "curl", "7.99", json!({}))),
        ("debian/fixed.json", advisory("DEBIAN-CVE-2020-2", "Debian:12", "curl", "7.88.1-9", json!({}))),
        (
            "pypi/GHSA-8q59-q68h-6hv4.json",
            advisory(
                "GHSA-8q59-q68h-6hv4",
                "PyPI",
                "py.yaml",
                "5.4",
                json!({
                    "aliases": ["CVE-2020-14343"], "severity": [{"type": "CVSS_V3", "score": VECTOR}],
                }),
            ),
        ),
        (
            "pypi/PYSEC-2021-142.json",
            advisory(
                "PYSEC-2021-142",
                "PyPI",
                "py-yaml",
                "5.4.1",
                json!({
                    "aliases": ["CVE-2020-14343"], "summary": "Code is run",
                }),
            ),
        ),
        ("pypi/owned.json", advisory("PYSEC-1", "PyPI", "six", "2.0", json!({}))),
        (
            "npm/word.json",
            advisory(
                "GHSA-x",
                "npm",
                "left-pad",
                "1.3.1",
                json!({"database_specific": {"severity": "MODERATE"}}),
            ),
        ),
        (
            "npm/gone.json",
            advisory("GHSA-y", "npm", "left-pad", "1.3.1", json!({"withdrawn": "2025-01-01T00:00:00Z"})),
        ),
        ("npm/broken.json", "{".to_owned()),
    ]
}

fn check(path: &Path) {
    let mut report = report();
    compare(&mut report, path).expect("compared");
    is_right(report);
}

/// What [`all`] says of [`report`].
pub fn is_right(report: Report) {
    let data = report.advisory_data.clone().expect("data");
    assert_eq!((data.advisories, data.unreadable), (8, 1));
    assert_eq!(data.newest_modified.expect("a time").to_string(), "2025-11-20T10:00:00Z");
    let found = report.vulnerabilities.expect("compared");
    let seen: Vec<_> = found
        .iter()
        .map(|v| (v.id.as_str(), v.package.as_str(), v.severity, v.score, v.fixed_version.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("CVE-2020-14343", "Py_YAML", Severity::Critical, Some(9.8), Some("5.4")),
            ("GHSA-x", "left-pad", Severity::Medium, None, Some("1.3.1")),
            ("CVE-2023-38545", "libcurl4", Severity::Unknown, None, Some("7.88.1-10+deb12u4")),
        ]
    );
    assert_eq!(found[0].aliases, ["GHSA-8q59-q68h-6hv4", "PYSEC-2021-142"]);
    assert_eq!(found[0].summary, "Code is run");
    assert_eq!(found[2].aliases, ["DEBIAN-CVE-2023-38545"]);
}

#[test]
fn a_directory_and_a_zip_give_the_same() {
    let all = all();
    let files: Vec<(&str, &[u8])> = all.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let (_kept, plain) = directory(&files);
    check(&plain);
    let packed = zip(&files);
    let (_kept_too, with_zip) = directory(&[("all.zip", &packed), ("README.md", b"x")]);
    check(&with_zip);
    check(&with_zip.join("all.zip"));
}

#[test]
fn nothing_to_compare_with_is_no_result() {
    let (_kept, empty) = directory(&[("README.md", b"x"), ("broken.zip", b"PK")]);
    let mut report = report();
    assert!(matches!(compare(&mut report, &empty), Err(AdvisoryError::Invalid { .. })));
    std::fs::remove_file(empty.join("broken.zip")).expect("removed");
    assert!(matches!(compare(&mut report, &empty), Err(AdvisoryError::Empty { .. })));
    assert!(matches!(compare(&mut report, &empty.join("absent")), Err(AdvisoryError::Io { .. })));
    assert!(report.vulnerabilities.is_none() && report.advisory_data.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), at in 0..900_usize, byte: u8) {
        let mut damaged = all().remove(3).1.into_bytes();
        let length = damaged.len();
        damaged[at % length] = byte;
        let mut archive = zip(&[("a.json", &damaged), ("b.json", &bytes)]);
        let (_kept, directory) = directory(&[("a.json", &damaged), ("b.json", &bytes)]);
        let mut report = report();
        let _ = compare(&mut report, &directory);
        let length = archive.len();
        archive[at % length] = byte;
        let (_kept, packed) = crate::support::directory(&[("a.zip", &archive)]);
        let _ = compare(&mut report, &packed);
    }
}
