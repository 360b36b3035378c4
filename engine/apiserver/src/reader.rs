//! Reading other objects at one revision: what admission and actions see of the world.

use std::sync::Arc;

use gantry_store::{Key, Object, Prefix, Snapshot};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A consistent view of the store. Objects are in their storage version.
#[derive(Clone)]
pub struct Reader {
    snapshot: Snapshot,
}

impl Reader {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub fn object(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.snapshot.get(&Key::new(group, resource, namespace, name))
    }

    /// The decoded object; `None` where there is none.
    pub fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.get_as(group, resource, namespace, name)
    }

    /// As [`Reader::get`], as a typed object.
    pub fn get_as<T: DeserializeOwned>(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<T> {
        let object = self.object(group, resource, namespace, name)?;
        decode(&object)
    }

    /// Every object of a resource, or those of one namespace.
    pub fn list<T: DeserializeOwned>(
        &self,
        group: &str,
        resource: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = T> + '_ {
        let mut prefix = Prefix::resource(group, resource);
        if let Some(namespace) = namespace {
            prefix = prefix.in_namespace(namespace);
        }
        self.snapshot.scan(&prefix, None).filter_map(|object| decode(&object))
    }
}

/// What is stored was encoded by this server; an object that no longer decodes is reported and skipped.
fn decode<T: DeserializeOwned>(object: &Object) -> Option<T> {
    serde_json::from_slice(&object.value)
        .inspect_err(|error| tracing::error!(key = %object.key, %error, "a stored object does not decode"))
        .ok()
}
