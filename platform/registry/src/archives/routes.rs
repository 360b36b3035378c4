//! `/registry/v1/archives`: an archive is begun (`POST`), comes in pieces (`PATCH`), and is finished (`PUT`); how far it
//! is can be asked at any time (`GET`).

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use gantry_oci::{Algorithm, Reference, RepositoryName};
use http::header::{LOCATION, RANGE};
use http::{HeaderValue, Method, StatusCode};

use super::{Phase, Record, owner};
use crate::Registry;
use crate::access::Caller;
use crate::errors::{ApiError, ErrorCode};
use crate::tokens::parse_form;
use crate::uploads::{Locked, check_range, find, lock, receive, received};

/// Repositories one upload may be said to be for.
const REPOSITORIES_MAX: usize = 256;
/// What a client knows a file by.
const KEY_MAX_BYTES: usize = 256;

/// `GET`: the caller's archives. `POST ?name=&repository=&size=&key=`: begins one.
pub(crate) async fn all(State(registry): State<Registry>, request: Request) -> Response {
    let caller = Caller::of(&registry, &request);
    let answer = match *request.method() {
        Method::GET => list(&registry, &caller),
        Method::POST => begin(&registry, &caller, request.uri().query().unwrap_or_default()).await,
        _ => Err(ApiError::new(ErrorCode::Unsupported)),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// `GET`, `HEAD`: how far it is. `PATCH`: more of it. `PUT ?digest=`: that was all. `DELETE`: forget it.
pub(crate) async fn one(
    State(registry): State<Registry>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let caller = Caller::of(&registry, &request);
    let answer = async {
        caller.require_identity()?;
        let unknown =
            || ApiError::new(ErrorCode::BlobUploadUnknown).message("there is no such archive of yours");
        let record = registry.inner.archives.record(&id, &owner(&caller.user)).ok_or_else(unknown)?;
        caller.require("push", &record.home)?;
        match *request.method() {
            Method::GET | Method::HEAD => Ok(answer(&registry, &id, StatusCode::OK)),
            Method::PATCH => append(&registry, &id, &record, request).await,
            Method::PUT => finish(&registry, &caller, &id, record, request).await,
            Method::DELETE => cancel(&registry, &id, &record).await,
            _ => Err(ApiError::new(ErrorCode::Unsupported)),
        }
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

fn location(id: &str) -> String {
    format!("/registry/v1/archives/{id}")
}

/// What is known of an archive now.
fn answer(registry: &Registry, id: &str, status: StatusCode) -> Response {
    let record = registry.inner.archives.entries().get(id).map(|entry| entry.record.clone());
    let said = registry.archive_status(id, &record.unwrap_or_default());
    let range = received(said["receivedBytes"].as_u64().unwrap_or_default());
    let mut response = (status, Json(said)).into_response();
    for (name, value) in [(LOCATION, location(id)), (RANGE, range)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn list(registry: &Registry, caller: &Caller<'_>) -> Result<Response, ApiError> {
    caller.require_identity()?;
    let owner = owner(&caller.user);
    let own: Vec<(String, Record)> = {
        let entries = registry.inner.archives.entries();
        let own = entries.iter().filter(|(_, entry)| entry.record.owner == owner);
        own.map(|(id, entry)| (id.clone(), entry.record.clone())).collect()
    };
    let mut shown: Vec<_> = own.iter().map(|(id, record)| registry.archive_status(id, record)).collect();
    shown.sort_by_key(|status| status["id"].to_string());
    Ok(Json(serde_json::json!({ "archives": shown })).into_response())
}

/// What a client says of an archive before it comes.
struct Asked {
    name: Option<String>,
    repositories: Vec<RepositoryName>,
    size_bytes: Option<u64>,
    key: Option<String>,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::new(ErrorCode::NameInvalid).message(message);
        let mut asked = Self { name: None, repositories: Vec::new(), size_bytes: None, key: None };
        for (field, value) in parse_form(query.as_bytes()) {
            match field.as_str() {
                "name" => {
                    let name: Reference =
                        value.parse().map_err(|e| bad(format!("name={value:.300?}: {e}")))?;
                    if name.digest.is_some() {
                        return Err(bad("name is REPOSITORY[:TAG], without a digest".to_owned()));
                    }
                    asked.repositories.push(name.repository);
                    asked.name = Some(value);
                }
                "repository" if asked.repositories.len() < REPOSITORIES_MAX => {
                    asked.repositories.push(value.parse().map_err(|e| bad(format!("repository: {e}")))?);
                }
                "size" => {
                    let size = value.parse().map_err(|_| bad("size is a number of bytes".to_owned()))?;
                    asked.size_bytes = Some(size);
                }
                "key" if value.len() <= KEY_MAX_BYTES => asked.key = Some(value),
                other => return Err(bad(format!("{other:.100?} is unknown, too long, or too often there"))),
            }
        }
        Ok(asked)
    }
}

async fn begin(registry: &Registry, caller: &Caller<'_>, query: &str) -> Result<Response, ApiError> {
    caller.require_identity()?;
    let asked = Asked::parse(query)?;
    let Some(home) = asked.repositories.first().cloned() else {
        return Err(ApiError::new(ErrorCode::NameInvalid).message(
            "say where the images go: name=REPOSITORY[:TAG], or repository=REPOSITORY for each that the archive names",
        ));
    };
    for repository in &asked.repositories {
        caller.require("push", repository.as_str())?;
        registry.refuse_pushes_to_mirrors(repository)?;
    }
    let max = registry.config().limits.blob_size_max_bytes;
    if asked.size_bytes.is_some_and(|size| size > max) {
        return Err(ApiError::new(ErrorCode::SizeInvalid)
            .status(StatusCode::PAYLOAD_TOO_LARGE)
            .message(format!("an archive may have {max} bytes")));
    }
    let record = Record {
        owner: owner(&caller.user),
        home: home.to_string(),
        name: asked.name,
        key: asked.key,
        size_bytes: asked.size_bytes,
        ..Record::default()
    };
    if let Some(id) = same(registry, &record) {
        return Ok(answer(registry, &id, StatusCode::OK));
    }
    let full = || ApiError::new(ErrorCode::TooManyRequests).message("too many uploads are under way");
    let (name, owner) = (home.clone(), record.owner.clone());
    let handle = registry.blocking(move |registry| {
        let archives = &registry.inner.archives;
        if !archives.make_room(&owner)? {
            return Ok(None);
        }
        registry.store().begin_upload(&name, true)
    });
    let upload = lock(handle.await?.ok_or_else(full)?).await?;
    let id = upload.id.clone();
    registry.blocking(move |registry| registry.inner.archives.put(&upload.id, record)).await?;
    Ok(answer(registry, &id, StatusCode::CREATED))
}

/// An archive of the caller that is the same file for the same place, and is not done.
fn same(registry: &Registry, wanted: &Record) -> Option<String> {
    wanted.key.as_ref()?;
    let is_same = |record: &Record| {
        let said =
            |r: &Record| (r.owner.clone(), r.home.clone(), r.name.clone(), r.key.clone(), r.size_bytes);
        said(record) == said(wanted) && record.phase != Phase::Done
    };
    let found: Vec<String> = {
        let entries = registry.inner.archives.entries();
        entries.iter().filter(|(_, entry)| is_same(&entry.record)).map(|(id, _)| id.clone()).collect()
    };
    found.into_iter().find(|id| registry.store().received(id).is_some())
}

/// The bytes, for this request alone.
async fn open(registry: &Registry, id: &str, record: &Record) -> Result<Locked, ApiError> {
    if record.phase.is_working() || record.phase == Phase::Done {
        return Err(ApiError::new(ErrorCode::BlobUploadInvalid)
            .status(StatusCode::CONFLICT)
            .message("all of the archive has come: ask how far it is"));
    }
    let home = Registry::home(record)?;
    find(registry, &home, id).await
}

async fn append(
    registry: &Registry,
    id: &str,
    record: &Record,
    request: Request,
) -> Result<Response, ApiError> {
    let upload = open(registry, id, record).await?;
    check_range(request.headers(), &upload, &location(id))?;
    drop(more(registry, record, upload, request).await?);
    Ok(answer(registry, id, StatusCode::ACCEPTED))
}

async fn more(
    registry: &Registry,
    record: &Record,
    upload: Locked,
    request: Request,
) -> Result<Locked, ApiError> {
    let max = registry.config().limits.blob_size_max_bytes;
    let max = record.size_bytes.unwrap_or(max).min(max);
    receive(registry, upload, request, max).await.map_err(|(_, error)| error)
}

async fn finish(
    registry: &Registry,
    caller: &Caller<'_>,
    id: &str,
    record: Record,
    request: Request,
) -> Result<Response, ApiError> {
    if record.phase.is_working() || record.phase == Phase::Done {
        return Ok(answer(registry, id, StatusCode::ACCEPTED));
    }
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let digest = query.iter().find(|(key, _)| key == "digest").map(|(_, value)| value.as_str());
    let digest = digest.map(crate::routes::digest).transpose()?;
    let upload = open(registry, id, &record).await?;
    check_range(request.headers(), &upload, &location(id))?;
    let mut upload = more(registry, &record, upload, request).await?;
    if let Some(size) = record.size_bytes.filter(|size| *size != upload.received_bytes) {
        return Err(ApiError::new(ErrorCode::SizeInvalid)
            .message(format!("{} of {size} bytes have come", upload.received_bytes)));
    }
    if let Some(expected) = digest {
        let found = match expected.algorithm() {
            Algorithm::Sha256 => upload.digest(Algorithm::Sha256)?,
            other => {
                let path = upload.path().to_owned();
                let read = move |_: &Registry| gantry_oci::Hasher::read(other, std::fs::File::open(path)?);
                registry.blocking(read).await?.0
            }
        };
        if found != expected {
            registry
                .blocking(move |registry| {
                    registry.inner.archives.forget(&upload.id)?;
                    registry.store().cancel_upload(&mut upload)
                })
                .await?;
            return Err(ApiError::new(ErrorCode::DigestInvalid)
                .message(format!("what came has the digest {found}, not {expected}: begin again")));
        }
    }
    let has_failed = record.phase == Phase::Failed;
    let record = Record { phase: Phase::Receiving, error: None, ..record };
    if has_failed {
        // After a restart, it is not what failed before.
        let (id, record) = (id.to_owned(), record.clone());
        registry.blocking(move |registry| registry.inner.archives.put(&id, record)).await?;
    }
    registry.inner.archives.advance(id, Phase::Waiting);
    tokio::spawn(super::work::work(registry.clone(), caller.user.clone(), record, upload));
    Ok(answer(registry, id, StatusCode::ACCEPTED))
}

async fn cancel(registry: &Registry, id: &str, record: &Record) -> Result<Response, ApiError> {
    if record.phase != Phase::Done {
        match open(registry, id, record).await {
            Ok(mut upload) => registry.blocking(move |r| r.store().cancel_upload(&mut upload)).await?,
            // Of a bad one, the bytes are gone before.
            Err(error) if error.code == ErrorCode::BlobUploadUnknown => {}
            Err(error) => return Err(error),
        }
    }
    let id = id.to_owned();
    registry.blocking(move |registry| registry.inner.archives.forget(&id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
