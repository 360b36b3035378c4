//! Where a Service's pods are: EndpointSlices for those who route, and Endpoints for older readers.

mod plan;

use std::sync::Arc;

use gantry_reconcile::{Again, Key, Queue, work};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};

use crate::shared::{Shared, enqueue_changes, gone_is_fine};

const WORKERS: usize = 4;
const MANAGER: &str = "endpointslice-controller.k8s.io";

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<Key> = Queue::default();
    enqueue_changes(&shared.informers.services, &queue);
    let (observed, pods) = (shared.clone(), queue.clone());
    shared.informers.pods.on_change(move |change| {
        if plan::matters(change.old.as_deref(), change.new.as_deref()) {
            for pod in [&change.old, &change.new].into_iter().flatten() {
                enqueue_services_of(&observed, pod, &pods);
            }
        }
    });
    let slices = queue.clone();
    shared.informers.endpoint_slices.on_change(move |change| {
        if let Some(slice) = change.object()
            && slice.labels().get(plan::MANAGED_BY).is_some_and(|m| m == MANAGER)
            && let Some(service) = slice.labels().get(plan::SERVICE_NAME)
        {
            slices.add(Key::new(slice.namespace().unwrap_or_default(), service));
        }
    });
    let shared_for_work = shared.clone();
    work(&shared.tasks, "endpoints", queue, WORKERS, move |key| {
        let shared = shared_for_work.clone();
        async move { reconcile(&shared, key).await }
    });
}

fn enqueue_services_of(shared: &Shared, pod: &Pod, queue: &Queue<Key>) {
    let namespace = pod.namespace().unwrap_or_default();
    for service in shared.informers.services.list_namespace(&namespace) {
        if selects(&service, pod) {
            queue.add(Key::of(&*service));
        }
    }
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|s| !s.is_empty() && s.iter().all(|(k, v)| pod.labels().get(k) == Some(v)))
}

async fn reconcile(shared: &Shared, key: Key) -> kube::Result<Again> {
    let informers = &shared.informers;
    informers.services.synced().await;
    informers.pods.synced().await;
    informers.endpoint_slices.synced().await;
    informers.nodes.synced().await;
    let slices: Vec<Arc<EndpointSlice>> = informers
        .endpoint_slices
        .list_namespace(&key.namespace)
        .into_iter()
        .filter(|s| s.labels().get(plan::SERVICE_NAME) == Some(&key.name))
        .filter(|s| s.labels().get(plan::MANAGED_BY).is_some_and(|m| m == MANAGER))
        .collect();
    let Some(service) = informers.services.get(&key.namespace, &key.name) else {
        // Slices go with their owner by garbage collection; Endpoints have no owner.
        let endpoints: Api<Endpoints> = Api::namespaced(shared.client.clone(), &key.namespace);
        gone_is_fine(endpoints.delete(&key.name, &DeleteParams::default()).await)?;
        return Ok(Again::OnChange);
    };
    let spec = service.spec.clone().unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    if external || spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
        return Ok(Again::OnChange);
    }
    let pods: Vec<Arc<Pod>> = informers
        .pods
        .list_namespace(&key.namespace)
        .into_iter()
        .filter(|pod| selects(&service, pod) && plan::is_endpoint(pod))
        .collect();
    let zone_of = |node: &str| {
        let node = informers.nodes.get("", node)?;
        node.labels().get("topology.kubernetes.io/zone").cloned()
    };
    let wanted = plan::slices(&service, &pods, MANAGER, zone_of);
    write_slices(shared, &key, plan::diff(&slices, wanted)).await?;
    write_endpoints(shared, &key, plan::endpoints(&service, &pods)).await?;
    Ok(Again::OnChange)
}

async fn write_slices(shared: &Shared, key: &Key, changes: Vec<plan::SliceChange>) -> kube::Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(shared.client.clone(), &key.namespace);
    for change in changes {
        match change {
            plan::SliceChange::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                // The service or its namespace went meanwhile.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {}
                other => drop(other?),
            },
            plan::SliceChange::Replace(slice) => {
                drop(api.replace(&slice.name_any(), &PostParams::default(), &slice).await?);
            }
            plan::SliceChange::Delete(name) => {
                gone_is_fine(api.delete(&name, &DeleteParams::default()).await)?;
            }
        }
    }
    Ok(())
}

async fn write_endpoints(shared: &Shared, key: &Key, wanted: Endpoints) -> kube::Result<()> {
    let api: Api<Endpoints> = Api::namespaced(shared.client.clone(), &key.namespace);
    match api.get_opt(&key.name).await? {
        Some(now) if now.subsets == wanted.subsets && labelled(&now, &wanted) => Ok(()),
        Some(_) => {
            let patch = serde_json::json!({"metadata": {"labels": wanted.metadata.labels}, "subsets": wanted.subsets});
            gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
        }
        None => match api.create(&PostParams::default(), &wanted).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => Ok(()),
            other => other.map(drop),
        },
    }
}

fn labelled(now: &Endpoints, wanted: &Endpoints) -> bool {
    wanted.labels().iter().all(|(k, v)| now.labels().get(k) == Some(v))
}
