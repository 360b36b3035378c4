//! What every source returns.

use serde::{Deserialize, Serialize};

/// A person as a source knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalUser {
    /// Stable and unique within the source, also when the person is renamed.
    pub id: String,
    /// What the person types to sign in.
    pub name: String,
    /// The name to show, where the source has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub display_name: Option<String>,
    /// An address that the source vouches for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub email: Option<String>,
    /// The domain the source keeps the person in (Keystone).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<Named>,
    /// False: the person may not sign in, and who is signed in loses access.
    pub enabled: bool,
    /// Groups, those of groups included, ordered by id, each once.
    #[serde(default)]
    pub groups: Vec<Named>,
    /// Roles that the source itself grants (Keystone), ordered, each once.
    #[serde(default)]
    pub grants: Vec<ExternalGrant>,
}

/// A group as a source knows it, without its members: those are in [`ExternalUser::groups`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalGroup {
    /// Stable and unique within the source.
    pub id: String,
    /// The group's name.
    pub name: String,
}

/// A thing of the source with both of its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Named {
    /// Stable and unique within the source.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// Where a role of the source holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExternalScope {
    /// The whole of the source's installation.
    System,
    /// One domain.
    Domain(Named),
    /// One project, with the domain that owns it.
    Project { project: Named, domain: Named },
}

/// One role on one scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExternalGrant {
    /// Where.
    pub scope: ExternalScope,
    /// Which role.
    pub role: Named,
}

impl ExternalUser {
    /// Brings lists into the order that the fields promise.
    pub(crate) fn ordered(mut self) -> Self {
        self.groups.sort();
        self.groups.dedup();
        self.grants.sort();
        self.grants.dedup();
        self
    }
}
