//! Names of what the component makes, and which names it takes.

use gantry_identity_api::{Environment, Named, Project};
use gantry_kube_logic::names::dns1123_label;

/// Begins the name of every binding and cluster role of the component.
pub const PREFIX: &str = "gantry:";
/// The ResourceQuota and the LimitRange of a project's namespace.
pub const QUOTA: &str = "gantry";
/// The image pull secret of a project's namespace.
pub const PULL_SECRET: &str = "gantry-registry";
/// Keys of the labels a project or environment puts on its namespace, comma-separated.
pub const GIVEN_LABELS: &str = "identity.gantry.dev/given-labels";
/// Annotation of a namespace: id of the project it was made for.
pub const MADE_FOR: &str = "identity.gantry.dev/made-for";
/// Keeps an object until what hangs on it is gone.
pub const FINALIZER: &str = "identity.gantry.dev/cascade";
/// Field manager of the component's writes.
pub const MANAGER: &str = "gantry-identity";
/// Namespaces of the cluster itself.
const RESERVED: &[&str] = &["default", "kube-", "gantry-"];

/// `gantry:<role>`: what a role grants in a namespace.
pub fn cluster_role(role: &str) -> String {
    format!("{PREFIX}{role}")
}

/// `gantry:system:<role>`: what it grants in the whole cluster, and the name of its binding.
pub fn system_role(role: &str) -> String {
    format!("{PREFIX}system:{role}")
}

/// The binding of a role in a namespace; one binding holds a bounded number of subjects, so there may be several.
pub fn binding(role: &str, part: usize) -> String {
    match part {
        0 => cluster_role(role),
        part => format!("{PREFIX}{role}:{part}"),
    }
}

/// The namespace of an environment: the given one, or `<project's name>-<environment>`.
pub fn namespace(project: &Project, environment: &Environment) -> String {
    match &environment.namespace {
        Some(given) => given.clone(),
        None => format!("{}-{}", project.display_name(), environment.name),
    }
}

/// Why a namespace cannot be called so; `None`: it can.
pub fn namespace_problem(name: &str) -> Option<String> {
    if !dns1123_label(name).is_empty() {
        return Some(format!(
            "{name:?} cannot be a namespace's name (lower-case letters, digits and '-', at most 63): give one in \
             `namespace`"
        ));
    }
    let taken = RESERVED.iter().any(|r| name == *r || (r.ends_with('-') && name.starts_with(r)));
    taken.then(|| format!("namespaces called {name:?} belong to the platform: give another in `namespace`"))
}

/// Labels that only the component puts on namespaces.
pub fn is_managed_label(key: &str) -> bool {
    let prefixes = [
        "identity.gantry.dev/",
        "networks.gantry.dev/",
        "audit.gantry.dev/",
        "pod-security.kubernetes.io/",
        "kubernetes.io/",
    ];
    key == gantry_identity_api::labels::MANAGED_BY || prefixes.iter().any(|prefix| key.starts_with(prefix))
}

/// Annotations of namespaces that only the component and the platform's administrators change. That sessions are
/// recorded goes before the label of the same name, which says what the project wants.
pub fn is_managed_annotation(key: &str) -> bool {
    [GIVEN_LABELS, MADE_FOR, gantry_identity_api::labels::RECORD_SESSIONS].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_named_after_project_and_environment() {
        let mut project = Project::new("0a1b", Default::default());
        project.spec.name = Some("web".to_owned());
        let mut dev = Environment { name: "dev".to_owned(), ..Default::default() };
        assert_eq!(namespace(&project, &dev), "web-dev");
        dev.namespace = Some("shop".to_owned());
        assert_eq!(namespace(&project, &dev), "shop");
        assert_eq!(
            (binding("member", 0), binding("member", 2)),
            ("gantry:member".into(), "gantry:member:2".into())
        );
    }

    #[test]
    fn the_platforms_namespaces_are_nobodys() {
        for (name, good) in [
            ("web-dev", true),
            ("kube-system", false),
            ("kube-anything", false),
            ("default", false),
            ("default-dev", true),
            ("gantry-x", false),
            ("Web-dev", false),
            ("web dev", false),
            ("web/dev", false),
            ("", false),
        ] {
            assert_eq!(namespace_problem(name).is_none(), good, "{name:?}");
        }
    }
}
