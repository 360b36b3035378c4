//! Lists: repositories, tags, referrers; in pages.

use axum::body::Body;
use axum::response::Response;
use gantry_oci::{Digest, RepositoryName};
use http::Uri;
use http::header::{CONTENT_TYPE, LINK};
use serde_json::json;

use crate::Registry;
use crate::access::Caller;
use crate::blobs::build;
use crate::errors::{ApiError, ErrorCode};
use crate::tokens::parse_form;

struct Page {
    count: usize,
    last: Option<String>,
    fields: Vec<(String, String)>,
}

impl Page {
    fn of(registry: &Registry, uri: &Uri) -> Result<Self, ApiError> {
        let fields = parse_form(uri.query().unwrap_or_default().as_bytes());
        let field = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let max = registry.config().limits.page_max_items;
        let count = match field("n") {
            None => max,
            Some(text) => {
                text.parse::<usize>().map_err(|_| ApiError::new(ErrorCode::PaginationNumberInvalid))?.min(max)
            }
        };
        Ok(Self { count, last: field("last").filter(|last| !last.is_empty()), fields })
    }

    fn field(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn respond(&self, path: &str, body: &serde_json::Value, next: Option<&str>) -> http::response::Builder {
        let mut response = Response::builder();
        // An empty page (n=0) has no last item to go on from.
        if let Some(last) = next {
            let mut query = format!("n={}&last={}", self.count, last.replace(':', "%3A").replace('/', "%2F"));
            if let Some(kind) = self.field("artifactType") {
                query.push_str("&artifactType=");
                query.push_str(&escape(kind));
            }
            response = response.header(LINK, format!("<{path}?{query}>; rel=\"next\""));
        }
        let kind = if body["manifests"].is_array() {
            "application/vnd.oci.image.index.v1+json"
        } else {
            "application/json"
        };
        response.header(CONTENT_TYPE, kind)
    }
}

fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// `GET /v2/_catalog`: every repository, or those the caller may pull. A page may be shorter than asked for, also
/// where another follows.
pub(crate) fn catalog(
    registry: &Registry,
    caller: &Caller<'_>,
    all: bool,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let page = Page::of(registry, uri)?;
    let last = page.last.as_deref().map(|last| {
        last.parse::<RepositoryName>()
            .map_err(|error| ApiError::new(ErrorCode::NameInvalid).message(error.to_string()))
    });
    let last = last.transpose()?;
    let (names, next) = if all {
        let (names, more) = registry.store().repositories(last.as_ref(), page.count);
        let next = names.last().cloned().filter(|_| more);
        (names, next)
    } else {
        let (mut names, more) =
            registry.store().repositories(last.as_ref(), registry.config().limits.catalog_scan_max);
        let scanned = names.last().cloned().filter(|_| more);
        names.retain(|name| caller.has("pull", name));
        match names.len() > page.count {
            true => {
                names.truncate(page.count);
                let next = names.last().cloned();
                (names, next)
            }
            false => (names, scanned),
        }
    };
    let body = json!({ "repositories": names });
    Ok(build(page.respond("/v2/_catalog", &body, next.as_deref()), Body::from(body.to_string())))
}

/// `GET /v2/NAME/tags/list`.
pub(crate) fn tags(registry: &Registry, name: &RepositoryName, uri: &Uri) -> Result<Response, ApiError> {
    let page = Page::of(registry, uri)?;
    let (tags, more) = registry
        .store()
        .tags(name, page.last.as_deref(), page.count)
        .ok_or_else(|| ApiError::new(ErrorCode::NameUnknown).detail(json!({ "name": name.as_str() })))?;
    let next = tags.last().cloned().filter(|_| more);
    let body = json!({ "name": name.as_str(), "tags": tags });
    let builder = page.respond(&format!("/v2/{name}/tags/list"), &body, next.as_deref());
    Ok(build(builder, Body::from(body.to_string())))
}

/// `GET /v2/NAME/referrers/DIGEST`: an index of the manifests whose subject it is, perhaps none.
pub(crate) fn referrers(
    registry: &Registry,
    name: &RepositoryName,
    subject: &Digest,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let page = Page::of(registry, uri)?;
    let last = page.last.as_deref().map(crate::routes::digest).transpose()?;
    let wanted = page.field("artifactType");
    let mut found = registry.store().referrers(name, subject, last.as_ref());
    found.retain(|(_, record)| wanted.is_none() || record.artifact_type.as_deref() == wanted);
    let next = (found.len() > page.count)
        .then(|| found.get(page.count.wrapping_sub(1)).map(|(digest, _)| digest.to_string()))
        .flatten();
    found.truncate(page.count);
    let manifests: Vec<_> = found
        .into_iter()
        .map(|(digest, record)| {
            let mut descriptor =
                json!({ "mediaType": record.media_type, "digest": digest, "size": record.size });
            if let Some(kind) = &record.artifact_type {
                descriptor["artifactType"] = kind.as_str().into();
            }
            if !record.annotations.is_empty() {
                descriptor["annotations"] = json!(record.annotations);
            }
            descriptor
        })
        .collect();
    let body = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    let mut builder = page.respond(&format!("/v2/{name}/referrers/{subject}"), &body, next.as_deref());
    if wanted.is_some() {
        builder = builder.header("OCI-Filters-Applied", "artifactType");
    }
    Ok(build(builder, Body::from(body.to_string())))
}
