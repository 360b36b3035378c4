//! What every cluster has before anybody asks for it.

use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

/// Namespaces that exist from the start and cannot be deleted.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// What the bootstrap needs to know.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Address of the Service `kubernetes`.
    pub api_service: std::net::Ipv4Addr,
    /// Address of cluster DNS, where this installation has one.
    pub dns: Option<std::net::Ipv4Addr>,
}

/// Creates what is missing; what is there is left as it is. Repeated at every start.
pub async fn run(client: &Client, facts: &Facts) -> kube::Result<()> {
    for (resource, namespaced, object) in objects(facts) {
        create(client, &resource, namespaced, object).await?;
    }
    let definition = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        "customresourcedefinitions",
    );
    create(client, &definition, false, gantry_scheduler::explanation::definition()).await
}

fn objects(facts: &Facts) -> Vec<(ApiResource, bool, Value)> {
    let core = |kind: &str, plural: &str| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", kind), plural)
    };
    let mut objects: Vec<(ApiResource, bool, Value)> = NAMESPACES
        .iter()
        .map(|name| {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            (core("Namespace", "namespaces"), false, namespace)
        })
        .collect();
    let priority = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("scheduling.k8s.io", "v1", "PriorityClass"),
        "priorityclasses",
    );
    for (name, value, description) in [
        ("system-cluster-critical", 2_000_000_000, "Must run in the cluster, but can move to another node."),
        ("system-node-critical", 2_000_001_000, "Must not be moved from its node."),
    ] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                           "metadata": {"name": name}, "value": value, "description": description});
        objects.push((priority.clone(), false, class));
    }
    objects.push((
        core("Service", "services"),
        true,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default",
                         "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": facts.api_service.to_string(),
                     "ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
        }),
    ));
    if let Some(dns) = facts.dns {
        objects.push((core("Service", "services"), true, json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": dns.to_string(),
                     "ports": [{"name": "dns", "port": 53, "protocol": "UDP"},
                               {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]},
        })));
    }
    objects
}

async fn create(
    client: &Client,
    resource: &ApiResource,
    namespaced: bool,
    object: Value,
) -> kube::Result<()> {
    let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let api: Api<DynamicObject> = if namespaced {
        Api::namespaced_with(client.clone(), &namespace, resource)
    } else {
        Api::all_with(client.clone(), resource)
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    if api.get_opt(&name).await?.is_some() {
        return Ok(());
    }
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
