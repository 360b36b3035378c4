//! What happens in repositories, told to whoever has a `RegistryWebhook`.
//!
//! An event that somebody is to hear of is in the `outbox`, on disk, before the push that it is about is acknowledged.
//! `deliver` sends it until it is taken, `hooks` keeps receivers as their objects say. Where nobody listens, nothing is
//! written. Pulls wait for no disk: of them, the last second can be lost with the machine.

mod cloud;
mod deliver;
mod hooks;
mod outbox;
mod queue;
mod reach;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use gantry_oci::{Digest, RepositoryName};
use gantry_reconcile::{Key, Queue};
use gantry_registry_api::EventType;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use self::deliver::Tally;
use self::hooks::Hook;
use self::outbox::Outbox;
use self::reach::Reach;
use crate::Registry;
use crate::routes::ManifestName;

/// One event, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The same at every attempt to deliver it.
    id: String,
    time: Timestamp,
    kind: EventType,
    repository: String,
    /// What stands behind the repository: `:1`, `@sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    data: Value,
}

/// Events and who hears of them.
pub(crate) struct Events {
    outbox: Arc<Outbox>,
    reach: Reach,
    /// Absent until they are known.
    hooks: RwLock<Option<Arc<[Arc<Hook>]>>>,
    /// By the ids of the objects.
    tallies: Mutex<HashMap<String, Tally>>,
    /// Which receiver is looked at first.
    turn: AtomicUsize,
    /// There is something to send, or somebody to send it to.
    woken: Notify,
    /// Objects whose status is to be written.
    changed: Queue<Key>,
}

impl Events {
    /// In a directory of its own. `open`: networks that events go to although they would not.
    pub(crate) fn open(directory: &Path, open: &[IpNet]) -> io::Result<Self> {
        Ok(Self {
            outbox: Arc::new(Outbox::open(&directory.join("outbox"))?),
            reach: Reach::new(open),
            hooks: RwLock::default(),
            tallies: Mutex::default(),
            turn: AtomicUsize::new(0),
            woken: Notify::new(),
            changed: Queue::default(),
        })
    }

    fn hooks(&self) -> Option<Arc<[Arc<Hook>]>> {
        self.hooks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tallies(&self) -> MutexGuard<'_, HashMap<String, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes who hears, and lets go what waits for those who do not any more.
    fn set_hooks(&self, change: impl FnOnce(&mut Vec<Arc<Hook>>)) {
        {
            let mut hooks = self.hooks.write().unwrap_or_else(PoisonError::into_inner);
            let mut all = hooks.as_deref().unwrap_or_default().to_vec();
            change(&mut all);
            let uids: HashSet<String> = all.iter().map(|hook| hook.uid.clone()).collect();
            self.outbox.keep(&uids);
            self.tallies().retain(|uid, _| uids.contains(uid));
            *hooks = Some(all.into());
        }
        self.woken.notify_one();
    }
}

impl Registry {
    /// Something happened in the repository. Returns when nobody can miss it; an error is one of the disk.
    pub(crate) async fn happened(
        &self,
        kind: EventType,
        repository: &RepositoryName,
        reference: Option<&ManifestName>,
        data: Value,
    ) -> io::Result<()> {
        match self.put_event(kind, repository, reference, data) {
            Some(line) => self.inner.events.outbox.written(line).await,
            None => Ok(()),
        }
    }

    /// [`Registry::happened`], of what is done already, and goes on whatever the disk says.
    pub(crate) async fn told(
        &self,
        kind: EventType,
        repository: &RepositoryName,
        reference: Option<&ManifestName>,
        data: Value,
    ) {
        if let Err(error) = self.happened(kind, repository, reference, data).await {
            tracing::warn!(%error, %repository, ?kind, "an event may be lost");
        }
    }

    /// Something was pulled, which waits for nothing.
    pub(crate) fn glimpsed(&self, repository: &RepositoryName, reference: &ManifestName, data: Value) {
        if !self.inner.events.outbox.is_behind() {
            self.put_event(EventType::Pulled, repository, Some(reference), data);
        }
    }

    /// Whether somebody may want to hear of it.
    pub(crate) fn is_heard(&self, kind: EventType) -> bool {
        match self.inner.events.hooks() {
            Some(hooks) => hooks.iter().any(|hook| hook.hears(kind)),
            // Of a second after the start: whoever there will be is told of it. But for pulls.
            None => kind != EventType::Pulled,
        }
    }

    /// Gives what to wait for.
    fn put_event(
        &self,
        kind: EventType,
        repository: &RepositoryName,
        reference: Option<&ManifestName>,
        mut data: Value,
    ) -> Option<u64> {
        if !self.is_heard(kind) {
            return None;
        }
        data["repository"] = repository.as_str().into();
        match reference {
            Some(ManifestName::Tag(tag)) => data["tag"] = tag.as_str().into(),
            Some(ManifestName::Digest(digest)) => data["digest"] = digest.to_string().into(),
            None => {}
        }
        let event = Event {
            id: Uuid::new_v4().to_string(),
            time: Timestamp::now(),
            kind,
            repository: repository.to_string(),
            reference: reference.map(ManifestName::suffix),
            data,
        };
        let events = &self.inner.events;
        // Held until it is in the outbox: receivers do not come and go in between.
        let hooks = events.hooks.read().unwrap_or_else(PoisonError::into_inner);
        let to = hooks.as_ref().map(|hooks| self.receivers(hooks, &event));
        if to.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let line = events.outbox.put(event, to);
        events.woken.notify_one();
        Some(line)
    }

    fn receivers(&self, hooks: &[Arc<Hook>], event: &Event) -> Vec<String> {
        let owner =
            self.inner.catalogue.facts(&event.repository).map(|facts| facts.owner).unwrap_or_default();
        let hearing = hooks.iter().filter(|hook| hook.hears_of(event, &owner));
        hearing.map(|hook| hook.uid.clone()).collect()
    }
}

/// What an event of a manifest says of it.
pub(crate) fn manifest_data(digest: &Digest, record: &crate::store::ManifestRecord, user: &str) -> Value {
    let mut data = json!({ "digest": digest.to_string(), "mediaType": record.media_type, "sizeBytes": record.size,
        "user": user });
    if let Some(kind) = &record.artifact_type {
        data["artifactType"] = kind.as_str().into();
    }
    if let Some(subject) = &record.subject {
        data["subject"] = subject.to_string().into();
    }
    data
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn event(repository: &str) -> Arc<Event> {
        Arc::new(Event {
            id: Uuid::new_v4().to_string(),
            time: Timestamp::now(),
            kind: EventType::Pushed,
            repository: repository.to_owned(),
            reference: Some(":1".to_owned()),
            data: json!({ "repository": repository, "tag": "1" }),
        })
    }
}
