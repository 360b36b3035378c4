//! Pod security levels by namespace labels (upstream's PodSecurity admission): pods that violate the
//! enforced level are refused, workloads that would make such pods are warned of.

use gantry_kube_logic::pod_security::{Exemptions, LevelVersion, Policy, Violation, evaluate, sentence};
use gantry_kube_types::{FieldError, StatusError};
use serde_json::Value;

use crate::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::kinds::value::{string, text};

/// Names of pods in a warning about a namespace.
const PODS_NAMED_MAX: usize = 3;
/// Pods looked at when a namespace's level is raised.
const PODS_CHECKED_MAX: usize = 3000;

/// Upstream's `PodSecurityConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSecurity {
    /// Where a namespace has no label.
    pub defaults: Policy,
    pub exemptions: Exemptions,
}

impl Default for PodSecurity {
    /// Nothing is enforced without a label, and nothing in the namespaces of the system.
    fn default() -> Self {
        let namespaces = ["kube-system", "kube-public", "kube-node-lease"].map(str::to_owned).to_vec();
        let exemptions = Exemptions { namespaces, ..Exemptions::default() };
        Self { defaults: Policy::default(), exemptions }
    }
}

/// What is to be evaluated.
struct Template<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    /// A pod itself, and not what makes pods.
    is_pod: bool,
}

fn template<'a>(request: &AdmissionRequest<'_>, object: &'a Value) -> Option<Template<'a>> {
    let info = &request.kind.info;
    let is_pod = info.group.is_empty() && info.resource == "pods";
    let holder = match (info.group.as_ref(), info.resource.as_ref(), request.subresource) {
        ("", "pods", "" | "ephemeralcontainers") => object,
        ("", "podtemplates", "") => &object["template"],
        ("", "replicationcontrollers", "")
        | ("apps", "deployments" | "daemonsets" | "replicasets" | "statefulsets", "")
        | ("batch", "jobs", "") => &object["spec"]["template"],
        ("batch", "cronjobs", "") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    Some(Template { metadata: &holder["metadata"], spec: &holder["spec"], is_pod })
}

#[async_trait::async_trait]
impl AdmissionPlugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    async fn validate(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        if request.is("", "namespaces") {
            return self.check_namespace(request);
        }
        let Some(template) = template(request, request.object) else { return Ok(()) };
        if template.is_pod && !is_significant(request) {
            return Ok(());
        }
        if let Some(exempt) = self.exemption(request, template.spec) {
            request.effects.annotate("pod-security.kubernetes.io/exempt", exempt);
            return Ok(());
        }
        let namespace = request.reader.get("", "namespaces", "", request.namespace).unwrap_or(Value::Null);
        let (policy, _) = Policy::of(&namespace, &self.defaults);
        self.judge(request, &template, policy)
    }
}

/// Of a pod's updates only those that add containers can make it worse: the rest of what the levels
/// look at cannot change.
fn is_significant(request: &AdmissionRequest<'_>) -> bool {
    request.operation == Operation::Create || request.subresource == "ephemeralcontainers"
}

impl PodSecurity {
    fn exemption(&self, request: &AdmissionRequest<'_>, spec: &Value) -> Option<&'static str> {
        let class = string(spec, "runtimeClassName");
        let has = |list: &[String], name: &str| !name.is_empty() && list.iter().any(|known| known == name);
        let exempt = &self.exemptions;
        if has(&exempt.namespaces, request.namespace) {
            Some("namespace")
        } else if has(&exempt.usernames, &request.user.username) {
            Some("user")
        } else if has(&exempt.runtime_classes, class) {
            Some("runtimeClass")
        } else {
            None
        }
    }

    fn judge(
        &self,
        request: &AdmissionRequest<'_>,
        template: &Template<'_>,
        policy: Policy,
    ) -> Result<(), StatusError> {
        let against = |level: LevelVersion| evaluate(level, template.metadata, template.spec);
        let audited = against(policy.audit);
        if !audited.is_empty() {
            let said = format!("would violate {}", sentence(policy.audit, &audited));
            request.effects.annotate("pod-security.kubernetes.io/audit-violations", said);
        }
        if template.is_pod {
            let shown = policy.enforce.to_string();
            request.effects.annotate("pod-security.kubernetes.io/enforce-policy", shown);
            let refused = against(policy.enforce);
            if !refused.is_empty() {
                return Err(request.forbidden(format!("violates {}", sentence(policy.enforce, &refused))));
            }
        }
        let warned = against(policy.warn);
        if !warned.is_empty() {
            request.effects.warn(format!("would violate {}", sentence(policy.warn, &warned)));
        }
        Ok(())
    }

    /// Labels must be readable, and who raises a level is told which pods live beyond it.
    fn check_namespace(&self, request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
        let (policy, bad) = Policy::of(request.object, &self.defaults);
        let old = request.old_object.map(|old| Policy::of(old, &self.defaults));
        let known = old.as_ref().map(|(_, bad)| bad.as_slice()).unwrap_or_default();
        let errors: Vec<FieldError> = bad
            .iter()
            .filter(|label| !known.contains(label))
            .map(|bad| {
                let field = format!("metadata.labels[{}]", bad.key);
                FieldError::invalid(field, bad.value.as_str(), bad.must)
            })
            .collect();
        if !errors.is_empty() {
            return Err(StatusError::invalid("", "Namespace", request.name, &errors));
        }
        if let Some((before, _)) = old
            && policy.enforce.level > before.enforce.level
            && !self.exemptions.namespaces.iter().any(|name| name == request.name)
        {
            warn_of_pods(request, policy.enforce);
        }
        Ok(())
    }
}

fn warn_of_pods(request: &AdmissionRequest<'_>, level: LevelVersion) {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let pods = request.reader.list::<Value>("", "pods", Some(request.name)).take(PODS_CHECKED_MAX);
    for pod in pods {
        let violations = evaluate(level, &pod["metadata"], &pod["spec"]);
        if violations.is_empty() {
            continue;
        }
        let reasons: Vec<String> = violations.iter().map(|Violation { reason, .. }| reason.clone()).collect();
        let (reasons, name) = (reasons.join(", "), text(&pod, "/metadata/name").to_owned());
        match found.iter_mut().find(|(known, _)| *known == reasons) {
            Some((_, names)) => names.push(name),
            None => found.push((reasons, vec![name])),
        }
    }
    if found.is_empty() {
        return;
    }
    request.effects.warn(format!(
        "existing pods in namespace {:?} violate the new PodSecurity enforce level {:?}",
        request.name,
        level.to_string()
    ));
    for (reasons, names) in found {
        let more = names.len().saturating_sub(PODS_NAMED_MAX);
        let shown = names.iter().take(PODS_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        let rest = match more {
            0 => String::new(),
            1 => " (and 1 other pod)".to_owned(),
            more => format!(" (and {more} other pods)"),
        };
        request.effects.warn(format!("{shown}{rest}: {reasons}"));
    }
}
