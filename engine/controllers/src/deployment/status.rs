//! What a Deployment says of itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::plan;

/// `progressDeadlineSeconds` of this value means "none".
const NO_DEADLINE: i32 = i32::MAX;
const DEADLINE_DEFAULT_S: i32 = 600;

pub fn status(deployment: &Deployment, sets: &[Arc<ReplicaSet>], now: Timestamp) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let current = plan::new_set(deployment, sets);
    let sum = |of: fn(&ReplicaSet) -> i32| sets.iter().map(|set| of(set)).sum::<i32>();
    let total = sum(|s| s.status.as_ref().map_or(0, |x| x.replicas));
    let available = sum(plan::available);
    let some = |count: i32| (count > 0).then_some(count);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(current.as_ref().and_then(|s| s.status.as_ref()).map_or(0, |s| s.replicas)),
        ready_replicas: some(sum(|s| s.status.as_ref().and_then(|x| x.ready_replicas).unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((total - available).max(0)),
        terminating_replicas: some(sum(|s| {
            s.status.as_ref().and_then(|x| x.terminating_replicas).unwrap_or(0)
        })),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    let (_, unavailable) = plan::bounds(deployment);
    let enough = available >= plan::replicas_of(deployment) - unavailable;
    let availability = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned())
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".to_owned())
    };
    set_condition(&mut status, "Available", availability, false, now);
    replica_failure(&mut status, sets, now);
    if let Some((state, moved)) = progress(deployment, sets, &before, &status, current.as_deref(), now) {
        set_condition(&mut status, "Progressing", state, moved, now);
    }
    status
}

