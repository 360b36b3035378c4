//! Environments as namespaces, as a pure plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_identity_api::{Environment, EnvironmentStatus, Project, labels};
use kube::ResourceExt;

use super::names;
use super::namespaces::Known;

/// What to do about a project's namespaces.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// To be created, or brought back to these labels; the second is the value of [`names::GIVEN_LABELS`].
    pub apply: Vec<(String, BTreeMap<String, String>, String)>,
    /// The project's, and no environment's any more.
    pub delete: Vec<String>,
    pub environments: Vec<EnvironmentStatus>,
}

impl Plan {
    /// Do all environments have what they need?
    pub fn is_ready(&self) -> bool {
        self.environments.iter().all(|e| e.problem.is_empty()) && self.apply.is_empty()
    }
}

/// The namespaces a project should have, against those there are: `known` finds one by name, `own` are the project's.
pub fn plan(project: &Project, known: impl Fn(&str) -> Option<Arc<Known>>, own: &[String]) -> Plan {
    let mut plan = Plan::default();
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    for environment in &project.spec.environments {
        let namespace = names::namespace(project, environment);
        let problem = if wanted.insert(namespace.clone()) {
            step(&mut plan, project, environment, &namespace, known(&namespace).as_deref())
        } else {
            format!("another environment of the project has namespace {namespace:?}")
        };
        plan.environments.push(EnvironmentStatus {
            name: environment.name.clone(),
            namespace,
            problem,
            ..EnvironmentStatus::default()
        });
    }
    let leaving = |name: &String| known(name).is_some_and(|k| k.leaving);
    plan.delete = own.iter().filter(|name| !wanted.contains(*name) && !leaving(name)).cloned().collect();
    plan
}

/// Plans one namespace; returns what stands in the way.
fn step(
    plan: &mut Plan,
    project: &Project,
    environment: &Environment,
    namespace: &str,
    known: Option<&Known>,
) -> String {
    if let Some(problem) = names::namespace_problem(namespace) {
        return problem;
    }
    let (wanted, given) = wanted_labels(project, environment);
    let id = project.name_any();
    match known {
        None => plan.apply.push((namespace.to_owned(), wanted, given)),
        Some(known) if known.project.as_deref() != Some(id.as_str()) => {
            return match &known.project {
                Some(other) => format!("namespace {namespace:?} belongs to project {other:?}"),
                None => format!("namespace {namespace:?} is there already and belongs to no project"),
            };
        }
        Some(known) if known.leaving => return format!("namespace {namespace:?} is being deleted"),
        Some(known) => {
            let kept = wanted.iter().all(|(key, value)| known.labels.get(key) == Some(value));
            if !kept || !known.marked || known.given.as_deref() != Some(given.as_str()) {
                plan.apply.push((namespace.to_owned(), wanted, given));
            }
        }
    }
    String::new()
}

/// All labels of an environment's namespace, and the keys of those that are the project's to choose.
fn wanted_labels(project: &Project, environment: &Environment) -> (BTreeMap<String, String>, String) {
    let mut wanted: BTreeMap<String, String> = project.spec.labels.clone();
    wanted.extend(environment.labels.clone());
    wanted.retain(|key, _| !names::is_managed_label(key));
    let given = wanted.keys().cloned().collect::<Vec<_>>().join(",");
    let level = environment.pod_security.unwrap_or(project.spec.pod_security);
    for (key, value) in [
        (labels::PROJECT, project.name_any()),
        (labels::DOMAIN, project.spec.domain.clone()),
        (labels::ENVIRONMENT, environment.name.clone()),
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE.to_owned()),
        (labels::ISOLATION, "isolated".to_owned()),
        (labels::RECORD_SESSIONS, project.spec.record_sessions.to_string()),
        (labels::POD_SECURITY_ENFORCE, level.as_str().to_owned()),
    ] {
        wanted.insert(key.to_owned(), value);
    }
    (wanted, given)
}

/// The environment whose namespace this is.
pub fn environment<'a>(project: &'a Project, namespace: &str) -> Option<&'a Environment> {
    project.spec.environments.iter().find(|e| names::namespace(project, e) == namespace)
}
