//! The gate as a webhook, for API servers of other clusters: `admission.k8s.io/v1` `AdmissionReview` in and out, and
//! the same answers as in this process.

use std::borrow::Cow;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use gantry_kube_types::{
    Admission, AdmissionAttributes, AdmissionOperation, AdmissionPhase, StatusError, UserInfo,
};
use gantry_registry_api::POLICIES;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ImageGate;
use crate::Registry;
use crate::admin::{refused, require};

/// Objects of the API have 3 MiB at most, and a review holds two.
const REVIEW_MAX_BYTES: usize = 8 << 20;
const API_VERSION: &str = "admission.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    request: Asked,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    uid: String,
    kind: Kind,
    resource: Resource,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    operation: String,
    #[serde(default)]
    user_info: Who,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct Resource {
    group: String,
    version: String,
    resource: String,
}

#[derive(Default, Deserialize)]
struct Who {
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Vec<String>,
}

/// `POST /registry/v1/admission/validate` and `…/mutate`, for who has `review` on `imagepolicies`.
pub(crate) async fn review(
    State(registry): State<Registry>,
    axum::extract::Path(phase): axum::extract::Path<String>,
    request: Request,
) -> Response {
    if let Err(error) = require(&registry, &request, POLICIES, "review") {
        return refused(&error);
    }
    let phase = match phase.as_str() {
        "validate" => AdmissionPhase::Validate,
        "mutate" => AdmissionPhase::Mutate,
        _ => return refused(&StatusError::no_such_resource()),
    };
    let Ok(body) = axum::body::to_bytes(request.into_body(), REVIEW_MAX_BYTES).await else {
        return refused(&StatusError::too_large("a review has at most 8 MiB"));
    };
    let review = match serde_json::from_slice::<Review>(&body) {
        Ok(review) if review.api_version == API_VERSION => review.request,
        Ok(review) => {
            let why = format!("this is an AdmissionReview of {:?}, not of {API_VERSION}", review.api_version);
            return refused(&StatusError::bad_request(why));
        }
        Err(error) => {
            return refused(&StatusError::bad_request(format!("this is no AdmissionReview: {error}")));
        }
    };
    let gate = ImageGate::of_webhook(&registry);
    axum::Json(answer(&gate, &review, phase).await).into_response()
}

async fn answer(gate: &ImageGate, asked: &Asked, phase: AdmissionPhase) -> Value {
    let operation = match asked.operation.as_str() {
        "CREATE" => AdmissionOperation::Create,
        "UPDATE" => AdmissionOperation::Update,
        "DELETE" => AdmissionOperation::Delete,
        _ => AdmissionOperation::Connect,
    };
    let groups: Vec<&str> = asked.user_info.groups.iter().map(String::as_str).collect();
    let user = UserInfo::authenticated(&asked.user_info.username, &groups);
    let mut attributes = AdmissionAttributes {
        phase,
        user: &user,
        operation,
        group: &asked.resource.group,
        version: &asked.resource.version,
        resource: &asked.resource.resource,
        kind: &asked.kind.kind,
        subresource: &asked.sub_resource,
        namespace: &asked.namespace,
        name: &asked.name,
        object: Cow::Borrowed(&asked.object),
        old_object: (!asked.old_object.is_null()).then_some(&asked.old_object),
        dry_run: asked.dry_run,
        warnings: Vec::new(),
        audit_annotations: Vec::new(),
        outcome_listeners: Vec::new(),
    };
    let reviewed = gate.review(&mut attributes).await;
    let mut response =
        json!({ "uid": asked.uid, "allowed": reviewed.is_ok(), "warnings": attributes.warnings });
    if let Err(error) = reviewed {
        response["status"] = error.to_json();
    }
    if let Cow::Owned(object) = &attributes.object
        && let Some(patch) = patch(&asked.object, object)
    {
        use base64::Engine as _;
        response["patchType"] = "JSONPatch".into();
        response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch.to_string()).into();
    }
    json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response })
}

/// The two parts of a pod that the gate changes, whole; nothing if neither changed.
fn patch(before: &Value, after: &Value) -> Option<Value> {
    let changed = ["metadata", "spec"].into_iter().filter(|part| before[part] != after[part]);
    let steps: Vec<Value> = changed
        .map(|part| json!({ "op": "replace", "path": format!("/{part}"), "value": after[part] }))
        .collect();
    (!steps.is_empty()).then(|| steps.into())
}
