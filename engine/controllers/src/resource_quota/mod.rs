//! `status.used` of resource quotas: what the objects of their namespace use, also after deletions,
//! ends of pods and restarts. Admission counts for itself; this is what people see.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use gantry_reconcile::{Again, Informer, Kind, Queue, work};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceQuota};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};

use crate::shared::{Shared, gone_is_fine};

/// Changes come in bursts (a deployment scales): one look for all of them.
const GATHER: Duration = Duration::from_millis(100);

struct Controller {
    shared: Arc<Shared>,
    quotas: Informer<ResourceQuota>,
    claims: Informer<PersistentVolumeClaim>,
}

pub fn start(shared: &Arc<Shared>) {
    let controller = Arc::new(Controller {
        shared: shared.clone(),
        quotas: Informer::start(&shared.tasks, "informer/resourcequotas", Api::all(shared.client.clone())),
        claims: Informer::start(
            &shared.tasks,
            "informer/persistentvolumeclaims",
            Api::all(shared.client.clone()),
        ),
    });
    let queue: Queue<String> = Queue::default();
    let added = queue.clone();
    controller.quotas.on_change(move |change| {
        if let Some(quota) = change.object() {
            added.add(quota.namespace().unwrap_or_default());
        }
    });
    follow(&shared.informers.pods, &controller, &queue);
    follow(&shared.informers.services, &controller, &queue);
    follow(&controller.claims, &controller, &queue);
    let (counted, keys) = (controller.clone(), queue.clone());
    shared.tally.on_change(move |namespace| match namespace {
        Some(namespace) => counted.look_at(namespace, &keys),
        None => counted.quotas.list().iter().for_each(|quota| {
            keys.add_after(quota.namespace().unwrap_or_default(), GATHER);
        }),
    });
    work(&shared.tasks, "resourcequota", queue, 2, move |namespace| {
        let controller = controller.clone();
        async move { controller.reconcile(&namespace).await }
    });
}

fn follow<K: Kind>(informer: &Informer<K>, controller: &Arc<Controller>, queue: &Queue<String>) {
    let (controller, queue) = (controller.clone(), queue.clone());
    informer.on_change(move |change| {
        if let Some(object) = change.object() {
            controller.look_at(&object.namespace().unwrap_or_default(), &queue);
        }
    });
}

impl Controller {
    fn look_at(&self, namespace: &str, queue: &Queue<String>) {
        if !self.quotas.list_namespace(namespace).is_empty() {
            queue.add_after(namespace.to_owned(), GATHER);
        }
    }

    async fn reconcile(&self, namespace: &str) -> kube::Result<Again> {
        let informers = &self.shared.informers;
        informers.pods.synced().await;
        informers.services.synced().await;
        self.claims.synced().await;
        let quotas = self.quotas.list_namespace(namespace);
        if quotas.is_empty() {
            return Ok(Again::OnChange);
        }
        let measured = plan::measured(
            &informers.pods.list_namespace(namespace),
            &informers.services.list_namespace(namespace),
            &self.claims.list_namespace(namespace),
        );
        let count = |resource: &(String, String)| self.shared.tally.count(resource, namespace);
        let api: Api<ResourceQuota> = Api::namespaced(self.shared.client.clone(), namespace);
        for quota in quotas {
            let Some(patch) = plan::status_patch(&quota, &measured, &count) else { continue };
            let patched =
                api.patch_status(&quota.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
            gone_is_fine(patched)?;
        }
        Ok(Again::OnChange)
    }
}
