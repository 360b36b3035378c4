//! A namespace that is deleted is emptied, resource by resource, and then let go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_reconcile::{Again, Key, Queue, work};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Resource as _, ResourceExt};

use crate::resources::{Resource, discover};
use crate::shared::{Shared, enqueue_changes, gone_is_fine};

/// What remains is looked at again after this time: objects with finalizers of others leave without a
/// sign that reaches us. Pods do give one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const FINALIZER: &str = "kubernetes";

pub fn start(shared: &Arc<Shared>) {
    let queue: Queue<Key> = Queue::default();
    enqueue_changes(&shared.informers.namespaces, &queue);
    let pods = queue.clone();
    shared.informers.pods.on_change(move |change| {
        if let (Some(pod), None) = (&change.old, &change.new) {
            pods.add(Key::new("", pod.namespace().unwrap_or_default()));
        }
    });
    let this = shared.clone();
    work(&shared.tasks, "namespace", queue, 2, move |key| {
        let shared = this.clone();
        async move { reconcile(&shared, &key.name).await }
    });
}

async fn reconcile(shared: &Shared, name: &str) -> kube::Result<Again> {
    shared.informers.namespaces.synced().await;
    let Some(namespace) = shared.informers.namespaces.get("", name) else { return Ok(Again::OnChange) };
    if namespace.meta().deletion_timestamp.is_none() {
        return Ok(Again::OnChange);
    }
    let held = namespace
        .spec
        .as_ref()
        .and_then(|s| s.finalizers.as_ref())
        .is_some_and(|f| f.iter().any(|f| f == FINALIZER));
    if !held {
        return Ok(Again::OnChange);
    }
    let remaining = empty(&shared.client, name).await?;
    write_conditions(shared, &namespace, &remaining).await?;
    if remaining.is_empty() {
        finalize(&shared.client, &namespace).await?;
        return Ok(Again::OnChange);
    }
    Ok(Again::After(LOOK_AGAIN))
}

/// What is left of one resource.
#[derive(Debug, Default, PartialEq)]
struct Left {
    count: usize,
    /// Finalizer → how many objects wait for it.
    finalizers: BTreeMap<String, usize>,
}

/// Deletes everything in the namespace; returns what is still there afterwards, by resource.
async fn empty(client: &kube::Client, namespace: &str) -> kube::Result<BTreeMap<String, Left>> {
    let mut remaining = BTreeMap::new();
    for resource in discover(client).await?.iter().filter(|r| r.namespaced) {
        let left = empty_one(client, namespace, resource).await?;
        if left.count > 0 {
            let name = if resource.api.group.is_empty() {
                format!("{}.", resource.api.plural)
            } else {
                format!("{}.{}", resource.api.plural, resource.api.group)
            };
            remaining.insert(name, left);
        }
    }
    Ok(remaining)
}

async fn empty_one(client: &kube::Client, namespace: &str, resource: &Resource) -> kube::Result<Left> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource.api);
    let found = api.list_metadata(&ListParams::default()).await?;
    if found.items.is_empty() {
        return Ok(Left::default());
    }
    let background = DeleteParams::background();
    if resource.deletes_collections {
        drop(api.delete_collection(&background, &ListParams::default()).await?);
    } else {
        for object in found.items.iter().filter(|o| o.meta().deletion_timestamp.is_none()) {
            match api.delete(&object.name_any(), &background).await {
                // Not to be deleted by anyone: it goes with the namespace.
                Err(kube::Error::Api(status)) if status.code == 405 => return Ok(Left::default()),
                other => gone_is_fine(other)?,
            }
        }
    }
    let after = api.list_metadata(&ListParams::default()).await?;
    let mut left = Left { count: after.items.len(), ..Left::default() };
    for finalizer in after.items.iter().flat_map(|o| o.finalizers().iter()) {
        *left.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
    }
    Ok(left)
}

async fn finalize(client: &kube::Client, namespace: &Namespace) -> kube::Result<()> {
    let mut next = namespace.clone();
    if let Some(spec) = &mut next.spec
        && let Some(finalizers) = &mut spec.finalizers
    {
        finalizers.retain(|f| f != FINALIZER);
    }
    let api: Api<Namespace> = Api::all(client.clone());
    let name = namespace.name_any();
    gone_is_fine(api.replace_subresource("finalize", &name, &kube::api::PostParams::default(), &next).await)
}

async fn write_conditions(
    shared: &Shared,
    namespace: &Namespace,
    remaining: &BTreeMap<String, Left>,
) -> kube::Result<()> {
    let wanted = conditions(remaining);
    let has = namespace.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let has: Vec<(&str, &str, &str)> = has
        .into_iter()
        .map(|c| (c.type_.as_str(), c.status.as_str(), c.message.as_deref().unwrap_or_default()))
        .collect();
    let same = wanted.iter().all(|w| has.contains(&(w.0, w.1, w.3.as_str())));
    if same || (remaining.is_empty() && has.is_empty()) {
        return Ok(());
    }
    let now = jiff::Timestamp::now();
    let list: Vec<serde_json::Value> = wanted
        .iter()
        .map(|(type_, status, reason, message)| {
            serde_json::json!({"type": type_, "status": status, "reason": reason, "message": message,
                               "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()})
        })
        .collect();
    let api: Api<Namespace> = Api::all(shared.client.clone());
    let patch = Patch::Merge(serde_json::json!({"status": {"conditions": list}}));
    gone_is_fine(api.patch_status(&namespace.name_any(), &PatchParams::default(), &patch).await)
}

type Condition = (&'static str, &'static str, &'static str, String);

/// What a person waiting for the namespace to go wants to read.
fn conditions(remaining: &BTreeMap<String, Left>) -> Vec<Condition> {
    let content: Vec<String> =
        remaining.iter().map(|(r, left)| format!("{r} has {} resource instances", left.count)).collect();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in remaining.values().flat_map(|left| &left.finalizers) {
        *waiting.entry(finalizer).or_insert(0) += count;
    }
    let finalizers: Vec<String> =
        waiting.iter().map(|(f, count)| format!("{f} in {count} resource instances")).collect();
    let content = if content.is_empty() {
        (
            "NamespaceContentRemaining",
            "False",
            "ContentRemoved",
            "All content successfully removed".to_owned(),
        )
    } else {
        let text = format!("Some resources are remaining: {}", content.join(", "));
        ("NamespaceContentRemaining", "True", "SomeResourcesRemain", text)
    };
    let finalizers = if finalizers.is_empty() {
        (
            "NamespaceFinalizersRemaining",
            "False",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".to_owned(),
        )
    } else {
        let text =
            format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", "));
        ("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", text)
    };
    vec![content, finalizers]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_namespace_up_is_said() {
        let left = Left { count: 2, finalizers: BTreeMap::from([("x/y".to_owned(), 1)]) };
        let said = conditions(&BTreeMap::from([("pods.".to_owned(), left)]));
        assert_eq!(said[0].3, "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            said[1].3,
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
        );
        assert_eq!(conditions(&BTreeMap::new())[0].1, "False");
    }
}
