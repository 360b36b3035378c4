//! The loop that follows definitions: conditions `NamesAccepted` and `Established`, and the served kinds.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_kube_logic::meta;
use gantry_store::{Expect, Key, Mutation, Object, Prefix, WatchItem};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::encode::Template;
use crate::kind::Kind;
use crate::objects::timestamp;
use crate::server::ApiServer;

use super::end::{Endings, end};
use super::{CLEANUP, GROUP, RESOURCE, definition};

/// Serves what the store's accepted definitions say.
pub(crate) fn refresh(server: &ApiServer) {
    let reader = server.reader();
    let kinds: Vec<Arc<Kind>> = reader
        .list::<Value>(GROUP, RESOURCE, None)
        .filter(|definition| has_condition(definition, "Established"))
        .flat_map(|definition| definition::kinds(&definition))
        .collect();
    server.registry.rcu(|registry| registry.with_custom(kinds.clone()));
}

/// Follows the definitions until the store closes. Safe to run again.
pub async fn run(server: Arc<ApiServer>) {
    let prefix = Prefix::resource(GROUP, RESOURCE);
    let mut endings = Endings::default();
    loop {
        let snapshot = server.store().snapshot();
        for object in snapshot.scan(&prefix, None) {
            settle(&server, &mut endings, &object).await;
        }
        refresh(&server);
        let Ok(mut watch) = server.store().watch(prefix.clone(), snapshot.revision()) else { continue };
        loop {
            let key = tokio::select! {
                key = endings.next() => key,
                item = watch.next() => match item {
                    None => return,
                    // Too slow for the ring of events: look at everything again.
                    Some(Err(_)) => break,
                    Some(Ok(WatchItem::Progress(_))) => continue,
                    Some(Ok(WatchItem::Event(event))) => event.object.key.clone(),
                },
            };
            if let Some(object) = server.store().snapshot().get(&key) {
                settle(&server, &mut endings, &object).await;
            }
            refresh(&server);
        }
    }
}

async fn settle(server: &ApiServer, endings: &mut Endings, object: &Object) {
    let Ok(definition) = serde_json::from_slice::<Value>(&object.value) else { return };
    if meta::is_being_deleted(&definition) {
        return end(server, endings, object, &definition).await;
    }
    let reader = server.reader();
    let others: Vec<Value> = reader
        .list::<Value>(GROUP, RESOURCE, None)
        .filter(|other| meta::name(other) != meta::name(&definition))
        .filter(|other| other["spec"]["group"] == definition["spec"]["group"])
        .collect();
    let new = accepted(&definition, &others, Timestamp::now());
    if new != definition {
        put(server, object, &new).await;
    }
}

/// The definition with finalizer, accepted names, stored versions and conditions.
fn accepted(definition: &Value, others: &[Value], now: Timestamp) -> Value {
    let mut new = definition.clone();
    let mut finalizers: Vec<Value> = meta::finalizers(&new).map(Value::from).collect();
    if !finalizers.iter().any(|f| f == CLEANUP) {
        finalizers.push(CLEANUP.into());
        meta::metadata_mut(&mut new).insert("finalizers".to_owned(), finalizers.into());
    }
    let names = new["spec"]["names"].clone();
    let clash = clash(&names, others);
    if clash.is_none() {
        new["status"]["acceptedNames"] = names;
    } else if new["status"]["acceptedNames"].is_null() {
        new["status"]["acceptedNames"] = json!({ "plural": "", "kind": "" });
    }
    let storage = new["spec"]["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true);
    let storage = storage.map(|v| v["name"].clone()).unwrap_or_default();
    let mut stored = new["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    new["status"]["storedVersions"] = stored.into();
    let (status, reason, message) = match &clash {
        None => ("True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => ("False", *reason, message.as_str()),
    };
    set_condition(&mut new, "NamesAccepted", status, reason, message, now);
    if clash.is_none() {
        let message = "the initial names have been accepted";
        set_condition(&mut new, "Established", "True", "InitialNamesAccepted", message, now);
    } else if !has_condition(&new, "Established") {
        let message = "not all names are accepted";
        set_condition(&mut new, "Established", "False", "NotAccepted", message, now);
    }
    new
}

/// Why the names cannot be taken: another accepted definition of the group has one of them.
fn clash(names: &Value, others: &[Value]) -> Option<(&'static str, String)> {
    let resources = |names: &Value| -> BTreeSet<String> {
        let short = names["shortNames"].as_array().into_iter().flatten();
        [&names["plural"], &names["singular"]]
            .into_iter()
            .chain(short)
            .filter_map(Value::as_str)
            .filter(|n| !n.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let kinds = |names: &Value| -> BTreeSet<String> {
        [&names["kind"], &names["listKind"]]
            .into_iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let (mine, my_kinds) = (resources(names), kinds(names));
    for other in others.iter().map(|o| &o["status"]["acceptedNames"]) {
        if let Some(name) = resources(other).intersection(&mine).next() {
            let reason =
                if names["plural"] == name.as_str() { "PluralConflict" } else { "ShortNamesConflict" };
            return Some((reason, format!("{name:?} is already in use")));
        }
        if let Some(name) = kinds(other).intersection(&my_kinds).find(|n| !n.is_empty()) {
            let reason = if names["kind"] == name.as_str() { "KindConflict" } else { "ListKindConflict" };
            return Some((reason, format!("{name:?} is already in use")));
        }
    }
    None
}

pub(super) fn has_condition(definition: &Value, kind: &str) -> bool {
    let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == kind && c["status"] == "True")
}

pub(super) fn set_condition(
    object: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let old = conditions.iter_mut().find(|c| c["type"] == kind);
    let changed = old.as_ref().is_none_or(|c| c["status"] != status);
    let since = match &old {
        Some(old) if !changed => old["lastTransitionTime"].clone(),
        _ => timestamp(now).into(),
    };
    let new = json!({
        "type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    });
    match old {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    object["status"]["conditions"] = conditions.into();
}

pub(super) async fn put(server: &ApiServer, object: &Object, new: &Value) {
    let template = Template::new(new);
    let mutation = Mutation::Put {
        key: object.key.clone(),
        expect: Expect::Revision(object.revision),
        encode: Box::new(move |revision| template.fill(revision)),
    };
    report(&object.key, server.store().write(mutation).await.err());
}

/// A conflict means that a newer event is on its way, which brings us here again.
pub(super) fn report(key: &Key, error: Option<gantry_store::WriteError>) {
    use gantry_store::WriteError::{Conflict, NotFound};
    match error {
        None | Some(Conflict { .. } | NotFound) => {}
        Some(error) => tracing::error!(%key, %error, "cannot settle a custom resource definition"),
    }
}
