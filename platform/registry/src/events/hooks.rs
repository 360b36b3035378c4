//! Receivers as their objects say, and objects as it goes with the receivers.

use std::sync::Arc;
use std::time::Duration;

use gantry_base::pattern::matches;
use gantry_host::Host;
use gantry_oci::client::Url;
use gantry_reconcile::{Again, Informer, Key, work};
use gantry_registry_api::{
    ContentMode, EventType, Owner, RegistryWebhook, RegistryWebhookStatus, webhook_conditions,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::{EventType as Weight, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use reqwest::redirect::Policy;
use ring::hmac;

use super::deliver::{ATTEMPT_TIMEOUT, Tally};
use super::{Event, cloud};
use crate::Registry;
use crate::objects::{Turns, condition, recorder, tell, write_status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often Secrets are read.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const WORKERS: usize = 1;

const TURNS: Turns = Turns {
    condition: webhook_conditions::READY,
    action: "Deliver",
    good: ("WebhookDelivers", "Events are delivered again."),
    bad: ("WebhookFails", "Events are not delivered"),
};

/// A receiver.
pub(super) struct Hook {
    /// Of the object, as are the others.
    pub(super) uid: String,
    pub(super) key: Key,
    pub(super) generation: i64,
    pub(super) content_mode: ContentMode,
    pub(super) give_up_after_seconds: u32,
    pub(super) suspended: bool,
    /// How it is reached, or what is wrong with the object.
    pub(super) target: Result<Target, String>,
    scope: Scope,
    kinds: Vec<EventType>,
    repositories: Vec<String>,
}

/// Whose repositories it may be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    Project(String),
    /// Namespaces of no project are the operator's.
    All,
}

/// How a receiver is reached.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) client: reqwest::Client,
    pub(super) url: Url,
    pub(super) keys: Arc<[hmac::Key]>,
}

impl Hook {
    pub(super) fn hears(&self, kind: EventType) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    pub(super) fn hears_of(&self, event: &Event, owner: &Owner) -> bool {
        let may = match &self.scope {
            Scope::Project(project) => owner.project.as_ref() == Some(project),
            Scope::All => true,
        };
        let named = self.repositories.is_empty()
            || self.repositories.iter().any(|pattern| matches(pattern, &event.repository));
        may && named && self.hears(event.kind)
    }
}

#[derive(Clone)]
struct Reconciler {
    registry: Registry,
    kube: Client,
    objects: Informer<RegistryWebhook>,
    recorder: Recorder,
}

impl Registry {
    /// Tells receivers from now on. Needs to know namespaces and repositories' owners.
    pub(crate) async fn start_webhooks(&self, host: &Host) {
        let api: Api<RegistryWebhook> = Api::all(host.client.clone());
        let objects = Informer::start(&host.tasks, "registry/webhooks", api);
        let queue = self.inner.events.changed.clone();
        let changed = queue.clone();
        objects.on_change(move |change| {
            let generation = |object: &Option<Arc<RegistryWebhook>>| {
                object.as_ref().map(|o| (o.metadata.generation, o.metadata.uid.clone()))
            };
            // Not of their status, which is ours.
            if generation(&change.old) != generation(&change.new)
                && let Some(object) = change.object()
            {
                changed.add(Key::of(&**object));
            }
        });
        objects.synced().await;
        let reconciler = Reconciler {
            registry: self.clone(),
            kube: host.client.clone(),
            objects,
            recorder: recorder(host.client.clone()),
        };
        // All of them at once: what happened before they were known goes to each that wants it.
        let mut hooks = Vec::new();
        for object in reconciler.objects.list() {
            match reconciler.hook(&object, None).await {
                Ok(hook) => {
                    self.inner.events.tallies().insert(hook.uid.clone(), begun(&object));
                    hooks.push(Arc::new(hook));
                }
                Err(error) => tracing::warn!(webhook = object.name_any(), error, "will be tried again"),
            }
        }
        self.inner.events.set_hooks(|all| *all = hooks);
        if let Some(hooks) = self.inner.events.hooks() {
            for (number, event) in self.inner.events.outbox.unrouted() {
                self.inner.events.outbox.route(number, self.receivers(&hooks, &event));
            }
        }
        self.deliver_events(host);
        work(&host.tasks, "webhooks", queue, WORKERS, move |key| {
            let reconciler = reconciler.clone();
            async move { reconciler.reconcile(&key).await }
        });
    }
}

impl Reconciler {
    async fn reconcile(&self, key: &Key) -> Result<Again, String> {
        let events = &self.registry.inner.events;
        let object = self.objects.get(&key.namespace, &key.name);
        let object = object.filter(|o| o.metadata.deletion_timestamp.is_none());
        let known = events.hooks().and_then(|all| all.iter().find(|hook| hook.key == *key).cloned());
        let Some(object) = object else {
            events.set_hooks(|all| all.retain(|hook| hook.key != *key));
            return Ok(Again::OnChange);
        };
        let known = known.filter(|known| Some(&known.uid) == object.metadata.uid.as_ref());
        let hook = Arc::new(self.hook(&object, known.as_deref()).await?);
        events.tallies().entry(hook.uid.clone()).or_insert_with(|| begun(&object));
        events.set_hooks(|all| {
            all.retain(|other| other.key != *key);
            all.push(hook.clone());
        });
        self.show(&object, &hook).await?;
        Ok(Again::After(LOOK_AGAIN))
    }

    /// An error is one of this moment: whose it is cannot be told, and it hears of nothing yet.
    async fn hook(&self, object: &RegistryWebhook, known: Option<&Hook>) -> Result<Hook, String> {
        let key = Key::of(object);
        let place = self.registry.inner.policies.place(&key.namespace).await;
        let place = place.ok_or_else(|| format!("the namespace {} is not known", key.namespace))?;
        let spec = &object.spec;
        let generation = object.metadata.generation.unwrap_or_default();
        let before = known.filter(|known| known.generation == generation);
        Ok(Hook {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            generation,
            content_mode: spec.content_mode,
            give_up_after_seconds: spec.give_up_after_seconds,
            suspended: spec.suspend,
            target: self.target(object, before).await,
            scope: place.project.map_or(Scope::All, Scope::Project),
            kinds: spec.events.clone(),
            repositories: spec.repositories.clone(),
            key,
        })
    }

    async fn target(&self, object: &RegistryWebhook, before: Option<&Hook>) -> Result<Target, String> {
        let before = before.and_then(|before| before.target.as_ref().ok());
        let keys = match (self.keys(object).await, before) {
            (Ok(keys), _) => keys,
            // It is there, and cannot be read now.
            (Err((true, _)), Some(before)) => before.keys.clone(),
            (Err((_, why)), _) => return Err(why),
        };
        if let Some(before) = before {
            return Ok(Target { keys, ..before.clone() });
        }
        let (url, client) = self.client(object)?;
        Ok(Target { client, url, keys })
    }

    fn client(&self, object: &RegistryWebhook) -> Result<(Url, reqwest::Client), String> {
        let reach = &self.registry.inner.events.reach;
        let url = reach.url(&object.spec.url)?;
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ATTEMPT_TIMEOUT)
            .user_agent(crate::remote::USER_AGENT)
            .redirect(Policy::none())
            // A proxy would connect where we do not.
            .no_proxy()
            .dns_resolver(Arc::new(reach.clone()));
        let builder = crate::remote::trusting(builder, object.spec.certificate_authority.as_deref());
        let builder = builder.map_err(|error| error.to_string())?;
        let client = builder.build().map_err(|error| format!("a client cannot be made: {error}"))?;
        Ok((url, client))
    }

    /// With an error comes whether it is one of this moment.
    async fn keys(&self, object: &RegistryWebhook) -> Result<Arc<[hmac::Key]>, (bool, String)> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), &object.spec.secret.name);
        let api: Api<Secret> = Api::namespaced(self.kube.clone(), &namespace);
        let wrong = |what: &str| format!("secret: {name} {what}");
        let secret = api.get(name).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => (false, wrong("does not exist")),
            _ => (true, wrong("cannot be read")),
        })?;
        let data = secret.data.unwrap_or_default();
        let field = |field: &str| {
            let key = data.get(field).map(|bytes| cloud::key(&bytes.0));
            key.transpose().map_err(|why| (false, wrong(&format!("is no good: {field} {why}"))))
        };
        let first = field("secret")?.ok_or_else(|| (false, wrong("has no field secret")))?;
        Ok(std::iter::once(first).chain(field("previous")?).collect())
    }

    async fn show(&self, object: &RegistryWebhook, hook: &Hook) -> Result<(), String> {
        let events = &self.registry.inner.events;
        let (pending, given_up) = events.outbox.count(&hook.uid);
        let tally = {
            let mut tallies = events.tallies();
            let tally = tallies.entry(hook.uid.clone()).or_insert_with(|| begun(object));
            tally.failed = tally.failed.saturating_add(i64::try_from(given_up).unwrap_or(i64::MAX));
            // Another object, another receiver.
            tally.gone = tally.gone.filter(|gone| *gone == hook.generation);
            tally.clone()
        };
        let old = object.status.clone().unwrap_or_default();
        let accepted = hook.target.as_ref().map(|_| "Accepted".to_owned());
        let accepted = accepted.map_err(|why| ("Invalid".to_owned(), why.clone()));
        let generation = object.metadata.generation;
        let status = RegistryWebhookStatus {
            pending: u32::try_from(pending).unwrap_or(u32::MAX),
            delivered: tally.delivered,
            failed: tally.failed,
            last_delivery: tally.last_delivery.map(whole_seconds),
            last_failure: tally.last_failure.map(whole_seconds),
            conditions: vec![
                condition(&old.conditions, webhook_conditions::ACCEPTED, accepted, generation),
                condition(&old.conditions, webhook_conditions::READY, ready(hook, &tally), generation),
            ],
            last_error: tally.last_error,
        };
        let about = object.object_ref(&());
        TURNS.tell(&self.recorder, &about, &old.conditions, &status.conditions).await;
        if given_up > 0 {
            let note = format!("{given_up} events were given up; the last attempt: {}", status.last_error);
            tell(&self.recorder, &about, Weight::Warning, ("EventsGivenUp", "Deliver"), &note).await;
        }
        if status == old {
            return Ok(());
        }
        let api = Api::<RegistryWebhook>::namespaced(self.kube.clone(), &hook.key.namespace);
        write_status(&api, &hook.key.name, &status).await
    }
}

