//! The roles and bindings a cluster begins with: missing ones are made, and what was taken away from
//! one is added again unless its annotation says otherwise (upstream's RBAC auto-reconciliation).

use gantry_kube_logic::rbac::defaults::{AUTOUPDATE_ANNOTATION, defaults};
use gantry_kube_logic::rbac::{GROUP, PolicyRule, Subject, covers};
use gantry_store::{Expect, Key, Mutation, Store, WriteError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::encode::Template;
use crate::objects::timestamp;
use crate::reader::Reader;

/// Others may write the same object while we do.
const TRIES_MAX: usize = 8;

/// Why the default roles are not in place.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("cannot write {resource} {name}: {source}")]
    Write { resource: &'static str, name: String, source: WriteError },
    #[error("{resource} {name} keeps changing while it is written")]
    Contended { resource: &'static str, name: String },
    #[error("a default role or binding does not encode: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Brings the default roles and bindings into the store. Doing it twice changes nothing.
pub async fn bootstrap(store: &Store) -> Result<(), BootstrapError> {
    let all = defaults();
    for role in &all.cluster_roles {
        reconcile(store, "clusterroles", role).await?;
    }
    for role in &all.roles {
        reconcile(store, "roles", role).await?;
    }
    for binding in &all.cluster_role_bindings {
        reconcile(store, "clusterrolebindings", binding).await?;
    }
    for binding in &all.role_bindings {
        reconcile(store, "rolebindings", binding).await?;
    }
    Ok(())
}

async fn reconcile(
    store: &Store,
    resource: &'static str,
    wanted: &impl Serialize,
) -> Result<(), BootstrapError> {
    let wanted = serde_json::to_value(wanted)?;
    let text = |field: &str| wanted["metadata"][field].as_str().unwrap_or("").to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let key = Key::new(GROUP, resource, &namespace, &name);
    for _ in 0..TRIES_MAX {
        let reader = Reader::new(store.snapshot());
        let current = reader.object(GROUP, resource, &namespace, &name);
        let decoded = reader.get(GROUP, resource, &namespace, &name);
        let Some(object) = reconciled(decoded.as_ref(), &wanted)? else { return Ok(()) };
        let template = Template::new(&object);
        let put = Mutation::Put {
            key: key.clone(),
            expect: current.map_or(Expect::Absent, |object| Expect::Revision(object.revision)),
            encode: Box::new(move |revision| template.fill(revision)),
        };
        match store.write(put).await {
            Ok(_) => return Ok(()),
            Err(WriteError::Exists | WriteError::NotFound | WriteError::Conflict { .. }) => {}
            Err(source) => return Err(BootstrapError::Write { resource, name, source }),
        }
    }
    Err(BootstrapError::Contended { resource, name })
}

/// What to store; `None`: it is right as it is.
fn reconciled(current: Option<&Value>, wanted: &Value) -> Result<Option<Value>, serde_json::Error> {
    let Some(current) = current else { return Ok(Some(new_object(wanted))) };
    if current["metadata"]["annotations"][AUTOUPDATE_ANNOTATION] == "false" {
        return Ok(None);
    }
    // A role reference cannot change: such a binding is replaced as a whole.
    if wanted.get("roleRef").is_some() && wanted["roleRef"] != current["roleRef"] {
        return Ok(Some(new_object(wanted)));
    }
    let mut object = current.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            object["metadata"][field][key] = value.clone();
        }
    }
    if let Some(aggregation) = wanted.get("aggregationRule") {
        // The rules of an aggregating role are its controller's.
        object["aggregationRule"] = aggregation.clone();
    } else {
        let missing = missing_rules(&current["rules"], &wanted["rules"])?;
        append(&mut object, "rules", missing);
    }
    let missing = missing_subjects(&current["subjects"], &wanted["subjects"])?;
    append(&mut object, "subjects", missing);
    Ok((object != *current).then_some(object))
}

fn new_object(wanted: &Value) -> Value {
    let mut object = wanted.clone();
    object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
    object["metadata"]["creationTimestamp"] = timestamp(jiff::Timestamp::now()).into();
    if object.get("aggregationRule").is_some() && object["rules"].is_null() {
        object["rules"] = json!([]);
    }
    object
}

fn missing_rules(current: &Value, wanted: &Value) -> Result<Vec<Value>, serde_json::Error> {
    let parse = |rules: &Value| serde_json::from_value::<Option<Vec<PolicyRule>>>(rules.clone());
    let (current, wanted) = (parse(current)?.unwrap_or_default(), parse(wanted)?.unwrap_or_default());
    wanted
        .iter()
        .filter(|rule| covers(&current, std::slice::from_ref(rule)).is_err())
        .map(serde_json::to_value)
        .collect()
}

fn missing_subjects(current: &Value, wanted: &Value) -> Result<Vec<Value>, serde_json::Error> {
    let parse = |subjects: &Value| serde_json::from_value::<Option<Vec<Subject>>>(subjects.clone());
    let (current, wanted) = (parse(current)?.unwrap_or_default(), parse(wanted)?.unwrap_or_default());
    wanted.iter().filter(|subject| !current.contains(subject)).map(serde_json::to_value).collect()
}

fn append(object: &mut Value, field: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    if !object[field].is_array() {
        object[field] = json!([]);
    }
    if let Some(list) = object[field].as_array_mut() {
        list.extend(more);
    }
}
