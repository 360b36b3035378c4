//! From pods and runtime events to workers: one worker per pod uid.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use gantry_cri::events::Event;
use gantry_cri::{
    ContainerFilter, ListContainersRequest, ListPodSandboxRequest, PodSandbox, PodSandboxFilter,
    RemovePodSandboxRequest, StopPodSandboxRequest,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::pods::{Desired, Handle, spec};
use crate::shared::{Services, Shared};
use crate::volumes;

/// News that wait for the dispatcher; senders wait when it is full.
const NEWS_MAX: usize = 256;

/// What happens to the set of pods of this node.
#[derive(Clone, Debug)]
pub enum PodNews {
    /// The pod is new or changed.
    Set(Box<Pod>),
    /// The object is gone.
    Gone(Box<Pod>),
    /// All pods there are have been told since the last start of the list; others are left-overs.
    Synced,
}

enum News {
    Pod(PodNews),
    Exited(String),
    /// Events may have been lost: everybody has to look.
    Resync,
}

/// Watches the API server for pods bound to this node.
pub(crate) struct PodWatch {
    client: Client,
    node: String,
    out: mpsc::Sender<PodNews>,
    /// By uid. Kept over a failure of the watch, so that what went meanwhile is told when it is back.
    known: Mutex<HashMap<String, Box<Pod>>>,
}

impl PodWatch {
    pub(crate) fn new(client: Client, node: &str, out: mpsc::Sender<PodNews>) -> Arc<Self> {
        Arc::new(Self { client, node: node.to_owned(), out, known: Mutex::default() })
    }

    /// Watches until the shutdown, or until nobody listens.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut known = self.known.lock().await;
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node));
        let mut stream =
            std::pin::pin!(watcher(Api::<Pod>::all(self.client.clone()), config).default_backoff());
        let mut listed: Option<BTreeSet<String>> = None;
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = shutdown.cancelled() => return,
            };
            let Some(event) = event else { return };
            for item in take(event, &mut known, &mut listed) {
                if self.out.send(item).await.is_err() {
                    return shutdown.cancelled().await;
                }
            }
        }
    }
}

/// What an event of the watch means. `listed` are the uids of a list that has begun and not ended.
fn take(
    event: watcher::Result<watcher::Event<Pod>>,
    known: &mut HashMap<String, Box<Pod>>,
    listed: &mut Option<BTreeSet<String>>,
) -> Vec<PodNews> {
    match event {
        Ok(watcher::Event::Init) => {
            *listed = Some(BTreeSet::new());
            Vec::new()
        }
        Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) => {
            let uid = spec::uid(&pod).to_owned();
            if let Some(listed) = listed {
                listed.insert(uid.clone());
            }
            known.insert(uid, Box::new(pod.clone()));
            vec![PodNews::Set(Box::new(pod))]
        }
        Ok(watcher::Event::Delete(pod)) => {
            known.remove(spec::uid(&pod));
            vec![PodNews::Gone(Box::new(pod))]
        }
        Ok(watcher::Event::InitDone) => {
            let listed = listed.take().unwrap_or_default();
            let lost: Vec<String> = known.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
            let gone = lost.iter().filter_map(|uid| known.remove(uid)).map(PodNews::Gone);
            gone.chain([PodNews::Synced]).collect()
        }
        Err(error) => {
            tracing::debug!(%error, "pods not watched");
            Vec::new()
        }
    }
}

/// Keeps the list of services current until the shutdown.
pub(crate) async fn watch_services(client: Client, services: Services, shutdown: CancellationToken) {
    let stream = watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut known: BTreeMap<(Option<String>, Option<String>), Service> = BTreeMap::new();
    let mut listing = false;
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            () = shutdown.cancelled() => return,
        };
        let key = |s: &Service| (s.metadata.namespace.clone(), s.metadata.name.clone());
        match event {
            Some(Ok(watcher::Event::Init)) => {
                known.clear();
                listing = true;
            }
            Some(Ok(watcher::Event::InitApply(s) | watcher::Event::Apply(s))) => {
                known.insert(key(&s), s);
            }
            Some(Ok(watcher::Event::Delete(s))) => {
                known.remove(&key(&s));
            }
            Some(Ok(watcher::Event::InitDone)) => listing = false,
            Some(Err(_)) => continue,
            None => return,
        }
        if !listing {
            services.set(known.values().cloned().collect());
        }
    }
}

