//! Checks of how an image is made, those of the CIS Docker Benchmark's section 4 and more. Each says what it found
//! where; [`CHECKS`] says how bad that is and what mends it.

mod catalogue;
mod config;
mod lifetimes;
mod observe;
mod secrets;

use std::collections::BTreeMap;

use gantry_oci::Digest;
use gantry_oci::image::Image;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::advisories::Severity;
use crate::judgement::Judgement;
use crate::package::{Location, OperatingSystem};

pub use catalogue::{CHECKS, Definition, definition};
pub use observe::{MalwareList, MalwareListError};
pub(crate) use observe::{Observation, Observer};

/// The parsers of this folder as functions of bytes; see [`crate::fuzz`].
pub(crate) mod fuzz {
    pub(crate) fn secrets(bytes: &[u8]) {
        let _ = super::secrets::in_file("app/.env", bytes);
    }
}

/// What a check shows at most; the rest is counted.
const EVIDENCE_MAX: usize = 100;

/// The results of all checks, in the order of [`CHECKS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compliance {
    pub checks: Vec<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    Passed,
    Failed,
    /// What it looks at is not there, or was not given.
    NotApplicable,
}

/// One check's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub id: String,
    pub title: String,
    pub severity: Severity,
    pub outcome: Outcome,
    pub remedy: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// How much evidence is not shown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What was found, and where if it is in a file. Secrets are never shown whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Evidence {
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    pub message: String,
}

impl Check {
    /// Failed, and nobody has settled it.
    pub fn is_open(&self) -> bool {
        self.outcome == Outcome::Failed && !self.judgement.as_ref().is_some_and(Judgement::settles)
    }
}

/// What was seen in files: each with its place, and whether an upper layer hides it.
pub(crate) struct Seen {
    pub observation: Observation,
    pub location: Location,
    pub hidden: bool,
}

/// Evidence by check; a check that is not in it does not apply.
#[derive(Default)]
struct Results(BTreeMap<&'static str, (Vec<Evidence>, u64)>);

impl Results {
    fn applies(&mut self, id: &'static str) {
        self.0.entry(id).or_default();
    }

    fn found(&mut self, id: &'static str, location: Option<Location>, message: impl Into<String>) {
        let (evidence, more) = self.0.entry(id).or_default();
        if evidence.len() < EVIDENCE_MAX {
            evidence.push(Evidence { location, message: message.into() });
        } else {
            *more += 1;
        }
    }

    fn finish(mut self) -> Compliance {
        Compliance { checks: CHECKS.iter().map(|definition| self.check(definition)).collect() }
    }

    fn check(&mut self, definition: &Definition) -> Check {
        let result = self.0.remove(definition.id);
        let outcome = match &result {
            None => Outcome::NotApplicable,
            Some((evidence, _)) if evidence.is_empty() => Outcome::Passed,
            Some(_) => Outcome::Failed,
        };
        let (evidence, more) = result.unwrap_or_default();
        Check {
            id: definition.id.to_owned(),
            title: definition.title.to_owned(),
            severity: definition.severity,
            outcome,
            remedy: definition.remedy.to_owned(),
            evidence,
            more,
            judgement: None,
        }
    }
}

impl Compliance {
    /// Enters whether the image is signed, or why that does not count.
    pub fn enter_signature(&mut self, signed: Result<(), String>) {
        let Some(definition) = definition(catalogue::UNSIGNED) else { return };
        let mut results = Results::default();
        results.applies(definition.id);
        if let Err(why) = signed {
            results.found(definition.id, None, why);
        }
        let check = results.check(definition);
        // Reports of before the check was there have none.
        match self.checks.iter_mut().find(|known| known.id == definition.id) {
            Some(known) => *known = check,
            None => self.checks.push(check),
        }
    }

    /// The check of the image's name, for another name.
    pub(crate) fn rename(&mut self, name: &str) {
        let named = self.checks.iter_mut().find(|check| check.id == config::LATEST_TAG);
        if let Some(check) = named.filter(|check| check.outcome != Outcome::NotApplicable) {
            let latest = config::latest(name).map(|message| Evidence { location: None, message });
            check.outcome = if latest.is_some() { Outcome::Failed } else { Outcome::Passed };
            check.evidence = latest.into_iter().collect();
        }
    }
}

/// Puts together what was seen in files and what an image says of itself.
pub(crate) fn evaluate(
    seen: Vec<Seen>,
    system: Option<&OperatingSystem>,
    image: Option<(&str, &Image)>,
    has_malware_list: bool,
    now: Timestamp,
) -> Compliance {
    let mut results = Results::default();
    files(&mut results, seen, has_malware_list);
    if let Some(of) = system.and_then(lifetimes::of) {
        results.applies("base-image-end-of-life");
        if let Some(message) = of.ended(now) {
            results.found("base-image-end-of-life", None, message);
        }
    }
    if let Some((name, image)) = image {
        config::check(&mut results, name, image);
    }
    results.finish()
}

fn files(results: &mut Results, seen: Vec<Seen>, has_malware_list: bool) {
    for id in ["secret-in-file", "setuid-files", "world-writable-files", "package-manager-cache"] {
        results.applies(id);
    }
    if has_malware_list {
        results.applies("malware");
    }
    let is_minimal = !seen.iter().any(|one| one.observation == Observation::PackageManager);
    if is_minimal {
        results.applies("shell-in-minimal-image");
    }
    // Caches hold thousands of files: one line per layer and tool.
    let mut caches: BTreeMap<(String, Option<Digest>), u64> = BTreeMap::new();
    for Seen { observation, location, hidden } in seen {
        let removed = if hidden { "; a later layer removes it, but it is still in the image" } else { "" };
        let at = Some(location);
        match observation {
            Observation::Setuid => results.found("setuid-files", at, "runs with its owner's rights (setuid)"),
            Observation::Setgid => results.found("setuid-files", at, "runs with its group's rights (setgid)"),
            Observation::WorldWritable => {
                results.found("world-writable-files", at, "may be written by everybody");
            }
            Observation::Secret { rule, line, shown } => {
                results.found("secret-in-file", at, format!("line {line}: {rule} {shown}{removed}"));
            }
            Observation::Malware { name, sha256 } => {
                results.found("malware", at, format!("{name} (sha256 {sha256}){removed}"));
            }
            Observation::Shell if is_minimal => {
                results.found("shell-in-minimal-image", at, "a shell, in an image without a package manager");
            }
            Observation::Cache { tool } => {
                let layer = at.and_then(|at| at.layer);
                *caches.entry((tool, layer)).or_default() += 1;
            }
            Observation::Shell | Observation::PackageManager => {}
        }
    }
    for ((tool, layer), count) in caches {
        let at = Location { path: String::new(), layer };
        results.found("package-manager-cache", Some(at), format!("{count} files that {tool} fetched"));
    }
}
