//! Which routes there are: as the server's own tables say, as discovery says, and as the front door says. Nothing here
//! is a list kept by hand but the golden ones, of what strangers may have and of what is served and not tried.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::Door;

/// Parameters of a path are asked with this where a test does not name something that is there.
const NOBODY: &str = "x";
/// What the Kubernetes API answers beside its groups and resources, which discovery does not tell.
const BESIDE_RESOURCES: [&str; 5] = ["/version", "/api", "/apis", "/openapi/v2", "/openapi/v3"];

/// All that is served.
pub struct Served {
    /// Paths with their parameters in braces, sorted, each once.
    pub templates: BTreeSet<String>,
    /// Those of services beside the Kubernetes API.
    pub services: BTreeSet<String>,
    /// What the front door leads somewhere, with nothing listed there: it cannot be tried.
    pub unlisted: Vec<String>,
}

impl Served {
    pub async fn by(door: &Door, token: &str) -> Self {
        let listed = door.json("/gantry/routes", token).await;
        let all = listed["services"].as_array().unwrap_or_else(|| panic!("services in {listed}"));
        let services: BTreeSet<String> = all.iter().flat_map(|service| texts(&service["routes"])).collect();
        // The front door's own word: every prefix that it has a router for, and the checks of health.
        let leads = texts(&door.json("/", token).await["paths"]);
        let below = |path: &str, prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let health = |path: &str| ["/healthz", "/livez", "/readyz"].iter().any(|root| below(path, root));
        let unlisted = |prefix: &&String| !health(prefix) && !services.iter().any(|path| below(path, prefix));
        let unlisted = leads.iter().filter(unlisted).cloned().collect();
        let mut templates: BTreeSet<String> = services.iter().cloned().chain(leads).collect();
        templates.insert("/".to_owned());
        templates.extend(kubernetes(door, token).await);
        Self { templates, services, unlisted }
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list but {list}"));
    list.iter().map(|value| value.as_str().expect("a path").to_owned()).collect()
}

/// The path with its parameters filled in.
pub fn filled(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (parameter, tail) = after.split_once('}').expect("a parameter ends");
        path.push_str(before);
        path.push_str(&value(parameter).unwrap_or_else(|| nobodys(parameter)));
        rest = tail;
    }
    path + rest
}

fn nobodys(parameter: &str) -> String {
    match parameter {
        "digest" => format!("sha256:{}", "0".repeat(64)),
        // The last part is a tag.
        "*image" => format!("{NOBODY}/{NOBODY}"),
        _ => NOBODY.to_owned(),
    }
}

/// Every resource and subresource of every group, as discovery tells. An object in a namespace is `{namespace}/…/{name}`,
/// one of the whole cluster has its kind's plural as its parameter: `/api/v1/nodes/{nodes}`.
async fn kubernetes(door: &Door, token: &str) -> Vec<String> {
    let mut groups = vec!["/api/v1".to_owned()];
    let listed = door.json("/apis", token).await;
    for group in listed["groups"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            groups.push(format!("/apis/{}", version["groupVersion"].as_str().expect("a version")));
        }
    }
    let mut paths: Vec<String> = BESIDE_RESOURCES.map(str::to_owned).to_vec();
    for group in groups {
        let resources = door.json(&group, token).await;
        for resource in resources["resources"].as_array().into_iter().flatten() {
            paths.extend(resource_paths(&group, resource));
        }
        paths.push(format!("/openapi/v3{group}"));
        if let Some((of_versions, _)) = group.strip_prefix("/apis").and_then(|_| group.rsplit_once('/')) {
            paths.push(of_versions.to_owned());
        }
        paths.push(group);
    }
    paths
}

fn resource_paths(group: &str, resource: &Value) -> Vec<String> {
    let name = resource["name"].as_str().expect("a name");
    let namespaced = resource["namespaced"] == json!(true);
    let (plural, subresource) = name.split_once('/').unwrap_or((name, ""));
    let (base, one) = match namespaced {
        true => (format!("{group}/namespaces/{{namespace}}/{plural}"), "{name}".to_owned()),
        false => (format!("{group}/{plural}"), format!("{{{plural}}}")),
    };
    if !subresource.is_empty() {
        let path = format!("{base}/{one}/{subresource}");
        let proxied = (subresource == "proxy").then(|| format!("{path}/{{*path}}"));
        return proxied.into_iter().chain([path]).collect();
    }
    let mut paths = vec![format!("{base}/{one}"), base];
    if namespaced {
        // Of all namespaces; and the old way to watch.
        paths.push(format!("{group}/{plural}"));
        paths.push(format!("{group}/watch/namespaces/{{namespace}}/{plural}"));
    }
    paths
}

/// `tests/golden/open-routes.txt`: what strangers may have.
pub struct Open(Vec<(&'static str, &'static str)>);

impl Open {
    pub fn read() -> Self {
        let lines = include_str!("../../golden/open-routes.txt").lines();
        let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
        let read = |line: &'static str| {
            let parts = line.split_once("  ").and_then(|(route, why)| Some((route.split_once(' ')?, why)));
            let (route, why) = parts.unwrap_or_else(|| panic!("METHOD PATH, two spaces, a reason: {line:?}"));
            assert!(why.len() > 10, "no reason: {line:?}");
            route
        };
        Self(lines.map(read).collect())
    }

    pub fn has(&self, method: &Method, template: &str) -> bool {
        let is = |allowed: &str| {
            allowed == "ANY" || allowed == method.as_str() || (allowed == "GET" && *method == Method::HEAD)
        };
        self.0.iter().any(|(allowed, path)| *path == template && is(allowed))
    }

    /// Lines of what is not served.
    pub fn stale(&self, served: &Served) -> Vec<String> {
        let gone = self.0.iter().filter(|(_, path)| !served.templates.contains(*path));
        gone.map(|(method, path)| format!("{method} {path}")).collect()
    }
}

/// `tests/golden/untried-routes.txt`: what is served and not tried. It is to stay empty.
pub fn golden_untried() -> Vec<&'static str> {
    include_str!("../../golden/untried-routes.txt").lines().collect()
}
