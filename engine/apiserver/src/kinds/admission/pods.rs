//! Ephemeral containers come only through their subresource, and it changes nothing else.

use gantry_kube_types::{FieldError, StatusError};
use serde_json::Value;

use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::kinds::value::{child, field, items, put, same, string};

pub(super) struct EphemeralContainers;

const LIST: &str = "ephemeralContainers";

#[async_trait::async_trait]
impl AdmissionPlugin for EphemeralContainers {
    fn name(&self) -> &'static str {
        "EphemeralContainers"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        let pods = request.kind.info.group.is_empty() && request.kind.info.resource == "pods";
        if !pods || !matches!(request.subresource, "" | "ephemeralcontainers") {
            return Ok(());
        }
        let refuse = |detail: &str| {
            let error = FieldError::forbidden(format!("spec.{LIST}"), detail);
            Err(StatusError::invalid("", "Pod", request.name, &[error]))
        };
        match (request.operation, request.old_object) {
            (Operation::Create, _) if !items(request.object, "/spec/ephemeralContainers").is_empty() => {
                refuse("cannot be set on create")
            }
            (Operation::Update, Some(old)) if request.subresource.is_empty() => {
                if same(field(&request.object["spec"], LIST), field(&old["spec"], LIST)) {
                    return Ok(());
                }
                refuse("may only be changed through the pods/ephemeralcontainers subresource")
            }
            (Operation::Update, Some(old)) => {
                let new = items(request.object, "/spec/ephemeralContainers").to_vec();
                if let Some(why) = changed(&new, items(old, "/spec/ephemeralContainers")) {
                    return refuse(&why);
                }
                let metadata = request.object["metadata"].take();
                *request.object = old.clone();
                put(request.object, "metadata", metadata);
                if let Some(spec) = child(request.object, "spec") {
                    put(spec, LIST, new);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Those that are there stay as they are; more may follow.
fn changed(new: &[Value], old: &[Value]) -> Option<String> {
    old.iter().find_map(|before| {
        let name = string(before, "name");
        match new.iter().find(|c| string(c, "name") == name) {
            None => Some(format!("existing ephemeral containers \"{name}\" may not be removed")),
            Some(after) if !same(Some(after), Some(before)) => {
                Some(format!("existing ephemeral containers \"{name}\" may not be changed"))
            }
            Some(_) => None,
        }
    })
}
