//! Nobody grants rights they do not hold (upstream's RBAC storage `policybased`).

use std::sync::Arc;

use gantry_kube_logic::rbac::{GROUP, PolicyRule, confirm_no_escalation, parts};
use gantry_kube_types::{Attributes, Authorizer, StatusError, UserInfo, groups};
use serde_json::Value;

use super::RbacAuthorizer;
use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};

/// Guards creates and updates of roles (`escalate`) and bindings (`bind`).
pub struct RbacEscalation {
    authorizer: Arc<dyn Authorizer>,
    rbac: Arc<RbacAuthorizer>,
}

impl RbacEscalation {
    /// `authorizer`: who says whether the caller may `escalate` or `bind`.
    pub fn new(authorizer: Arc<dyn Authorizer>, rbac: Arc<RbacAuthorizer>) -> Self {
        Self { authorizer, rbac }
    }

    fn may(
        &self,
        request: &AdmissionRequest<'_>,
        verb: &str,
        namespace: &str,
        resource: &str,
        name: &str,
    ) -> bool {
        self.authorizer
            .authorize(&Attributes {
                user: request.user.clone(),
                verb: verb.to_owned(),
                is_resource_request: true,
                group: GROUP.to_owned(),
                version: "v1".to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..Attributes::default()
            })
            .is_allowed()
    }

    /// Do the caller's rules cover those wanted, and would the authoriser, who knows of credentials that
    /// are narrower than their user, let the caller do each part of them?
    fn confirm(&self, request: &AdmissionRequest<'_>, wanted: &[PolicyRule]) -> Result<(), StatusError> {
        let (held, errors) = self.rbac.rules_for(request.user, request.namespace);
        confirm_no_escalation(request.user, &held, wanted, &errors).map_err(|why| request.forbidden(why))?;
        let beyond: Vec<PolicyRule> =
            parts(wanted).into_iter().filter(|part| !self.may_do(request, part)).collect();
        confirm_no_escalation(request.user, &[], &beyond, &errors).map_err(|why| request.forbidden(why))
    }

    fn may_do(&self, request: &AdmissionRequest<'_>, part: &PolicyRule) -> bool {
        self.authorizer.authorize(&question(request.user, request.namespace, part)).is_allowed()
    }

    fn check_role(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        // Any other change counts, labels above all: an aggregating role may gather this one by them.
        if only_for_garbage_collection(request) {
            return Ok(());
        }
        let resource = request.kind.info.resource.as_ref();
        if self.may(request, "escalate", request.namespace, resource, request.name) {
            return Ok(());
        }
        self.confirm(request, &rules(&request.object["rules"])?)?;
        let aggregates = |role: &Value| !role["aggregationRule"].is_null();
        if aggregates(request.object) || request.old_object.is_some_and(aggregates) {
            let everything = [rule(&["*"], Some(&["*"]), None), rule(&["*"], None, Some(&["*"]))];
            self.confirm(request, &everything).map_err(|_| {
                request.forbidden("must have cluster-admin privileges to use the aggregationRule")
            })?;
        }
        Ok(())
    }

    fn check_binding(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        if only_for_garbage_collection(request) {
            return Ok(());
        }
        let reference = &request.object["roleRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or("");
        let (kind, name) = (text("kind"), text("name"));
        let resource = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
        if self.may(request, "bind", request.namespace, resource, name) {
            return Ok(());
        }
        let granted = self
            .rbac
            .role_rules(kind, request.namespace, name)
            .ok_or_else(|| StatusError::not_found(GROUP, resource, name))?;
        self.confirm(request, &granted)
    }
}

#[async_trait::async_trait]
impl AdmissionPlugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if !is_write || request.kind.info.group != GROUP || request.user.in_group(groups::MASTERS) {
            return Ok(());
        }
        match request.kind.info.resource.as_ref() {
            "roles" | "clusterroles" => self.check_role(request),
            "rolebindings" | "clusterrolebindings" => self.check_binding(request),
            _ => Ok(()),
        }
    }
}

/// The question whether the user may do what one part of a rule allows (see [`parts`]).
pub(super) fn question(user: &UserInfo, namespace: &str, part: &PolicyRule) -> Attributes {
    let first = |values: &Option<Vec<String>>| values.iter().flatten().next().cloned();
    let mut asked = Attributes {
        user: user.clone(),
        verb: part.verbs.first().cloned().unwrap_or_default(),
        ..Attributes::default()
    };
    if let Some(url) = first(&part.non_resource_urls) {
        asked.path = url;
        return asked;
    }
    let resource = first(&part.resources).unwrap_or_default();
    let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
    asked.is_resource_request = true;
    asked.group = first(&part.api_groups).unwrap_or_default();
    asked.version = "*".to_owned();
    (asked.resource, asked.subresource) = (resource.to_owned(), subresource.to_owned());
    asked.namespace = namespace.to_owned();
    asked.name = first(&part.resource_names).unwrap_or_default();
    asked
}

/// Does an update change nothing but what the garbage collector needs to remove the object?
fn only_for_garbage_collection(request: &AdmissionRequest<'_>) -> bool {
    let Some(old) = request.old_object else { return false };
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            // The last three are the server's own.
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                metadata.shift_remove(field);
            }
        }
        object
    };
    rest(request.object) == rest(old)
}

fn rules(value: &Value) -> Result<Vec<PolicyRule>, StatusError> {
    let rules: Option<Vec<PolicyRule>> = serde_json::from_value(value.clone())
        .map_err(|error| StatusError::bad_request(format!("rules: {error}")))?;
    Ok(rules.unwrap_or_default())
}

fn rule(verbs: &[&str], resources: Option<&[&str]>, urls: Option<&[&str]>) -> PolicyRule {
    let owned = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        verbs: owned(verbs),
        api_groups: resources.map(owned),
        resources: resources.map(owned),
        non_resource_urls: urls.map(owned),
        ..PolicyRule::default()
    }
}