/// Goes on counting where the process before this one was.
fn begun(object: &RegistryWebhook) -> Tally {
    let status = object.status.clone().unwrap_or_default();
    Tally {
        delivered: status.delivered,
        failed: status.failed,
        last_delivery: status.last_delivery.map(|time| time.0),
        last_failure: status.last_failure.map(|time| time.0),
        last_error: status.last_error,
        ..Tally::default()
    }
}

fn ready(hook: &Hook, tally: &Tally) -> Result<String, (String, String)> {
    let not = |reason: &str, why: &str| Err((reason.to_owned(), why.to_owned()));
    if let Err(why) = &hook.target {
        return not("Invalid", why);
    }
    if hook.suspended {
        return not("Suspended", "nothing is delivered while suspend is true; events wait");
    }
    if tally.gone.is_some() {
        return not("Gone", "the receiver answered 410 Gone: it gets nothing until the object changes");
    }
    match tally.failures {
        0 => Ok("Delivering".to_owned()),
        _ => not("Failing", &tally.last_error),
    }
}

fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::event;

    #[test]
    fn receivers_hear_of_what_is_theirs() {
        let hook = |scope, kinds: &[EventType], repositories: &[&str]| Hook {
            uid: String::new(),
            key: Key::new("a", "b"),
            generation: 1,
            content_mode: ContentMode::Structured,
            give_up_after_seconds: 1,
            suspended: false,
            target: Err(String::new()),
            scope,
            kinds: kinds.to_vec(),
            repositories: repositories.iter().map(|r| (*r).to_owned()).collect(),
        };
        let web = || Scope::Project("web".to_owned());
        let (mine, other) = (Owner::of_project("web"), Owner::of_project("ops"));
        let event = event("acme/web/front");
        for (hook, owner, wanted) in [
            (hook(web(), &[], &[]), &mine, true),
            (hook(web(), &[], &[]), &other, false),
            (hook(web(), &[], &["acme/*"]), &other, false),
            // Names stand for nothing: an owner that is a domain of the project's name is another one.
            (hook(web(), &[], &[]), &Owner::of_domain("web"), false),
            (hook(web(), &[], &[]), &Owner::default(), false),
            (hook(web(), &[EventType::Pushed], &["acme/web/*"]), &mine, true),
            (hook(web(), &[EventType::Pulled], &[]), &mine, false),
            (hook(web(), &[], &["acme/web/back"]), &mine, false),
            (hook(Scope::All, &[], &[]), &other, true),
            (hook(Scope::All, &[], &["demo/*"]), &other, false),
        ] {
            assert_eq!(hook.hears_of(&event, owner), wanted, "{:?} {owner}", hook.scope);
        }
    }
}
