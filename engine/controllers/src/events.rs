//! Events are news, not records: they go after their time.

use std::sync::Arc;

use futures::StreamExt;
use gantry_reconcile::{Again, Key, Queue, work};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::DeleteParams;
use kube::api::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as Watched};
use kube::{Api, Resource, ResourceExt};

use crate::shared::{Shared, gone_is_fine};

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<Key> = Queue::default();
    let (this, keys) = (shared.clone(), queue.clone());
    // Only the time of an event is of interest, so nothing is cached: its deadline is in the queue.
    shared.tasks.supervise("controller/event-watch", move || {
        let (shared, keys) = (this.clone(), keys.clone());
        async move {
            let api: Api<PartialObjectMeta<Event>> = Api::all(shared.client.clone());
            let mut events =
                std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
            let stop = shared.tasks.shutdown().clone();
            loop {
                let seen = tokio::select! {
                    seen = events.next() => seen,
                    () = stop.cancelled() => return Ok(()),
                };
                match seen {
                    Some(Ok(Watched::Apply(event) | Watched::InitApply(event))) => {
                        let age = event
                            .creation_timestamp()
                            .map_or(0, |t| Timestamp::now().duration_since(t.0).as_secs());
                        let left =
                            shared.config.event_ttl.as_secs().saturating_sub(age.max(0).unsigned_abs());
                        let key = Key::new(event.namespace().unwrap_or_default(), event.name_any());
                        keys.add_after(key, std::time::Duration::from_secs(left));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "watch interrupted"),
                    None => return Err("the watch of events ended".to_owned()),
                }
            }
        }
    });
    let this = shared.clone();
    work(&shared.tasks, "event-expiry", queue, 1, move |key| {
        let shared = this.clone();
        async move { reconcile(&shared, &key).await }
    });
}

/// An event that was repeated since lives on from its last repetition.
async fn reconcile(shared: &Shared, key: &Key) -> kube::Result<Again> {
    let api: Api<Event> = Api::namespaced(shared.client.clone(), &key.namespace);
    let Some(event) = api.get_opt(&key.name).await? else { return Ok(Again::OnChange) };
    let age = Timestamp::now().duration_since(last_seen(&event).unwrap_or(Timestamp::MIN)).as_secs();
    let left = shared.config.event_ttl.as_secs().saturating_sub(age.max(0).unsigned_abs());
    if left > 0 {
        return Ok(Again::After(std::time::Duration::from_secs(left)));
    }
    gone_is_fine(api.delete(&key.name, &DeleteParams::default()).await)?;
    Ok(Again::OnChange)
}

fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    let made = event.meta().creation_timestamp.as_ref().map(|t| t.0);
    series.into_iter().chain(last).chain(made).max()
}
