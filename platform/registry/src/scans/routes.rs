//! `GET /registry/v1/reports/REPOSITORY/TAG-OR-DIGEST`: what is in an image and known of it.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use gantry_kube_types::StatusError;
use gantry_oci::{Digest, RepositoryName, Tag};
use gantry_registry_api::{GROUP, RESOURCE};
use gantry_scanner::html::{self, Language};
use gantry_scanner::{Report, sarif, sbom};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Deserialize;

use super::{Unscanned, images};
use crate::Registry;
use crate::access::Caller;
use crate::admin::refused;
use crate::tokens::parse_form;

/// When it is worth asking again for a report that is not there yet.
const ASK_AGAIN_SECONDS: u32 = 1;
/// Platforms that the answer to a wrong one lists.
const PLATFORMS_SHOWN: usize = 20;
/// The digest of the image that the report is about, which an index may have led to.
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Sarif,
    Html(Language),
    CycloneDx,
    Spdx,
}

/// `GET /registry/v1/reports/{*path}`
pub(crate) async fn report(
    State(registry): State<Registry>,
    axum::extract::Path(path): axum::extract::Path<String>,
    request: Request,
) -> Response {
    let caller = Caller::of(&registry, &request);
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let field = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let answered = async {
        let format = format(field("format"), field("lang"))?;
        let (repository, tag, digest) = named(&path)?;
        // What one may not pull is answered like what is not there.
        let missing = || StatusError::not_found(GROUP, RESOURCE, &path);
        if !caller.may("pull", repository.as_str()) {
            return Err(missing());
        }
        let found = tag.as_ref().and_then(|tag| registry.store().resolve(&repository, tag));
        let digest = digest.or(found).ok_or_else(missing)?;
        let wanted = field("platform").map(str::to_owned);
        let name = match &tag {
            Some(tag) => format!("{repository}:{tag}"),
            None => format!("{repository}@{digest}"),
        };
        read(&registry, &repository, digest, name, wanted)
            .await?
            .map(|found| (format, found))
            .ok_or_else(missing)
    };
    match answered.await {
        Ok((format, (digest, report))) => answer(format, &digest, &report),
        Err(error) => {
            let mut response = refused(&error);
            if error.code == 503 {
                response.headers_mut().insert(RETRY_AFTER, ASK_AGAIN_SECONDS.into());
            }
            response
        }
    }
}

type Named = (RepositoryName, Option<Tag>, Option<Digest>);

/// `demo/web/1`, `demo/web/sha256:…`
fn named(path: &str) -> Result<Named, StatusError> {
    let bad = || StatusError::bad_request(format!("{path:?} is not REPOSITORY/TAG or REPOSITORY/DIGEST"));
    let (repository, last) = path.rsplit_once('/').ok_or_else(bad)?;
    let repository = repository.parse().map_err(|_| bad())?;
    match last.contains(':') {
        true => Ok((repository, None, Some(last.parse().map_err(|_| bad())?))),
        false => Ok((repository, Some(last.parse().map_err(|_| bad())?), None)),
    }
}

fn format(name: Option<&str>, language: Option<&str>) -> Result<Format, StatusError> {
    let language = match language.unwrap_or("en") {
        "en" => Language::English,
        "zh" => Language::Chinese,
        other => return Err(StatusError::bad_request(format!("lang is {other:?}; en and zh are possible"))),
    };
    Ok(match name.unwrap_or("json") {
        "json" => Format::Json,
        "sarif" => Format::Sarif,
        "html" => Format::Html(language),
        "cyclonedx" => Format::CycloneDx,
        "spdx" => Format::Spdx,
        other => {
            let why = format!("format is {other:?}; json, sarif, html, cyclonedx and spdx are possible");
            return Err(StatusError::bad_request(why));
        }
    })
}

