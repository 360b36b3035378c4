//! One kind of object, in memory, kept true by a watch.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::StreamExt;
use gantry_base::tasks::Tasks;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<K: kube::Resource>(object: &K) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What an informer can hold.
pub trait Kind: kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K: kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Kind for K {}

/// Before and after: created when `old` is absent, deleted when `new` is.
#[derive(Debug)]
pub struct Change<K> {
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K: kube::Resource> Change<K> {
    /// The object as last known.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The shared cache of one kind. Cheap to clone; reading never waits for the server.
pub struct Informer<K>(Arc<Inner<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Kind> Informer<K> {
    /// Lists and follows `api` until the process drains. `part` is its name in health and logs.
    pub fn start(tasks: &Tasks, part: &str, api: Api<K>) -> Self {
        Self::start_with(tasks, part, api, watcher::Config::default())
    }

    /// [`Informer::start`] with selectors.
    pub fn start_with(tasks: &Tasks, part: &str, api: Api<K>, config: watcher::Config) -> Self {
        let informer = Self(Arc::new(Inner {
            objects: RwLock::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        }));
        let (followed, shutdown) = (informer.clone(), tasks.shutdown().clone());
        tasks.supervise(part, move || {
            let (informer, api, config) = (followed.clone(), api.clone(), config.clone());
            let shutdown = shutdown.clone();
            async move {
                tokio::select! {
                    () = informer.follow(api, config) => Err("the watch ended".to_owned()),
                    () = shutdown.cancelled() => Ok(()),
                }
            }
        });
        informer
    }

    async fn follow(&self, api: Api<K>, config: watcher::Config) {
        let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
        let mut listed: BTreeMap<Key, Arc<K>> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    let object = lean(object);
                    listed.insert(Key::of(&*object), object);
                }
                Ok(Event::InitDone) => self.replace(std::mem::take(&mut listed)),
                Ok(Event::Apply(object)) => self.put(lean(object)),
                Ok(Event::Delete(object)) => self.remove(&Key::of(&object), Some(lean(object))),
                // The stream has backed off and comes back by itself.
                Err(error) => tracing::debug!(%error, "watch interrupted"),
            }
        }
    }

    /// Calls `handler` for every later change, and now once for everything that is known.
    /// Handlers run one after the other on the watching task: they enqueue and return.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.0.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.list() {
            handler(&Change { old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so waiting can only end with the value.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().get(&Key::new(namespace, name)).cloned()
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().values().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.read();
        let from = Bound::Included(Key::new(namespace, ""));
        let range = objects.range((from, Bound::Unbounded));
        range.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Arc<K>>> {
        // Inserts and removals keep no invariant across a panic.
        self.0.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Key, Arc<K>>> {
        self.0.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, object: Arc<K>) {
        let old = self.write().insert(Key::of(&*object), object.clone());
        self.tell(&Change { old, new: Some(object) });
    }

    fn remove(&self, key: &Key, last: Option<Arc<K>>) {
        let old = self.write().remove(key);
        self.tell(&Change { old: old.or(last), new: None });
    }

    fn replace(&self, listed: BTreeMap<Key, Arc<K>>) {
        let before = std::mem::replace(&mut *self.write(), listed.clone());
        for (key, object) in &listed {
            let old = before.get(key).cloned();
            let same = old.as_ref().is_some_and(|o| o.resource_version() == object.resource_version());
            if !same {
                self.tell(&Change { old, new: Some(object.clone()) });
            }
        }
        for (key, old) in before {
            if !listed.contains_key(&key) {
                self.tell(&Change { old: Some(old), new: None });
            }
        }
        self.0.synced.send_replace(true);
    }

    fn tell(&self, change: &Change<K>) {
        for handler in self.0.handlers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            handler(change);
        }
    }
}

/// Field ownership is the server's business and half of an object's size.
fn lean<K: kube::Resource>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    Arc::new(object)
}