/// Passes pods and runtime events to workers. What it knows outlives a failure of its loop.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    sender: mpsc::Sender<News>,
    state: Mutex<State>,
}

struct State {
    news: mpsc::Receiver<News>,
    pods: mpsc::Receiver<PodNews>,
    /// By the pod's uid.
    workers: HashMap<String, Handle>,
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>, pods: mpsc::Receiver<PodNews>) -> Arc<Self> {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        Arc::new(Self { shared, sender, state: Mutex::new(State { news, pods, workers: HashMap::new() }) })
    }

    /// Waits for a place in the queue, but not longer than there is somebody to empty it.
    async fn send(&self, news: News) {
        tokio::select! {
            // This side of the channel cannot be closed: the other lies beside it.
            _ = self.sender.send(news) => {}
            () = self.shared.config.shutdown.cancelled() => {}
        }
    }

    /// Dispatches until the agent stops, then waits for the workers.
    pub(crate) async fn run(self: Arc<Self>) {
        let shutdown = &self.shared.config.shutdown;
        let mut state = self.state.lock().await;
        let State { news, pods, workers } = &mut *state;
        loop {
            let item = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(item) = news.recv() => item,
                item = pods.recv() => match item {
                    Some(item) => News::Pod(item),
                    None => break,
                },
            };
            dispatch(&self.shared, workers, item).await;
            tend(&self.shared, workers);
        }
        for worker in std::mem::take(workers).into_values() {
            // Workers stop by themselves where they wait; one in the middle of a step finishes it.
            let _ = tokio::time::timeout(Duration::from_secs(5), worker.task).await;
        }
        shutdown.cancelled().await;
    }
}

async fn dispatch(shared: &Arc<Shared>, workers: &mut HashMap<String, Handle>, item: News) {
    match item {
        News::Pod(PodNews::Set(pod)) => set(shared, workers, *pod),
        News::Pod(PodNews::Gone(pod)) => {
            if let Some(worker) = workers.get(spec::uid(&pod)) {
                worker.desired.send_replace(Desired { pod: Arc::new(*pod), gone: true });
            }
        }
        News::Pod(PodNews::Synced) => {
            let known: BTreeSet<String> = workers.keys().cloned().collect();
            // Found before the next pod gets its worker: what a later pod makes is no left-over.
            let orphans = Orphans::find(shared, &known).await;
            let shared = shared.clone();
            tokio::spawn(async move { orphans.remove(&shared).await });
        }
        News::Exited(id) => {
            if let Some(worker) = owner(shared, &id).await.and_then(|uid| workers.get(&uid)) {
                worker.exited(&id);
            }
        }
        News::Resync => workers.values().for_each(|worker| worker.wake.notify_one()),
    }
}

/// Replaces workers that failed, forgets those that are done, and weighs the burstable class anew.
fn tend(shared: &Arc<Shared>, workers: &mut HashMap<String, Handle>) {
    for worker in workers.values_mut() {
        let desired = worker.desired.borrow().clone();
        // Only an ending pod's worker returns; another one failed, and its pod must not go unattended.
        if worker.task.is_finished() && !desired.ending() {
            tracing::error!(pod = %spec::display(&desired.pod), "the pod's worker failed; starting another");
            *worker = Handle::spawn(shared.clone(), desired);
        }
    }
    workers.retain(|_, worker| !(worker.task.is_finished() && worker.desired.borrow().gone));
    let burstable = workers.values().map(|w| w.desired.borrow().pod.clone());
    let burstable = burstable.filter(|p| crate::resources::qos(p) == crate::resources::Qos::Burstable);
    let millis = burstable.map(|p| crate::resources::pod_resources(&p).cpu_request_millis).sum();
    shared.cgroups.weigh_burstable(millis);
}

fn set(shared: &Arc<Shared>, workers: &mut HashMap<String, Handle>, pod: Pod) {
    let uid = spec::uid(&pod).to_owned();
    let desired = Desired { pod: Arc::new(pod), gone: false };
    match workers.get(&uid) {
        Some(worker) if !worker.task.is_finished() => {
            worker.desired.send_replace(desired);
        }
        // Its worker is done: the object only waits for its finalizers.
        Some(_) if desired.ending() => {}
        _ => {
            workers.insert(uid, Handle::spawn(shared.clone(), desired));
        }
    }
}

