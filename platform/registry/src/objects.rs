//! What the reconcilers of the registry's kinds share: statuses, their conditions, and events about objects.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// What events name as their source: a qualified name, which users' names are not.
const CONTROLLER: &str = "gantry-registry";
/// Of a condition's message and of an event's note, which may have 1 KiB.
const TEXT_MAX_CHARS: usize = 1000;

/// Writes events as the registry.
pub(crate) fn recorder(client: Client) -> Recorder {
    Recorder::new(client, Reporter { controller: CONTROLLER.to_owned(), instance: None })
}

/// The time as statuses have it, in whole seconds.
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

/// The condition as it is now, with the time of its last change. `good`: a reason, or a reason with what is wrong.
pub(crate) fn condition(
    old: &[Condition],
    kind: &str,
    good: Result<String, (String, String)>,
    generation: Option<i64>,
) -> Condition {
    let (status, reason, message) = match good {
        Ok(reason) => ("True", reason, String::new()),
        Err((reason, message)) => ("False", reason, shortened(&message)),
    };
    let before = old.iter().find(|c| c.type_ == kind && c.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason,
        message,
        observed_generation: generation,
        last_transition_time: before.map_or(Time(now()), |c| c.last_transition_time.clone()),
    }
}

/// Puts `status` into the object, if there still is one.
pub(crate) async fn write_status<K>(api: &Api<K>, name: &str, status: &impl Serialize) -> Result<(), String>
where
    K: Clone + Debug + DeserializeOwned,
{
    let patch = Patch::Merge(json!({ "status": status }));
    match api.patch_status(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(drop).map_err(|error| error.to_string()),
    }
}

/// What is told when a condition turns: the reason, and what it means.
pub(crate) struct Turns {
    pub(crate) condition: &'static str,
    /// What was done when it turned, `Pull`.
    pub(crate) action: &'static str,
    pub(crate) good: (&'static str, &'static str),
    /// The condition's message follows.
    pub(crate) bad: (&'static str, &'static str),
}

impl Turns {
    /// Tells if the condition is another one than before. That it is good at first is no news.
    pub(crate) async fn tell(
        &self,
        recorder: &Recorder,
        about: &ObjectReference,
        old: &[Condition],
        new: &[Condition],
    ) {
        let find = |all: &[Condition]| all.iter().find(|c| c.type_ == self.condition).cloned();
        let (was, Some(is)) = (find(old), find(new)) else { return };
        let good = is.status == "True";
        if was.map_or(good, |was| was.status == is.status) {
            return;
        }
        let (type_, (reason, meaning)) = match good {
            true => (EventType::Normal, self.good),
            false => (EventType::Warning, self.bad),
        };
        let note = if good { meaning.to_owned() } else { format!("{meaning}: {}", is.message) };
        tell(recorder, about, type_, (reason, self.action), &note).await;
    }
}

/// An event about the object. It is news and no state: what cannot be written is let go.
pub(crate) async fn tell(
    recorder: &Recorder,
    about: &ObjectReference,
    type_: EventType,
    (reason, action): (&str, &str),
    note: &str,
) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(shortened(note)),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, about).await {
        tracing::debug!(%error, reason, "an event was not written");
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX_CHARS).collect()
}
