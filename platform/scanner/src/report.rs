//! The result of a scan. What was not done is `null`, never an empty list: an empty list says that nothing was
//! found.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use gantry_oci::Digest;

use crate::advisories::{AdvisoryData, Vulnerability};
use crate::compliance::Compliance;
use crate::package::{Found, OperatingSystem, Problem};
use crate::rating::Rating;

/// Changes when a field changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// What was scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub kind: TargetKind,
    pub name: String,
    /// Of the image's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// From the bottom to the top.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    Image,
    Directory,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub schema_version: u32,
    pub scanned_at: Timestamp,
    pub target: Target,
    pub operating_system: Option<OperatingSystem>,
    pub packages: Vec<Found>,
    /// Worst first; none if there was no advisory data to compare with.
    pub vulnerabilities: Option<Vec<Vulnerability>>,
    /// None if checks were not asked for.
    pub compliance: Option<Compliance>,
    /// Of vulnerabilities and checks by a policy; none without one of them.
    pub rating: Option<Rating>,
    /// What the packages were compared with, and how old it is.
    pub advisory_data: Option<AdvisoryData>,
    /// Files that could not be read: the lists above may lack what they hold.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Calls an image by another name, also for the check that looks at names.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.target.name);
        if let Some(compliance) = &mut self.compliance {
            compliance.rename(name);
        }
    }
}
