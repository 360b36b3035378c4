//! `POST /apis/authorization.gantry.dev/v1alpha1/explain`: why somebody may or may not.
//!
//! Takes a SubjectAccessReview-shaped object. Everybody may ask about themselves; about others, who may
//! create SubjectAccessReviews, and about others' rights in a namespace, who may create
//! LocalSubjectAccessReviews there.
//!
//! What is a component's to decide (repositories, identity's own kinds) the component explains; see
//! [`Authorizer::explain`]. To that come RBAC's bindings, which grant such things, too; but what is missing is the
//! component's to say: a binding for the whole cluster would do, and would do far more.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use gantry_kube_logic::negotiate::Output;
use gantry_kube_logic::rbac::GROUP as RBAC_GROUP;
use gantry_kube_types::{
    Attributes, Authorizer, Decision, Explanation, RequestInfo, ResourceInfo, Scope, StatusError, UserInfo,
};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::RbacAuthorizer;
use super::review::{attributes, attributes_errors, refuse, subject, subject_errors};
use crate::encode;
use crate::registry::ResourceExtension;
use crate::request::{parse, read_body};
use crate::respond;

const GROUP: &str = "authorization.gantry.dev";
const VERSION: &str = "v1alpha1";
const KIND: &str = "AccessExplanation";
/// Roles that everybody may be told of: every cluster has them.
const KNOWN_ROLES: [&str; 7] =
    ["view", "edit", "admin", "gantry:reader", "gantry:member", "gantry:manager", "gantry:admin"];

/// Give it to [`crate::Config::extensions`].
#[derive(Clone)]
pub struct ExplainApi {
    authorizer: Arc<dyn Authorizer>,
    rbac: Arc<RbacAuthorizer>,
}

impl ExplainApi {
    /// `authorizer`: the one the front door asks.
    pub fn new(authorizer: Arc<dyn Authorizer>, rbac: Arc<RbacAuthorizer>) -> Arc<Self> {
        Arc::new(Self { authorizer, rbac })
    }

    /// The answer to one question of `caller`.
    pub fn explain(&self, caller: &UserInfo, mut review: Value) -> Result<Value, StatusError> {
        let spec = &review["spec"];
        let mut errors = attributes_errors(spec);
        let own = ["user", "groups", "uid", "extra"].iter().all(|field| spec[*field].is_null())
            || (spec["user"] == caller.username.as_str()
                && ["groups", "uid", "extra"].iter().all(|field| spec[*field].is_null()));
        if !own {
            errors.extend(subject_errors(spec));
        }
        refuse(KIND, &errors)?;
        let user = if own { caller.clone() } else { subject(spec)? };
        if !own && !self.may_ask_about_others(caller, spec) {
            let why = format!(
                "User {:?} cannot create resource \"subjectaccessreviews\" in API group \"authorization.k8s.io\" at \
                 the cluster scope",
                caller.username
            );
            return Err(StatusError::forbidden(GROUP, "explain", "", why));
        }
        let asked = attributes(spec, user);
        let (allowed, denied, reason) = match self.authorizer.authorize(&asked) {
            Decision::Allow(reason) => (true, false, reason),
            Decision::Deny(reason) => (false, true, reason),
            Decision::NoOpinion(reason) => (false, false, reason),
        };
        let explanation = self.explanation(caller, &asked, allowed);
        let mut status = json!({ "allowed": allowed });
        let reason = if reason.is_empty() { explanation.note.clone() } else { reason };
        let explanation = serde_json::to_value(explanation).map_err(StatusError::internal)?;
        for (key, value) in explanation.as_object().into_iter().flatten() {
            status[key] = value.clone();
        }
        if denied {
            status["denied"] = true.into();
        }
        if !allowed && reason.is_empty() && status["grants"].as_array().is_some_and(|g| !g.is_empty()) {
            status["reason"] = "the credential is narrower than the rights of its user".into();
        } else if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        review["apiVersion"] = format!("{GROUP}/{VERSION}").into();
        review["kind"] = KIND.into();
        review["status"] = status;
        Ok(review)
    }

    fn explanation(&self, caller: &UserInfo, asked: &Attributes, allowed: bool) -> Explanation {
        let all = self.may(caller, "list", RBAC_GROUP, "clusterroles", "");
        let mut explanation = self.rbac.explain_bindings(asked, all, &KNOWN_ROLES);
        if let Some(mut theirs) = self.authorizer.explain(asked, caller) {
            explanation.nearest.clear();
            theirs.add(explanation);
            explanation = theirs;
        }
        if allowed || !explanation.grants.is_empty() {
            explanation.nearest.clear();
            explanation.held_verbs.clear();
        }
        explanation
    }

    fn may_ask_about_others(&self, caller: &UserInfo, spec: &Value) -> bool {
        let may = |resource: &str, namespace: &str| {
            self.may(caller, "create", "authorization.k8s.io", resource, namespace)
        };
        let namespace =
            spec.pointer("/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default();
        may("subjectaccessreviews", "")
            || (!namespace.is_empty() && may("localsubjectaccessreviews", namespace))
    }

    fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let asked = Attributes {
            user: user.clone(),
            verb: verb.to_owned(),
            is_resource_request: true,
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            ..Attributes::default()
        };
        self.authorizer.authorize(&asked).is_allowed()
    }
}

impl ResourceExtension for ExplainApi {
    fn group(&self) -> &str {
        GROUP
    }

    fn version(&self) -> &str {
        VERSION
    }

    fn resources(&self) -> Vec<(ResourceInfo, Vec<&'static str>)> {
        let info = ResourceInfo {
            group: GROUP.into(),
            version: VERSION.into(),
            resource: "explain".into(),
            singular: "".into(),
            kind: KIND.into(),
            list_kind: format!("{KIND}List").into(),
            scope: Scope::Cluster,
            short_names: Vec::new(),
            categories: Vec::new(),
            subresources: Vec::new(),
        };
        vec![(info, vec!["create"])]
    }

    fn router(&self) -> Router {
        Router::new().fallback(handle).with_state(self.clone())
    }
}

async fn handle(State(api): State<ExplainApi>, request: Request<Body>) -> Response<Body> {
    serve(&api, request).await.unwrap_or_else(|error| respond::failure(&error))
}

async fn serve(api: &ExplainApi, request: Request<Body>) -> Result<Response<Body>, StatusError> {
    let (head, body) = request.into_parts();
    let info = head.extensions.get::<RequestInfo>().cloned().unwrap_or_default();
    let user = head.extensions.get::<UserInfo>().cloned().ok_or_else(StatusError::unauthorized)?;
    if info.resource != "explain" || !info.subresource.is_empty() || !info.name.is_empty() {
        return Err(StatusError::no_such_resource());
    }
    if info.verb != "create" {
        return Err(StatusError::method_not_supported(GROUP, &info.resource, &info.verb));
    }
    let output = Output::of(&head.headers, false)?;
    let document = parse("application/json", &read_body(body).await?)?;
    let answer = api.explain(&user, document.value)?;
    respond::success(StatusCode::CREATED, encode::to_bytes(&answer), output)
}
