//! ConfigMaps and Secrets that pods of this node use: each is watched exactly while some pod needs it, so changes
//! arrive at once and the node holds (and may read) nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::pods::spec;

/// How long a pod waits for the first answer about an object before it reports that it is missing.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Keys and contents of one object.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SourceKind {
    ConfigMap,
    Secret,
}

/// Kind and name of an object in the pod's namespace.
pub(crate) type Reference = (SourceKind, String);

/// What is known of an object.
#[derive(Clone, Debug, Default)]
enum State {
    /// Not answered yet.
    #[default]
    Unknown,
    Absent,
    Present(Arc<Data>),
    /// The API server refuses, with its words.
    Refused(String),
}

/// The answer to a look-up.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    Found(Arc<Data>),
    /// Missing, and optional.
    Absent,
    /// Missing, with the message for the user.
    Missing(String),
}

/// The objects of one pod as they were when its worker began a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects(BTreeMap<Reference, State>);

impl Objects {
    pub(crate) fn config_map(&self, name: &str, optional: bool) -> Lookup {
        self.lookup(SourceKind::ConfigMap, name, optional)
    }

    pub(crate) fn secret(&self, name: &str, optional: bool) -> Lookup {
        self.lookup(SourceKind::Secret, name, optional)
    }

    fn lookup(&self, kind: SourceKind, name: &str, optional: bool) -> Lookup {
        let word = if kind == SourceKind::Secret { "secret" } else { "configmap" };
        match self.0.get(&(kind, name.to_owned())) {
            Some(State::Present(data)) => Lookup::Found(data.clone()),
            _ if optional => Lookup::Absent,
            Some(State::Refused(message)) => Lookup::Missing(message.clone()),
            Some(State::Unknown) => Lookup::Missing(format!("failed to sync {word} cache: timed out")),
            Some(State::Absent) | None => Lookup::Missing(format!("{word} \"{name}\" not found")),
        }
    }
}

struct Entry {
    state: watch::Receiver<State>,
    waiters: Arc<Mutex<Vec<Weak<Notify>>>>,
    users: usize,
    task: JoinHandle<()>,
}

type Key = (String, Reference);

/// The node's watches, shared by all pod workers.
#[derive(Clone)]
pub(crate) struct Sources {
    client: Client,
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
}

/// What one pod uses; dropping it ends the watches that nobody else needs.
pub(crate) struct Subscription {
    sources: Sources,
    namespace: String,
    references: BTreeMap<Reference, watch::Receiver<State>>,
}

impl Sources {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, entries: Arc::default() }
    }

    /// Watches everything the pod refers to; `wake` is notified of changes.
    pub(crate) fn subscribe(&self, pod: &Pod, wake: &Arc<Notify>) -> Subscription {
        let namespace = spec::namespace(pod).to_owned();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut receivers = BTreeMap::new();
        for reference in references(pod) {
            let key = (namespace.clone(), reference.clone());
            let entry = entries.entry(key.clone()).or_insert_with(|| self.watch(&key));
            entry.users += 1;
            let mut waiters = entry.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            waiters.retain(|w| w.strong_count() > 0);
            waiters.push(Arc::downgrade(wake));
            receivers.insert(reference, entry.state.clone());
        }
        Subscription { sources: self.clone(), namespace, references: receivers }
    }

    fn watch(&self, (namespace, (kind, name)): &Key) -> Entry {
        let (sender, state) = watch::channel(State::Unknown);
        let waiters: Arc<Mutex<Vec<Weak<Notify>>>> = Arc::default();
        let (client, woken) = (self.client.clone(), waiters.clone());
        let (namespace, name, kind) = (namespace.clone(), name.clone(), *kind);
        let task = tokio::spawn(async move {
            match kind {
                SourceKind::ConfigMap => {
                    let api = Api::<ConfigMap>::namespaced(client, &namespace);
                    follow(api, &name, &sender, &woken, |map| {
                        let text = map.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes()));
                        let binary = map.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0));
                        text.chain(binary).collect()
                    })
                    .await;
                }
                SourceKind::Secret => {
                    let api = Api::<Secret>::namespaced(client, &namespace);
                    follow(api, &name, &sender, &woken, |secret| {
                        secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect()
                    })
                    .await;
                }
            }
        });
        Entry { state, waiters, users: 0, task }
    }
}

