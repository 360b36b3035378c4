//! What people have said of findings: OpenVEX statements, and exceptions that an operator grants for a time. A
//! finding that is judged stays in the report with who said so and why.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod exceptions;
mod vex;

pub use exceptions::{Exception, Exceptions};
pub use vex::Vex;

use crate::Report;

/// Why a document of judgements is not taken.
#[derive(Debug, thiserror::Error)]
pub enum JudgementError {
    #[error("{what} is not valid: {message}")]
    Invalid { what: &'static str, message: String },
}

/// What was said, by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    NotAffected,
    Affected,
    Fixed,
    UnderInvestigation,
    /// An exception: it is so, and is put up with until it expires.
    Accepted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    pub status: Status,
    pub author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of an exception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl Judgement {
    /// Does the finding count no more?
    pub fn settles(&self) -> bool {
        matches!(self.status, Status::NotAffected | Status::Fixed | Status::Accepted)
    }
}

/// Enters what `vex` and `exceptions` say of the report's findings. An exception counts before a statement; one that
/// has expired at `now` counts for nothing.
pub fn judge(report: &mut Report, vex: &[Vex], exceptions: &Exceptions, now: Timestamp) {
    let target = report.target.clone();
    for vulnerability in report.vulnerabilities.iter_mut().flatten() {
        let statement = vex::latest(vex, &target, vulnerability);
        vulnerability.judgement = exceptions.of_vulnerability(&target, vulnerability, now).or(statement);
    }
    for check in report.compliance.iter_mut().flat_map(|compliance| &mut compliance.checks) {
        check.judgement = exceptions.of_check(&target, check, now);
    }
}

/// Does a package URL of a document name the one of a package? What it leaves out (version, qualifiers) may be any.
fn purl_names(wanted: &str, purl: &str) -> bool {
    let parts = |purl: &str| -> (String, Option<String>, Vec<String>) {
        let purl = purl.split('#').next().unwrap_or(purl);
        let (path, qualifiers) = purl.split_once('?').unwrap_or((purl, ""));
        // `@` of a scope is written `%40`, but not by everybody.
        let (name, version) = match path.rsplit_once('@') {
            Some((name, version)) if !name.ends_with('/') => (name, Some(version.to_owned())),
            _ => (path, None),
        };
        let qualifiers = qualifiers.split('&').filter(|q| !q.is_empty()).map(str::to_owned).collect();
        (name.replace("%40", "@"), version, qualifiers)
    };
    let (wanted_name, wanted_version, wanted_qualifiers) = parts(wanted);
    let (name, version, qualifiers) = parts(purl);
    wanted_name == name
        && wanted_version.is_none_or(|wanted| version.as_deref() == Some(wanted.as_str()))
        && wanted_qualifiers.iter().all(|wanted| qualifiers.contains(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_what_they_do_not_leave_out() {
        let curl = "pkg:deb/debian/curl@7.88.1-10?arch=amd64&distro=debian-12";
        for (wanted, purl, want) in [
            ("pkg:deb/debian/curl", curl, true),
            ("pkg:deb/debian/curl@7.88.1-10", curl, true),
            ("pkg:deb/debian/curl@7.88.1-10?arch=amd64", curl, true),
            ("pkg:deb/debian/curl@7.88.1-10?arch=arm64", curl, false),
            ("pkg:deb/debian/curl@7.88.1-9", curl, false),
            ("pkg:deb/ubuntu/curl", curl, false),
            ("pkg:deb/debian/cur", curl, false),
            ("pkg:npm/@angular/core", "pkg:npm/%40angular/core@1.0.0", true),
            ("pkg:npm/%40angular/core@1.0.0", "pkg:npm/%40angular/core@1.0.0", true),
            ("", curl, false),
        ] {
            assert_eq!(purl_names(wanted, purl), want, "{wanted} {purl}");
        }
    }
}
