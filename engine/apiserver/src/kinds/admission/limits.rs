//! Limit ranges: what containers get that do not say, and what nobody may ask for.

use gantry_kube_logic::limits;
use gantry_kube_types::StatusError;
use serde_json::Value;

use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::kinds::pod::qos_class;
use crate::kinds::value::{child_if, put};

pub(super) struct LimitRanger;

fn ranges(request: &AdmissionRequest<'_>) -> Vec<Value> {
    request.reader.list("", "limitranges", Some(request.namespace)).collect()
}

#[async_trait::async_trait]
impl AdmissionPlugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let ranges = ranges(request);
        for range in &ranges {
            limits::default_pod(range, request.object);
        }
        if !ranges.is_empty() {
            let class = qos_class(&request.object["spec"]);
            if let Some(status) = child_if(request.object, "status") {
                put(status, "qosClass", class);
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        let info = &request.kind.info;
        let pods = info.group.is_empty() && info.resource == "pods";
        let claims = request.is("", "persistentvolumeclaims");
        let check: fn(&Value, &Value) -> Vec<String> = match (request.operation, request.subresource) {
            (Operation::Create, "") if pods => limits::check_pod,
            (Operation::Update, "resize") if pods => limits::check_pod,
            (Operation::Create | Operation::Update, "") if claims => limits::check_claim,
            _ => return Ok(()),
        };
        let errors = ranges(request).iter().flat_map(|range| check(range, request.object)).collect();
        limits::joined(errors).map_or(Ok(()), |why| Err(request.forbidden(why)))
    }
}
