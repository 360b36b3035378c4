//! The kinds and words of the identity component, without logic but what whoever counts has to see the same way: the
//! tree of projects ([`ProjectTree`]).
//!
//! Every kind is cluster-scoped and lives in `identity.gantry.dev/v1alpha1`. An object's `metadata.name` is its id in
//! the Keystone API; its `spec.name`, where it differs, is what people call it. Secrets (password hashes, seeds,
//! credential secrets) are never part of an object.

mod assignment;
mod credential;
mod organisation;
mod provider;
mod record;
mod tree;
mod user;

pub mod extra;
pub mod labels;

pub use assignment::{Role, RoleAssignment, RoleAssignmentSpec, RoleSpec, RoleStatus};
pub use credential::{ApplicationCredential, ApplicationCredentialSpec, Trust, TrustSpec, TrustStatus};
pub use organisation::{
    Domain, DomainSpec, DomainStatus, Environment, EnvironmentStatus, PodSecurityLevel, Project, ProjectSpec,
    ProjectStatus, Quota,
};
pub use provider::{
    CONFIRM_DISABLE, IdentityProvider, IdentityProviderSpec, IdentityProviderStatus, ProviderType,
};
pub use record::{KeystoneRecord, KeystoneRecordSpec};
pub use tree::{Below, Place, ProjectTree};
pub use user::{FederatedIdentity, Group, GroupSpec, User, UserOptions, UserSpec, UserStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// API group of the kinds.
pub const GROUP: &str = "identity.gantry.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// Id of the domain that is always there, as in Keystone.
pub const DEFAULT_DOMAIN: &str = "default";

/// Roles that are always there. Each implies the next, as in Keystone.
pub mod roles {
    /// Everything in its scope.
    pub const ADMIN: &str = "admin";
    /// Users, projects and assignments of its scope, short of admin's.
    pub const MANAGER: &str = "manager";
    /// Works with what the project has.
    pub const MEMBER: &str = "member";
    /// Looks.
    pub const READER: &str = "reader";
    /// Reads audit records of its scope.
    pub const AUDITOR: &str = "auditor";
    /// Runs the platform: nodes, networks, storage, policies; no tenant's secrets.
    pub const OPERATOR: &str = "operator";
    /// The chain of implication, strongest first.
    pub const CHAIN: [&str; 4] = [ADMIN, MANAGER, MEMBER, READER];
}

/// The definitions to install, in an order in which they may be installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        Domain::crd(),
        Project::crd(),
        User::crd(),
        Group::crd(),
        Role::crd(),
        RoleAssignment::crd(),
        ApplicationCredential::crd(),
        IdentityProvider::crd(),
        Trust::crd(),
        KeystoneRecord::crd(),
    ]
}

/// What objects of the kinds have in common: an id, and a name for people.
pub trait Named: kube::ResourceExt {
    /// `spec.name` where it is given.
    fn given_name(&self) -> Option<&str>;

    /// What people call it: `spec.name`, else `metadata.name`.
    fn display_name(&self) -> String {
        self.given_name().map_or_else(|| self.name_any(), str::to_owned)
    }
}

macro_rules! named {
    ($($kind:ty),*) => {$(
        impl Named for $kind {
            fn given_name(&self) -> Option<&str> {
                self.spec.name.as_deref()
            }
        }
    )*};
}
named!(Domain, Project, User, Group, Role, IdentityProvider);

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_structural_enough_to_install() {
        for crd in definitions() {
            assert_eq!(crd.spec.group, GROUP);
            assert_eq!(crd.spec.scope, "Cluster");
            let version = &crd.spec.versions[0];
            assert_eq!(version.name, VERSION);
            let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
            assert!(schema.is_some_and(|s| s.properties.is_some()), "{:?}", crd.metadata.name);
        }
    }
}
