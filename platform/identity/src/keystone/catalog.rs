//! Regions, services and endpoints, and the catalogue that tokens carry.

use gantry_identity_api::KeystoneRecord;
use serde_json::{Value, json};

use super::call::{object, text};
use super::endpoint_filter;
use super::errors::ApiError;
use super::records::{
    Naming, Readers, Records, Scope, all, as_is, brings_nothing, duplicate, find, kept_by_nothing,
    new_object, no_defaults, not_found, object_name, takes_nothing, unchecked,
};
use super::routes::Routes;
use super::schema::{Form, Json, Shape, may, must, null};
use crate::directory::State;

const REGION: Shape = Shape::open(
    "region",
    &[may("id", Form::Text), null("description", Form::Text), null("parent_region_id", Form::Text)],
);

/// `/regions`
pub(crate) static REGIONS: Records = Records {
    plural: "regions",
    word: "region",
    action: "region",
    path: "/regions",
    naming: Naming::ClientMay,
    new: REGION,
    change: REGION,
    defaults: || json!({ "description": "", "parent_region_id": null }),
    filters: &["parent_region_id"],
    readers: Readers::Everybody,
    check: check_region,
    keeps: keeps_region,
    brings: brings_nothing,
    takes: regions_below,
    not_found,
    conflict: duplicate,
    shown: as_is,
};

fn check_region(
    state: &State,
    scope: &Scope<'_>,
    body: &mut Json,
    _old: Option<&KeystoneRecord>,
) -> Result<(), ApiError> {
    if body.get("description") == Some(&Value::Null) {
        body.insert("description".to_owned(), json!(""));
    }
    let Some(parent) = text(body, "parent_region_id") else { return Ok(()) };
    if find(state, "regions", None, parent).is_none() {
        return Err(ApiError::not_found("region", parent));
    }
    let mut above = Some(parent.to_owned());
    let mut steps = 0;
    while let Some(id) = above {
        steps += 1;
        if id == scope.id || steps > state.records.len() {
            return Err(ApiError::invalid(
                "Region cannot be its own parent or below itself: circular reference.",
            ));
        }
        above = find(state, "regions", None, &id)
            .and_then(|r| text(&r.spec.attributes, "parent_region_id").map(str::to_owned));
    }
    Ok(())
}

/// The regions below a region.
fn below(state: &State, id: &str) -> Vec<String> {
    let mut found = vec![id.to_owned()];
    let mut at = 0;
    while at < found.len() {
        let above = found[at].clone();
        let children = all(state, "regions", None)
            .filter(|r| text(&r.spec.attributes, "parent_region_id") == Some(above.as_str()));
        let children: Vec<String> =
            children.map(|r| r.spec.id.clone()).filter(|id| !found.contains(id)).collect();
        found.extend(children);
        at += 1;
    }
    found
}

fn regions_below(state: &State, region: &KeystoneRecord) -> Vec<String> {
    let below = below(state, &region.spec.id).into_iter().skip(1);
    below.map(|id| object_name("regions", None, &id)).collect()
}

fn keeps_region(state: &State, region: &KeystoneRecord) -> Option<ApiError> {
    let id = &region.spec.id;
    let regions = below(state, id);
    let mut endpoints = all(state, "endpoints", None).filter_map(|e| text(&e.spec.attributes, "region_id"));
    endpoints.any(|at| regions.iter().any(|r| r == at)).then(|| {
        ApiError::refused(format!(
            "Unable to delete region {id} because it or its child regions have associated endpoints."
        ))
    })
}

const SERVICE: &[super::schema::Field] = &[
    must("type", Form::Name(255)),
    may("enabled", Form::Boolean),
    may("name", Form::Text),
    null("description", Form::Text),
];

/// `/services`
pub(crate) static SERVICES: Records = Records {
    plural: "services",
    word: "service",
    action: "service",
    path: "/services",
    naming: Naming::Ours,
    new: Shape::open("service", SERVICE),
    change: Shape::open("service", SERVICE),
    defaults: || json!({ "enabled": true, "name": "" }),
    filters: &["type", "name"],
    readers: Readers::Administrators,
    check: unchecked,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: endpoints_of_service,
    not_found,
    conflict: duplicate,
    shown: as_is,
};

const ENDPOINT: &[super::schema::Field] = &[
    must("interface", Form::OneOf(&["admin", "internal", "public"])),
    must("service_id", Form::Text),
    must("url", Form::Name(255)),
    may("enabled", Form::Boolean),
    null("region", Form::Text),
    null("region_id", Form::Text),
];

