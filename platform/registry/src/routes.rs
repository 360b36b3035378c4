//! Which path means what.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use gantry_kube_types::{AuditNotes, AuditObject};
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_registry_api::{GROUP, Owner, RESOURCE};
use gantry_routes::Routes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::Registry;
use crate::access::Caller;
use crate::errors::{ApiError, ErrorCode};
use crate::trail;

/// Tells clients which protocol this is; old ones refuse to go on without it.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));

/// Everything below `/v2/`, which the router cannot read: names of repositories hold slashes. [`SHAPES`] can.
const BELOW_V2: &str = "/v2/{*path}";

/// A path below `/v2/`.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Ping,
    Catalog,
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, String),
    Manifest(RepositoryName, ManifestName),
    Tags(RepositoryName),
    Referrers(RepositoryName, Digest),
}

/// The last part of `/v2/NAME/manifests/REFERENCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestName {
    Tag(Tag),
    Digest(Digest),
}

impl ManifestName {
    /// As it stands behind a repository: `:1`, `@sha256:…`.
    pub(crate) fn suffix(&self) -> String {
        match self {
            Self::Tag(tag) => format!(":{tag}"),
            Self::Digest(digest) => format!("@{digest}"),
        }
    }
}

impl Registry {
    /// `/v2/…`, `/token` and `/registry/…`. The caller's `UserInfo` is read from the request's extensions.
    pub fn router(&self) -> Router {
        table().router().with_state(self.clone())
    }

    /// What [`Registry::router`] answers, sorted, with the names of parameters. Below `/v2/` nothing else is known.
    pub fn paths() -> Vec<String> {
        let mut paths = table().paths();
        paths.retain(|path| path != BELOW_V2);
        paths.extend(SHAPES.iter().map(|shape| shape.template.to_owned()));
        paths.push(CATALOG.to_owned());
        paths.sort_unstable();
        paths
    }
}

fn table() -> Routes<Registry> {
    Routes::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route(BELOW_V2, any(serve))
        .route("/token", any(serve_token))
        .route("/registry/v1/gc", post(crate::admin::collect))
        .route("/registry/v1/fsck", post(crate::admin::check))
        .route("/registry/v1/replicate", post(crate::admin::replicate))
        .route("/registry/v1/retention", post(crate::admin::retain))
        .route("/registry/v1/advisories", get(crate::scans::advisories).put(crate::scans::advisories))
        .route("/registry/v1/archives", any(crate::archives::all))
        .route("/registry/v1/archives/{id}", any(crate::archives::one))
        .route("/registry/v1/reports/{*image}", get(crate::scans::route))
        .route("/registry/v1/admission/{phase}", post(crate::gate::webhook))
}

/// The one path below `/v2/` that is no repository's.
const CATALOG: &str = "/v2/_catalog";
/// Stands where a repository's name does in templates.
const REPOSITORY: &str = "/v2/{repository}";

/// A kind of path of a repository.
struct Shape {
    /// As it is listed: [`REPOSITORY`], words, and at most one parameter, which is the last part.
    template: &'static str,
    /// What it means, given the name and the parameter.
    route: fn(&str, &str) -> Result<Route, ApiError>,
}

/// In the order they are tried: an upload would be a blob, were the word before it a name's.
const SHAPES: &[Shape] = &[
    Shape {
        template: "/v2/{repository}/blobs/uploads/",
        route: |name, _| Ok(Route::Uploads(repository(name)?)),
    },
    Shape {
        template: "/v2/{repository}/blobs/uploads",
        route: |name, _| Ok(Route::Uploads(repository(name)?)),
    },
    Shape { template: "/v2/{repository}/tags/list", route: |name, _| Ok(Route::Tags(repository(name)?)) },
    Shape {
        template: "/v2/{repository}/blobs/uploads/{upload}",
        route: |name, id| Ok(Route::Upload(repository(name)?, id.to_owned())),
    },
    Shape {
        template: "/v2/{repository}/blobs/{digest}",
        route: |name, text| Ok(Route::Blob(repository(name)?, digest(text)?)),
    },
    Shape {
        template: "/v2/{repository}/referrers/{digest}",
        route: |name, text| Ok(Route::Referrers(repository(name)?, digest(text)?)),
    },
    Shape {
        template: "/v2/{repository}/manifests/{reference}",
        route: |name, reference| Ok(Route::Manifest(repository(name)?, manifest_name(reference)?)),
    },
];

