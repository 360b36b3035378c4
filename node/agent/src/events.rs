//! Events as the kubelet writes them: one object per distinct happening, its count raised when it repeats.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::pods::spec;

/// Events that wait to be written; more than that are dropped, for they only inform.
const QUEUE_MAX: usize = 1024;
/// Distinct events remembered for counting.
const REMEMBERED_MAX: usize = 4096;

/// Normal or Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    field_path: Option<String>,
    kind: Kind,
    reason: String,
    message: String,
}

struct Note {
    key: Key,
    object: ObjectReference,
    at: Timestamp,
}

/// Sends events; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Note>,
}

impl Recorder {
    /// A recorder and the writer behind it, which somebody has to run.
    pub(crate) fn new(client: Client, node_name: &str) -> (Self, Arc<Writer>) {
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { client, node: node_name.to_owned(), notes: Mutex::new(notes) };
        (Self { queue }, Arc::new(writer))
    }

    /// An event of a pod, or of one of its containers by `field_path`.
    pub(crate) fn pod(&self, pod: &Pod, field_path: Option<String>, kind: Kind, reason: &str, message: &str) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        };
        self.send(object, spec::uid(pod), kind, reason, message);
    }

    /// An event of the node itself.
    pub(crate) fn node(&self, name: &str, kind: Kind, reason: &str, message: &str) {
        let object = ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..Default::default()
        };
        self.send(object, name, kind, reason, message);
    }

    fn send(&self, object: ObjectReference, uid: &str, kind: Kind, reason: &str, message: &str) {
        let key = Key {
            uid: uid.to_owned(),
            field_path: object.field_path.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let _ = self.queue.try_send(Note { key, object, at: Timestamp::now() });
    }
}

struct Written {
    name: String,
    count: i32,
}

/// Writes what recorders send.
pub(crate) struct Writer {
    client: Client,
    node: String,
    notes: Mutex<mpsc::Receiver<Note>>,
}

impl Writer {
    /// Writes until the shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut notes = self.notes.lock().await;
        let mut known: HashMap<Key, Written> = HashMap::new();
        loop {
            let note = tokio::select! {
                Some(note) = notes.recv() => note,
                () = shutdown.cancelled() => return,
            };
            self.write(note, &mut known).await;
        }
    }

    async fn write(&self, note: Note, known: &mut HashMap<Key, Written>) {
        let namespace = note.object.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Some(written) = known.get_mut(&note.key) {
            let patch = json!({"count": written.count + 1, "lastTimestamp": Time(note.at)});
            if api.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                written.count += 1;
                return;
            }
            // It expired meanwhile.
            known.remove(&note.key);
        }
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let object = note.object.name.clone().unwrap_or_default();
        let name = format!("{object}.{:x}", note.at.as_nanosecond());
        let event = event(&note, &name, &namespace, &self.node);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                known.insert(note.key, Written { name, count: 1 });
            }
            Err(error) => tracing::debug!(%error, reason = note.key.reason, "event not written"),
        }
    }
}

fn event(note: &Note, name: &str, namespace: &str, node: &str) -> Event {
    let kind = if note.key.kind == Kind::Normal { "Normal" } else { "Warning" };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        involved_object: note.object.clone(),
        reason: Some(note.key.reason.clone()),
        message: Some(note.key.message.clone()),
        type_: Some(kind.into()),
        count: Some(1),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.to_owned()),
        ..Default::default()
    }
}
