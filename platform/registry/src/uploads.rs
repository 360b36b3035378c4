//! Pushing blobs: monolithic, chunked, streamed, resumed and mounted.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use gantry_oci::{Digest, RepositoryName};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, StatusCode};
use tokio::sync::OwnedMutexGuard;

use crate::Registry;
use crate::access::Caller;
use crate::blobs::build;
use crate::errors::{ApiError, ErrorCode};
use crate::store::{Upload, UploadHandle};
use crate::tokens::parse_form;

/// Bytes gathered before they are hashed and written; an upload holds two such pieces at most.
const PIECE_BYTES: usize = 256 * 1024;

/// `POST /v2/NAME/blobs/uploads/`: begins, mounts (`mount`, `from`) or does it all (`digest`).
pub(crate) async fn begin(
    registry: &Registry,
    caller: &Caller<'_>,
    name: RepositoryName,
    request: Request,
) -> Result<Response, ApiError> {
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let field = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    if let (Some(mount), Some(from)) = (field("mount"), field("from")) {
        let digest = crate::routes::digest(mount)?;
        // Without the right to read the source this is an ordinary upload: existence is not told.
        if let Ok(source) = from.parse::<RepositoryName>()
            && caller.may("pull", source.as_str())
        {
            let (target, mounted) = (name.clone(), digest.clone());
            if registry.blocking(move |r| r.store().mount_blob(&target, &source, &mounted)).await? {
                return Ok(created(&name, &digest));
            }
        }
    }
    let digest = field("digest").map(crate::routes::digest).transpose()?;
    let (repository, resumable) = (name.clone(), digest.is_none());
    let handle = registry
        .blocking(move |r| r.store().begin_upload(&repository, resumable))
        .await?
        .ok_or_else(|| ApiError::new(ErrorCode::TooManyRequests).message("too many uploads are under way"))?;
    let upload = lock(handle).await?;
    let Some(digest) = digest else {
        let builder = progress(&name, &upload, StatusCode::ACCEPTED);
        return Ok(build(builder, Body::empty()));
    };
    let max = registry.config().limits.blob_size_max_bytes;
    match receive(registry, upload, request, max).await {
        Ok(upload) => complete(registry, name, upload, digest).await,
        Err((upload, error)) => {
            // Nobody knows its name: it could never go on.
            if let Some(mut upload) = upload {
                registry.blocking(move |r| r.store().cancel_upload(&mut upload)).await?;
            }
            Err(error)
        }
    }
}

/// `GET /v2/NAME/blobs/uploads/ID`: how far it is.
pub(crate) async fn status(
    registry: &Registry,
    name: RepositoryName,
    id: &str,
) -> Result<Response, ApiError> {
    let upload = find(registry, &name, id).await?;
    Ok(build(progress(&name, &upload, StatusCode::NO_CONTENT), Body::empty()))
}

/// `PATCH /v2/NAME/blobs/uploads/ID`: a chunk, or a stream of unknown length without `Content-Range`.
pub(crate) async fn append(
    registry: &Registry,
    name: RepositoryName,
    id: &str,
    request: Request,
) -> Result<Response, ApiError> {
    let upload = find(registry, &name, id).await?;
    check_range(request.headers(), &upload, &location(&name, &upload.id))?;
    let max = registry.config().limits.blob_size_max_bytes;
    let upload = receive(registry, upload, request, max).await.map_err(|(_, error)| error)?;
    Ok(build(progress(&name, &upload, StatusCode::ACCEPTED), Body::empty()))
}

/// `PUT /v2/NAME/blobs/uploads/ID?digest=…`: the last bytes, if any, and the end.
pub(crate) async fn finish(
    registry: &Registry,
    name: RepositoryName,
    id: &str,
    request: Request,
) -> Result<Response, ApiError> {
    let query = parse_form(request.uri().query().unwrap_or_default().as_bytes());
    let digest = query.iter().find(|(key, _)| key == "digest").map(|(_, value)| value.as_str());
    let digest = crate::routes::digest(digest.unwrap_or_default())?;
    let upload = find(registry, &name, id).await?;
    check_range(request.headers(), &upload, &location(&name, &upload.id))?;
    let max = registry.config().limits.blob_size_max_bytes;
    let upload = receive(registry, upload, request, max).await.map_err(|(_, error)| error)?;
    complete(registry, name, upload, digest).await
}

/// `DELETE /v2/NAME/blobs/uploads/ID`.
pub(crate) async fn cancel(
    registry: &Registry,
    name: RepositoryName,
    id: &str,
) -> Result<Response, ApiError> {
    let mut upload = find(registry, &name, id).await?;
    registry.blocking(move |r| r.store().cancel_upload(&mut upload)).await?;
    Ok(build(Response::builder().status(StatusCode::NO_CONTENT), Body::empty()))
}

pub(crate) type Locked = OwnedMutexGuard<Upload>;

/// The upload, for this request alone.
pub(crate) async fn find(registry: &Registry, name: &RepositoryName, id: &str) -> Result<Locked, ApiError> {
    let (repository, wanted) = (name.clone(), id.to_owned());
    let handle = registry.blocking(move |r| r.store().upload(&repository, &wanted)).await?;
    let upload = lock(handle.ok_or_else(|| ApiError::new(ErrorCode::BlobUploadUnknown))?).await?;
    if upload.closed { Err(ApiError::new(ErrorCode::BlobUploadUnknown)) } else { Ok(upload) }
}

