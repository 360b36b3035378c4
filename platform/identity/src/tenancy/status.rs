//! What the component says of projects and domains.

use gantry_identity_api::{DomainStatus, ProjectStatus, Quota};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A `Ready` condition; its time is that of the last change of its status.
pub fn ready(
    had: &[Condition],
    ready: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) -> Condition {
    let status = if ready { "True" } else { "False" };
    let before = had.iter().find(|c| c.type_ == "Ready" && c.status == status);
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: before
            .map_or_else(|| Time(Timestamp::now()), |c| c.last_transition_time.clone()),
    }
}

/// The project's status with these conditions and contents.
pub fn project(
    had: Option<&ProjectStatus>,
    condition: (bool, &str, &str),
    generation: Option<i64>,
    environments: Vec<gantry_identity_api::EnvironmentStatus>,
    allocated: Quota,
) -> ProjectStatus {
    let before = had.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let (is_ready, reason, message) = condition;
    let conditions = vec![ready(before, is_ready, reason, message, generation)];
    ProjectStatus { conditions, environments, allocated }
}

/// The domain's status.
pub fn domain(
    had: Option<&DomainStatus>,
    condition: (bool, &str, &str),
    generation: Option<i64>,
    allocated: Quota,
) -> DomainStatus {
    let before = had.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let (is_ready, reason, message) = condition;
    DomainStatus { conditions: vec![ready(before, is_ready, reason, message, generation)], allocated }
}