impl Shape {
    /// The name and the parameter, where `rest` (below `/v2/`) has this shape. Repository names hold slashes and may
    /// hold the words `blobs` and `manifests`: read from the end.
    fn read<'a>(&self, rest: &'a str) -> Option<(&'a str, &'a str)> {
        let tail = self.template.strip_prefix(REPOSITORY)?;
        match tail.split_once("/{") {
            None => Some((rest.strip_suffix(tail)?, "")),
            Some((words, _)) => {
                let (before, last) = rest.rsplit_once('/')?;
                Some((before.strip_suffix(words)?, last))
            }
        }
    }
}

impl Route {
    /// Container runtimes ask for an image called `web` as `library/web`, Docker Hub's name for images
    /// without an owner. Where there is no such repository here, `web` is meant.
    fn drop_library(&mut self, registry: &Registry) {
        let (Self::Blob(name, _) | Self::Manifest(name, _) | Self::Tags(name) | Self::Referrers(name, _)) =
            self
        else {
            return;
        };
        let Some(plain) = name.as_str().strip_prefix("library/").and_then(|plain| plain.parse().ok()) else {
            return;
        };
        if registry.store().tags(name, None, 1).is_none() {
            *name = plain;
        }
    }
}

impl Route {
    /// For the record: which repository it is about, and what is done with it. `owner` knows whose it is.
    fn notes(&self, method: &Method, owner: impl FnOnce(&str) -> Option<Owner>) -> Option<AuditNotes> {
        let (name, part) = match self {
            Self::Ping | Self::Catalog => return None,
            Self::Blob(name, _) => (name, "blobs"),
            Self::Uploads(name) | Self::Upload(name, _) => (name, "uploads"),
            Self::Manifest(name, _) => (name, "manifests"),
            Self::Tags(name) => (name, "tags"),
            Self::Referrers(name, _) => (name, "referrers"),
        };
        let verb = match (self, method) {
            // Where an upload stands, and its end without a blob, are parts of a push.
            (Self::Uploads(_) | Self::Upload(..), _) => "push",
            (_, &Method::GET | &Method::HEAD) => "pull",
            (_, &Method::DELETE) => "delete",
            _ => "push",
        };
        let mut object = AuditObject::new(GROUP, RESOURCE, name.as_str());
        part.clone_into(&mut object.subresource);
        let whose = owner(name.as_str()).and_then(|owner| trail::whose(&owner));
        Some(AuditNotes {
            verb: Some(verb.to_owned()),
            object: Some(object),
            annotations: whose.into_iter().collect(),
            ..AuditNotes::default()
        })
    }
}

async fn serve(State(registry): State<Registry>, request: Request) -> Response {
    let mut route = Route::parse(request.uri().path());
    let mut notes = None;
    if let Ok(route) = &mut route {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            route.drop_library(&registry);
        }
        notes = route.notes(request.method(), |name| registry.inner.catalogue.owner(name));
    }
    let answer = match route {
        Ok(route) => dispatch(&registry, route, request).await,
        Err(error) => Err(error),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(API_VERSION.0, API_VERSION.1);
    if let Some(notes) = notes {
        response.extensions_mut().insert(notes);
    }
    response
}

