//! SPDX 2.3 (the successor of ISO/IEC 5962:2021).

use serde_json::{Value, json};

use crate::{Found, Report, TargetKind};

const TARGET: &str = "SPDXRef-Target";
const NONE: &str = "NOASSERTION";

/// The report's packages as an SPDX document.
pub fn spdx(report: &Report) -> Value {
    let purpose = match report.target.kind {
        TargetKind::Image => "CONTAINER",
        TargetKind::Directory => "FILE",
    };
    let mut target = package(TARGET, &report.target.name);
    target["primaryPackagePurpose"] = json!(purpose);
    if let Some(digest) = &report.target.digest {
        target["versionInfo"] = json!(digest);
    }
    let mut packages = vec![target];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", TARGET)];
    if let Some(system) = &report.operating_system {
        let mut entry = package("SPDXRef-OperatingSystem", &system.id);
        entry["primaryPackagePurpose"] = json!("OPERATING-SYSTEM");
        if !system.version_id.is_empty() {
            entry["versionInfo"] = json!(system.version_id);
        }
        packages.push(entry);
        relationships.push(relationship(TARGET, "CONTAINS", "SPDXRef-OperatingSystem"));
    }
    for (n, found) in report.packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{n}");
        packages.push(entry(&id, found));
        relationships.push(relationship(TARGET, "CONTAINS", &id));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": report.target.name,
        "documentNamespace": format!("urn:uuid:{}", super::uuid(report)),
        "creationInfo": {
            // Whole seconds: the specification has no others.
            "created": report.scanned_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "creators": [format!("Tool: {}-{}", super::TOOL, super::TOOL_VERSION)],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

fn package(id: &str, name: &str) -> Value {
    json!({
        "SPDXID": id, "name": name, "downloadLocation": NONE, "filesAnalyzed": false,
        "licenseConcluded": NONE, "licenseDeclared": NONE, "copyrightText": NONE,
    })
}

fn entry(id: &str, found: &Found) -> Value {
    let mut entry = package(id, &found.package.name);
    entry["versionInfo"] = json!(found.package.version);
    entry["externalRefs"] = json!([{
        "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": found.purl,
    }]);
    let places = found.locations.iter().map(|at| match &at.layer {
        Some(layer) => format!("{} in {layer}", at.path),
        None => at.path.clone(),
    });
    entry["sourceInfo"] = json!(format!("found at {}", places.collect::<Vec<_>>().join(", ")));
    if !found.package.licenses.is_empty() {
        entry["licenseComments"] = json!(format!("the metadata says: {}", found.package.licenses.join(", ")));
    }
    entry
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}
