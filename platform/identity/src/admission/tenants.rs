//! What tenants must not touch: namespaces that are no environments, the labels that say whose a namespace is and
//! how strict it is, and what the component keeps in it.

use std::sync::Arc;

use gantry_kube_types::{Admission, AdmissionAttributes, AdmissionOperation, AdmissionPhase, StatusError};
use serde_json::Value;

use super::identity::is_part;
use crate::authorizer::names_of_namespaces;
use crate::rights::OWN_USER;
use crate::tenancy::{World, names};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Keeps the component's objects the component's.
pub struct Tenants {
    world: Arc<World>,
}

impl Tenants {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// The component, the platform's administrators (whose edits are repaired), and parts of the cluster.
    fn is_trusted(&self, request: &AdmissionAttributes<'_>) -> bool {
        let user = request.user;
        user.username == OWN_USER || self.world.caller(user).is_unlimited() || is_part(user)
    }
}

#[async_trait::async_trait]
impl Admission for Tenants {
    fn name(&self) -> &'static str {
        "Tenants"
    }

    async fn review(&self, request: &mut AdmissionAttributes<'_>) -> Result<(), StatusError> {
        if request.phase != AdmissionPhase::Validate || request.operation == AdmissionOperation::Connect {
            return Ok(());
        }
        let concerned = matches!(
            (request.group, request.resource),
            ("", "namespaces" | "resourcequotas" | "limitranges")
                | (RBAC, "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings")
        );
        if !concerned || self.is_trusted(request) {
            return Ok(());
        }
        let old = request.old_object.unwrap_or(&Value::Null);
        let refused = match (request.group, request.resource) {
            ("", "namespaces") => {
                let ours = self.world.namespaces.project_of(request.name).is_some();
                namespace(request.operation, ours, old, &request.object)
            }
            ("", _) => {
                // Bounds of a project are given from above, under whatever name.
                let ours = self.world.namespaces.project_of(request.namespace).is_some();
                (ours && request.name == names::QUOTA && request.subresource.is_empty())
                    .then(|| "it comes from the project's quota: `gantry project set --quota`".to_owned())
            }
            _ => request.name.starts_with(names::PREFIX).then(|| {
                format!("what is called {}* follows the role assignments: `gantry assign`", names::PREFIX)
            }),
        };
        refused.map_or(Ok(()), |why| Err(request.forbidden(why)))
    }
}

/// Why a tenant may not do this to a namespace.
fn namespace(operation: AdmissionOperation, ours: bool, old: &Value, new: &Value) -> Option<String> {
    match operation {
        AdmissionOperation::Create => Some(names_of_namespaces()),
        AdmissionOperation::Delete => {
            ours.then(|| "it is an environment of a project: `gantry project environment remove`".to_owned())
        }
        AdmissionOperation::Update => {
            let labels = changed_keys(old, new, "labels");
            if let Some(key) = labels.into_iter().find(|key| names::is_managed_label(key)) {
                return Some(format!("label {key:?} is the platform's"));
            }
            let annotations = changed_keys(old, new, "annotations");
            let changed = annotations.into_iter().find(|key| names::is_managed_annotation(key));
            changed.map(|key| format!("annotation {key:?} is the platform's"))
        }
        AdmissionOperation::Connect => None,
    }
}

/// Keys of the metadata's map `field` whose values differ.
fn changed_keys(old: &Value, new: &Value, field: &str) -> Vec<String> {
    let map = |object: &Value| object["metadata"][field].as_object().cloned().unwrap_or_default();
    let (old, new) = (map(old), map(new));
    let keys = old.keys().chain(new.keys());
    keys.filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_of_the_platform_stay() {
        let labelled = |labels: Value| json!({"metadata": {"labels": labels}});
        let old = labelled(json!({
            "pod-security.kubernetes.io/enforce": "baseline", "identity.gantry.dev/project": "web", "team": "a",
        }));
        for (new, good) in [
            (old.clone(), true),
            (
                labelled(json!({"pod-security.kubernetes.io/enforce": "baseline",
                             "identity.gantry.dev/project": "web", "team": "b", "x": "y"})),
                true,
            ),
            (
                labelled(json!({"pod-security.kubernetes.io/enforce": "privileged",
                             "identity.gantry.dev/project": "web", "team": "a"})),
                false,
            ),
            (labelled(json!({"identity.gantry.dev/project": "web", "team": "a"})), false),
            (
                labelled(json!({"pod-security.kubernetes.io/enforce": "baseline",
                             "pod-security.kubernetes.io/enforce-version": "v1.0",
                             "identity.gantry.dev/project": "web"})),
                false,
            ),
            (
                labelled(json!({"pod-security.kubernetes.io/enforce": "baseline", "team": "a",
                             "networks.gantry.dev/isolation": "open", "identity.gantry.dev/project": "web"})),
                false,
            ),
            (json!({"metadata": {}}), false),
        ] {
            let refused = namespace(AdmissionOperation::Update, true, &old, &new);
            assert_eq!(refused.is_none(), good, "{new}: {refused:?}");
        }
        // Recording a session is not a tenant's to switch off, who may otherwise annotate the namespace.
        let annotated = |annotations: Value| json!({"metadata": {"annotations": annotations}});
        let recorded = annotated(json!({"audit.gantry.dev/record-sessions": "all"}));
        for (old, new, good) in [
            (&recorded, annotated(json!({"audit.gantry.dev/record-sessions": "none"})), false),
            (&recorded, annotated(json!({})), false),
            (&json!({}), annotated(json!({"audit.gantry.dev/record-sessions": "none"})), false),
            (&recorded, annotated(json!({"audit.gantry.dev/record-sessions": "all", "team": "a"})), true),
        ] {
            let refused = namespace(AdmissionOperation::Update, true, old, &new);
            assert_eq!(refused.is_none(), good, "{new}: {refused:?}");
        }
        assert!(namespace(AdmissionOperation::Create, false, &Value::Null, &json!({})).is_some());
        assert!(namespace(AdmissionOperation::Delete, true, &old, &Value::Null).is_some());
        assert!(namespace(AdmissionOperation::Delete, false, &json!({}), &Value::Null).is_none());
    }
}
