//! Every living namespace has the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_reconcile::{Again, Informer, Queue, work};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};

use crate::shared::{Shared, gone_is_fine};

const ROOT_CA: &str = "kube-root-ca.crt";
const DEFAULT: &str = "default";

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<String> = Queue::default();
    let only = watcher::Config::default().fields(&format!("metadata.name={ROOT_CA}"));
    let api = Api::all(shared.client.clone());
    let certificates: Informer<ConfigMap> =
        Informer::start_with(&shared.tasks, "informer/root-ca-configmaps", api, only);
    let (a, b, c) = (queue.clone(), queue.clone(), queue.clone());
    shared.informers.namespaces.on_change(move |change| {
        if let Some(namespace) = &change.new {
            a.add(namespace.name_any());
        }
    });
    shared.informers.service_accounts.on_change(move |change| {
        if let (Some(account), None) = (&change.old, &change.new) {
            b.add(account.namespace().unwrap_or_default());
        }
    });
    certificates.on_change(move |change| {
        if let Some(map) = change.object() {
            c.add(map.namespace().unwrap_or_default());
        }
    });
    let this = shared.clone();
    work(&shared.tasks, "serviceaccount", queue, 1, move |namespace| {
        let (shared, certificates) = (this.clone(), certificates.clone());
        async move { reconcile(&shared, &certificates, &namespace).await }
    });
}

fn is_living(namespace: &Namespace) -> bool {
    namespace.meta().deletion_timestamp.is_none()
}

async fn reconcile(
    shared: &Shared,
    certificates: &Informer<ConfigMap>,
    namespace: &str,
) -> kube::Result<Again> {
    shared.informers.service_accounts.synced().await;
    certificates.synced().await;
    let living = shared.informers.namespaces.get("", namespace).is_some_and(|n| is_living(&n));
    if !living {
        return Ok(Again::OnChange);
    }
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    if shared.informers.service_accounts.get(namespace, DEFAULT).is_none() {
        let account = ServiceAccount { metadata: metadata(DEFAULT), ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(shared.client.clone(), namespace);
        already_there_is_fine(api.create(&PostParams::default(), &account).await)?;
    }
    let data = BTreeMap::from([("ca.crt".to_owned(), shared.config.root_ca_pem.clone())]);
    let api: Api<ConfigMap> = Api::namespaced(shared.client.clone(), namespace);
    match certificates.get(namespace, ROOT_CA) {
        Some(map) if map.data.as_ref() == Some(&data) => {}
        Some(map) => {
            let patch = Patch::Merge(serde_json::json!({"data": data}));
            gone_is_fine(api.patch(&map.name_any(), &PatchParams::default(), &patch).await)?;
        }
        None => {
            let map = ConfigMap { metadata: metadata(ROOT_CA), data: Some(data), ..ConfigMap::default() };
            already_there_is_fine(api.create(&PostParams::default(), &map).await)?;
        }
    }
    Ok(Again::OnChange)
}

/// Another was faster, or the namespace has begun to go.
fn already_there_is_fine<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}
