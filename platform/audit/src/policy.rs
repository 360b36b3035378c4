//! `audit.k8s.io/v1` policy files: the first rule that fits decides.

use gantry_kube_types::{AuditLevel, AuditPlan, AuditStage, RequestInfo, UserInfo};
use serde::Deserialize;

/// Used where the operator names no file.
pub const DEFAULT_POLICY: &str = include_str!("default-policy.yaml");

/// A policy that is not usable.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{0}")]
    Syntax(String),
    #[error("apiVersion {0:?} is not audit.k8s.io/v1")]
    ApiVersion(String),
    #[error("kind {0:?} is not Policy")]
    Kind(String),
    #[error("it has no rules: nothing would be recorded")]
    Empty,
    #[error("rules[{0}]: resources and nonResourceURLs cannot stand in one rule")]
    Mixed(usize),
    #[error("rules[{rule}].nonResourceURLs: {url:?} is no path; `*` may stand at the end only")]
    Url { rule: usize, url: String },
}

/// A policy, read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    omit_stages: Vec<AuditStage>,
    #[serde(default)]
    omit_managed_fields: bool,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: AuditLevel,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<AuditStage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`; `pods` does not mean `pods/log`.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "String")]
struct Resources {
    resource: String,
    subresource: Option<String>,
}

impl From<String> for Resources {
    fn from(text: String) -> Self {
        match text.split_once('/') {
            Some((resource, sub)) => {
                Self { resource: resource.to_owned(), subresource: Some(sub.to_owned()) }
            }
            None => Self { resource: text, subresource: None },
        }
    }
}

impl Resources {
    fn fits(&self, request: &RequestInfo) -> bool {
        let is = |wanted: &str, found: &str| wanted == "*" || wanted == found;
        match &self.subresource {
            None if self.resource == "*" => true,
            None => self.resource == request.resource && request.subresource.is_empty(),
            Some(sub) => {
                let below = !request.subresource.is_empty();
                below && is(&self.resource, &request.resource) && is(sub, &request.subresource)
            }
        }
    }
}

impl Policy {
    /// Reads a policy file's text.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        if policy.api_version != "audit.k8s.io/v1" {
            return Err(PolicyError::ApiVersion(policy.api_version));
        }
        if policy.kind != "Policy" {
            return Err(PolicyError::Kind(policy.kind));
        }
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if objects && !rule.non_resource_urls.is_empty() {
                return Err(PolicyError::Mixed(index));
            }
            let bad = |url: &&String| {
                let path = url.strip_suffix('*').unwrap_or(url);
                url.as_str() != "*" && (!path.starts_with('/') || path.contains('*'))
            };
            if let Some(url) = rule.non_resource_urls.iter().find(bad) {
                return Err(PolicyError::Url { rule: index, url: url.clone() });
            }
        }
        Ok(policy)
    }

    /// What is recorded of a request. No rule that fits: nothing, as upstream has it.
    pub fn plan(&self, user: &UserInfo, request: &RequestInfo) -> AuditPlan {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, request)) else {
            return AuditPlan::NOTHING;
        };
        let mut plan = AuditPlan::of(rule.level);
        plan.omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        self.omit_stages.iter().chain(&rule.omit_stages).fold(plan, |plan, stage| plan.without(*stage))
    }
}

impl Rule {
    fn fits(&self, user: &UserInfo, request: &RequestInfo) -> bool {
        let any = |list: &[String], text: &str| list.is_empty() || list.iter().any(|item| item == text);
        if !any(&self.users, &user.username) || !any(&self.verbs, &request.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.in_group(group)) {
            return false;
        }
        if request.is_resource_request {
            return self.non_resource_urls.is_empty()
                && any(&self.namespaces, &request.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.fits(request)));
        }
        if !self.non_resource_urls.is_empty() {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => request.path.starts_with(prefix),
                None => *url == request.path,
            });
        }
        self.resources.is_empty() && self.namespaces.is_empty()
    }
}

impl GroupResources {
    fn fits(&self, request: &RequestInfo) -> bool {
        if self.group != request.group {
            return false;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&request.name) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|wanted| wanted.fits(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn plan(policy: &Policy, user: &UserInfo, method: Method, target: &str) -> String {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let plan = policy.plan(user, &RequestInfo::parse(&method, path, query));
        format!("{:?}", plan.level)
    }

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: ["RequestReceived"]
omitManagedFields: true
rules:
  - level: RequestResponse
    resources:
      - group: ""
        resources: ["pods"]
  - level: Metadata
    resources:
      - group: ""
        resources: ["pods/log", "pods/status", "*/scale"]
  - level: None
    resources:
      - group: ""
        resources: ["configmaps"]
        resourceNames: ["controller-leader"]
  - level: None
    users: ["system:kube-proxy"]
    verbs: ["watch"]
    resources:
      - group: ""
        resources: ["endpoints", "services"]
  - level: None
    userGroups: ["system:authenticated"]
    nonResourceURLs: ["/api*", "/version"]
  - level: Request
    resources:
      - group: ""
        resources: ["configmaps"]
    namespaces: ["kube-system"]
  - level: Metadata
    omitManagedFields: false
    resources:
      - group: apps
  - level: Request
    omitStages: ["ResponseStarted"]
"#;

    #[test]
    fn upstreams_rules_mean_what_they_mean_there() {
        let policy = Policy::parse(POLICY).expect("a policy");
        let alice = UserInfo::authenticated("alice", &[]);
        let proxy = UserInfo::authenticated("system:kube-proxy", &[]);
        for (user, method, target, want) in [
            (&alice, Method::GET, "/api/v1/namespaces/a/pods/p", "RequestResponse"),
            (&alice, Method::GET, "/api/v1/namespaces/a/pods/p/log", "Metadata"),
            (&alice, Method::GET, "/api/v1/namespaces/a/pods/p/exec", "Request"),
            (&alice, Method::GET, "/api/v1/namespaces/a/replicationcontrollers/p/scale", "Metadata"),
            (&alice, Method::GET, "/api/v1/namespaces/a/configmaps/controller-leader", "None"),
            (&alice, Method::GET, "/api/v1/namespaces/a/configmaps/x", "Request"),
            (&proxy, Method::GET, "/api/v1/services?watch=1", "None"),
            (&proxy, Method::GET, "/api/v1/services", "Request"),
            (&alice, Method::GET, "/api/v1/services?watch=1", "Request"),
            (&alice, Method::GET, "/apis", "None"),
            (&alice, Method::GET, "/version", "None"),
            (&alice, Method::GET, "/version/x", "Request"),
            (&UserInfo::anonymous(), Method::GET, "/version", "Request"),
            (&alice, Method::GET, "/apis/apps/v1/deployments", "Metadata"),
        ] {
            assert_eq!(plan(&policy, user, method, target), want, "{} {target}", user.username);
        }
        let info = RequestInfo::parse(&Method::GET, "/apis/apps/v1/deployments", None);
        let found = policy.plan(&alice, &info);
        assert!(!found.omit_managed_fields && !found.wants(AuditStage::RequestReceived));
        let info = RequestInfo::parse(&Method::GET, "/api/v1/nodes", None);
        let found = policy.plan(&alice, &info);
        assert!(found.omit_managed_fields && !found.wants(AuditStage::ResponseStarted));
    }

    #[test]
    fn a_wrong_policy_is_refused_with_its_place() {
        let with = |rules: &str| format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
        for (text, want) in [
            (with("[]"), "no rules"),
            (with("[{level: Loud}]"), "Loud"),
            (with("[{level: None, user: [a]}]"), "user"),
            (with("[{level: None, nonResourceURLs: [healthz]}]"), "rules[0].nonResourceURLs"),
            (with("[{level: None, nonResourceURLs: [\"/a*b\"]}]"), "rules[0].nonResourceURLs"),
            (with("[{level: None, nonResourceURLs: [/a], namespaces: [x]}]"), "rules[0]"),
            ("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]".to_owned(), "v1beta1"),
        ] {
            let error = Policy::parse(&text).expect_err("refused").to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn the_default_drops_reads_of_the_system_and_keeps_its_writes() {
        let policy = Policy::parse(DEFAULT_POLICY).expect("a policy");
        let node = UserInfo::authenticated("system:node:a", &["system:nodes"]);
        let scheduler = UserInfo::authenticated("system:kube-scheduler", &[]);
        let alice = UserInfo::authenticated("acme/alice", &[]);
        let pod = "/api/v1/namespaces/a/pods/p";
        for (user, method, target, want) in [
            (&node, Method::GET, pod, "None"),
            (&node, Method::PATCH, "/api/v1/namespaces/a/pods/p/status", "Metadata"),
            (&scheduler, Method::GET, "/api/v1/pods?watch=1", "None"),
            (&node, Method::GET, "/api/v1/namespaces/a/secrets/s", "Metadata"),
            (&scheduler, Method::GET, "/api/v1/secrets?watch=1", "Metadata"),
            (&scheduler, Method::POST, "/api/v1/namespaces/a/pods/p/binding", "Metadata"),
            (&alice, Method::GET, pod, "Metadata"),
            (&alice, Method::GET, "/v2/acme/web/manifests/1", "Metadata"),
            (&alice, Method::POST, "/identity/v3/auth/tokens", "Metadata"),
            (&alice, Method::PUT, "/apis/rbac.authorization.k8s.io/v1/clusterroles/x", "Request"),
            (&alice, Method::POST, "/apis/identity.gantry.dev/v1alpha1/roleassignments", "Request"),
            (&alice, Method::POST, "/api/v1/namespaces/a/secrets", "Metadata"),
            (&UserInfo::anonymous(), Method::GET, "/readyz", "None"),
            (&UserInfo::anonymous(), Method::GET, "/api", "Metadata"),
            (&UserInfo::anonymous(), Method::GET, "/version", "Metadata"),
        ] {
            assert_eq!(plan(&policy, user, method, target), want, "{} {target}", user.username);
        }
    }
}
