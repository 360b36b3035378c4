//! Known vulnerabilities: advisories in OSV's format, matched with packages by ecosystem, name and version.

mod cvss;
mod cvss4;
mod documents;
mod ecosystem;
pub(crate) mod fuzz;
mod hits;
mod index;
mod inventory;
mod load;
mod matching;
pub mod mirror;
mod osv;

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::judgement::Judgement;

pub use cvss::{Severity, base_score};
pub use index::{
    Changes, Exported, Given, Index, Installed, MANIFEST_MAX_BYTES, Manifest, PackageKey, SourceState,
    SourceUpdate, export, exported_manifest, install, update,
};
pub use inventory::{Inventory, Rematched};
pub use load::compare;

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum AdvisoryError {
    #[error("advisories in {path} cannot be read: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("advisories in {path} cannot be read: {message}")]
    Invalid { path: PathBuf, message: String },
    /// An empty directory says nothing of any package.
    #[error("{path} holds no advisory: OSV documents (*.json) or zips of them are expected")]
    Empty { path: PathBuf },
    #[error("{url} cannot be fetched: {message}")]
    Mirror { url: String, message: String },
    #[error("there are no advisories in {path} yet: `gantry advisories update SOURCE` brings them")]
    NoIndex { path: PathBuf },
    #[error(
        "the advisories in {path} are damaged: {message}. Remove the directory, then bring them again with \
         `gantry advisories update SOURCE`"
    )]
    Damaged { path: PathBuf, message: String },
    #[error("the advisories in {path} were written by a newer gantry: use that one, or another directory")]
    Newer { path: PathBuf },
    #[error("the advisories in {path} are being updated by somebody else: try again when that is done")]
    Busy { path: PathBuf },
    #[error("{location} is no source of these advisories: `gantry advisories status` lists them")]
    NoSource { location: String },
    #[error("there may be {max} sources of advisories: take one away first")]
    TooManySources { max: usize },
}

/// What packages were compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdvisoryData {
    pub source: String,
    pub advisories: u64,
    /// Files that are no readable advisories.
    pub unreadable: u64,
    /// When the newest of them was changed: how old the data is.
    pub newest_modified: Option<Timestamp>,
    /// When its sources were last looked at, the one that was longest ago; none for what was read for this report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Timestamp>,
    /// Of the index: counts its changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

impl AdvisoryData {
    /// How long before `now` the newest of it was changed.
    pub fn age(&self, now: Timestamp) -> Option<jiff::SignedDuration> {
        self.newest_modified.map(|newest| now.duration_since(newest).max(jiff::SignedDuration::ZERO))
    }
}

/// One vulnerability in one package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vulnerability {
    /// A CVE number if there is one, else the advisory's own.
    pub id: String,
    /// Other names of the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// URL of the package that has it.
    pub purl: String,
    pub package: String,
    pub version: String,
    /// The least version behind the installed one that does not have it.
    pub fixed_version: Option<String>,
    pub severity: Severity,
    /// Computed from the vector.
    pub score: Option<f64>,
    pub vector: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// When it became known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Timestamp>,
    /// What somebody said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
}
