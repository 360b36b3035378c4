//! Pods that are there already, looked at again when policies or what is known of images changed. A pod whose image
//! would not be admitted any more gets a condition and an event, and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_host::Host;
use gantry_oci::Digest;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::events::{EventType, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Act;
use super::pods::{DIGESTS, Gate, images, is_exempt};
use crate::Registry;
use crate::objects::{recorder, tell};

/// A condition of pods: whether their images would be admitted now. Absent where that was never in question.
const CONDITION: &str = "registry.gantry.dev/ImagesAccepted";
/// Many images are scanned and many policies written one after the other.
const SETTLE: Duration = Duration::from_secs(1);
const PAGE_PODS: u32 = 500;

/// When to look again.
#[derive(Default)]
pub(crate) struct Again {
    woken: Notify,
    /// Policies changed: what they said before may be in conditions.
    policies: AtomicBool,
}

impl Again {
    pub(super) fn policies(&self) {
        self.policies.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    pub(crate) fn images(&self) {
        self.woken.notify_one();
    }
}

/// Who looks.
struct Looking {
    registry: Registry,
    client: Client,
    recorder: Recorder,
}

pub(super) fn follow(registry: &Registry, host: &Host) {
    let client = host.client.clone();
    let looking =
        Arc::new(Looking { registry: registry.clone(), recorder: recorder(client.clone()), client });
    // What changed while nobody looked is looked at once.
    registry.inner.policies.again.policies();
    let shutdown = host.tasks.shutdown().clone();
    host.tasks.supervise("registry/running", move || {
        let (looking, shutdown) = (looking.clone(), shutdown.clone());
        async move {
            let policies = &looking.registry.inner.policies;
            let again = &policies.again;
            let all = async {
                loop {
                    again.woken.notified().await;
                    tokio::time::sleep(SETTLE).await;
                    let changed = again.policies.swap(false, Ordering::AcqRel);
                    let concerned = changed || policies.book().says_anything_of(Act::Deploy);
                    if concerned && let Err(error) = look(&looking).await {
                        again.policies();
                        return Err(error.to_string());
                    }
                }
            };
            tokio::select! {
                ended = all => ended,
                () = shutdown.cancelled() => Ok::<(), String>(()),
            }
        }
    });
}

async fn look(looking: &Looking) -> kube::Result<()> {
    let api: Api<Pod> = Api::all(looking.client.clone());
    let mut page = ListParams::default().limit(PAGE_PODS);
    loop {
        let pods = api.list(&page).await?;
        for pod in &pods.items {
            look_at(looking, pod).await?;
        }
        match pods.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}

async fn look_at(looking: &Looking, pod: &Pod) -> kube::Result<()> {
    let Looking { registry, client, .. } = looking;
    let namespace = pod.namespace().unwrap_or_default();
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let leaves = pod.metadata.deletion_timestamp.is_some() || matches!(phase, "Succeeded" | "Failed");
    if leaves || is_exempt(&namespace) {
        return Ok(());
    }
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let before = conditions.into_iter().find(|condition| condition.type_ == CONDITION);
    let was_refused = before.is_some_and(|condition| condition.status == "False");
    // A namespace that goes, and a report that cannot be read now, say nothing of the pod.
    let Ok(gate) = Gate::at(registry, &namespace).await else { return Ok(()) };
    let mut refused = None;
    for image in running(pod) {
        match gate.check(&image).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => refused = refused.or(Some(why)),
            Err(_) => return Ok(()),
        }
    }
    let told = before.and_then(|condition| condition.message.as_deref());
    let (status, reason, message) = match &refused {
        Some(why) if was_refused && told == Some(why) => return Ok(()),
        Some(why) => ("False", "ImageRefused", why.clone()),
        None if was_refused => ("True", "ImagesAccepted", "its images would be admitted now".to_owned()),
        None => return Ok(()),
    };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({ "type": CONDITION, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now });
    let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.metadata.uid },
        "status": { "conditions": [condition] } }));
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
        // Gone meanwhile, or another one of its name.
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => return Ok(()),
        done => drop(done?),
    }
    if was_refused && refused.is_some() {
        return Ok(());
    }
    let weight = if refused.is_some() { EventType::Warning } else { EventType::Normal };
    tell(&looking.recorder, &pod.object_ref(&()), weight, (reason, "Admit"), &message).await;
    Ok(())
}

/// The images of the pod's containers, by the digests that were written down beside them.
fn running(pod: &Pod) -> Vec<String> {
    let digests = pod.annotations().get(DIGESTS);
    let digests: BTreeMap<String, Digest> =
        digests.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let object = json!({ "spec": serde_json::to_value(&pod.spec).unwrap_or(Value::Null) });
    let named =
        images(&object, "/spec").into_iter().map(|(container, image)| match digests.get(&container) {
            Some(digest) if !image.contains('@') => format!("{image}@{digest}"),
            _ => image,
        });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_known_by_its_digest() {
        let digest = Digest::of(b"x").to_string();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "annotations": { (DIGESTS): json!({ "a": digest, "b": digest }).to_string() } },
            "spec": { "containers": [
                { "name": "a", "image": "x:1" }, { "name": "b", "image": "y@sha256:0" }, { "name": "c", "image": "z" }
            ] },
        }))
        .expect("a pod");
        assert_eq!(running(&pod), [format!("x:1@{digest}"), "y@sha256:0".to_owned(), "z".to_owned()]);
    }
}
