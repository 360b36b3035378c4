//! Who asks.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// The authenticated caller, as the Kubernetes `authentication.k8s.io/v1` `UserInfo`.
///
/// The front door puts it into the request's extensions; everything behind it reads it from there. A request, the
/// questions about it and its audit record share one: cloning costs nothing, and who changes a clone gets a copy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserInfo(Arc<UserFields>);

/// What a [`UserInfo`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserFields {
    /// `alice`, `system:node:NAME`, `system:serviceaccount:NAMESPACE:NAME`, …
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<UserFields> for UserInfo {
    fn from(fields: UserFields) -> Self {
        Self(Arc::new(fields))
    }
}

impl Deref for UserInfo {
    type Target = UserFields;

    fn deref(&self) -> &UserFields {
        &self.0
    }
}

impl DerefMut for UserInfo {
    fn deref_mut(&mut self) -> &mut UserFields {
        Arc::make_mut(&mut self.0)
    }
}

impl fmt::Debug for UserInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for UserInfo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for UserInfo {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        UserFields::deserialize(deserializer).map(Self::from)
    }
}

impl UserInfo {
    /// A user in `groups` and in `system:authenticated`.
    pub fn authenticated(username: impl Into<String>, groups: &[&str]) -> Self {
        let mut all: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        if !all.iter().any(|g| g == groups::AUTHENTICATED) {
            all.push(groups::AUTHENTICATED.to_owned());
        }
        UserFields { username: username.into(), groups: all, ..UserFields::default() }.into()
    }

    /// The caller who showed no credentials.
    pub fn anonymous() -> Self {
        UserFields {
            username: users::ANONYMOUS.to_owned(),
            groups: vec![groups::UNAUTHENTICATED.to_owned()],
            ..UserFields::default()
        }
        .into()
    }

    /// The identity of a service account, with the groups Kubernetes gives it.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let mut user = Self::authenticated(
            format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
        );
        user.uid = uid.to_owned();
        user
    }

    /// Where the fields are. While this value or a clone of it lives, no other caller is there and nothing in it
    /// changes, so that who keeps a clone can know it again by its address.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    pub fn is_anonymous(&self) -> bool {
        self.username == users::ANONYMOUS
    }
}

/// User names with a meaning of their own.
pub mod users {
    pub const ANONYMOUS: &str = "system:anonymous";
    pub const API_SERVER: &str = "system:apiserver";
    pub const SCHEDULER: &str = "system:kube-scheduler";
    pub const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
    pub const NODE_PREFIX: &str = "system:node:";
}

/// Groups with a meaning of their own.
pub mod groups {
    /// May do everything, before any RBAC rule is asked.
    pub const MASTERS: &str = "system:masters";
    pub const NODES: &str = "system:nodes";
    pub const AUTHENTICATED: &str = "system:authenticated";
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
}