/// `/endpoints`
pub(crate) static ENDPOINTS: Records = Records {
    plural: "endpoints",
    word: "endpoint",
    action: "endpoint",
    path: "/endpoints",
    naming: Naming::Ours,
    new: Shape::open("endpoint", ENDPOINT),
    change: Shape::open("endpoint", ENDPOINT),
    defaults: || json!({ "enabled": true }),
    filters: &["interface", "service_id", "region_id"],
    readers: Readers::Administrators,
    check: check_endpoint,
    keeps: kept_by_nothing,
    brings: region_of_endpoint,
    takes: endpoint_filter::of_endpoint,
    not_found,
    conflict: duplicate,
    shown: as_is,
};

fn check_endpoint(
    state: &State,
    _scope: &Scope<'_>,
    body: &mut Json,
    old: Option<&KeystoneRecord>,
) -> Result<(), ApiError> {
    if let Some(id) = text(body, "service_id")
        && find(state, "services", None, id).is_none()
    {
        return Err(ApiError::expecting("endpoint service_id", "service table"));
    }
    // `region` is the older word; a region it names is made by the caller of this check where it is missing.
    if let Some(region) = body.get("region").cloned().filter(|r| !r.is_null()) {
        body.entry("region_id").or_insert(region);
    } else if let Some(id) = text(body, "region_id")
        && find(state, "regions", None, id).is_none()
    {
        return Err(ApiError::expecting("endpoint region_id", "region table"));
    }
    let region = body.get("region_id").cloned();
    match (region, old) {
        (Some(id), _) => drop(body.insert("region".to_owned(), id)),
        (None, None) => {
            body.extend([("region".to_owned(), Value::Null), ("region_id".to_owned(), Value::Null)])
        }
        (None, Some(_)) => {}
    }
    match text(body, "url") {
        Some(url) if fill(url, "p", "u").is_none() => {
            let verb = if old.is_some() { "update" } else { "create" };
            Err(ApiError::invalid(format!("Cannot {verb} an endpoint with an invalid URL: {url}.")))
        }
        _ => Ok(()),
    }
}

/// The region an endpoint names by the older word and that is not there yet.
fn region_of_endpoint(state: &State, body: &Json) -> Vec<KeystoneRecord> {
    let missing = text(body, "region").filter(|id| find(state, "regions", None, id).is_none());
    missing.map(|id| new_object("regions", None, id, object((REGIONS.defaults)()))).into_iter().collect()
}

/// `/policies`
pub(crate) static POLICIES: Records = Records {
    plural: "policies",
    word: "policy",
    action: "policy",
    path: "/policies",
    naming: Naming::Ours,
    new: Shape::open("policy", &[must("blob", Form::Text), must("type", Form::Name(255))]),
    change: Shape::open("policy", &[may("blob", Form::Text), may("type", Form::Name(255))]),
    defaults: no_defaults,
    filters: &["type"],
    readers: Readers::Administrators,
    check: unchecked,
    keeps: kept_by_nothing,
    brings: brings_nothing,
    takes: takes_nothing,
    not_found,
    conflict: duplicate,
    shown: as_is,
};

/// The routes.
pub(crate) fn routes() -> Routes {
    REGIONS.routes().merge(SERVICES.routes()).merge(ENDPOINTS.routes()).merge(POLICIES.routes())
}

/// Replaces `$(project_id)s` and its kin; `None`: the URL asks for something that does not exist.
pub(crate) fn fill(url: &str, project: &str, user: &str) -> Option<String> {
    let mut out = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find(['$', '%']).filter(|at| rest[at + 1..].starts_with('(')) {
        out.push_str(&rest[..at]);
        let (name, after) = rest[at + 2..].split_once(')')?;
        rest = after.strip_prefix('s')?;
        out.push_str(match name {
            "project_id" | "tenant_id" => project,
            "user_id" => user,
            _ => return None,
        });
    }
    out.push_str(rest);
    Some(out)
}

