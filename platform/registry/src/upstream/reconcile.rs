//! Upstreams as their objects say, and objects as the upstreams are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use gantry_host::Host;
use gantry_reconcile::{Again, Informer, work};
use gantry_registry_api::{UpstreamRegistry, UpstreamRegistryStatus, upstream_conditions};
use kube::runtime::events::Recorder;
use kube::{Api, Resource, ResourceExt};

use super::evict::make_room;
use super::{DOCKER_HUB, Upstream};
use crate::Registry;
use crate::objects::{Turns, condition, recorder, write_status};
use crate::quota::quantity;
use crate::remote::client;
use crate::status::bytes;

/// How often sizes are written down.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often credentials are read, and how soon after they opened nothing.
const CREDENTIALS_STAY: Duration = Duration::from_secs(600);
const AGAIN_AFTER_DENIAL: Duration = Duration::from_secs(10);

const TURNS: Turns = Turns {
    condition: upstream_conditions::REACHABLE,
    action: "Pull",
    good: ("UpstreamReachable", "It answers again."),
    bad: ("UpstreamAway", "It does not answer; what is kept is served"),
};

#[derive(Clone)]
struct Reconciler {
    registry: Registry,
    kube: kube::Client,
    upstreams: Informer<UpstreamRegistry>,
    recorder: Recorder,
}

impl Registry {
    /// Follows upstreams from now on.
    pub(crate) async fn start_upstreams(&self, host: &Host) {
        let api: Api<UpstreamRegistry> = Api::all(host.client.clone());
        let upstreams = Informer::start(&host.tasks, "registry/upstreams", api);
        let queue = self.inner.upstreams.changed.clone();
        let changed = queue.clone();
        upstreams.on_change(move |change| {
            if let Some(object) = change.object() {
                changed.add(object.name_any());
            }
        });
        upstreams.synced().await;
        let recorder = recorder(host.client.clone());
        let reconciler =
            Reconciler { registry: self.clone(), kube: host.client.clone(), upstreams, recorder };
        // Before the first pull is let in: a prefix that is not known yet would be a repository of our own.
        for object in reconciler.upstreams.list() {
            if let Err(error) = reconciler.reconcile(&object.name_any()).await {
                tracing::warn!(upstream = object.name_any(), error, "will be tried again");
            }
        }
        work(&host.tasks, "upstreams", queue, 1, move |name| {
            let reconciler = reconciler.clone();
            async move { reconciler.reconcile(&name).await }
        });
    }
}

impl Upstream {
    /// Whether it is still what the object, and the Secret that this names, say.
    fn is_of(&self, object: &UpstreamRegistry) -> bool {
        let denied = self.denied.load(Ordering::SeqCst) && self.made.elapsed() > AGAIN_AFTER_DENIAL;
        self.generation == object.metadata.generation && !denied && self.made.elapsed() < CREDENTIALS_STAY
    }
}

