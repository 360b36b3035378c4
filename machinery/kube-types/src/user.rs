//! Who asks.

use std::collections::BTreeMap;

/// The authenticated caller, as the Kubernetes `authentication.k8s.io/v1` `UserInfo`.
///
/// The front door puts it into the request's extensions; everything behind it reads it from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo {
    /// `alice`, `system:node:NAME`, `system:serviceaccount:NAMESPACE:NAME`, …
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in `groups` and in `system:authenticated`.
    pub fn authenticated(username: impl Into<String>, groups: &[&str]) -> Self {
        let mut all: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        if !all.iter().any(|g| g == groups::AUTHENTICATED) {
            all.push(groups::AUTHENTICATED.to_owned());
        }
        Self { username: username.into(), groups: all, ..Self::default() }
    }

    /// The caller who showed no credentials.
    pub fn anonymous() -> Self {
        Self {
            username: users::ANONYMOUS.to_owned(),
            groups: vec![groups::UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
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
