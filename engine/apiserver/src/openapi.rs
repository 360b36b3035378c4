//! `/openapi/v2` and `/openapi/v3`, made when first asked for and kept until the served kinds change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use gantry_kube_logic::negotiate::Output;
use gantry_kube_logic::openapi::{self as logic, Entry};
use gantry_kube_types::StatusError;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::encode;
use crate::kind::Kind;
use crate::query::Query;
use crate::registry::Registry;
use crate::respond;
use crate::server::ApiServer;

/// As answered; older clients ask for it with an `@`, which no media type may have in it (RFC 9110, 5.6.2), so
/// that they could not read it in an answer.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V2_PROTOBUF_ASKED: [&str; 2] =
    ["proto-openapi.spec.v2.v1.0+protobuf", "proto-openapi.spec.v2@v1.0+protobuf"];

/// A document and its hash.
#[derive(Clone)]
struct Document {
    body: Bytes,
    hash: String,
}

impl Document {
    fn new(body: Bytes) -> Self {
        let hash = hex::encode_upper(&Sha256::digest(&body)[..]);
        Self { body, hash }
    }
}

/// The documents made so far of one registry.
#[derive(Default)]
struct Made {
    generation: u64,
    by_name: BTreeMap<String, Document>,
}

/// The documents made so far.
#[derive(Default)]
pub(crate) struct Documents(Mutex<Made>);

impl Documents {
    /// Making one is pure and takes milliseconds: two requests at once may both do it.
    fn get(&self, generation: u64, name: &str, make: impl FnOnce() -> Bytes) -> Document {
        {
            let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if made.generation != generation {
                *made = Made { generation, by_name: BTreeMap::new() };
            }
            if let Some(document) = made.by_name.get(name) {
                return document.clone();
            }
        }
        let document = Document::new(make());
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.generation == generation {
            made.by_name.insert(name.to_owned(), document.clone());
        }
        document
    }
}

pub(crate) fn serve(
    server: &Arc<ApiServer>,
    parts: &[&str],
    request: &Request<Body>,
) -> Result<Response<Body>, StatusError> {
    let registry = server.registry.load_full();
    let headers = request.headers();
    match parts {
        ["v2"] => v2(server, &registry, headers),
        ["v3"] => {
            let index = index(server, &registry);
            respond::success(StatusCode::OK, encode::to_bytes(&index), json_output(headers))
        }
        ["v3", "api", version] => v3(server, &registry, "", version, request),
        ["v3", "apis", group, version] => v3(server, &registry, group, version, request),
        _ => Err(StatusError::no_such_resource()),
    }
}

/// These documents are JSON whatever else is accepted, but compressed where that is.
fn json_output(headers: &HeaderMap) -> Output {
    let mut plain = headers.clone();
    plain.remove(header::ACCEPT);
    let output = Output::of(&plain, false);
    let form = gantry_kube_logic::negotiate::Form::Object;
    output.map_or(Output { form, yaml: false, pretty: false, gzip: false }, |o| Output { pretty: false, ..o })
}

fn entry(kind: &Arc<Kind>) -> Entry<'_> {
    Entry { info: &kind.info, custom: kind.open_api.as_deref() }
}

fn group_document(server: &ApiServer, registry: &Registry, group: &str, version: &str) -> Document {
    server.documents.get(registry.generation, &format!("{group}/{version}"), || {
        let entries: Vec<Entry<'_>> = registry.in_version(group, version).map(entry).collect();
        encode::to_bytes(&logic::v3(group, version, &entries))
    })
}

fn index(server: &ApiServer, registry: &Registry) -> Value {
    let mut versions: Vec<(&str, &str)> =
        registry.all().map(|k| (k.info.group.as_ref(), k.info.version.as_ref())).collect();
    versions.sort_unstable();
    versions.dedup();
    let mut paths = serde_json::Map::new();
    for (group, version) in versions {
        let path =
            if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let hash = group_document(server, registry, group, version).hash;
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

fn v3(
    server: &ApiServer,
    registry: &Registry,
    group: &str,
    version: &str,
    request: &Request<Body>,
) -> Result<Response<Body>, StatusError> {
    if registry.in_version(group, version).next().is_none() {
        return Err(StatusError::no_such_resource());
    }
    let document = group_document(server, registry, group, version);
    let hash = Query::parse(request.uri().query()).text("hash").to_owned();
    if !hash.is_empty() && hash != document.hash {
        let url = format!("{}?hash={}", request.uri().path(), document.hash);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let location = HeaderValue::from_str(&url).map_err(StatusError::internal)?;
        response.headers_mut().insert(header::LOCATION, location);
        return Ok(response);
    }
    let mut response = with_tag(&document, request.headers())?;
    if !hash.is_empty() {
        // The hash names the content: it may be kept for ever.
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    Ok(response)
}

fn with_tag(document: &Document, headers: &HeaderMap) -> Result<Response<Body>, StatusError> {
    let tag = format!("\"{}\"", document.hash);
    let mut response = if headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes()) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::success(StatusCode::OK, document.body.clone(), json_output(headers))?
    };
    response.headers_mut().insert(header::ETAG, HeaderValue::from_str(&tag).map_err(StatusError::internal)?);
    Ok(response)
}

fn v2(server: &ApiServer, registry: &Registry, headers: &HeaderMap) -> Result<Response<Body>, StatusError> {
    let make = || {
        let kinds: Vec<&Arc<Kind>> = registry.all().collect();
        let entries: Vec<Entry<'_>> = kinds.into_iter().map(entry).collect();
        logic::v2(&entries)
    };
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    if V2_PROTOBUF_ASKED.iter().any(|asked| accept.contains(asked)) {
        let document = server
            .documents
            .get(registry.generation, "v2 protobuf", || Bytes::from(logic::v2_protobuf(&make())));
        let mut response = with_tag(&document, headers)?;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(V2_PROTOBUF));
        return Ok(response);
    }
    let document = server.documents.get(registry.generation, "v2", || encode::to_bytes(&make()));
    with_tag(&document, headers)
}
