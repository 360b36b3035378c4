//! Objects of the engine's kinds that the component makes, held as digests: what matters is whether an object still
//! is as planned, and a hundred thousand subjects in memory once are enough.

use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use gantry_identity_api::labels;

use super::kept::kept_of;

/// A kind the component keeps as planned, whoever edits it.
pub trait Managed:
    kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Everything of the object that the plan decides on.
    fn essence(&self) -> Value;
}

impl Managed for RoleBinding {
    fn essence(&self) -> Value {
        json!([self.role_ref, self.subjects])
    }
}

impl Managed for ClusterRoleBinding {
    fn essence(&self) -> Value {
        json!([self.role_ref, self.subjects])
    }
}

impl Managed for ClusterRole {
    fn essence(&self) -> Value {
        json!([self.rules, self.aggregation_rule])
    }
}

impl Managed for ResourceQuota {
    fn essence(&self) -> Value {
        json!(self.spec)
    }
}

impl Managed for LimitRange {
    fn essence(&self) -> Value {
        json!(self.spec)
    }
}

impl Managed for Secret {
    fn essence(&self) -> Value {
        json!([self.type_, self.data, self.immutable])
    }
}

/// Of the essence and of the component's labels.
pub fn digest<K: Managed>(object: &K) -> [u8; 16] {
    let own = [labels::MANAGED_BY, labels::PROJECT, labels::DOMAIN, labels::ROLE];
    let own: Vec<_> = own.iter().map(|key| object.labels().get(*key)).collect();
    let text = without_nulls(json!([object.essence(), own])).to_string();
    let hash = Sha256::digest(text.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

/// Servers leave out what is empty, and so do we: absent, `null` and empty are one.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, without_nulls(value)));
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// An object as far as it is kept in memory.
#[derive(Clone, Debug)]
pub struct Thin<K> {
    metadata: ObjectMeta,
    pub digest: [u8; 16],
    kind: PhantomData<fn() -> K>,
}

impl<'de, K: Managed> Deserialize<'de> for Thin<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = K::deserialize(deserializer)?;
        let digest = digest(&object);
        let meta = object.meta();
        // No labels and no annotations: the digest has what matters of them.
        let metadata = ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            resource_version: meta.resource_version.clone(),
            deletion_timestamp: meta.deletion_timestamp.clone(),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, digest, kind: PhantomData })
    }
}

kept_of!([K: Managed] Thin<K>, K);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_sees_edits_and_not_the_server() {
        let read = |value: Value| serde_json::from_value::<Thin<RoleBinding>>(value).expect("a binding");
        let planned = json!({
            "metadata": {"name": "gantry:member", "namespace": "web-dev", "labels": {labels::ROLE: "member"}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "gantry:member"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "acme/alice"}],
        });
        let mut stored = planned.clone();
        stored["metadata"]["uid"] = "1".into();
        stored["metadata"]["resourceVersion"] = "7".into();
        stored["metadata"]["annotations"] = json!({"note": "x"});
        assert_eq!(read(planned.clone()).digest, read(stored).digest);
        for (pointer, value) in [
            ("/subjects/0/name", json!("acme/eve")),
            ("/roleRef/name", json!("gantry:admin")),
            ("/metadata/labels", json!({labels::ROLE: "admin"})),
        ] {
            let mut edited = planned.clone();
            *edited.pointer_mut(pointer).expect("a field") = value;
            assert_ne!(read(planned.clone()).digest, read(edited).digest, "{pointer}");
        }
    }
}
