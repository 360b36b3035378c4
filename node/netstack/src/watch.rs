//! Follows services and endpoint slices, and passes on whole worlds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::service::{Key, ServiceView, SliceView, World};

/// Changes that come this close after one another are one change.
const QUIET_MS: u64 = 5;
/// A change waits no longer than this for others.
const COALESCE_MS_MAX: u64 = 50;
/// Wait before a failed change is tried again, growing to the maximum.
const RETRY_MS_MIN: u64 = 200;
const RETRY_MS_MAX: u64 = 10_000;

/// One kind's objects through lists and watches: during a list the old ones stay until it is whole.
struct Mirror<T> {
    current: BTreeMap<Key, Arc<T>>,
    listing: Option<BTreeMap<Key, Arc<T>>>,
    listed: bool,
}

impl<T: PartialEq> Mirror<T> {
    fn new() -> Self {
        Self { current: BTreeMap::new(), listing: None, listed: false }
    }

    /// Takes an event in; true when what is current changed. `view` refuses what does not matter.
    fn take<K: kube::Resource>(&mut self, event: Event<K>, view: impl Fn(&K) -> Option<T>) -> bool {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                if let (Some(listing), Some(view)) = (&mut self.listing, view(&object)) {
                    listing.insert(key(&object), Arc::new(view));
                }
                false
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let changed = !self.listed || listed != self.current;
                (self.current, self.listed) = (listed, true);
                changed
            }
            Event::Apply(object) => match view(&object) {
                Some(view) => {
                    let view = Arc::new(view);
                    self.current.insert(key(&object), view.clone()) != Some(view)
                }
                None => self.current.remove(&key(&object)).is_some(),
            },
            Event::Delete(object) => self.current.remove(&key(&object)).is_some(),
        }
    }
}

/// Watches until the shutdown. `publish` is called with every new world, the first time when both kinds
/// are known completely; where it fails it is called again, later, with the newest.
pub(crate) async fn follow<F, Fut>(client: Client, shutdown: CancellationToken, mut publish: F)
where
    F: FnMut(Arc<World>) -> Fut,
    Fut: Future<Output = bool>,
{
    let services = watcher(Api::<Service>::all(client.clone()), watcher::Config::default()).default_backoff();
    let slices = watcher(Api::<EndpointSlice>::all(client), watcher::Config::default()).default_backoff();
    let mut services = std::pin::pin!(services);
    let mut slices = std::pin::pin!(slices);
    let (mut service_mirror, mut slice_mirror) = (Mirror::new(), Mirror::new());
    // When the waiting change is due, at the earliest and at the latest.
    let mut due: Option<(Instant, Instant)> = None;
    let mut retry_ms = RETRY_MS_MIN;
    loop {
        let wake = due.map(|(quiet, latest)| quiet.min(latest));
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(event) = next(services.as_mut(), "services") => service_mirror.take(event, ServiceView::of),
            Some(event) = next(slices.as_mut(), "endpoint slices") => slice_mirror.take(event, SliceView::of),
            () = sleep_until(wake) => {
                let world =
                    World { services: service_mirror.current.clone(), slices: slice_mirror.current.clone() };
                due = None;
                if publish(Arc::new(world)).await {
                    retry_ms = RETRY_MS_MIN;
                } else {
                    let again = Instant::now() + Duration::from_millis(retry_ms);
                    due = Some((again, again));
                    retry_ms = (retry_ms * 2).min(RETRY_MS_MAX);
                }
                false
            }
        };
        if changed && service_mirror.listed && slice_mirror.listed {
            let now = Instant::now();
            let latest = due.map_or(now + Duration::from_millis(COALESCE_MS_MAX), |(_, latest)| latest);
            due = Some((now + Duration::from_millis(QUIET_MS), latest));
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The next event; errors are logged and waited out by the stream's own backoff.
async fn next<K, S>(mut stream: std::pin::Pin<&mut S>, what: &str) -> Option<Event<K>>
where
    S: Stream<Item = watcher::Result<Event<K>>>,
{
    loop {
        match stream.next().await? {
            Ok(event) => return Some(event),
            Err(error) => tracing::warn!(%error, "watching {what}"),
        }
    }
}