/// Keeps `state` what the API server says about the object, for ever.
async fn follow<K>(
    api: Api<K>,
    name: &str,
    state: &watch::Sender<State>,
    waiters: &Mutex<Vec<Weak<Notify>>>,
    data: impl Fn(K) -> Data,
) where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut seen = false;
    while let Some(event) = stream.next().await {
        let new = match event {
            Ok(watcher::Event::Init) => {
                seen = false;
                continue;
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                seen = true;
                State::Present(Arc::new(data(object)))
            }
            Ok(watcher::Event::InitDone) if seen => continue,
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => State::Absent,
            // What is known stays valid over a lost connection; a refusal at the first try is an answer.
            Err(error) if matches!(&*state.borrow(), State::Unknown) => State::Refused(error.to_string()),
            Err(_) => continue,
        };
        state.send_replace(new);
        for waiter in waiters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(notify) = waiter.upgrade() {
                notify.notify_one();
            }
        }
    }
}

impl Subscription {
    /// The objects as of now; waits for the first answer about each, within a bound.
    pub(crate) async fn objects(&mut self) -> Objects {
        let deadline = tokio::time::Instant::now() + FIRST_ANSWER_WAIT;
        let mut objects = BTreeMap::new();
        for (reference, receiver) in &mut self.references {
            let known = receiver.wait_for(|state| !matches!(state, State::Unknown));
            let state = match tokio::time::timeout_at(deadline, known).await {
                Ok(Ok(state)) => state.clone(),
                _ => State::Unknown,
            };
            objects.insert(reference.clone(), state);
        }
        Objects(objects)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut entries = self.sources.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for reference in self.references.keys() {
            let key = (self.namespace.clone(), reference.clone());
            if let Some(entry) = entries.get_mut(&key) {
                entry.users -= 1;
                if entry.users == 0 {
                    entry.task.abort();
                    entries.remove(&key);
                }
            }
        }
    }
}

/// Every ConfigMap and Secret that the pod names.
pub(crate) fn references(pod: &Pod) -> BTreeSet<Reference> {
    use SourceKind::{ConfigMap, Secret};
    let mut found = BTreeSet::new();
    for member in spec::members(pod) {
        for from in member.container.env_from.iter().flatten() {
            found.extend(from.config_map_ref.as_ref().map(|r| (ConfigMap, r.name.clone())));
            found.extend(from.secret_ref.as_ref().map(|r| (Secret, r.name.clone())));
        }
        for source in member.container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
            found.extend(source.config_map_key_ref.as_ref().map(|r| (ConfigMap, r.name.clone())));
            found.extend(source.secret_key_ref.as_ref().map(|r| (Secret, r.name.clone())));
        }
    }
    for volume in spec::pod_spec(pod).volumes.iter().flatten() {
        found.extend(volume.config_map.as_ref().map(|v| (ConfigMap, v.name.clone())));
        found.extend(volume.secret.as_ref().and_then(|v| v.secret_name.clone()).map(|n| (Secret, n)));
        let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for source in projected {
            found.extend(source.config_map.as_ref().map(|s| (ConfigMap, s.name.clone())));
            found.extend(source.secret.as_ref().map(|s| (Secret, s.name.clone())));
        }
    }
    let pull = spec::pod_spec(pod).image_pull_secrets.iter().flatten();
    found.extend(pull.map(|r| (Secret, r.name.clone())));
    found.retain(|(_, name)| !name.is_empty());
    found
}