impl Reconciler {
    async fn reconcile(&self, name: &str) -> Result<Again, String> {
        let all = &self.registry.inner.upstreams;
        let object = self.upstreams.get("", name).filter(|o| o.metadata.deletion_timestamp.is_none());
        let known = {
            let by_prefix = all.by_prefix.read().unwrap_or_else(PoisonError::into_inner);
            by_prefix.values().find(|upstream| upstream.name == name).cloned()
        };
        let Some(object) = object else {
            if let Some(known) = known {
                all.by_prefix.write().unwrap_or_else(PoisonError::into_inner).remove(&known.prefix);
                self.registry.inner.catalogue.changed();
            }
            return Ok(Again::OnChange);
        };
        let made = match known.as_ref().filter(|known| known.is_of(&object)) {
            Some(known) => Ok(known.clone()),
            None => self.upstream(&object, known.as_deref()).await.map(Arc::new),
        };
        let (accepted, upstream) = match made {
            Ok(upstream) => {
                let is_new = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &upstream));
                let mut by_prefix = all.by_prefix.write().unwrap_or_else(PoisonError::into_inner);
                by_prefix.insert(upstream.prefix.clone(), upstream.clone());
                drop(by_prefix);
                if is_new {
                    self.registry.inner.catalogue.changed();
                }
                (Ok(()), Some(upstream))
            }
            // One that was good is gone on with: a Secret that is being replaced is no reason to stop.
            Err(why) => (Err(why), known),
        };
        if let Some(upstream) = &upstream {
            // What is pushed, and quotas that are made smaller, leave it less.
            make_room(&self.registry, upstream).await;
        }
        self.show(&object, accepted, upstream.as_deref()).await?;
        Ok(Again::After(LOOK_AGAIN))
    }

    async fn upstream(
        &self,
        object: &UpstreamRegistry,
        known: Option<&Upstream>,
    ) -> Result<Upstream, String> {
        let spec = &object.spec;
        let goes_first =
            |other: &UpstreamRegistry| other.spec.prefix == spec.prefix && turn(other) < turn(object);
        let taken = self.upstreams.list().iter().any(|other| goes_first(other));
        if taken {
            return Err(format!("prefix: another upstream has {:?}", spec.prefix));
        }
        if known.is_none() && self.registry.store().kept(&format!("{}/", spec.prefix)).own > 0 {
            return Err(format!("prefix: there are repositories of our own below {:?}", spec.prefix));
        }
        let limit = spec.size_limit.as_deref().map(|text| {
            quantity(text).ok_or_else(|| format!("sizeLimit: {text:?} is no quantity such as 100Gi"))
        });
        let client = client(&self.kube, &spec.remote).await.map_err(|error| error.to_string())?;
        // What was learnt of tags stays good while it is the same registry.
        let memory = known.map(|known| std::mem::take(&mut *known.memory())).unwrap_or_default();
        Ok(Upstream {
            name: object.name_any(),
            prefix: spec.prefix.clone(),
            hub: spec.remote.endpoint.trim_end_matches('/').ends_with(&format!("//{DOCKER_HUB}")),
            client,
            repositories: spec.repositories.clone(),
            fresh: Duration::from_secs(spec.fresh_seconds.into()),
            size_limit_bytes: limit.transpose()?,
            visibility: spec.visibility,
            generation: object.metadata.generation,
            made: Instant::now(),
            denied: AtomicBool::new(false),
            reachable: AtomicBool::new(known.is_none_or(|known| known.reachable.load(Ordering::SeqCst))),
            memory: std::sync::Mutex::new(memory),
            evicting: tokio::sync::Mutex::default(),
        })
    }

    async fn show(
        &self,
        object: &UpstreamRegistry,
        accepted: Result<(), String>,
        upstream: Option<&Upstream>,
    ) -> Result<(), String> {
        let old = object.status.clone().unwrap_or_default();
        let kept = self.registry.store().kept(&format!("{}/", object.spec.prefix));
        let size = kept.size_bytes();
        let generation = object.metadata.generation;
        let mut conditions = vec![condition(
            &old.conditions,
            upstream_conditions::ACCEPTED,
            accepted.map(|()| "Accepted".to_owned()).map_err(|why| ("Invalid".to_owned(), why)),
            generation,
        )];
        if let Some(upstream) = upstream {
            let away = upstream.memory().away.as_ref().map(|(_, why)| why.clone());
            let reachable = match away {
                None => Ok("Answers".to_owned()),
                Some(why) => Err(("DoesNotAnswer".to_owned(), why)),
            };
            conditions.push(condition(
                &old.conditions,
                upstream_conditions::REACHABLE,
                reachable,
                generation,
            ));
        }
        TURNS.tell(&self.recorder, &object.object_ref(&()), &old.conditions, &conditions).await;
        let wanted = UpstreamRegistryStatus {
            repositories: u32::try_from(kept.repositories).unwrap_or(u32::MAX),
            size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
            size: bytes(size),
            conditions,
        };
        if wanted == old {
            return Ok(());
        }
        write_status(&Api::<UpstreamRegistry>::all(self.kube.clone()), &object.name_any(), &wanted).await
    }
}

/// Whose turn it is among upstreams with one prefix: that of the one which has it, else the oldest's. Times of
/// creation are whole seconds, so a new one may be as old and have the lesser name.
fn turn(upstream: &UpstreamRegistry) -> (bool, Option<jiff::Timestamp>, String) {
    let conditions = upstream.status.iter().flat_map(|status| &status.conditions);
    let mut accepted = conditions.filter(|c| c.type_ == upstream_conditions::ACCEPTED);
    let waits = accepted.next().is_none_or(|c| c.status != "True");
    (waits, upstream.metadata.creation_timestamp.as_ref().map(|at| at.0), upstream.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whose_it_was() {
        let upstream = |name: &str, created: &str, accepted: Option<&str>| -> UpstreamRegistry {
            let condition = |status| {
                serde_json::json!({"type": "Accepted", "status": status, "reason": "x", "message": "",
                    "lastTransitionTime": created})
            };
            let conditions: Vec<_> = accepted.map(condition).into_iter().collect();
            serde_json::from_value(serde_json::json!({
                "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "UpstreamRegistry",
                "metadata": {"name": name, "creationTimestamp": created},
                "spec": {"prefix": "mirror/x", "remote": {"endpoint": "https://x.test"}},
                "status": {"repositories": 0, "sizeBytes": 0, "size": "", "conditions": conditions},
            }))
            .expect("an upstream")
        };
        let (early, late) = ("2026-11-27T02:49:52Z", "2026-11-27T02:49:53Z");
        let new = upstream("again", early, None);
        for (other, is_first) in [
            (upstream("origin", early, Some("True")), true),
            (upstream("origin", late, Some("True")), true),
            (upstream("origin", early, Some("False")), false),
            (upstream("origin", early, None), false),
            (upstream("aaa", early, None), true),
            (upstream("aaa", late, None), false),
        ] {
            assert_eq!(turn(&other) < turn(&new), is_first, "{:?}", turn(&other));
        }
    }
}
