//! TokenReview ("whose token is this?") and SelfSubjectReview ("who am I?").

use std::sync::Arc;

use gantry_kube_types::{StatusError, UserInfo};
use serde_json::{Value, json};

use super::bearer::{TokenAuthenticator, ask_all};
use crate::kind::{Action, ActionRequest};

/// `POST tokenreviews`.
pub struct TokenReviewAction(pub Vec<Arc<dyn TokenAuthenticator>>);

#[async_trait::async_trait]
impl Action for TokenReviewAction {
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError> {
        token_review(request.object, &self.0).await
    }
}

/// `POST selfsubjectreviews`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfSubjectReviewAction;

#[async_trait::async_trait]
impl Action for SelfSubjectReviewAction {
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError> {
        Ok(self_subject_review(request.object, request.user))
    }
}

/// Fills in `status`: a bad token is an answer (`authenticated: false`), not an error.
pub async fn token_review(
    mut review: Value,
    authenticators: &[Arc<dyn TokenAuthenticator>],
) -> Result<Value, StatusError> {
    let token = review["spec"]["token"].as_str().unwrap_or("").to_owned();
    if token.is_empty() {
        return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        serde_json::from_value(review["spec"]["audiences"].take()).unwrap_or_default();
    // Do not say the token again: reviews are logged and audited.
    review["spec"] = json!({});
    if !audiences.is_empty() {
        review["spec"]["audiences"] = json!(audiences);
    }
    complete(&mut review);
    review["status"] = match ask_all(authenticators, &token, &audiences).await {
        Ok(Some(found)) => {
            json!({ "authenticated": true, "user": found.user, "audiences": found.audiences })
        }
        Ok(None) => json!({ "user": {} }),
        Err(error) => json!({ "user": {}, "error": format!("[invalid bearer token, {}]", error.message) }),
    };
    Ok(review)
}

/// Fills in `status.userInfo`.
pub fn self_subject_review(mut review: Value, user: &UserInfo) -> Value {
    complete(&mut review);
    review["status"] = json!({ "userInfo": user });
    review
}

/// Clients expect a `metadata` on what they get back.
fn complete(review: &mut Value) {
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    if review["metadata"].get("creationTimestamp").is_none() {
        review["metadata"]["creationTimestamp"] = Value::Null;
    }
}
