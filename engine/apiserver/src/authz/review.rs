//! Access reviews: "may they?", "may I?" and "what may I?" (`authorization.k8s.io/v1`).

use std::sync::Arc;

use gantry_kube_logic::meta;
use gantry_kube_logic::rbac::{PolicyRule, parts};
use gantry_kube_types::{Attributes, Authorizer, Decision, FieldError, StatusError, UserFields, UserInfo};
use serde_json::{Value, json};

use super::RbacAuthorizer;
use super::escalation::question;
use crate::kind::{Action, ActionRequest};

const GROUP: &str = "authorization.k8s.io";

/// Which of the three access reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// SubjectAccessReview.
    Anybody,
    /// LocalSubjectAccessReview.
    InNamespace,
    /// SelfSubjectAccessReview.
    Myself,
}

/// `POST` to one of the access reviews.
pub struct AccessReviewAction {
    pub authorizer: Arc<dyn Authorizer>,
    pub ask: Ask,
}

#[async_trait::async_trait]
impl Action for AccessReviewAction {
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError> {
        match self.ask {
            Ask::Anybody => subject_access_review(request.object, &*self.authorizer),
            Ask::InNamespace => {
                local_subject_access_review(request.object, request.namespace, &*self.authorizer)
            }
            Ask::Myself => self_subject_access_review(request.object, request.user, &*self.authorizer),
        }
    }
}

/// `POST selfsubjectrulesreviews`.
pub struct RulesReviewAction {
    pub rbac: Arc<RbacAuthorizer>,
    /// Knows of credentials that are narrower than their user.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait::async_trait]
impl Action for RulesReviewAction {
    async fn run(&self, request: ActionRequest<'_>) -> Result<Value, StatusError> {
        self_subject_rules_review(request.object, request.user, &self.rbac, &*self.authorizer)
    }
}

/// May the user named in `spec`?
pub fn subject_access_review(review: Value, authorizer: &dyn Authorizer) -> Result<Value, StatusError> {
    let mut errors = attributes_errors(&review["spec"]);
    errors.extend(subject_errors(&review["spec"]));
    refuse("SubjectAccessReview", &errors)?;
    let user = subject(&review["spec"])?;
    Ok(decide(review, user, authorizer))
}

/// As [`subject_access_review`], about one namespace.
pub fn local_subject_access_review(
    mut review: Value,
    namespace: &str,
    authorizer: &dyn Authorizer,
) -> Result<Value, StatusError> {
    let said = meta::namespace(&review);
    if !said.is_empty() && said != namespace {
        return Err(StatusError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({said} != {namespace})"
        )));
    }
    let mut errors = attributes_errors(&review["spec"]);
    errors.extend(subject_errors(&review["spec"]));
    let asked = &review["spec"]["resourceAttributes"]["namespace"];
    if asked.as_str().unwrap_or("") != namespace {
        errors.push(FieldError::invalid(
            "spec.resourceAttributes.namespace",
            asked.as_str().unwrap_or(""),
            "must match metadata.namespace",
        ));
    }
    if !review["spec"]["nonResourceAttributes"].is_null() {
        errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            review["spec"]["nonResourceAttributes"].clone(),
            "disallowed on this kind of request",
        ));
    }
    refuse("LocalSubjectAccessReview", &errors)?;
    let user = subject(&review["spec"])?;
    meta::metadata_mut(&mut review).insert("namespace".to_owned(), namespace.into());
    Ok(decide(review, user, authorizer))
}