/// The uid of the pod that a container or sandbox belongs to.
async fn owner(shared: &Shared, id: &str) -> Option<String> {
    let of = |r: &&Arc<crate::api::PodRecord>| {
        r.sandbox_id.as_deref() == Some(id) || r.containers.iter().any(|c| c.id == id)
    };
    if let Some(record) = shared.table.list().iter().find(of) {
        return Some(record.uid.clone());
    }
    let filter = Some(ContainerFilter { id: id.to_owned(), ..Default::default() });
    let containers = shared.runtime.list_containers(ListContainersRequest { filter }).await.ok()?;
    let filter = Some(PodSandboxFilter { id: id.to_owned(), ..Default::default() });
    let labels = match containers.containers.into_iter().next() {
        Some(container) => container.labels,
        None => {
            shared
                .runtime
                .list_pod_sandbox(ListPodSandboxRequest { filter })
                .await
                .ok()?
                .items
                .into_iter()
                .next()?
                .labels
        }
    };
    labels.get(spec::LABEL_POD_UID).cloned()
}

/// Subscribes to the runtime's events, again and again, until the shutdown.
pub(crate) async fn follow_runtime(dispatcher: Arc<Dispatcher>) {
    let shared = &dispatcher.shared;
    let shutdown = &shared.config.shutdown;
    let mut pause = Duration::from_millis(20);
    loop {
        if let Ok(mut events) = shared.runtime.events().await {
            pause = Duration::from_millis(20);
            dispatcher.send(News::Resync).await;
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = shutdown.cancelled() => return,
                };
                match event {
                    Some(Event::Exited { id, .. }) => dispatcher.send(News::Exited(id)).await,
                    Some(_) => {}
                    None => break,
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// What is left of pods that no longer exist.
pub(crate) struct Orphans {
    sandboxes: Vec<String>,
    uids: Vec<String>,
    log_dirs: Vec<PathBuf>,
    cgroups: Vec<String>,
}

impl Orphans {
    /// Everything on the node that belongs to none of the `known` pods.
    pub(crate) async fn find(shared: &Shared, known: &BTreeSet<String>) -> Self {
        let listed = shared.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await;
        let sandboxes = listed.map(|a| a.items).unwrap_or_default().into_iter();
        let unknown = |s: &PodSandbox| s.labels.get(spec::LABEL_POD_UID).is_none_or(|u| !known.contains(u));
        let dirs = &shared.config.dirs;
        let log_of_unknown = |n: &String| n.rsplit('_').next().is_some_and(|uid| !known.contains(uid));
        Self {
            sandboxes: sandboxes.filter(unknown).map(|s| s.id).collect(),
            uids: names(&dirs.data.join("pods")).filter(|uid| !known.contains(uid)).collect(),
            log_dirs: names(&dirs.pod_logs).filter(log_of_unknown).map(|n| dirs.pod_logs.join(n)).collect(),
            cgroups: {
                let all = shared.cgroups.pod_uids().into_iter();
                all.filter(|(uid, _)| !known.contains(uid)).map(|(_, group)| group).collect()
            },
        }
    }

    /// Removes sandboxes, directories, logs and cgroups.
    pub(crate) async fn remove(self, shared: &Shared) {
        for id in self.sandboxes {
            tracing::info!(sandbox = id, "removing what is left of a pod that no longer exists");
            let stop = StopPodSandboxRequest { pod_sandbox_id: id.clone() };
            if let Err(error) = shared.runtime.stop_pod_sandbox(stop).await {
                tracing::warn!(sandbox = id, %error, "sandbox not stopped");
                continue;
            }
            let _ = shared.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).await;
        }
        for uid in self.uids {
            if let Err(error) = volumes::remove_pod_dir(&shared.config.dirs.pod(&uid)) {
                tracing::warn!(uid, %error, "directory of a pod that no longer exists not removed");
            }
        }
        for directory in &self.log_dirs {
            shared.remove_log_dir(directory);
        }
        for group in self.cgroups {
            if let Err(error) = shared.cgroups.remove(&group).await {
                tracing::warn!(group, %error, "cgroup of a pod that no longer exists not removed");
            }
        }
    }
}

/// The names in a directory; none where it cannot be read.
fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned())
}
