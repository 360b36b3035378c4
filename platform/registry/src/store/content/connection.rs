//! How S3 is connected to: with the `reqwest` of everything else. The crate's own way would turn HTTP/2 on for all of it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use reqwest::Body;
use tokio::runtime::Handle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until an answer begins, the sending of a part included, and between pieces of it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests from the threads of a runtime, whoever makes them.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    http: reqwest::Client,
    runtime: Handle,
}

impl Connection {
    /// Trusts the authorities of the PEM alone, if there is one.
    pub(super) fn new(runtime: Handle, authorities: Option<&str>) -> Result<Self, String> {
        let builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(ANSWER_TIMEOUT);
        let builder = crate::remote::trusting(builder, authorities).map_err(|error| error.to_string())?;
        Ok(Self { http: builder.build().map_err(|error| error.to_string())?, runtime })
    }
}

impl HttpConnector for Connection {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = request.map(|body| match body.as_bytes() {
            Some(bytes) => Body::from(Bytes::clone(bytes)),
            None => Body::wrap(body),
        });
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let answer = self.runtime.spawn(self.http.execute(request)).await;
        let answer = answer.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
        let answer: http::Response<Body> = answer.map_err(failed)?.into();
        Ok(answer.map(|body| HttpResponseBody::new(body.map_err(failed))))
    }
}

/// What may be tried again, and how.
fn failed(error: reqwest::Error) -> HttpError {
    let kind = match &error {
        error if error.is_timeout() => HttpErrorKind::Timeout,
        error if error.is_connect() => HttpErrorKind::Connect,
        error if error.is_builder() => HttpErrorKind::Unknown,
        _ => HttpErrorKind::Interrupted,
    };
    // URLs may be signed.
    HttpError::new(kind, error.without_url())
}
