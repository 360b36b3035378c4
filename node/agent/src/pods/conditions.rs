//! The conditions of a pod's status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::spec::{self, Kind};
use super::status::{Facts, whole_seconds};

/// One condition's new value.
struct Value {
    kind: &'static str,
    /// `None` when it holds; otherwise the reason and message why not.
    why_not: Option<(&'static str, String)>,
    /// A reason that is given although the condition holds.
    note: Option<&'static str>,
}

/// The agent's own conditions, merged over those of others (`PodScheduled`, readiness gates), which stay.
pub(crate) fn conditions(facts: &Facts<'_>, status: &PodStatus, init_done: bool) -> Vec<PodCondition> {
    let before = facts.pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let values = values(facts, status, init_done, &before);
    let mut result = Vec::with_capacity(before.len() + values.len());
    for value in &values {
        let old = before.iter().find(|c| c.type_ == value.kind);
        result.push(condition(value, old, facts.pod.metadata.generation, facts.now));
    }
    result.extend(before.into_iter().filter(|c| values.iter().all(|v| v.kind != c.type_)));
    result
}

fn condition(
    value: &Value,
    old: Option<&PodCondition>,
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let status = if value.why_not.is_none() { "True" } else { "False" };
    let since = match old {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => Some(Time(whole_seconds(now))),
    };
    let (reason, message) = match &value.why_not {
        Some((reason, message)) => (Some((*reason).to_owned()), Some(message.clone())),
        None => (value.note.map(str::to_owned), None),
    };
    PodCondition {
        type_: value.kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: since,
        reason: reason.filter(|r| !r.is_empty()),
        message: message.filter(|m| !m.is_empty()),
        observed_generation: generation,
        ..Default::default()
    }
}

fn values(facts: &Facts<'_>, status: &PodStatus, init_done: bool, before: &[PodCondition]) -> Vec<Value> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let sandbox = facts.observed.ready_sandbox();
    let networked = sandbox.is_some_and(|s| s.host_network || !s.ips.is_empty());
    // This condition carries no reason.
    let ready_to_start = Value {
        kind: "PodReadyToStartContainers",
        why_not: (!networked).then(|| ("", String::new())),
        note: None,
    };
    let initialized = initialized(facts, status, init_done, phase);
    let containers = containers_ready(facts, status, phase);
    let gates = match &containers.why_not {
        Some(why) => Some(why.clone()),
        None => readiness_gates(facts, before),
    };
    let ready = Value { kind: "Ready", why_not: gates, note: containers.note };
    vec![ready_to_start, initialized, ready, containers]
}

fn names(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn initialized(facts: &Facts<'_>, status: &PodStatus, init_done: bool, phase: &str) -> Value {
    let done = init_done || phase == "Succeeded";
    let note = (phase == "Succeeded").then_some("PodCompleted");
    let why_not = (!done).then(|| {
        let open: Vec<&str> = spec::init_members(facts.pod)
            .zip(status.init_container_statuses.iter().flatten())
            .filter(|(member, s)| match member.kind {
                Kind::Sidecar => s.started != Some(true),
                _ => !s.ready,
            })
            .map(|(_, s)| s.name.as_str())
            .collect();
        ("ContainersNotInitialized", format!("containers with incomplete status: {}", names(&open)))
    });
    Value { kind: "Initialized", why_not, note }
}

fn containers_ready(facts: &Facts<'_>, status: &PodStatus, phase: &str) -> Value {
    let kind = "ContainersReady";
    if phase == "Succeeded" {
        return Value { kind, why_not: Some(("PodCompleted", String::new())), note: None };
    }
    if phase == "Failed" {
        return Value { kind, why_not: Some(("PodFailed", String::new())), note: None };
    }
    let sidecars = spec::init_members(facts.pod)
        .zip(status.init_container_statuses.iter().flatten())
        .filter(|(member, _)| member.kind == Kind::Sidecar)
        .map(|(_, s)| s);
    let relevant: Vec<&ContainerStatus> =
        sidecars.chain(status.container_statuses.iter().flatten()).collect();
    let unready: Vec<&str> = relevant.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    let why_not = (!unready.is_empty())
        .then(|| ("ContainersNotReady", format!("containers with unready status: {}", names(&unready))));
    Value { kind, why_not, note: None }
}

/// Conditions that others must set before the pod counts as ready.
fn readiness_gates(facts: &Facts<'_>, before: &[PodCondition]) -> Option<(&'static str, String)> {
    let gates = spec::pod_spec(facts.pod).readiness_gates.as_ref()?;
    let missing: Vec<String> = gates
        .iter()
        .filter_map(|gate| {
            let name = &gate.condition_type;
            match before.iter().find(|c| c.type_ == *name) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{name}\" does not exist."))
                }
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{name}\" is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    (!missing.is_empty()).then(|| ("ReadinessGatesNotReady", missing.join(", ")))
}
