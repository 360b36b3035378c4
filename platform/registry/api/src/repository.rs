//! Repositories: whose they are, who else may use them, and what is in them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Grade, Rules};

/// Types of a repository's conditions.
pub mod conditions {
    /// The object stands for the repository that it names.
    pub const ACCEPTED: &str = "Accepted";
}

/// A repository of the registry. Made when the first image is pushed, by whoever may push there.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "registry.gantry.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    shortname = "repo",
    status = "RepositoryStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Repository","type":"string","jsonPath":".spec.name"}"#,
    printcolumn = r#"{"name":"Owner","type":"string","jsonPath":".status.owner"}"#,
    printcolumn = r#"{"name":"Visibility","type":"string","jsonPath":".spec.visibility"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".status.size"}"#,
    printcolumn = r#"{"name":"Tags","type":"integer","jsonPath":".status.tags"}"#,
    printcolumn = r#"{"name":"Worst","type":"string","jsonPath":".status.worstGrade"}"#,
    printcolumn = r#"{"name":"Latest","type":"string","jsonPath":".status.latestGrade"}"#,
    printcolumn = r#"{"name":"Last-Push","type":"date","jsonPath":".status.lastPush"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","priority":1}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct RepositorySpec {
    /// What OCI clients call it, `acme/web/front`. Cannot change.
    #[schemars(length(max = 255))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self == oldSelf", "message": "the name of a repository cannot change"}
    ]))]
    pub name: String,
    /// Whose it is. Cannot change.
    pub owner: Owner,
    /// Who may pull beside the owner and those it is shared with.
    pub visibility: Visibility,
    /// Whom it is shared with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub shares: Vec<Share>,
    /// What may be pushed, how much of it, and how long it stays.
    pub rules: Rules,
    /// What people read beside it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub description: String,
}

/// A project, a domain, or, with neither, the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self == oldSelf", "message": "the owner of a repository cannot change"},
    {"rule": "!(has(self.project) && has(self.domain))", "message": "a repository has one owner"}
]))]
pub struct Owner {
    /// Id of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Id of the domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// `project:ID`, `domain:ID` or `platform`: where questions about rights have the namespace of the virtual resource, so
/// that identity decides by the owner and not by what a name looks like.
impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.project, &self.domain) {
            (Some(project), _) => write!(f, "project:{project}"),
            (None, Some(domain)) => write!(f, "domain:{domain}"),
            (None, None) => f.write_str("platform"),
        }
    }
}

impl std::str::FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            Some(("project", id)) if !id.is_empty() => Ok(Self::of_project(id)),
            Some(("domain", id)) if !id.is_empty() => Ok(Self::of_domain(id)),
            None if text == "platform" => Ok(Self::default()),
            _ => Err(()),
        }
    }
}

impl Owner {
    pub fn of_project(id: impl Into<String>) -> Self {
        Self { project: Some(id.into()), domain: None }
    }

    pub fn of_domain(id: impl Into<String>) -> Self {
        Self { project: None, domain: Some(id.into()) }
    }
}

/// Who may pull without owning it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Nobody.
    #[default]
    Private,
    /// Whoever is signed in; also who is not, where the operator allows it.
    Public,
}

impl Visibility {
    /// As the object has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

/// What a share permits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    #[default]
    Pull,
    /// Pull, too.
    Push,
}

impl Access {
    /// As the object has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

/// One with whom a repository is shared: whoever may pull (or push) in that project or domain may do so here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.project) != has(self.domain)", "message": "a share names a project or a domain"}
]))]
pub struct Share {
    /// Id of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Id of the domain; with it all its projects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `pull`, or `push` with `pull`.
    pub access: Access,
}

/// What is in the repository; written by the registry alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RepositoryStatus {
    /// The owner as people call it: `project acme/web`, `domain acme`, `platform`.
    pub owner: String,
    pub tags: u32,
    pub manifests: u32,
    /// Bytes of everything in it, each blob counted once.
    pub size_bytes: i64,
    /// The same for people.
    pub size: String,
    /// The worst grade of the images that tags lead to, by the policy of the place; absent where none is scanned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_grade: Option<Grade>,
    /// The grade of the tag that was pushed last; absent until it is scanned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_grade: Option<Grade>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_push: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::Owner;

    #[test]
    fn owners_are_written_as_they_are_read() {
        for owner in [Owner::default(), Owner::of_project("web"), Owner::of_domain("a:b")] {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
        for bad in ["", "project", "project:", "domain:", "user:x", "platform:x"] {
            assert_eq!(bad.parse::<Owner>(), Err(()), "{bad}");
        }
    }
}
