//! The paths of resources and of their subresources.

use std::collections::{BTreeMap, BTreeSet};

use gantry_kube_types::{GroupVersionKind, ResourceInfo};
use serde_json::{Map, Value, json};

use super::definitions::{META, group_version_kind, list_name, name_of};
use super::operations::{Action, Operation, PRETTY, parameter};
use super::{Dialect, Entry};
use crate::schema::catalog;

/// Subresources that hold another kind: `(subresource, apiVersion, kind, may be read and replaced)`.
const FOREIGN: &[(&str, &str, &str, bool)] = &[
    ("scale", "autoscaling/v1", "Scale", true),
    ("eviction", "policy/v1", "Eviction", false),
    ("binding", "v1", "Binding", false),
    ("token", "authentication.k8s.io/v1", "TokenRequest", false),
];
/// Subresources that are parts of the object.
const PARTS: &[&str] = &["status", "approval", "ephemeralcontainers", "resize"];

struct Writer<'w> {
    info: &'w ResourceInfo,
    custom: bool,
    definition: String,
    tag: String,
    dialect: Dialect,
    paths: &'w mut BTreeMap<String, Value>,
    roots: &'w mut BTreeSet<String>,
}

/// All paths, and the definitions they name.
pub(super) fn paths(entries: &[Entry<'_>], dialect: Dialect) -> (Map<String, Value>, BTreeSet<String>) {
    let mut paths = BTreeMap::new();
    let mut roots: BTreeSet<String> =
        ["Status", "DeleteOptions", "Patch", "WatchEvent", "ListMeta", "ObjectMeta"]
            .iter()
            .map(|name| format!("{META}{name}"))
            .collect();
    for entry in entries {
        let Some(definition) = name_of(entry) else { continue };
        let tag = tag(entry.info);
        let mut writer = Writer {
            info: entry.info,
            custom: entry.custom.is_some(),
            definition,
            tag,
            dialect,
            paths: &mut paths,
            roots: &mut roots,
        };
        writer.resource();
    }
    (paths.into_iter().collect(), roots)
}

/// `apps_v1`, `core_v1`, `rbacAuthorization_v1`.
fn tag(info: &ResourceInfo) -> String {
    let group = group_words(info);
    let mut chars = group.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    format!("{}{}_{}", first.into_iter().collect::<String>(), chars.as_str(), info.version)
}

/// `Apps`, `Core`, `RbacAuthorization`, `StableExampleCom`.
fn group_words(info: &ResourceInfo) -> String {
    if info.group.is_empty() {
        return "Core".to_owned();
    }
    let group = info.group.strip_suffix(".k8s.io").unwrap_or(&info.group);
    group.split(['.', '-']).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

impl Writer<'_> {
    fn resource(&mut self) {
        let info = self.info;
        let version = if info.group.is_empty() {
            format!("/api/{}", info.version)
        } else {
            format!("/apis/{}/{}", info.group, info.version)
        };
        let base = match info.is_namespaced() {
            true => format!("{version}/namespaces/{{namespace}}/{}", info.resource),
            false => format!("{version}/{}", info.resource),
        };
        // Reviews and bindings are questions and orders: nothing is kept of them.
        let create_only = matches!(info.group.as_ref(), "authentication.k8s.io" | "authorization.k8s.io")
            || info.resource == "bindings";
        if create_only {
            return self.path(&base, &[Action::Post], None, "");
        }
        self.path(&base, &[Action::List, Action::Post, Action::DeleteCollection], None, "");
        let named = format!("{base}/{{name}}");
        self.path(&named, &[Action::Get, Action::Put, Action::Patch, Action::Delete], None, "");
        if info.is_namespaced() {
            let all = format!("{version}/{}", info.resource);
            self.path(&all, &[Action::List], None, "ForAllNamespaces");
        }
        for subresource in &info.subresources {
            self.subresource(&named, subresource);
        }
    }

    fn subresource(&mut self, named: &str, subresource: &str) {
        let path = format!("{named}/{subresource}");
        let changes = &[Action::Get, Action::Put, Action::Patch];
        if PARTS.contains(&subresource) {
            return self.path(&path, changes, None, &capital(subresource));
        }
        let Some((_, api_version, kind, kept)) = FOREIGN.iter().find(|f| f.0 == subresource) else { return };
        let kind = GroupVersionKind::from_api_version(api_version, kind);
        if catalog().definition_name(&kind).is_some() {
            let actions: &[Action] = if *kept { changes } else { &[Action::Post] };
            self.path(&path, actions, Some(&kind), &capital(subresource));
        }
    }

    /// `foreign`: what the path holds where that is not the resource's own kind.
    fn path(&mut self, path: &str, actions: &[Action], foreign: Option<&GroupVersionKind>, suffix: &str) {
        let mut item = Map::new();
        for action in actions {
            let operation = self.operation(*action, foreign, suffix, path.contains("{namespace}"));
            item.insert(action.method().to_owned(), operation);
        }
        let mut parameters = Vec::new();
        if path.contains("{name}") {
            let words = format!("name of the {}", self.info.kind);
            let mut name = parameter(&("name", "string", ""), "path", self.dialect);
            name["description"] = words.into();
            parameters.push(name);
        }
        if path.contains("{namespace}") {
            let words = "object name and auth scope, such as for teams and projects";
            parameters.push(parameter(&("namespace", "string", words), "path", self.dialect));
        }
        parameters.push(parameter(&PRETTY, "query", self.dialect));
        item.insert("parameters".to_owned(), parameters.into());
        self.paths.insert(path.to_owned(), Value::Object(item));
    }

    fn operation(
        &mut self,
        action: Action,
        foreign: Option<&GroupVersionKind>,
        suffix: &str,
        namespaced: bool,
    ) -> Value {
        let info = self.info;
        let own = self.definition.clone();
        let (body, kind) = match foreign {
            None => (own.clone(), group_version_kind(info, &info.kind)),
            Some(kind) => (
                catalog().definition_name(kind).unwrap_or_default().to_owned(),
                json!({"group": kind.group, "kind": kind.kind, "version": kind.version}),
            ),
        };
        let status = format!("{META}Status");
        let response = match action {
            Action::List => list_name(&own, info),
            Action::Delete | Action::DeleteCollection => status,
            _ => body.clone(),
        };
        self.roots.insert(body.clone());
        let collection = if action == Action::DeleteCollection { "Collection" } else { "" };
        let scope = if namespaced { "Namespaced" } else { "" };
        let id = format!(
            "{}{}{}{collection}{scope}{}{suffix}",
            action.verb(),
            group_words(info),
            capital(&info.version),
            info.kind
        );
        let of = if suffix.is_empty() || suffix == "ForAllNamespaces" {
            String::new()
        } else {
            format!("{} of ", suffix.to_ascii_lowercase())
        };
        let description = match action {
            Action::List => format!("list or watch objects of kind {}", info.kind),
            Action::DeleteCollection => format!("delete collection of {}", info.kind),
            Action::Get => format!("read {of}the specified {}", info.kind),
            Action::Put => format!("replace {of}the specified {}", info.kind),
            Action::Patch => format!("partially update {of}the specified {}", info.kind),
            Action::Post if foreign.is_some() => format!("create {of}a {}", info.kind),
            Action::Post | Action::Delete => format!("{} a {}", action.verb(), info.kind),
        };
        let operation = Operation {
            action,
            id,
            tag: &self.tag,
            description,
            body: &body,
            response: &response,
            kind,
            custom: self.custom,
        };
        operation.encode(self.dialect)
    }
}
