//! Which path means what.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use gantry_kube_types::{AuditNotes, AuditObject, audit_annotations};
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_registry_api::{GROUP, RESOURCE};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::Registry;
use crate::access::Caller;
use crate::errors::{ApiError, ErrorCode};

/// Tells clients which protocol this is; old ones refuse to go on without it.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));

/// What [`Registry::router`] answers, but for what lies below `/v2/`, which has its own grammar, and for reports, which
/// are not there for strangers.
pub const PATHS: &[&str] = &[
    "/v2/",
    "/v2/_catalog",
    "/token",
    "/registry/v1/gc",
    "/registry/v1/fsck",
    "/registry/v1/replicate",
    "/registry/v1/retention",
    "/registry/v1/advisories",
    "/registry/v1/archives",
    "/registry/v1/archives/{id}",
    "/registry/v1/admission/{phase}",
];

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
        Router::new()
            .route("/v2", axum::routing::any(serve))
            .route("/v2/", axum::routing::any(serve))
            .route("/v2/{*path}", axum::routing::any(serve))
            .route("/token", axum::routing::any(serve_token))
            .route("/registry/v1/gc", axum::routing::post(crate::admin::collect))
            .route("/registry/v1/fsck", axum::routing::post(crate::admin::check))
            .route("/registry/v1/replicate", axum::routing::post(crate::admin::replicate))
            .route("/registry/v1/retention", axum::routing::post(crate::admin::retain))
            .route(
                "/registry/v1/advisories",
                axum::routing::get(crate::scans::advisories).put(crate::scans::advisories),
            )
            .route("/registry/v1/archives", axum::routing::any(crate::archives::all))
            .route("/registry/v1/archives/{id}", axum::routing::any(crate::archives::one))
            .route("/registry/v1/reports/{*path}", axum::routing::get(crate::scans::route))
            .route("/registry/v1/admission/{phase}", axum::routing::post(crate::gate::webhook))
            .with_state(self.clone())
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
    /// For the record: which repository it is about, and what is done with it. `project` knows whose it is.
    fn notes(&self, method: &Method, project: impl FnOnce(&str) -> Option<String>) -> Option<AuditNotes> {
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
        let project = project(name.as_str()).map(|id| (audit_annotations::PROJECT.into(), id));
        Some(AuditNotes {
            verb: Some(verb.to_owned()),
            object: Some(object),
            annotations: project.into_iter().collect(),
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
        notes = route.notes(request.method(), |name| registry.inner.catalogue.project(name));
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
    /// Repository names hold slashes and may hold the words `blobs` and `manifests`: read from the end.
    fn parse(path: &str) -> Result<Self, ApiError> {
        let rest = path.strip_prefix("/v2").unwrap_or(path).trim_start_matches('/');
        match rest {
            "" => return Ok(Self::Ping),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let unknown = || ApiError::new(ErrorCode::NameUnknown).message("no such path in the registry");
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Self::Uploads(repository(name)?));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(repository(name)?));
        }
        let (rest, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(repository(name)?, last.to_owned()));
        }
        let (name, word) = rest.rsplit_once('/').ok_or_else(unknown)?;
        match word {
            "blobs" => Ok(Self::Blob(repository(name)?, digest(last)?)),
            "referrers" => Ok(Self::Referrers(repository(name)?, digest(last)?)),
            "manifests" => {
                let name = repository(name)?;
                // Clients may escape the colon of a digest.
                let last = last.replace("%3A", ":").replace("%3a", ":");
                let reference = if last.contains(':') {
                    ManifestName::Digest(digest(&last)?)
                } else {
                    ManifestName::Tag(last.parse().map_err(
                        |error: gantry_oci::reference::ReferenceError| {
                            ApiError::new(ErrorCode::TagInvalid).message(error.to_string())
                        },
                    )?)
                };
                Ok(Self::Manifest(name, reference))
            }
            _ => Err(unknown()),
        }
    }
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
            let notes = route(path).notes(&method, |name| Some(name.replace("acme/", "id-of-")));
            let said = notes.map(|notes| {
                let object = notes.object.expect("an object");
                assert_eq!(notes.annotations, [(audit_annotations::PROJECT.into(), "id-of-web".to_owned())]);
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
}
