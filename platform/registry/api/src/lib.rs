//! The kinds and words of the registry, without logic.
//!
//! A [`Repository`] is cluster-scoped. What OCI clients call it (`acme/web/front`) is `spec.name`; its object's name is
//! made of that by [`object_name`], because slashes are no part of objects' names.

mod name;
mod policy;
mod remote;
mod replication;
mod repository;
mod rules;
mod upstream;
mod webhook;

pub use name::object_name;
pub use policy::{
    Answer, Exception, Grade, ImagePolicy, ImagePolicySpec, OnFailure, Requirements, Scope, SignedBy,
};
pub use remote::{Remote, SecretReference};
pub use replication::{Direction, Replication, ReplicationSpec, ReplicationStatus, replication_conditions};
pub use repository::{
    Access, Owner, Repository, RepositorySpec, RepositoryStatus, Share, Visibility, conditions,
};
pub use rules::{Keep, Retention, Rules};
pub use upstream::{UpstreamRegistry, UpstreamRegistrySpec, UpstreamRegistryStatus, upstream_conditions};
pub use webhook::{
    ContentMode, EventType, RegistryWebhook, RegistryWebhookSpec, RegistryWebhookStatus, WebhookSecret,
    webhook_conditions,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// API group of the kinds, and of the virtual resource.
pub const GROUP: &str = "registry.gantry.dev";
/// Version of the kinds.
pub const VERSION: &str = "v1alpha1";
/// The kind's plural, and the virtual resource whose names are the repositories' names (`pull`, `push`, `delete`).
pub const RESOURCE: &str = "repositories";
/// The plural of [`ImagePolicy`].
pub const POLICIES: &str = "imagepolicies";
/// Keeps an object until the content of its repository is gone.
pub const FINALIZER: &str = "registry.gantry.dev/contents";

/// The definitions to install.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        Repository::crd(),
        ImagePolicy::crd(),
        UpstreamRegistry::crd(),
        Replication::crd(),
        RegistryWebhook::crd(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_structural_and_keeps_names_and_owners() {
        let crd = Repository::crd();
        assert_eq!((crd.spec.group.as_str(), crd.spec.scope.as_str()), (GROUP, "Cluster"));
        assert_eq!(crd.spec.names.plural, RESOURCE);
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).expect("JSON");
        let spec = &schema["openAPIV3Schema"]["properties"]["spec"]["properties"];
        for field in ["name", "owner"] {
            let rules = spec[field]["x-kubernetes-validations"].to_string();
            assert!(rules.contains("self == oldSelf"), "{field}: {rules}");
        }
        assert!(!schema.to_string().contains("$ref"), "{schema}");
    }

    /// A default that the schema itself refuses is refused by API servers, with the whole definition.
    #[test]
    fn what_must_be_given_has_no_default() {
        for (definition, required) in [
            (UpstreamRegistry::crd(), &["prefix", "remote"][..]),
            (Replication::crd(), &["direction", "remote", "repositories"]),
            (RegistryWebhook::crd(), &["secret", "url"]),
        ] {
            let schema = serde_json::to_value(&definition.spec.versions[0].schema).expect("JSON");
            let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
            for field in required {
                assert!(spec["required"].to_string().contains(field), "{field}: {}", spec["required"]);
                assert!(spec["properties"][field]["default"].is_null(), "{field}");
            }
            if required.contains(&"remote") {
                assert_eq!(spec["properties"]["remote"]["required"], serde_json::json!(["endpoint"]));
            }
            assert!(!schema.to_string().contains("$ref"), "{schema}");
        }
    }
}