/// Waits for a request that is ending (a client that lost its connection comes back before we notice).
pub(crate) async fn lock(handle: UploadHandle) -> Result<Locked, ApiError> {
    let wait = std::time::Duration::from_secs(30);
    tokio::time::timeout(wait, handle.lock_owned()).await.map_err(|_| {
        ApiError::new(ErrorCode::BlobUploadInvalid)
            .status(StatusCode::CONFLICT)
            .message("another request is adding to this upload")
    })
}

/// `Content-Range: START-END` must go on where the upload stands and agree with `Content-Length`.
pub(crate) fn check_range(headers: &HeaderMap, upload: &Upload, location: &str) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_RANGE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default().trim_start_matches("bytes ");
    let range = text.split('/').next().and_then(|r| r.split_once('-'));
    let numbers = range.and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let Some((start, end)) = numbers else {
        return Err(ApiError::new(ErrorCode::BlobUploadInvalid).message("Content-Range must be START-END"));
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    let agrees = start <= end && length.is_none_or(|length| end - start == length.wrapping_sub(1));
    if start != upload.received_bytes || !agrees {
        return Err(ApiError::new(ErrorCode::RangeInvalid)
            .message(format!("the upload has {} bytes", upload.received_bytes))
            .header(LOCATION, location)
            .header(RANGE, &received(upload.received_bytes)));
    }
    Ok(())
}

/// Writes the body to the upload: one piece is hashed and written while the next is received. What arrived
/// before a failure stays and can be gone on from. More than `max` bytes in all are refused.
pub(crate) async fn receive(
    registry: &Registry,
    mut upload: Locked,
    request: Request,
    max: u64,
) -> Result<Locked, (Option<Locked>, ApiError)> {
    let Ok(_permit) = registry.inner.streams.acquire().await else {
        return Err((Some(upload), ApiError::new(ErrorCode::TooManyRequests)));
    };
    let mut body = request.into_body().into_data_stream();
    let mut total = upload.received_bytes;
    loop {
        let (piece, end) = match next_piece(&mut body).await {
            Ok(next) => next,
            Err((piece, error)) => {
                // Kept, so that the client can go on from the last byte that arrived.
                let upload = write(registry, upload, piece).await.map_err(|e| (None, e.into()))?;
                return Err((Some(upload), error));
            }
        };
        total += piece.len() as u64;
        if total > max {
            let error = ApiError::new(ErrorCode::SizeInvalid)
                .status(StatusCode::PAYLOAD_TOO_LARGE)
                .message(format!("{max} bytes may come, and not more"));
            return Err((Some(upload), error));
        }
        upload = write(registry, upload, piece).await.map_err(|e| (None, e.into()))?;
        if end {
            return Ok(upload);
        }
    }
}

async fn next_piece(
    body: &mut axum::body::BodyDataStream,
) -> Result<(Vec<Bytes>, bool), (Vec<Bytes>, ApiError)> {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut small = BytesMut::new();
    let mut size = 0;
    let end = loop {
        match body.next().await {
            None => break true,
            Some(Ok(bytes)) => {
                size += bytes.len();
                // Tiny frames are gathered, large ones are passed on as they are.
                if bytes.len() < 4096 {
                    small.extend_from_slice(&bytes);
                } else {
                    if !small.is_empty() {
                        pieces.push(small.split().freeze());
                    }
                    pieces.push(bytes);
                }
                if size >= PIECE_BYTES {
                    break false;
                }
            }
            Some(Err(error)) => {
                pieces.push(small.freeze());
                let error = ApiError::new(ErrorCode::BlobUploadInvalid)
                    .message(format!("the request body broke off: {error}"));
                return Err((pieces, error));
            }
        }
    };
    if !small.is_empty() {
        pieces.push(small.freeze());
    }
    Ok((pieces, end))
}

/// The lock travels with the bytes: a request that is dropped meanwhile leaves the upload whole.
async fn write(registry: &Registry, mut upload: Locked, pieces: Vec<Bytes>) -> std::io::Result<Locked> {
    if pieces.iter().all(Bytes::is_empty) {
        return Ok(upload);
    }
    registry
        .blocking(move |_| {
            for piece in &pieces {
                upload.append(piece)?;
            }
            Ok(upload)
        })
        .await
}

async fn complete(
    registry: &Registry,
    name: RepositoryName,
    mut upload: Locked,
    digest: Digest,
) -> Result<Response, ApiError> {
    let (repository, expected) = (name.clone(), digest.clone());
    let finished =
        registry.blocking(move |r| r.store().finish_upload(&repository, &mut upload, &expected)).await?;
    finished.map(|()| created(&name, &digest)).map_err(|found| {
        ApiError::new(ErrorCode::DigestInvalid)
            .message(format!("the content has the digest {found}, not {digest}"))
            .detail(serde_json::json!({ "digest": digest, "found": found }))
    })
}

fn created(name: &RepositoryName, digest: &Digest) -> Response {
    let builder = Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .header("Docker-Content-Digest", digest.to_string())
        .header(CONTENT_LENGTH, 0);
    build(builder, Body::empty())
}

fn progress(name: &RepositoryName, upload: &Upload, status: StatusCode) -> http::response::Builder {
    let builder = Response::builder()
        .status(status)
        .header(LOCATION, location(name, &upload.id))
        .header(RANGE, received(upload.received_bytes))
        .header("Docker-Upload-UUID", &upload.id);
    // A response without content has no length either (RFC 9110, section 8.6).
    if status == StatusCode::NO_CONTENT { builder } else { builder.header(CONTENT_LENGTH, 0) }
}

fn location(name: &RepositoryName, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// The range received so far; the protocol has no word for nothing and uses `0-0`.
pub(crate) fn received(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}
