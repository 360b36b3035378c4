//! Names of resources and kinds, and what the API server knows of each.

use std::borrow::Cow;
use std::fmt;

/// Group, version and plural resource, e.g. `apps/v1 deployments`. The core group is `""`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionResource {
    pub group: String,
    pub version: String,
    pub resource: String,
}

/// Group, version and kind, e.g. `apps/v1 Deployment`. The core group is `""`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl GroupVersionKind {
    pub fn new(group: impl Into<String>, version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Reads `v1`/`apps/v1` and a kind.
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::new(group, version, kind)
    }
}

impl GroupVersionResource {
    pub fn new(group: impl Into<String>, version: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Kind={}", self.api_version(), self.kind)
    }
}

impl fmt::Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Resource={}", self.api_version(), self.resource)
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// What discovery says of one resource in one version. Built-in kinds are `'static` tables; a
/// CustomResourceDefinition makes owned ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    /// Plural, lower case: `deployments`.
    pub resource: Cow<'static, str>,
    /// `deployment`.
    pub singular: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    /// `DeploymentList`.
    pub list_kind: Cow<'static, str>,
    pub scope: Scope,
    pub short_names: Vec<Cow<'static, str>>,
    /// `all`, …
    pub categories: Vec<Cow<'static, str>>,
    /// `status`, `scale`, `log`, …
    pub subresources: Vec<Cow<'static, str>>,
}

impl ResourceInfo {
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group.as_ref(), self.version.as_ref(), self.resource.as_ref())
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group.as_ref(), self.version.as_ref(), self.kind.as_ref())
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The name users see in errors: `deployments.apps`, or `pods` in the core group.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_string()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}