/// The rated report of the image, or of one of the index's.
async fn read(
    registry: &Registry,
    repository: &RepositoryName,
    digest: Digest,
    name: String,
    platform: Option<String>,
) -> Result<Option<(Digest, Report)>, StatusError> {
    let place = registry.place_of(repository);
    let of = repository.clone();
    let found = registry.blocking(move |registry| {
        let Some(record) = registry.store().record(&of, &digest) else { return Ok(None) };
        let image = match record.manifests.is_empty() {
            true if images::is_image(&record) => Ok(digest.clone()),
            true => Err(StatusError::bad_request(format!("{name} is no image but another artifact"))),
            false => chosen(registry, &of, &digest, &name, platform.as_deref())?,
        };
        let image = match image {
            Ok(image) => image,
            Err(error) => return Ok(Some(Err(error))),
        };
        let report = match registry.inner.scans.report(&image)? {
            Ok(mut report) => {
                // The index that it was asked for by, or the image itself.
                registry.enter_signature(&mut report, &of, &[digest, image.clone()], &place)?;
                Ok((image, registry.rated(report, &name, &place)))
            }
            Err(why @ Unscanned::Waiting) => {
                Err(StatusError::service_unavailable(format!("{name}: {why}")).retry_after(ASK_AGAIN_SECONDS))
            }
            Err(why) => Err(StatusError::new(422, "NotScanned", format!("{name}: {why}"))),
        };
        Ok(Some(report))
    });
    found
        .await
        .map_err(|error| {
            tracing::error!(%error, %repository, "a report cannot be read");
            StatusError::internal("the registry's storage failed")
        })?
        .transpose()
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Digest,
    #[serde(default)]
    platform: Platform,
}

#[derive(Default, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// The index's image for the platform, or for this machine's, or its first.
fn chosen(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    name: &str,
    platform: Option<&str>,
) -> std::io::Result<Result<Digest, StatusError>> {
    let bytes = registry.store().manifest(repository, digest)?.unwrap_or_default();
    let index: Index = serde_json::from_slice(&bytes)?;
    let is_image = |entry: &&Entry| {
        registry.store().record(repository, &entry.digest).is_some_and(|record| images::is_image(&record))
    };
    let all: Vec<Entry> = index.manifests.into_iter().filter(|entry| is_image(&entry)).collect();
    let own = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let fits = |wanted: &str| all.iter().find(|entry| entry.platform.to_string() == wanted);
    let found = match platform {
        Some(wanted) => fits(wanted),
        None => fits(own).or(all.first()),
    };
    Ok(found.map(|entry| entry.digest.clone()).ok_or_else(|| {
        let has: Vec<String> =
            all.iter().take(PLATFORMS_SHOWN).map(|entry| entry.platform.to_string()).collect();
        StatusError::bad_request(format!(
            "{name} has no image for that platform, but for: {}",
            has.join(", ")
        ))
    }))
}

fn answer(format: Format, digest: &Digest, report: &Report) -> Response {
    let json = |value: serde_json::Result<serde_json::Value>, kind: &'static str| match value {
        Ok(value) => (kind, value.to_string()),
        Err(error) => {
            tracing::error!(%error, "a report cannot be written");
            ("application/json", "{}".to_owned())
        }
    };
    let (kind, body) = match format {
        Format::Json => json(serde_json::to_value(report), "application/json"),
        Format::Sarif => json(Ok(sarif::sarif(report)), "application/sarif+json"),
        Format::CycloneDx => json(Ok(sbom::cyclonedx(report)), images::CYCLONEDX),
        Format::Spdx => json(Ok(sbom::spdx(report)), "application/spdx+json"),
        Format::Html(language) => ("text/html; charset=utf-8", html::html(report, language)),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(digest) = HeaderValue::from_str(&digest.to_string()) {
        headers.insert(DIGEST, digest);
    }
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_images() {
        let digest = Digest::of(b"x");
        let (repository, tag, none) = named("acme/web/front/v1.2").expect("a name");
        assert_eq!(
            (repository.as_str(), tag.expect("a tag").as_str(), none),
            ("acme/web/front", "v1.2", None)
        );
        let (repository, tag, found) = named(&format!("hello/{digest}")).expect("a name");
        assert_eq!((repository.as_str(), tag, found), ("hello", None, Some(digest)));
        for bad in ["hello", "Hello/1", "a/b/", "a/sha256:1", "../x/1"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
