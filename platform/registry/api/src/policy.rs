//! What images have to be to be pushed, pulled and run, by place.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rules of the operator for images, which hold in its scope. Of several, the most specific one that says something
/// (`rating`, `push`, `pull`, `deploy`, `otherRegistries`, `onFailure`) decides it as a whole; exceptions of all
/// that hold add up.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "registry.gantry.dev",
    version = "v1alpha1",
    kind = "ImagePolicy",
    plural = "imagepolicies",
    shortname = "imgpol",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Domain","type":"string","jsonPath":".spec.scope.domain"}"#,
    printcolumn = r#"{"name":"Project","type":"string","jsonPath":".spec.scope.project"}"#,
    printcolumn = r#"{"name":"Environment","type":"string","jsonPath":".spec.scope.environment"}"#,
    printcolumn = r#"{"name":"Deploy","type":"string","jsonPath":".spec.deploy.minimumGrade"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct ImagePolicySpec {
    /// Where it holds; empty: everywhere.
    pub scope: Scope,
    /// The document that grades are given by: `weights`, `grades`, `blockers`, `gracePeriodDays`, `dataAgeMaxDays`,
    /// `staleGrade`. What it leaves out is as in the built-in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("type" = "object", "x-kubernetes-preserve-unknown-fields" = true))]
    pub rating: Option<serde_json::Value>,
    /// What may be pushed to repositories of the scope. Images are scanned after their push: this is about images that
    /// are known already, such as those that come from another repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<Requirements>,
    /// What may be pulled from repositories of the scope, by others than nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<Requirements>,
    /// What pods in namespaces of the scope may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Requirements>,
    /// Whether pods may run images of other registries, of which nothing is known here; absent: `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_registries: Option<Answer>,
    /// What happens if it cannot be told whether the requirements are met; absent: `closed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Findings that are put up with for a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub exceptions: Vec<Exception>,
}

/// A place. With nothing it is the whole platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(has(self.project) && has(self.domain))", "message": "a project says its domain: name one of them"}
]))]
pub struct Scope {
    /// Id of the domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Id of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the environment, of the domain's or project's or of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// What an image has to be. What is absent is not required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Requirements {
    /// The worst grade that is good enough, `A` to `F`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_grade: Option<Grade>,
    /// Whether an image is good enough that has no grade; absent: `refuse` with a grade or an age required, else
    /// `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unscanned: Option<Answer>,
    /// How old the advisories may be that it was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advisory_data_max_age_days: Option<u32>,
    /// Who has to have signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignedBy>,
}

/// One signature by any of these is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SignedBy {
    /// Public keys, PEM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 16384)))]
    pub keys: Vec<String>,
    /// Certificates of authorities or signers, PEM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 65536)))]
    pub certificates: Vec<String>,
}

/// The best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Grade {
    A,
    B,
    C,
    D,
    E,
    F,
}

impl Grade {
    /// As the object has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::E => "E",
            Self::F => "F",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    #[default]
    Allow,
    Refuse,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Nothing passes.
    #[default]
    Closed,
    /// What cannot be told is not required.
    Open,
}

/// A finding that is put up with until it expires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.vulnerability) != has(self.check)", "message": "it names a vulnerability or a check"}
]))]
pub struct Exception {
    /// An identifier or an alias, `CVE-2023-38545`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vulnerability: Option<String>,
    /// A check of the scanner, `no-health-check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// A package URL; what it leaves out (version, qualifiers) may be any. Absent: every package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Images, `acme/web/*`, where `*` is any text. Absent: every image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Who answers for it.
    #[schemars(length(min = 1, max = 256))]
    pub author: String,
    #[schemars(length(min = 1, max = 4096))]
    pub reason: String,
    /// Its end.
    pub expires: Time,
}
