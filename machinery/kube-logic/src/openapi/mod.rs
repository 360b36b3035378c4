//! OpenAPI documents of the served resources: what `kubectl explain`, `kubectl apply` and client
//! generators read.

mod definitions;
mod operations;
mod paths;
mod protobuf;
#[cfg(test)]
mod tests;

use gantry_kube_types::ResourceInfo;
use serde_json::{Map, Value, json};

pub use protobuf::v2_protobuf;

/// The Kubernetes version whose types are described.
const API_RELEASE: &str = "v1.37.0";

/// One served resource.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub info: &'a ResourceInfo,
    /// `openAPIV3Schema` of a custom resource; `None` for built-in kinds.
    pub custom: Option<&'a Value>,
}

/// Which OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// The OpenAPI v3 document of one group and version. Deterministic: the same resources in any order give
/// the same document.
pub fn v3(group: &str, version: &str, resources: &[Entry<'_>]) -> Value {
    let mine = |e: &&Entry<'_>| e.info.group == group && e.info.version == version;
    let entries = sorted(resources.iter().filter(mine));
    let (paths, roots) = paths::paths(&entries, Dialect::V3);
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {
            "schemas": definitions::schemas(&entries, &roots, Dialect::V3),
            "securitySchemes": {"BearerToken": token()},
        },
    })
}

/// The OpenAPI v2 document of all resources.
pub fn v2(resources: &[Entry<'_>]) -> Value {
    let entries = sorted(resources.iter());
    let (paths, roots) = paths::paths(&entries, Dialect::V2);
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": definitions::schemas(&entries, &roots, Dialect::V2),
        "securityDefinitions": {"BearerToken": token()},
        "security": [{"BearerToken": []}],
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": API_RELEASE})
}

fn token() -> Value {
    let mut token = Map::new();
    for (name, value) in [
        ("type", "apiKey"),
        ("description", "Bearer Token authentication"),
        ("name", "authorization"),
        ("in", "header"),
    ] {
        token.insert(name.to_owned(), value.into());
    }
    Value::Object(token)
}

fn sorted<'r, 'e: 'r>(entries: impl Iterator<Item = &'r Entry<'e>>) -> Vec<Entry<'e>> {
    let mut entries: Vec<Entry<'e>> = entries.copied().collect();
    entries.sort_by(|a, b| {
        let key = |e: &Entry<'e>| (e.info.group.as_ref(), e.info.version.as_ref(), e.info.resource.as_ref());
        key(a).cmp(&key(b))
    });
    entries
}
