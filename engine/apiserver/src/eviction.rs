//! `pods/eviction`: a delete that respects disruption budgets.

use std::sync::Arc;

use gantry_kube_logic::meta;
use gantry_kube_logic::selector::LabelSelector;
use gantry_kube_types::{RequestInfo, StatusCause, StatusError};
use http::HeaderMap;
use serde_json::Value;

use crate::delete::{self, DeleteOptions};
use crate::kind::{Action, ActionRequest};
use crate::query::Query;
use crate::request::{Context, Notes};

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// The action of `pods/eviction`.
pub struct Eviction;

#[async_trait::async_trait]
impl Action for Eviction {
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError> {
        let pod = request.reader.get("", "pods", request.namespace, request.name);
        let pod = pod.ok_or_else(|| request.kind.not_found(request.name))?;
        let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
        if !over && !meta::is_being_deleted(&pod) {
            check_budgets(&request, &pod)?;
        }
        let mut options: DeleteOptions = serde_json::from_value(request.object["deleteOptions"].clone())
            .or_else(|error| match &request.object["deleteOptions"] {
                Value::Null => Ok(DeleteOptions::default()),
                _ => Err(StatusError::bad_request(format!("cannot read deleteOptions: {error}"))),
            })?;
        if request.dry_run {
            options.dry_run = Some(vec!["All".to_owned()]);
        }
        let info = RequestInfo {
            is_resource_request: true,
            verb: "delete".to_owned(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            namespace: request.namespace.to_owned(),
            name: request.name.to_owned(),
            ..RequestInfo::default()
        };
        let context = Context {
            server: request.server.clone(),
            user: request.user.clone(),
            info,
            kind: Arc::new(request.kind.clone()),
            query: Query::default(),
            headers: HeaderMap::new(),
            notes: Notes::default(),
        };
        delete::delete_object(&context, request.name, &options).await?;
        Ok(Value::Null)
    }
}

/// 429 where a budget that selects the pod has nothing left.
fn check_budgets(request: &ActionRequest<'_>, pod: &Value) -> Result<(), StatusError> {
    let budgets = request.reader.list::<Value>("policy", "poddisruptionbudgets", Some(request.namespace));
    for budget in budgets {
        let selector = LabelSelector::from_object(&budget["spec"]["selector"])
            .map_err(|error| StatusError::internal(error.0))?;
        let left = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        if !selector.matches(meta::labels(pod)) || left > 0 {
            continue;
        }
        let mut error = StatusError::too_many_requests(REFUSED, 10);
        if let Some(details) = &mut error.details {
            details.causes.push(StatusCause {
                reason: "DisruptionBudget".to_owned(),
                message: format!(
                    "The disruption budget {} needs {} healthy pods and has {} currently",
                    meta::name(&budget),
                    budget["status"]["desiredHealthy"].as_i64().unwrap_or(0),
                    budget["status"]["currentHealthy"].as_i64().unwrap_or(0),
                ),
                field: String::new(),
            });
        }
        return Err(error);
    }
    Ok(())
}
