//! Keeps what is known of namespaces, projects and domains up to the API server.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use gantry_host::Host;
use gantry_identity_api::{Domain, Project, labels};
use gantry_reconcile::{Informer, Kind};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};

use crate::Inner;
use crate::config::RecordSessions;
use crate::namespaces::{Facts, Namespaces, Owned, Owners, RECORD_SESSIONS};

pub(crate) fn start(inner: &Arc<Inner>, host: &Host) {
    owners::<Project>(&inner.owners, host, "audit/projects", Owned::Project);
    owners::<Domain>(&inner.owners, host, "audit/domains", Owned::Domain);
    let (namespaces, client, shutdown) =
        (inner.namespaces.clone(), host.client.clone(), host.tasks.shutdown().clone());
    host.tasks.supervise("audit namespaces", move || {
        let (namespaces, client, shutdown) = (namespaces.clone(), client.clone(), shutdown.clone());
        async move {
            tokio::select! {
                () = follow(client, &namespaces) => Err("the watch of namespaces ended"),
                () = shutdown.cancelled() => Ok(()),
            }
        }
    });
}

fn owners<K: Kind<DynamicType = ()>>(
    owners: &Arc<Owners>,
    host: &Host,
    part: &str,
    owned: fn(String) -> Owned,
) {
    let owners = owners.clone();
    let informer = Informer::start(&host.tasks, part, Api::<K>::all(host.client.clone()));
    informer.on_change(move |change| {
        if let Some(object) = change.object() {
            owners.set(owned(object.name_any()), change.new.is_some());
        }
    });
}

async fn follow(client: kube::Client, namespaces: &Namespaces) {
    let watched = watcher::watcher(Api::<Namespace>::all(client), watcher::Config::default());
    let events = watched.default_backoff();
    pin_mut!(events);
    let mut fresh = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(namespace)) => {
                let (name, facts) = facts(&namespace);
                namespaces.change(|all| {
                    all.insert(name.clone(), facts.clone());
                });
            }
            Ok(Event::Delete(namespace)) => namespaces.change(|all| {
                all.remove(&namespace.name_any());
            }),
            Ok(Event::Init) => fresh = HashMap::new(),
            Ok(Event::InitApply(namespace)) => {
                fresh.extend([facts(&namespace)]);
            }
            Ok(Event::InitDone) => namespaces.replace(std::mem::take(&mut fresh)),
            Err(error) => tracing::debug!(%error, "the watch of namespaces is begun again"),
        }
    }
}

fn facts(namespace: &Namespace) -> (String, Facts) {
    let sessions = [namespace.annotations().get(RECORD_SESSIONS), namespace.labels().get(RECORD_SESSIONS)];
    let sessions = sessions.into_iter().flatten().find_map(|text| RecordSessions::parse(text));
    let project = namespace.labels().get(labels::PROJECT).cloned();
    (namespace.name_any(), Facts { project, sessions })
}