/// The Progressing condition, and whether this is a step forward (which starts the deadline anew).
fn progress(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    before: &DeploymentStatus,
    now_status: &DeploymentStatus,
    current: Option<&ReplicaSet>,
    now: Timestamp,
) -> Option<((&'static str, &'static str, String), bool)> {
    let name = current.map(|s| s.name_any());
    let what = name.as_ref().map_or_else(
        || format!("Deployment \"{}\"", deployment.name_any()),
        |n| format!("ReplicaSet \"{n}\""),
    );
    let known = condition(before, "Progressing");
    let paused = deployment.spec.paused.unwrap_or(false);
    if paused {
        return Some((("Unknown", "DeploymentPaused", "Deployment is paused".to_owned()), false));
    }
    if known.is_some_and(|k| k.reason.as_deref() == Some("DeploymentPaused")) {
        return Some((("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned()), true));
    }
    if plan::is_complete(deployment, sets) {
        let done = known.is_some_and(|k| k.reason.as_deref() == Some("NewReplicaSetAvailable"));
        return Some((
            ("True", "NewReplicaSetAvailable", format!("{what} has successfully progressed.")),
            !done,
        ));
    }
    let count = |value: Option<i32>| value.unwrap_or(0);
    let old = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    let moved = known.is_none()
        || count(now_status.updated_replicas) > count(before.updated_replicas)
        || old(now_status) < old(before)
        || count(now_status.ready_replicas) > count(before.ready_replicas)
        || count(now_status.available_replicas) > count(before.available_replicas)
        || before.observed_generation != deployment.metadata.generation;
    if moved {
        return Some((("True", "ReplicaSetUpdated", format!("{what} is progressing.")), true));
    }
    // A roll-out that was complete and only lost a pod has no deadline.
    if known.is_some_and(|k| k.reason.as_deref() == Some("NewReplicaSetAvailable")) {
        return None;
    }
    let deadline = deadline_of(deployment)?;
    let last = known.and_then(|k| k.last_update_time.as_ref()).map(|t| t.0)?;
    if known.is_some_and(|k| k.reason.as_deref() == Some("ProgressDeadlineExceeded"))
        || now.duration_since(last).as_secs() >= i64::from(deadline)
    {
        return Some((
            ("False", "ProgressDeadlineExceeded", format!("{what} has timed out progressing.")),
            false,
        ));
    }
    None
}

fn deadline_of(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.progress_deadline_seconds.unwrap_or(DEADLINE_DEFAULT_S);
    (seconds != NO_DEADLINE).then_some(seconds)
}

/// When the progress deadline has to be looked at again.
pub fn next_deadline(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let known = condition(status, "Progressing")?;
    if known.status.as_deref() != Some("True") || known.reason.as_deref() == Some("NewReplicaSetAvailable") {
        return None;
    }
    let since = known.last_update_time.as_ref()?.0;
    let left = i64::from(deadline_of(deployment)?) - now.duration_since(since).as_secs();
    Some(Duration::from_secs(left.max(0).unsigned_abs() + 1))
}

/// What keeps the sets from making pods is the deployment's trouble too.
fn replica_failure(status: &mut DeploymentStatus, sets: &[Arc<ReplicaSet>], now: Timestamp) {
    let failing =
        sets.iter().filter_map(|s| s.status.as_ref()).filter_map(|s| s.conditions.as_ref()).flatten();
    let failing = failing.into_iter().find(|c| c.type_.as_deref() == Some("ReplicaFailure")).cloned();
    match failing {
        Some(failure) => {
            let text = failure.message.unwrap_or_default();
            set_condition(status, "ReplicaFailure", ("True", "FailedCreate", text), false, now);
        }
        None => {
            if let Some(conditions) = &mut status.conditions {
                conditions.retain(|c| c.type_.as_deref() != Some("ReplicaFailure"));
            }
        }
    }
}

fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_.as_deref() == Some(type_))
}

fn set_condition(
    status: &mut DeploymentStatus,
    type_: &str,
    (state, reason, message): (&str, &str, String),
    moved: bool,
    now: Timestamp,
) {
    let known = condition(status, type_).cloned();
    let same = known
        .as_ref()
        .is_some_and(|k| k.status.as_deref() == Some(state) && k.reason.as_deref() == Some(reason));
    if same && !moved && known.as_ref().is_some_and(|k| k.message.as_deref() == Some(message.as_str())) {
        return;
    }
    let transition = known
        .as_ref()
        .filter(|k| k.status.as_deref() == Some(state))
        .and_then(|k| k.last_transition_time.clone());
    let fresh = DeploymentCondition {
        type_: Some(type_.to_owned()),
        status: Some(state.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(transition.unwrap_or(Time(now))),
        last_update_time: Some(Time(now)),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_.as_deref() == Some(type_)) {
        Some(place) => *place = fresh,
        None => conditions.push(fresh),
    }
}

/// The merge patch of a status: counts that fell to zero are removed.
pub fn patch(status: &DeploymentStatus) -> serde_json::Value {
    serde_json::json!({
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "updatedReplicas": status.updated_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "unavailableReplicas": status.unavailable_replicas,
        "terminatingReplicas": status.terminating_replicas,
        "conditions": status.conditions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_stuck_roll_exceeds_its_deadline_and_says_so_once() {
        let mut deployment: Deployment = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "generation": 1},
            "spec": {"replicas": 1, "progressDeadlineSeconds": 10, "selector": {}, "template": {}},
        }))
        .expect("a deployment");
        let first = status(&deployment, &[], at("2026-01-01T00:00:00Z"));
        assert_eq!(
            condition(&first, "Progressing").and_then(|c| c.reason.as_deref()),
            Some("ReplicaSetUpdated")
        );
        assert_eq!(
            next_deadline(&deployment, &first, at("2026-01-01T00:00:04Z")),
            Some(Duration::from_secs(7))
        );
        deployment.status = Some(first);
        let late = status(&deployment, &[], at("2026-01-01T00:00:11Z"));
        let progressing = condition(&late, "Progressing").expect("a condition").clone();
        assert_eq!(
            (progressing.status.as_deref(), progressing.reason.as_deref()),
            (Some("False"), Some("ProgressDeadlineExceeded"))
        );
        deployment.status = Some(late.clone());
        assert_eq!(status(&deployment, &[], at("2026-01-01T01:00:00Z")), late);
    }
}