async fn serve_token(State(registry): State<Registry>, request: Request) -> Response {
    crate::tokens::serve(&registry, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn dispatch(registry: &Registry, route: Route, request: Request<Body>) -> Result<Response, ApiError> {
    let head = request.method() == Method::HEAD;
    let reads = head || request.method() == Method::GET;
    let caller = Caller::of(registry, &request);
    let verb = |method: &Method| match *method {
        Method::GET | Method::HEAD => Ok("pull"),
        Method::DELETE => Ok("delete"),
        Method::PUT => Ok("push"),
        _ => Err(ApiError::new(ErrorCode::Unsupported)),
    };
    match route {
        Route::Ping if reads => {
            caller.require_identity()?;
            Ok((StatusCode::OK, [(http::header::CONTENT_TYPE, "application/json")], "{}").into_response())
        }
        Route::Catalog if reads => {
            let all = caller.may("list", "");
            if !all {
                caller.require_catalog()?;
            }
            crate::lists::catalog(registry, &caller, all, request.uri())
        }
        Route::Tags(name) if reads => {
            caller.require("pull", name.as_str())?;
            crate::lists::tags(registry, &name, request.uri())
        }
        Route::Referrers(name, subject) if reads => {
            caller.require("pull", name.as_str())?;
            crate::lists::referrers(registry, &name, &subject, request.uri())
        }
        Route::Blob(name, digest) if request.method() != Method::PUT => {
            caller.require(verb(request.method())?, name.as_str())?;
            if !reads {
                return crate::blobs::delete(registry, name, digest).await;
            }
            match crate::upstream::blob(registry, &name, &digest, (request.headers(), head)).await? {
                Some(coming) => Ok(coming),
                None => crate::blobs::get(registry, name, digest, request.headers(), head).await,
            }
        }
        Route::Manifest(name, reference) => {
            caller.require(verb(request.method())?, name.as_str())?;
            manifest(registry, &caller, (name, reference), request).await
        }
        Route::Uploads(name) if request.method() == Method::POST => {
            caller.require("push", name.as_str())?;
            registry.refuse_pushes_to_mirrors(&name)?;
            crate::uploads::begin(registry, &caller, name, request).await
        }
        Route::Upload(name, id) => {
            caller.require("push", name.as_str())?;
            match *request.method() {
                Method::GET => crate::uploads::status(registry, name, &id).await,
                Method::PATCH => crate::uploads::append(registry, name, &id, request).await,
                Method::PUT => crate::uploads::finish(registry, name, &id, request).await,
                Method::DELETE => crate::uploads::cancel(registry, name, &id).await,
                _ => Err(ApiError::new(ErrorCode::Unsupported)),
            }
        }
        _ => Err(ApiError::new(ErrorCode::Unsupported)),
    }
}

async fn manifest(
    registry: &Registry,
    caller: &Caller<'_>,
    (name, reference): (RepositoryName, ManifestName),
    request: Request<Body>,
) -> Result<Response, ApiError> {
    match *request.method() {
        Method::PUT => {
            registry.refuse_pushes_to_mirrors(&name)?;
            registry.inner.catalogue.admit(&name).await?;
            crate::manifests::put(registry, caller, name, reference, request).await
        }
        Method::DELETE => crate::manifests::delete(registry, caller, name, reference).await,
        _ => {
            let fresh = crate::upstream::manifest(registry, &name, &reference).await?;
            let (headers, head) = (request.headers(), request.method() == Method::HEAD);
            let found = crate::manifests::get(registry, caller, name, reference, headers, head).await;
            found.map(|response| fresh.mark(response))
        }
    }
}

impl Route {
    fn parse(path: &str) -> Result<Self, ApiError> {
        let rest = path.strip_prefix("/v2").unwrap_or(path).trim_start_matches('/');
        match rest {
            "" => return Ok(Self::Ping),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let found = SHAPES.iter().find_map(|shape| Some((shape, shape.read(rest)?)));
        match found {
            Some((shape, (name, last))) => (shape.route)(name, last),
            None => Err(ApiError::new(ErrorCode::NameUnknown).message("no such path in the registry")),
        }
    }
}

fn manifest_name(text: &str) -> Result<ManifestName, ApiError> {
    // Clients may escape the colon of a digest.
    let text = text.replace("%3A", ":").replace("%3a", ":");
    if text.contains(':') {
        return Ok(ManifestName::Digest(digest(&text)?));
    }
    text.parse().map(ManifestName::Tag).map_err(|error: gantry_oci::reference::ReferenceError| {
        ApiError::new(ErrorCode::TagInvalid).message(error.to_string())
    })
}

fn repository(name: &str) -> Result<RepositoryName, ApiError> {
    name.parse().map_err(|error: gantry_oci::reference::ReferenceError| {
        ApiError::new(ErrorCode::NameInvalid).message(error.to_string())
    })
}

pub(crate) fn digest(text: &str) -> Result<Digest, ApiError> {
    let text = text.replace("%3A", ":").replace("%3a", ":");
    text.parse().map_err(|error: gantry_oci::digest::DigestError| {
        ApiError::new(ErrorCode::DigestInvalid).message(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_the_words_of_the_protocol() {
        let digest = Digest::of(b"x");
        let name = |n: &str| n.parse::<RepositoryName>().expect("a name");
        let route = |path: &str| Route::parse(path).expect("a route");
        assert_eq!(route("/v2"), Route::Ping);
        assert_eq!(route("/v2/"), Route::Ping);
        assert_eq!(route("/v2/_catalog"), Route::Catalog);
        assert_eq!(route("/v2/a/blobs/uploads/"), Route::Uploads(name("a")));
        assert_eq!(route("/v2/a/b/blobs/uploads/7"), Route::Upload(name("a/b"), "7".to_owned()));
        assert_eq!(route("/v2/blobs/tags/list"), Route::Tags(name("blobs")));
        assert_eq!(
            route(&format!("/v2/manifests/blobs/blobs/{digest}")),
            Route::Blob(name("manifests/blobs"), digest.clone())
        );
        assert_eq!(
            route(&format!("/v2/a/manifests/{}", digest.to_string().replace(':', "%3A"))),
            Route::Manifest(name("a"), ManifestName::Digest(digest))
        );
        for (method, path, want) in [
            (Method::GET, "/v2/acme/web/manifests/1", Some("pull acme/web manifests")),
            (Method::PUT, "/v2/acme/web/manifests/1", Some("push acme/web manifests")),
            (Method::DELETE, "/v2/acme/web/manifests/1", Some("delete acme/web manifests")),
            (Method::GET, "/v2/acme/web/blobs/uploads/7", Some("push acme/web uploads")),
            (Method::GET, "/v2/acme/web/tags/list", Some("pull acme/web tags")),
            (Method::GET, "/v2/_catalog", None),
        ] {
            let owner = |name: &str| Some(Owner::of_project(name.replace("acme/", "id-of-")));
            let notes = route(path).notes(&method, owner);
            let said = notes.map(|notes| {
                let object = notes.object.expect("an object");
                assert_eq!(
                    notes.annotations,
                    [(gantry_kube_types::audit_annotations::PROJECT.into(), "id-of-web".to_owned())]
                );
                assert_eq!((object.group.as_str(), object.resource.as_str()), (GROUP, RESOURCE));
                format!("{} {} {}", notes.verb.unwrap_or_default(), object.name, object.subresource)
            });
            assert_eq!(said.as_deref(), want, "{method} {path}");
        }
        for bad in [
            "/v2/x",
            "/v2/A/tags/list",
            "/v2/a/manifests/.x",
            "/v2/a/blobs/sha256:1",
            "/v2/../blobs/uploads/",
        ] {
            assert!(Route::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_path_below_v2_is_listed() {
        let digest = Digest::of(b"x").to_string();
        let paths = Registry::paths();
        for shape in SHAPES {
            assert!(paths.iter().any(|path| path == shape.template), "{}", shape.template);
            let path = shape.template.replace("{repository}", "a/b").replace("{digest}", &digest);
            let path = path.replace("{upload}", "7").replace("{reference}", "1");
            let route = Route::parse(&path).unwrap_or_else(|error| panic!("{path}: {error:?}"));
            let first = SHAPES.iter().find(|other| other.read(&path["/v2/".len()..]).is_some());
            assert_eq!(first.map(|first| first.template), Some(shape.template), "{path} is {route:?}");
        }
        assert!(!paths.iter().any(|path| path == BELOW_V2), "it stands for its shapes");
    }
}
