//! What an update of each subresource may write; the rest of the object stays as it is.

use std::collections::BTreeMap;

use gantry_kube_logic::meta;
use gantry_kube_types::FieldError;
use serde_json::Value;

/// The part of an object that one write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but `status`, where the kind has that subresource.
    Main,
    /// `status`, labels, annotations and finalizers.
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// Resources and resize policies of a pod's containers.
    Resize,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// `status.conditions` of a certificate signing request.
    Approval,
}

impl Part {
    /// `None`: the subresource cannot be updated.
    pub(crate) fn of(subresource: &str) -> Option<Self> {
        Some(match subresource {
            // `scale` sets one field of the main resource itself.
            "" | "scale" => Self::Main,
            "status" => Self::Status,
            "finalize" => Self::Finalize,
            "resize" => Self::Resize,
            "ephemeralcontainers" => Self::EphemeralContainers,
            "approval" => Self::Approval,
            _ => return None,
        })
    }

    /// Does it write `status`, so that the generation stays?
    pub(crate) fn is_status(self) -> bool {
        matches!(self, Self::Status | Self::Approval)
    }

    /// `old` with this part of `new` (not for [`Part::Main`] and [`Part::Status`], which keep metadata).
    pub(crate) fn taken(self, new: &mut Value, old: &Value) -> Value {
        let mut kept = old.clone();
        match self {
            Self::Main | Self::Status => return new.take(),
            Self::Finalize => kept["spec"]["finalizers"] = new["spec"]["finalizers"].take(),
            Self::Resize => {
                for list in ["containers", "initContainers"] {
                    resize(&mut kept["spec"], &new["spec"], list);
                }
            }
            Self::EphemeralContainers => {
                move_field(&mut kept["spec"], &mut new["spec"], "ephemeralContainers")
            }
            Self::Approval => move_field(&mut kept["status"], &mut new["status"], "conditions"),
        }
        // Who wrote what is tracked for every write.
        if let Some(fields) = new["metadata"].get("managedFields").cloned() {
            kept["metadata"]["managedFields"] = fields;
        }
        kept
    }

    /// What is wrong with the change beyond what is wrong with the object.
    pub(crate) fn check(self, new: &Value, old: &Value) -> Vec<FieldError> {
        match self {
            Self::EphemeralContainers => check_ephemeral(new, old),
            _ => Vec::new(),
        }
    }
}

fn move_field(to: &mut Value, from: &mut Value, field: &str) {
    match from.get_mut(field).map(Value::take) {
        Some(value) if !value.is_null() => to[field] = value,
        _ => {
            if let Some(fields) = to.as_object_mut() {
                fields.shift_remove(field);
            }
        }
    }
}

/// Containers keep their order and are matched by name.
fn resize(kept: &mut Value, wanted: &Value, list: &str) {
    let wanted: BTreeMap<&str, &Value> = named(&wanted[list]).collect();
    let Some(containers) = kept.get_mut(list).and_then(Value::as_array_mut) else { return };
    for container in containers {
        let Some(new) = container["name"].as_str().and_then(|name| wanted.get(name)) else { continue };
        for field in ["resources", "resizePolicy"] {
            if let Some(value) = new.get(field) {
                container[field] = value.clone();
            }
        }
    }
}

fn named(list: &Value) -> impl Iterator<Item = (&str, &Value)> {
    list.as_array().into_iter().flatten().filter_map(|c| Some((c["name"].as_str()?, c)))
}

/// Ephemeral containers are only ever added.
fn check_ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    const FIELD: &str = "spec.ephemeralContainers";
    let now: BTreeMap<&str, &Value> = named(&new["spec"]["ephemeralContainers"]).collect();
    let mut errors = Vec::new();
    for (name, before) in named(&old["spec"]["ephemeralContainers"]) {
        match now.get(name) {
            Some(after) if *after == before => {}
            Some(_) => {
                let why = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.push(FieldError::forbidden(FIELD, why));
            }
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(FIELD, why));
            }
        }
    }
    let taken: Vec<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| named(&new["spec"][list]).map(|(name, _)| name))
        .collect();
    for (index, container) in new["spec"]["ephemeralContainers"].as_array().into_iter().flatten().enumerate()
    {
        let name = container["name"].as_str().unwrap_or("");
        let field = format!("{FIELD}[{index}].name");
        if name.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if taken.contains(&name) {
            errors.push(FieldError::duplicate(field, name));
        }
    }
    if meta::is_being_deleted(old) && now.len() > named(&old["spec"]["ephemeralContainers"]).count() {
        errors.push(FieldError::forbidden(FIELD, "the pod is being deleted"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(cpu: &str, image: &str, ephemeral: &[&str]) -> Value {
        let ephemeral: Vec<Value> = ephemeral.iter().map(|n| json!({ "name": n, "image": image })).collect();
        json!({
            "metadata": { "name": "p", "labels": { "image": image } },
            "spec": {
                "containers": [{ "name": "a", "image": image, "resources": { "limits": { "cpu": cpu } } }],
                "ephemeralContainers": ephemeral,
            },
            "status": { "phase": image },
        })
    }

    #[test]
    fn a_subresource_takes_only_its_own() {
        let old = pod("1", "old", &["e"]);
        let resized = Part::Resize.taken(&mut pod("2", "new", &["f"]), &old);
        assert_eq!(resized, pod("2", "old", &["e"]));
        let mut new = pod("2", "old", &["e", "f"]);
        new["metadata"]["labels"] = json!({});
        let added = Part::EphemeralContainers.taken(&mut new, &old);
        assert_eq!(added, pod("1", "old", &["e", "f"]));
        let request = |approved: bool, certificate: &str| {
            json!({
                "spec": { "request": certificate },
                "status": { "certificate": certificate, "conditions": [{ "type": if approved { "Approved" } else { "Denied" } }] },
            })
        };
        let approved = Part::Approval.taken(&mut request(true, "mine"), &request(false, "theirs"));
        assert_eq!(approved, request(true, "theirs"));
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        for (now, count) in [(["e", "f"].as_slice(), 0), (&["f"], 1), (&["e", "a"], 1), (&["e", ""], 1)] {
            let errors = Part::EphemeralContainers.check(&pod("1", "i", now), &pod("1", "i", &["e"]));
            assert_eq!(errors.len(), count, "{now:?}: {errors:?}");
        }
    }
}
