//! What is in a project's namespace besides what its tenants put there: bounds, and an image pull secret.
//!
//! Nodes of the platform need no secret for the platform's registry: they fetch its images with their own
//! certificates, whatever the pod shows. The secret is for everybody else who reads `imagePullSecrets`, or the Secret
//! itself: other clusters, builders, what looks through images. What is in it is good for pulling alone
//! ([`crate::pull`]), since every member can read it. For registries elsewhere a tenant makes the secret that only they
//! can know.

use std::collections::BTreeMap;

use gantry_identity_api::{Environment, Project, Quota, labels};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    LimitRange, LimitRangeItem, LimitRangeSpec, ResourceQuota, ResourceQuotaSpec, Secret,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::core::ObjectMeta;

use super::names;

/// What a container asks for that says nothing: little, but not nothing, so that quotas count it.
const REQUEST_CPU: &str = "50m";
const REQUEST_MEMORY: &str = "64Mi";

/// A quota's name among the API's → its name among ours. The API has none for addresses, which are counted at
/// admission ([`super::usage`]), nor for images, which the registry counts.
const COUNTED: [(&str, &str); 5] = [
    ("requests.cpu", "cpu"),
    ("requests.memory", "memory"),
    ("pods", "pods"),
    ("requests.storage", "volumes"),
    ("services.loadbalancers", "loadBalancers"),
];

/// The environment's own bounds; where it has none, the project's, which no single namespace can exceed either.
pub fn quota(project: &Project, environment: &Environment, namespace: &str) -> Option<ResourceQuota> {
    let mut hard = BTreeMap::new();
    for (counted, name) in COUNTED {
        let own = entry(&environment.quota, name).or_else(|| entry(&project.spec.quota, name));
        if let Some(bound) = own {
            hard.insert(counted.to_owned(), Quantity(bound.to_owned()));
        }
    }
    (!hard.is_empty()).then(|| ResourceQuota {
        metadata: metadata(project, namespace, names::QUOTA),
        spec: Some(ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() }),
        status: None,
    })
}

fn entry<'a>(quota: &'a Quota, name: &str) -> Option<&'a str> {
    quota.entries().find(|(entry, _)| *entry == name).map(|(_, bound)| bound)
}

/// Requests of containers that make none.
pub fn limits(project: &Project, namespace: &str) -> LimitRange {
    let requests = [("cpu", REQUEST_CPU), ("memory", REQUEST_MEMORY)];
    let requests = requests.iter().map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned())));
    let item = LimitRangeItem {
        type_: "Container".to_owned(),
        default_request: Some(requests.collect()),
        ..LimitRangeItem::default()
    };
    LimitRange {
        metadata: metadata(project, namespace, names::QUOTA),
        spec: Some(LimitRangeSpec { limits: vec![item] }),
    }
}

/// `docker_config`: what `docker login` writes, with hosts and their credentials.
pub fn pull_secret(project: &Project, namespace: &str, docker_config: String) -> Secret {
    let data = (".dockerconfigjson".to_owned(), ByteString(docker_config.into_bytes()));
    Secret {
        metadata: metadata(project, namespace, names::PULL_SECRET),
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(BTreeMap::from([data])),
        ..Secret::default()
    }
}

fn metadata(project: &Project, namespace: &str, name: &str) -> ObjectMeta {
    let own = [
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE.to_owned()),
        (labels::PROJECT, project.name_any()),
        (labels::DOMAIN, project.spec.domain.clone()),
    ];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ObjectMeta::default()
    }
}
