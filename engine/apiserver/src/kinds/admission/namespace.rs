//! Objects live in namespaces that exist and are not ending.

use gantry_kube_types::{StatusCause, StatusError};

use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::kinds::value::{at, text};

/// Namespaces that are never deleted.
const PROTECTED: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait::async_trait]
impl AdmissionPlugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        if request.operation == Operation::Delete {
            if request.is("", "namespaces") && PROTECTED.contains(&request.name) {
                return Err(request.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        if !request.kind.info.is_namespaced() || request.operation != Operation::Create {
            return Ok(());
        }
        // A review in a namespace asks about it; it need not exist.
        if request.kind.info.group == "authorization.k8s.io" {
            return Ok(());
        }
        let Some(namespace) = request.reader.get("", "namespaces", "", request.namespace) else {
            return Err(StatusError::not_found("", "namespaces", request.namespace));
        };
        let ending = at(&namespace, "/metadata/deletionTimestamp").is_some()
            || text(&namespace, "/status/phase") == "Terminating";
        if !ending {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            request.namespace
        );
        let mut error = request.forbidden(why);
        if let Some(details) = &mut error.details {
            details.causes.push(StatusCause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {} is being terminated", request.namespace),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(error)
    }
}