/// The services with their endpoints, as a token of the project (or of none) shows them.
pub(crate) fn catalog(state: &State, project: Option<&str>, user: &str) -> Value {
    let limited = project.and_then(|project| endpoint_filter::endpoints_of(state, project));
    let enabled = |r: &KeystoneRecord| r.spec.attributes.get("enabled") != Some(&json!(false));
    let mut services = Vec::new();
    for service in all(state, "services", None).filter(|s| enabled(s)) {
        let mut endpoints = Vec::new();
        for endpoint in all(state, "endpoints", None).filter(|e| enabled(e)) {
            let attributes = &endpoint.spec.attributes;
            let of = text(attributes, "service_id") == Some(&service.spec.id);
            let shown = limited.as_ref().is_none_or(|ids| ids.contains(&endpoint.spec.id));
            let url = text(attributes, "url").unwrap_or_default();
            // An endpoint of projects is nothing for a token without one.
            let needs_project =
                project.is_none() && (url.contains("(project_id)") || url.contains("(tenant_id)"));
            let Some(url) = fill(url, project.unwrap_or_default(), user) else { continue };
            if !of || !shown || needs_project {
                continue;
            }
            endpoints.push(json!({
                "id": endpoint.spec.id,
                "interface": attributes.get("interface"),
                "region": attributes.get("region_id"),
                "region_id": attributes.get("region_id"),
                "url": url,
            }));
        }
        if endpoints.is_empty() && limited.is_some() {
            continue;
        }
        let attributes = &service.spec.attributes;
        services.push(json!({
            "id": service.spec.id,
            "type": attributes.get("type"),
            "name": attributes.get("name"),
            "endpoints": endpoints,
        }));
    }
    Value::Array(services)
}

/// The endpoints of a service that goes, each after the projects that are limited to it.
fn endpoints_of_service(state: &State, service: &KeystoneRecord) -> Vec<String> {
    let endpoints = all(state, "endpoints", None);
    let of = endpoints.filter(|e| text(&e.spec.attributes, "service_id") == Some(&service.spec.id));
    let with = |endpoint: &std::sync::Arc<KeystoneRecord>| {
        let mut taken = endpoint_filter::of_endpoint(state, endpoint);
        taken.push(object_name("endpoints", None, &endpoint.spec.id));
        taken
    };
    of.flat_map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{put, two_organisations};

    #[test]
    fn urls_are_filled_in() {
        for (url, want) in [
            ("http://x/v1", Some("http://x/v1")),
            ("http://x/$(project_id)s/y", Some("http://x/P/y")),
            ("http://x/%(tenant_id)s/$(user_id)s", Some("http://x/P/U")),
            ("http://x/$(bogus)s", None),
            ("http://x/$(project_id)", None),
            ("http://x/$(project_id", None),
            ("http://x/100%", Some("http://x/100%")),
        ] {
            assert_eq!(fill(url, "P", "U").as_deref(), want, "{url}");
        }
    }

    #[test]
    fn the_catalogue_has_what_is_enabled_and_reachable() {
        let mut state = two_organisations();
        let record = |collection: &str, id: &str, attributes: Value| {
            new_object(collection, None, id, object(attributes))
        };
        put(
            &mut state,
            record("services", "s1", json!({"type": "compute", "name": "nova", "enabled": true})),
        );
        put(&mut state, record("services", "s2", json!({"type": "image", "name": "", "enabled": false})));
        for (id, service, url, enabled) in [
            ("e1", "s1", "http://c/$(project_id)s", true),
            ("e2", "s1", "http://c/all", true),
            ("e3", "s1", "http://c/off", false),
            ("e4", "s2", "http://i", true),
        ] {
            let attributes = json!({"service_id": service, "interface": "public", "url": url, "enabled": enabled,
                                    "region_id": "R"});
            put(&mut state, record("endpoints", id, attributes));
        }
        let urls = |project: Option<&str>| {
            let catalog = catalog(&state, project, "alice");
            let services = catalog.as_array().cloned().unwrap_or_default();
            let endpoints =
                services.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
            let mut urls: Vec<String> =
                endpoints.map(|e| e["url"].as_str().unwrap_or_default().to_owned()).collect();
            urls.sort();
            urls
        };
        assert_eq!(urls(Some("web")), ["http://c/all", "http://c/web"]);
        assert_eq!(urls(None), ["http://c/all"]);
    }

    #[test]
    fn regions_are_a_tree() {
        let mut state = two_organisations();
        let region = |id: &str, parent: Option<&str>| {
            let attributes = object(json!({ "parent_region_id": parent }));
            new_object("regions", None, id, attributes)
        };
        put(&mut state, region("a", None));
        put(&mut state, region("b", Some("a")));
        let check = |id: &str, parent: &str| {
            let mut body = object(json!({ "parent_region_id": parent }));
            check_region(&state, &Scope { parent: None, id }, &mut body, None).is_ok()
        };
        assert!(check("c", "b") && !check("c", "nope") && !check("a", "b") && !check("a", "a"));
    }
}
