//! `/api`, `/apis` and the resource lists below them: legacy discovery and the aggregated form.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use gantry_kube_logic::negotiate;
use gantry_kube_types::{ResourceInfo, StatusError};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::encode;
use crate::kind::Kind;
use crate::respond;
use crate::server::ApiServer;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A resource of one version with its verbs.
struct Entry {
    info: ResourceInfo,
    verbs: Vec<&'static str>,
    kind: Option<Arc<Kind>>,
}

pub(crate) fn serve(
    server: &ApiServer,
    parts: &[&str],
    headers: &HeaderMap,
) -> Result<Response<Body>, StatusError> {
    let entries = entries(server);
    let aggregated = wants_aggregated(headers);
    let answer = match parts {
        ["api"] if aggregated => aggregate(&entries, |g| g.is_empty()),
        ["apis"] if aggregated => aggregate(&entries, |g| !g.is_empty()),
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "" }],
        }),
        ["apis"] => {
            let groups: Vec<Value> =
                groups(&entries).iter().filter(|g| !g.is_empty()).map(|g| group(&entries, g)).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", name] if groups(&entries).contains(*name) => {
            let mut answer = group(&entries, name);
            answer["kind"] = "APIGroup".into();
            answer["apiVersion"] = "v1".into();
            answer
        }
        ["api", version] => resources(&entries, "", version)?,
        ["apis", group, version] => resources(&entries, group, version)?,
        _ => return Err(StatusError::no_such_resource()),
    };
    let aggregated = aggregated && parts.len() == 1;
    tagged(&answer, aggregated, headers)
}

/// With an `ETag`, so that an unchanged document is not sent again.
fn tagged(answer: &Value, aggregated: bool, headers: &HeaderMap) -> Result<Response<Body>, StatusError> {
    let body = encode::to_bytes(answer);
    let tag = format!("\"{}\"", hex::encode_upper(&Sha256::digest(&body)[..]));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if aggregated {
        let mut response = respond::json(StatusCode::OK, body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
        response
    } else {
        respond::success(StatusCode::OK, body, negotiate::Output::of(headers, false)?)?
    };
    let tag = HeaderValue::from_str(&tag).map_err(StatusError::internal)?;
    let all = response.headers_mut();
    all.insert(header::ETAG, tag);
    all.insert(header::VARY, HeaderValue::from_static("Accept"));
    all.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}

/// The first clause we serve decides; upstream's clients name `v2` first.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let clauses = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    for clause in clauses.flat_map(|v| v.split(',')) {
        let compact: String = clause.chars().filter(|c| !c.is_whitespace()).collect();
        let has = |part: &str| compact.split(';').any(|p| p == part);
        if has("as=APIGroupDiscoveryList") {
            if has("application/json") && has("g=apidiscovery.k8s.io") && has("v=v2") {
                return true;
            }
            continue;
        }
        if has("application/json") || has("*/*") {
            return false;
        }
    }
    false
}

fn entries(server: &ApiServer) -> Vec<Entry> {
    let registry = server.registry.load();
    let kinds = registry.all().map(|kind| Entry {
        info: kind.info.clone(),
        verbs: kind.verbs.to_vec(),
        kind: Some(kind.clone()),
    });
    let extensions = server.extensions.iter().flat_map(|(extension, _)| extension.resources());
    let others = extensions.chain(server.beside.iter().cloned());
    kinds.chain(others.map(|(info, verbs)| Entry { info, verbs, kind: None })).collect()
}

fn groups(entries: &[Entry]) -> BTreeSet<&str> {
    entries.iter().map(|e| e.info.group.as_ref()).collect()
}

/// Newest and stablest first, as clients prefer them: `v2`, `v1`, `v1beta1`, `v1alpha1`.
fn versions<'a>(entries: &'a [Entry], group: &str) -> Vec<&'a str> {
    let set: BTreeSet<&str> =
        entries.iter().filter(|e| e.info.group == group).map(|e| e.info.version.as_ref()).collect();
    let mut all: Vec<&str> = set.into_iter().collect();
    all.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.cmp(b)));
    all
}

/// (is a Kubernetes version, stability, major, minor), greater is preferred.
pub(crate) fn rank(version: &str) -> (bool, u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (false, 0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return (false, 0, 0, 0) };
    let (stability, minor) = match &rest[digits..] {
        "" => return (true, 2, major, 0),
        tail if tail.starts_with("beta") => (1, &tail[4..]),
        tail if tail.starts_with("alpha") => (0, &tail[5..]),
        _ => return (false, 0, 0, 0),
    };
    minor.parse().map_or((false, 0, 0, 0), |minor| (true, stability, major, minor))
}

fn group(entries: &[Entry], name: &str) -> Value {
    let versions: Vec<Value> = versions(entries, name)
        .into_iter()
        .map(|v| json!({ "groupVersion": format!("{name}/{v}"), "version": v }))
        .collect();
    json!({ "name": name, "preferredVersion": versions.first(), "versions": versions })
}