/// May the caller?
pub fn self_subject_access_review(
    review: Value,
    user: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Value, StatusError> {
    refuse("SelfSubjectAccessReview", &attributes_errors(&review["spec"]))?;
    Ok(decide(review, user.clone(), authorizer))
}

/// All the caller may do in `spec.namespace`, as far as RBAC says.
pub fn self_subject_rules_review(
    mut review: Value,
    user: &UserInfo,
    rbac: &RbacAuthorizer,
    authorizer: &dyn Authorizer,
) -> Result<Value, StatusError> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or("").to_owned();
    if namespace.is_empty() {
        return Err(StatusError::bad_request("no namespace on request"));
    }
    let (held, errors) = rbac.rules_for(user, &namespace);
    let may = |part: &PolicyRule| authorizer.authorize(&question(user, &namespace, part)).is_allowed();
    let rules: Vec<PolicyRule> = held.into_iter().flat_map(|rule| narrowed(rule, &may)).collect();
    let (paths, resources): (Vec<&PolicyRule>, Vec<&PolicyRule>) =
        rules.iter().partition(|rule| rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()));
    let resources: Vec<Value> = resources
        .iter()
        .map(|rule| {
            let mut value = json!({
                "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources,
            });
            if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
                value["resourceNames"] = json!(names);
            }
            value
        })
        .collect();
    let paths: Vec<Value> = paths
        .iter()
        .map(|rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls }))
        .collect();
    complete(&mut review);
    review["spec"] = json!({});
    review["status"] =
        json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": !errors.is_empty() });
    if !errors.is_empty() {
        review["status"]["evaluationError"] = errors.join(", ").into();
    }
    Ok(review)
}

fn decide(mut review: Value, user: UserInfo, authorizer: &dyn Authorizer) -> Value {
    let attributes = attributes(&review["spec"], user);
    let mut status = json!({ "allowed": false });
    let reason = match authorizer.authorize(&attributes) {
        Decision::Allow(reason) => {
            status["allowed"] = true.into();
            reason
        }
        Decision::Deny(reason) => {
            status["denied"] = true.into();
            reason
        }
        Decision::NoOpinion(reason) => reason,
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    complete(&mut review);
    review["status"] = status;
    review
}

/// The rule, or those parts of it that the credential may use.
fn narrowed(rule: PolicyRule, may: &dyn Fn(&PolicyRule) -> bool) -> Vec<PolicyRule> {
    let mut all = parts(std::slice::from_ref(&rule));
    let whole = all.len();
    all.retain(may);
    if all.len() == whole { vec![rule] } else { all }
}

pub(super) fn attributes(spec: &Value, user: UserInfo) -> Attributes {
    let resource = &spec["resourceAttributes"];
    if resource.is_object() {
        let text = |field: &str| resource[field].as_str().unwrap_or("").to_owned();
        return Attributes {
            user,
            verb: text("verb"),
            is_resource_request: true,
            group: text("group"),
            version: text("version"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
            path: String::new(),
        };
    }
    let text = |field: &str| spec["nonResourceAttributes"][field].as_str().unwrap_or("").to_owned();
    Attributes { user, verb: text("verb"), path: text("path"), ..Attributes::default() }
}

pub(super) fn subject(spec: &Value) -> Result<UserInfo, StatusError> {
    let list = |value: &Value| -> Result<Vec<String>, StatusError> {
        match value {
            Value::Null => Ok(Vec::new()),
            value => serde_json::from_value(value.clone())
                .map_err(|error| StatusError::bad_request(error.to_string())),
        }
    };
    let mut user = UserFields {
        username: spec["user"].as_str().unwrap_or("").to_owned(),
        uid: spec["uid"].as_str().unwrap_or("").to_owned(),
        groups: list(&spec["groups"])?,
        ..UserFields::default()
    };
    for (key, values) in spec["extra"].as_object().into_iter().flatten() {
        user.extra.insert(key.to_lowercase(), list(values)?);
    }
    Ok(user.into())
}

pub(super) fn subject_errors(spec: &Value) -> Option<FieldError> {
    let nobody =
        spec["user"].as_str().unwrap_or("").is_empty() && spec["groups"].as_array().is_none_or(Vec::is_empty);
    nobody.then(|| FieldError::invalid("spec.user", "", "at least one of user or group must be specified"))
}

pub(super) fn attributes_errors(spec: &Value) -> Vec<FieldError> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_object(), path.is_object()) {
        (true, true) => vec![FieldError::invalid(
            "spec.nonResourceAttributes",
            path.clone(),
            "cannot be specified in combination with resourceAttributes",
        )],
        (false, false) => vec![FieldError::invalid(
            "spec.resourceAttributes",
            resource.clone(),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}

pub(super) fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), StatusError> {
    if errors.is_empty() { Ok(()) } else { Err(StatusError::invalid(GROUP, kind, "", errors)) }
}

fn complete(review: &mut Value) {
    let metadata = meta::metadata_mut(review);
    metadata.entry("creationTimestamp").or_insert(Value::Null);
}
