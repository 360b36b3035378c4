//! Bills of materials hold what the report holds, under names that are unique in the document.

use std::collections::BTreeSet;

use gantry_scanner::{Report, sbom};
use serde_json::Value;

use crate::support::{Layer, STATUS, deb, scan};

fn report() -> Report {
    let layer = Layer::default()
        .file("etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\n")
        .file(STATUS, deb("libstdc++6", "12.2.0-14") + &deb("curl", "7.88.1-10"))
        .file("a/node_modules/@s/x/package.json", r#"{"name":"@s/x","version":"1.0.0","license":"MIT"}"#);
    scan(vec![layer.gzip()]).expect("scanned")
}

fn texts<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    list.as_array().expect("a list").iter().filter_map(|entry| entry[field].as_str()).collect()
}

#[test]
fn cyclonedx_names_every_package_with_its_place() {
    let report = report();
    let document = sbom::cyclonedx(&report);
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(
        texts(&document["components"], "purl"),
        [
            "pkg:deb/debian/curl@7.88.1-10?arch=amd64&distro=debian-12",
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=debian-12",
            "pkg:npm/%40s/x@1.0.0",
        ]
    );
    let references = texts(&document["components"], "bom-ref");
    assert_eq!(references.iter().collect::<BTreeSet<_>>().len(), 4);
    let npm = &document["components"][3];
    assert_eq!((&npm["group"], &npm["name"]), (&"@s".into(), &"x".into()));
    assert_eq!(npm["licenses"][0]["license"]["name"], "MIT");
    assert_eq!(npm["evidence"]["occurrences"][0]["location"], "a/node_modules/@s/x/package.json");
    assert_eq!(npm["properties"][0]["value"], report.target.layers[0].to_string());
    assert_eq!(
        document["metadata"]["component"]["version"],
        report.target.digest.clone().expect("a digest").to_string()
    );
    // The same report is the same document.
    assert_eq!(document, sbom::cyclonedx(&report));
}

#[test]
fn spdx_relates_every_package_to_the_image() {
    let document = sbom::spdx(&report());
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert_eq!(document["creationInfo"]["created"], "2025-11-25T19:46:40Z");
    let ids: BTreeSet<&str> = texts(&document["packages"], "SPDXID").into_iter().collect();
    assert_eq!(ids.len(), 5);
    let related: BTreeSet<&str> =
        texts(&document["relationships"], "relatedSpdxElement").into_iter().collect();
    assert_eq!(ids, related);
    let reference = &document["packages"][2]["externalRefs"][0];
    assert_eq!(reference["referenceLocator"], "pkg:deb/debian/curl@7.88.1-10?arch=amd64&distro=debian-12");
    assert_eq!(reference["referenceCategory"], "PACKAGE-MANAGER");
}

#[test]
fn what_was_not_done_is_null_in_json() {
    let json = serde_json::to_value(report()).expect("JSON");
    for field in ["vulnerabilities", "compliance", "rating", "advisoryData"] {
        assert_eq!(json.get(field), Some(&Value::Null), "{field}");
    }
    let package = &json["packages"][2];
    assert_eq!((&package["kind"], &package["name"]), (&"npm".into(), &"@s/x".into()));
    assert!(package["locations"][0]["layer"].as_str().is_some_and(|layer| layer.starts_with("sha256:")));
    let back: Report = serde_json::from_value(json).expect("a report");
    assert_eq!(back.packages, report().packages);
}
