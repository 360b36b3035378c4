//! Rules of a repository: what may be pushed, how much of it, and how long it stays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rules of one repository. What is absent is no rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rules {
    /// Patterns (`*`, `?`) of tags that, once pushed, are neither moved nor removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 128)))]
    pub immutable_tags: Vec<String>,
    /// Which tags and images stay; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Largest image, as a quantity (`500Mi`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_image_size: Option<String>,
    /// Bytes of everything in the repository, as a quantity (`20Gi`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
    /// Manifests that one caller may pull in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pulls_per_minute: Option<u32>,
    /// Manifests that one caller may push in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pushes_per_minute: Option<u32>,
}

/// A tag stays that one of `keep` keeps, or that is immutable; an image stays that something leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// Which tags stay; none: all.
    #[schemars(length(max = 100))]
    pub keep: Vec<Keep>,
    /// Days that an image stays which never had a tag; absent: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untagged_days: Option<u32>,
}

/// Of the tags that fit, those stay that one of the others says; where none is given, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Keep {
    /// Patterns (`*`, `?`); none: every tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 128)))]
    pub tags: Vec<String>,
    /// The last ones pushed, so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<u32>,
    /// Pushed within so many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed_days: Option<u32>,
    /// Pulled, or pushed, within so many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled_days: Option<u32>,
}
