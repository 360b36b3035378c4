//! Known vulnerabilities: advisories in OSV's format, matched with packages by ecosystem, name and version.

mod cvss;
mod ecosystem;
mod load;
mod matching;
mod osv;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use cvss::{Severity, base_score};
pub use load::{AdvisoryError, compare};

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
}