fn in_version<'a>(entries: &'a [Entry], group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Entry> {
    entries.iter().filter(move |e| e.info.group == group && e.info.version == version)
}

fn resources(entries: &[Entry], group: &str, version: &str) -> Result<Value, StatusError> {
    let mut list = Vec::new();
    for entry in in_version(entries, group, version) {
        let info = &entry.info;
        let mut resource = json!({
            "name": info.resource, "singularName": info.singular, "namespaced": info.is_namespaced(),
            "kind": info.kind, "verbs": entry.verbs,
        });
        if !info.short_names.is_empty() {
            resource["shortNames"] = json!(info.short_names);
        }
        if !info.categories.is_empty() {
            resource["categories"] = json!(info.categories);
        }
        if entry.verbs.len() > 1 && entry.kind.is_some() {
            resource["storageVersionHash"] = storage_hash(info).into();
        }
        list.push(resource);
        for name in &info.subresources {
            let mut subresource = json!({
                "name": format!("{}/{name}", info.resource), "singularName": "",
                "namespaced": info.is_namespaced(),
            });
            for (field, value) in subresource_type(info, name).as_object().into_iter().flatten() {
                subresource[field] = value.clone();
            }
            subresource["verbs"] = json!(subresource_verbs(entry, name));
            list.push(subresource);
        }
    }
    if list.is_empty() {
        return Err(StatusError::no_such_resource());
    }
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list }))
}

fn storage_hash(info: &ResourceInfo) -> String {
    use base64::Engine;
    let digest = Sha256::digest(format!("{}/{}", info.group, info.resource));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// Group, version and kind of what a subresource takes, where it is not the resource's own.
fn subresource_type(info: &ResourceInfo, name: &str) -> Value {
    match (info.resource.as_ref(), name) {
        (_, "scale") => json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" }),
        ("pods", "binding") => json!({ "kind": "Binding" }),
        ("pods", "eviction") => json!({ "group": "policy", "version": "v1", "kind": "Eviction" }),
        ("serviceaccounts", "token") => {
            json!({ "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest" })
        }
        ("pods", "exec") => json!({ "kind": "PodExecOptions" }),
        ("pods", "attach") => json!({ "kind": "PodAttachOptions" }),
        ("pods", "portforward") => json!({ "kind": "PodPortForwardOptions" }),
        ("pods", "proxy") => json!({ "kind": "PodProxyOptions" }),
        ("nodes", "proxy") => json!({ "kind": "NodeProxyOptions" }),
        ("services", "proxy") => json!({ "kind": "ServiceProxyOptions" }),
        _ => json!({ "kind": info.kind }),
    }
}

fn subresource_verbs(entry: &Entry, name: &str) -> &'static [&'static str] {
    match name {
        "log" => &["get"],
        "exec" | "attach" | "portforward" => &["create", "get"],
        "proxy" => &["create", "delete", "get", "patch", "update"],
        "finalize" => &["update"],
        "binding" | "eviction" | "token" => &["create"],
        _ if entry.kind.as_ref().is_some_and(|k| k.actions.contains_key(name)) => &["create"],
        _ => &["get", "patch", "update"],
    }
}

fn aggregate(entries: &[Entry], wanted: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> = groups(entries)
        .into_iter()
        .filter(|g| wanted(g))
        .map(|group| {
            let versions: Vec<Value> = versions(entries, group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        in_version(entries, group, version).map(aggregated_resource).collect();
                    json!({ "version": version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let metadata = if group.is_empty() {
                json!({ "creationTimestamp": null })
            } else {
                json!({ "name": group, "creationTimestamp": null })
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(entry: &Entry) -> Value {
    let info = &entry.info;
    let own = json!({ "group": info.group, "version": info.version, "kind": info.kind });
    let mut resource = json!({
        "resource": info.resource, "responseKind": own,
        "scope": if info.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": info.singular, "verbs": entry.verbs,
    });
    if !info.short_names.is_empty() {
        resource["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        resource["categories"] = json!(info.categories);
    }
    if !info.subresources.is_empty() {
        let all: Vec<Value> = info
            .subresources
            .iter()
            .map(|name| {
                let kind = subresource_type(info, name);
                let or = |field: &str, own: &str| {
                    kind.get(field).and_then(Value::as_str).unwrap_or(own).to_owned()
                };
                json!({
                    "subresource": name, "verbs": subresource_verbs(entry, name),
                    "responseKind": {
                        "group": or("group", &info.group), "version": or("version", &info.version),
                        "kind": or("kind", &info.kind),
                    },
                })
            })
            .collect();
        resource["subresources"] = all.into();
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_upstream_does() {
        let mut versions = ["foo1", "v1alpha1", "v10", "v1", "v1beta2", "v2", "v11beta2", "v3alpha1"];
        versions.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.cmp(b)));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v1beta2", "v3alpha1", "v1alpha1", "foo1"]);
    }
}
