//! A report as SARIF 2.1.0 (OASIS), for tools that show findings beside code: a rule per vulnerability and per check,
//! a result per place. What concerns no file is a finding in the image as a whole: code hosts want a place for each.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Report;
use crate::advisories::{Severity, Vulnerability};
use crate::compliance::{Check, Evidence, Outcome, definition};
use crate::judgement::{Judgement, Status};
use crate::package::Location;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The document.
pub fn sarif(report: &Report) -> Value {
    let mut rules = Rules::default();
    let mut results = Vec::new();
    let by_purl: BTreeMap<&str, &[Location]> =
        report.packages.iter().map(|found| (found.purl.as_str(), &found.locations[..])).collect();
    for found in report.vulnerabilities.iter().flatten() {
        let locations = by_purl.get(found.purl.as_str()).copied().unwrap_or_default();
        results.push(vulnerability(&mut rules, found, locations));
    }
    let checks = report.compliance.iter().flat_map(|compliance| &compliance.checks);
    for check in checks.filter(|check| check.outcome == Outcome::Failed) {
        results.extend(check.evidence.iter().map(|evidence| failed(&mut rules, check, evidence)));
    }
    for result in results.iter_mut().filter(|result| result.get("locations").is_none()) {
        // A reference that begins with a slash leaves the root that it is relative to (3.4.4).
        let name = uri(report.target.name.trim_start_matches('/'));
        let name = if name.is_empty() { ".".to_owned() } else { name };
        let whole = json!({ "artifactLocation": { "uri": name }, "region": { "startLine": 1 } });
        result["locations"] = json!([{ "physicalLocation": whole }]);
    }
    let problems = report.problems.iter().map(|problem| {
        json!({
            "level": "warning",
            "message": { "text": format!("{}: {}", problem.location.path, problem.message) },
        })
    });
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "gantry", "semanticVersion": env!("CARGO_PKG_VERSION"), "rules": rules.list,
            }},
            "invocations": [{
                "executionSuccessful": true,
                "endTimeUtc": report.scanned_at.to_string(),
                "toolExecutionNotifications": problems.collect::<Vec<_>>(),
            }],
            "results": results,
            "properties": {
                "target": report.target, "operatingSystem": report.operating_system,
                "advisoryData": report.advisory_data, "rating": report.rating,
            },
        }],
    })
}

/// Rules in the order of their first result.
#[derive(Default)]
struct Rules {
    list: Vec<Value>,
    index: BTreeMap<String, usize>,
}

impl Rules {
    fn number(&mut self, id: &str, make: impl FnOnce() -> Value) -> usize {
        let next = self.list.len();
        let number = *self.index.entry(id.to_owned()).or_insert(next);
        if number == next {
            self.list.push(make());
        }
        number
    }
}

fn vulnerability(rules: &mut Rules, found: &Vulnerability, locations: &[Location]) -> Value {
    let index = rules.number(&found.id, || {
        let summary = if found.summary.is_empty() { &found.id } else { &found.summary };
        let names: Vec<&str> =
            std::iter::once(&found.id).chain(&found.aliases).map(String::as_str).collect();
        json!({
            "id": found.id,
            "shortDescription": { "text": summary },
            "fullDescription": { "text": format!("{summary} ({})", names.join(", ")) },
            "helpUri": format!("https://osv.dev/vulnerability/{}", uri(&found.id)),
            "help": { "text": "Update the package to a version that mends it, or say why it is put up with." },
            "properties": {
                // What code hosts sort by; a word alone has the middle of its range.
                "security-severity": format!("{:.1}", found.score.unwrap_or_else(|| middle(found.severity))),
                "tags": ["security", "vulnerability"],
            },
        })
    });
    let mends = found
        .fixed_version
        .as_ref()
        .map_or_else(|| "no version mends it yet".to_owned(), |version| format!("{version} mends it"));
    let text = format!(
        "{} {} has {} ({}); {mends}",
        found.package,
        found.version,
        found.id,
        found.severity.as_str()
    );
    let mut result = json!({
        "ruleId": found.id, "ruleIndex": index, "level": level(found.severity),
        "message": { "text": text },
        "partialFingerprints": { "vulnerability/v1": format!("{}|{}", found.id, found.purl) },
        "properties": { "purl": found.purl, "fixedVersion": found.fixed_version },
    });
    let places: Vec<Value> = locations.iter().map(|at| place(Some(at), Some(&found.purl))).collect();
    if !places.is_empty() {
        result["locations"] = Value::Array(places);
    }
    suppress(&mut result, found.judgement.as_ref());
    result
}

fn failed(rules: &mut Rules, check: &Check, evidence: &Evidence) -> Value {
    let index = rules.number(&check.id, || {
        let title = definition(&check.id).map_or(check.title.as_str(), |known| known.title);
        json!({
            "id": check.id,
            "shortDescription": { "text": title },
            "fullDescription": { "text": format!("{title}. {}", check.remedy) },
            "help": { "text": check.remedy },
            "properties": {
                "security-severity": format!("{:.1}", middle(check.severity)), "tags": ["security", "compliance"],
            },
        })
    });
    let at = evidence.location.as_ref();
    let path = at.map_or("", |at| at.path.as_str());
    let mut result = json!({
        "ruleId": check.id, "ruleIndex": index, "level": level(check.severity),
        "message": { "text": evidence.message },
        "partialFingerprints": { "check/v1": format!("{}|{path}|{}", check.id, evidence.message) },
    });
    if at.is_some_and(|at| !at.path.is_empty()) {
        result["locations"] = json!([place(at, None)]);
    }
    suppress(&mut result, check.judgement.as_ref());
    result
}

fn suppress(result: &mut Value, judgement: Option<&Judgement>) {
    let Some(judgement) = judgement.filter(|judgement| judgement.settles()) else { return };
    let what = match judgement.status {
        Status::NotAffected => "not affected",
        Status::Fixed => "fixed",
        _ => "accepted",
    };
    let until = judgement.expires.map(|at| format!(", until {at}")).unwrap_or_default();
    let text = format!("{what}, says {}{until}: {}", judgement.author, judgement.reason);
    result["suppressions"] = json!([{ "kind": "external", "status": "accepted", "justification": text }]);
}

fn place(at: Option<&Location>, purl: Option<&str>) -> Value {
    let mut place = json!({});
    if let Some(at) = at {
        // The file is meant, of which readers want to see a line.
        place["physicalLocation"] =
            json!({ "artifactLocation": { "uri": uri(&at.path) }, "region": { "startLine": 1 } });
        if let Some(layer) = &at.layer {
            place["properties"] = json!({ "layer": layer });
        }
    }
    if let Some(purl) = purl {
        place["logicalLocations"] = json!([{ "fullyQualifiedName": purl, "kind": "module" }]);
    }
    place
}

/// A path as a relative reference (RFC 3986): what is not plain is written by its bytes.
fn uri(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'@' | b'+' => {
                text.push(char::from(byte));
            }
            other => text += &format!("%{other:02X}"),
        }
    }
    text
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium | Severity::Unknown => "warning",
        Severity::Low | Severity::None => "note",
    }
}

fn middle(severity: Severity) -> f64 {
    match severity {
        Severity::Critical => 9.5,
        Severity::High => 8.0,
        Severity::Medium | Severity::Unknown => 5.5,
        Severity::Low => 2.0,
        Severity::None => 0.0,
    }
}
