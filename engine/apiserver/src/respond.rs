//! Answers on the wire.

use std::io::Write;

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use gantry_kube_logic::negotiate::Output;
use gantry_kube_types::StatusError;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::encode;

/// Smaller bodies are not worth compressing (upstream's bound).
const GZIP_BYTES_MIN: usize = 128 << 10;
/// The longest text of one `Warning` header.
const WARNING_BYTES_MAX: usize = 256;

/// The `Status` of a failure, with its headers.
pub(crate) fn failure(error: &StatusError) -> Response<Body> {
    let body = encode::to_bytes(&error.to_json());
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    if let Some(seconds) = error.details.as_ref().and_then(|d| d.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(crate) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A successful answer in the wanted form: compact JSON as it is, else pretty, YAML or compressed.
pub(crate) fn success(
    status: StatusCode,
    body: Bytes,
    output: Output,
) -> Result<Response<Body>, StatusError> {
    let (body, kind) = match (output.yaml, output.pretty) {
        (false, false) => (body, "application/json"),
        (false, true) => {
            let value: Value = serde_json::from_slice(&body).map_err(StatusError::internal)?;
            let mut text = serde_json::to_string_pretty(&value).map_err(StatusError::internal)?;
            text.push('\n');
            (Bytes::from(text), "application/json")
        }
        (true, _) => {
            let value: Value = serde_json::from_slice(&body).map_err(StatusError::internal)?;
            (Bytes::from(serde_saphyr::to_string(&value).map_err(StatusError::internal)?), "application/yaml")
        }
    };
    let compress = output.gzip && body.len() >= GZIP_BYTES_MIN;
    let mut response = json(status, if compress { gzip(&body)? } else { body });
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if compress {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Ok(response)
}

fn gzip(body: &[u8]) -> Result<Bytes, StatusError> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).map_err(StatusError::internal)?;
    encoder.finish().map(Bytes::from).map_err(StatusError::internal)
}

/// Adds `Warning: 299 - "text"` headers, which kubectl prints.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for text in warnings {
        let clean: String = text
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c]))
            .take(WARNING_BYTES_MAX)
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{clean}\"").as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
