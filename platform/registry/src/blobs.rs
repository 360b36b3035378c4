//! Reading and deleting blobs.

use std::io;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use gantry_oci::{Digest, RepositoryName};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    LOCATION, RANGE,
};
use http::{HeaderMap, StatusCode};

use crate::Registry;
use crate::errors::{ApiError, ErrorCode};
use crate::store::warm::SMALL_BYTES_MAX;
use crate::store::{Removed, Store};

/// `GET` and `HEAD /v2/NAME/blobs/DIGEST`.
pub(crate) async fn get(
    registry: &Registry,
    name: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
    head: bool,
) -> Result<Response, ApiError> {
    let unknown = || ApiError::new(ErrorCode::BlobUnknown).detail(serde_json::json!({ "digest": digest }));
    let size = registry.store().blob(&name, &digest).ok_or_else(unknown)?;
    let etag = format!("\"{digest}\"");
    let mut response = Response::builder()
        .header("Docker-Content-Digest", digest.to_string())
        .header(ETAG, &etag)
        .header(ACCEPT_RANGES, "bytes")
        // Content never changes under a digest; who may see it can.
        .header(CACHE_CONTROL, "private, max-age=31536000");
    if matches(headers, &etag) {
        return Ok(build(response.status(StatusCode::NOT_MODIFIED), Body::empty()));
    }
    // The size is in the index; the rest is what costs.
    if !head && let Some(url) = registry.store().content.redirect(&digest).await? {
        let response = Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header(LOCATION, url);
        let response = response.header("Docker-Content-Digest", digest.to_string());
        // The URL is good for a while only, and for whoever has it.
        return Ok(build(response.header(CACHE_CONTROL, "no-store"), Body::empty()));
    }
    response = response.header(CONTENT_TYPE, "application/octet-stream");
    let current = headers.get(IF_RANGE).is_none_or(|v| v.as_bytes() == etag.as_bytes());
    let range = headers.get(RANGE).filter(|_| current && !head).and_then(|v| v.to_str().ok());
    let (start, end) = match range.map_or(Range::Whole, |text| parse_range(text, size)) {
        Range::Whole => (0, size),
        Range::Part(start, end) => {
            let range = format!("bytes {start}-{}/{size}", end - 1);
            response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, range);
            (start, end)
        }
        Range::Outside => {
            return Err(ApiError::new(ErrorCode::RangeInvalid)
                .message(format!("the blob has {size} bytes"))
                .header(CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    response = response.header(CONTENT_LENGTH, end - start);
    if head {
        return Ok(build(response, Body::empty()));
    }
    let body =
        content(registry.store(), &digest, start..end, size).await.map_err(|error| match error.kind() {
            // Deleted between the look into the index and now.
            io::ErrorKind::NotFound => unknown(),
            _ => error.into(),
        })?;
    Ok(build(response, body))
}

async fn content(
    store: &Store,
    digest: &Digest,
    range: std::ops::Range<u64>,
    size_bytes: u64,
) -> io::Result<Body> {
    if range != (0..size_bytes) || size_bytes > SMALL_BYTES_MAX {
        return store.content.body(digest, range.start, range.end).await;
    }
    if let Some(bytes) = store.warm.get(digest) {
        return Ok(Body::from(bytes));
    }
    let body = store.content.body(digest, 0, size_bytes).await?;
    let bytes = to_bytes(body, SMALL_BYTES_MAX as usize).await.map_err(io::Error::other)?;
    store.warm.put(digest, &bytes);
    Ok(Body::from(bytes))
}

/// `DELETE /v2/NAME/blobs/DIGEST`.
pub(crate) async fn delete(
    registry: &Registry,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response, ApiError> {
    let (named, changed) = (digest.to_string(), name.clone());
    match registry.blocking(move |r| r.store().unlink_blob(&name, &digest)).await? {
        Removed::Done => {
            registry.note(&changed);
            let response = Response::builder().status(StatusCode::ACCEPTED).header(CONTENT_LENGTH, 0);
            Ok(build(response.header("Docker-Content-Digest", named), Body::empty()))
        }
        Removed::Unknown => {
            Err(ApiError::new(ErrorCode::BlobUnknown).detail(serde_json::json!({ "digest": named })))
        }
        Removed::Kept | Removed::InUse => Err(ApiError::new(ErrorCode::Denied)
            .status(StatusCode::CONFLICT)
            .message(format!("a manifest names {named}: delete the manifest, and the blob goes with it"))),
    }
}

/// Whether `If-None-Match` names this content.
pub(crate) fn matches(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).any(|value| {
        let mut tags = value.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|tag| tag == etag || tag == "*")
    })
}

/// Builds a response of headers known to be valid.
pub(crate) fn build(builder: http::response::Builder, body: Body) -> Response {
    builder.body(body).unwrap_or_else(|error| {
        use axum::response::IntoResponse;
        tracing::error!(%error, "a response could not be built");
        ApiError::new(ErrorCode::Unknown).into_response()
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// From, and up to but not including.
    Part(u64, u64),
    Outside,
}

/// One range of RFC 9110, section 14.1.2; several, and what is no range, mean the whole.
fn parse_range(text: &str, size: u64) -> Range {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.trim().split_once('-')) else {
        return Range::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if last.is_empty() => part(first, size, size),
        (Ok(first), Ok(last)) if first <= last => part(first, last.saturating_add(1), size),
        (Err(_), Ok(0)) if first.is_empty() => Range::Outside,
        (Err(_), Ok(suffix)) if first.is_empty() => part(size.saturating_sub(suffix), size, size),
        _ => Range::Whole,
    }
}

fn part(start: u64, end: u64, size: u64) -> Range {
    if start < size { Range::Part(start, end.min(size)) } else { Range::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, want) in [
            ("bytes=0-0", Range::Part(0, 1)),
            ("bytes=2-", Range::Part(2, 10)),
            ("bytes=-3", Range::Part(7, 10)),
            ("bytes=-30", Range::Part(0, 10)),
            ("bytes=5-99999999999999999999", Range::Whole),
            ("bytes=5-18446744073709551615", Range::Part(5, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=3-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("lines=0-1", Range::Whole),
        ] {
            assert_eq!(parse_range(text, 10), want, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Outside);
    }
}
