//! A CustomResourceDefinition as kinds.

use std::borrow::Cow;
use std::sync::Arc;

use gantry_kube_logic::meta;
use gantry_kube_logic::schema::Schema;
use gantry_kube_types::{ResourceInfo, Scope};
use serde_json::{Value, json};

use crate::kind::{ALL_VERBS, Kind, NameRule, StorageKey};

use super::strategy::Custom;

/// What is left while a definition ends: its objects may still be let go.
const ENDING_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// One kind for each served version; a version whose schema cannot be read is not served.
pub(super) fn kinds(definition: &Value) -> Vec<Arc<Kind>> {
    let versions = definition["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().find(|v| v["storage"] == true).and_then(|v| v["name"].as_str());
    let Some(storage) = storage else { return Vec::new() };
    let served = versions.iter().filter(|v| v["served"] == true);
    served.filter_map(|version| kind(definition, version, storage)).map(Arc::new).collect()
}

fn kind(definition: &Value, version: &Value, storage: &str) -> Option<Kind> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| Cow::Owned(value.as_str().unwrap_or("").to_owned());
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    let group: Cow<'static, str> = text(&spec["group"]);
    let mut subresources = Vec::new();
    for name in ["status", "scale"] {
        if version["subresources"].get(name).is_some_and(|s| !s.is_null()) {
            subresources.push(Cow::Borrowed(name));
        }
    }
    let kind_name: Cow<'static, str> = text(&names["kind"]);
    let or = |value: &Value, other: String| match value.as_str().unwrap_or("") {
        "" => Cow::Owned(other),
        text => Cow::Owned(text.to_owned()),
    };
    let info = ResourceInfo {
        version: text(&version["name"]),
        resource: text(&names["plural"]),
        singular: or(&names["singular"], kind_name.to_lowercase()),
        list_kind: or(&names["listKind"], format!("{kind_name}List")),
        kind: kind_name,
        scope: if spec["scope"] == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        short_names: list(&names["shortNames"]),
        categories: list(&names["categories"]),
        subresources,
        group,
    };
    let mut open_api = version["schema"]["openAPIV3Schema"].clone();
    if spec["preserveUnknownFields"] == true {
        open_api["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    let schema = Schema::from_openapi(&open_api)
        .inspect_err(|error| tracing::error!(name = %definition["metadata"]["name"], %error, "bad schema"))
        .ok()?;
    let schema = Arc::new(schema);
    let storage = StorageKey {
        group: info.group.to_string(),
        resource: info.resource.to_string(),
        api_version: format!("{}/{storage}", info.group),
    };
    Some(Kind {
        strategy: Arc::new(Custom::new(version, schema.clone())),
        info,
        storage,
        schema: Some(schema),
        open_api: Some(Arc::new(open_api)),
        name_rule: NameRule::Subdomain,
        verbs: if meta::is_being_deleted(definition) { ENDING_VERBS } else { ALL_VERBS },
        actions: Default::default(),
        check: None,
    })
}
