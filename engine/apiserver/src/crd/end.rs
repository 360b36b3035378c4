//! The end of a definition: its objects are deleted first.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use gantry_kube_logic::meta;
use gantry_store::{Expect, Key, Mutation, Object, Prefix, Revision};
use jiff::Timestamp;
use serde_json::Value;

use crate::encode::Template;
use crate::objects::timestamp;
use crate::server::ApiServer;

use super::CLEANUP;
use super::accept::{put, report, set_condition};

/// Definitions that wait for the last of their objects, whose own finalizers may take any time.
#[derive(Default)]
pub(super) struct Endings {
    waits: FuturesUnordered<BoxFuture<'static, Key>>,
    waiting: BTreeSet<Key>,
}

impl Endings {
    /// The definition whose objects have changed; pending while there is none.
    pub(super) async fn next(&mut self) -> Key {
        match self.waits.next().await {
            Some(key) => {
                self.waiting.remove(&key);
                key
            }
            None => std::future::pending().await,
        }
    }

    /// For a change of the objects after `from`.
    fn wait(&mut self, server: &ApiServer, key: &Key, prefix: Prefix, from: Revision) {
        if !self.waiting.insert(key.clone()) {
            return;
        }
        let (watch, key) = (server.store().watch(prefix, from), key.clone());
        self.waits.push(Box::pin(async move {
            // Whatever comes, also an error: it is time to look again.
            if let Ok(mut watch) = watch {
                watch.next().await;
            }
            key
        }));
    }
}

/// Deletes the definition's objects, and lets it go when none is left. Safe to run again.
pub(super) async fn end(server: &ApiServer, endings: &mut Endings, object: &Object, definition: &Value) {
    if !meta::finalizers(definition).any(|f| f == CLEANUP) {
        return;
    }
    let mut marked = definition.clone();
    let (reason, message) = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
    set_condition(&mut marked, "Terminating", "True", reason, message, Timestamp::now());
    if marked != *definition {
        // The write brings us here again.
        return put(server, object, &marked).await;
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let group = text(&definition["spec"]["group"]);
    let prefix = Prefix::resource(&group, &text(&definition["spec"]["names"]["plural"]));
    // One whose names were never accepted owns nothing, even if others have such objects.
    if super::accept::has_condition(definition, "Established") {
        let snapshot = server.store().snapshot();
        for instance in snapshot.scan(&prefix, None) {
            remove(server, &instance).await;
        }
        if server.store().snapshot().count(&prefix) > 0 {
            return endings.wait(server, &object.key, prefix, snapshot.revision());
        }
    }
    let rest: Vec<Value> = meta::finalizers(definition).filter(|f| *f != CLEANUP).map(Value::from).collect();
    let last = rest.is_empty();
    meta::metadata_mut(&mut marked).insert("finalizers".to_owned(), rest.into());
    if !last {
        return put(server, object, &marked).await;
    }
    let template = Template::new(&marked);
    let mutation = Mutation::Delete {
        key: object.key.clone(),
        expect: Expect::Revision(object.revision),
        encode: Some(Box::new(move |revision| template.fill(revision))),
    };
    report(&object.key, server.store().write(mutation).await.err());
}

/// Objects with finalizers of their own go when their owners let them.
async fn remove(server: &ApiServer, instance: &Object) {
    let Ok(mut value) = serde_json::from_slice::<Value>(&instance.value) else { return };
    let expect = Expect::Revision(instance.revision);
    let mutation = if meta::finalizers(&value).next().is_none() {
        Mutation::Delete { key: instance.key.clone(), expect, encode: None }
    } else if meta::is_being_deleted(&value) {
        return;
    } else {
        let metadata = meta::metadata_mut(&mut value);
        metadata.insert("deletionTimestamp".to_owned(), timestamp(Timestamp::now()).into());
        metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        let template = Template::new(&value);
        let encode = Box::new(move |revision| template.fill(revision));
        Mutation::Put { key: instance.key.clone(), expect, encode }
    };
    report(&instance.key, server.store().write(mutation).await.err());
}
