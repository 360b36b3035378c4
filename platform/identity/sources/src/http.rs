//! HTTP to other people's servers: bounded in time and size, no redirects followed, nothing taken from the
//! environment.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::SourceError;

/// How to reach a source over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpConfig {
    /// The authorities that may sign the server's certificate; without: those of the host.
    pub ca_pem: Option<String>,
    /// Accept `http://`: passwords and tokens cross the network readable.
    pub insecure_http: bool,
    /// `http://host:port` of a proxy. The environment's is not used.
    pub proxy: Option<String>,
    /// Reaching the server.
    pub connect_timeout_ms: u64,
    /// One request, answer included.
    pub timeout_ms: u64,
    /// Longer answers are refused.
    pub body_bytes_max: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            ca_pem: None,
            insecure_http: false,
            proxy: None,
            connect_timeout_ms: 5_000,
            timeout_ms: 10_000,
            body_bytes_max: 1024 * 1024,
        }
    }
}

/// A client for one source.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    body_bytes_max: usize,
    insecure: bool,
    /// What errors call the other side.
    name: String,
}

/// A whole answer.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    /// `name` is what errors call the other side.
    pub(crate) fn new(config: &HttpConfig, name: &str) -> Result<Self, SourceError> {
        let wrong = |why: String| SourceError::misconfigured(name, why);
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .timeout(Duration::from_millis(config.timeout_ms))
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &config.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|e| wrong(format!("proxy: {e}")))?);
        }
        if let Some(pem) = &config.ca_pem {
            builder = builder.tls_backend_preconfigured(crate::tls::client_config(pem).map_err(wrong)?);
        }
        let client = builder.build().map_err(|e| wrong(e.to_string()))?;
        let (body_bytes_max, insecure) = (config.body_bytes_max, config.insecure_http);
        Ok(Self { client, body_bytes_max, insecure, name: name.to_owned() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A URL that may be asked: `https`, or `http` where the configuration accepts it.
    pub(crate) fn url(&self, what: &str, text: &str) -> Result<Url, SourceError> {
        let wrong = |why: &str| SourceError::misconfigured(&self.name, format!("{what} {text:?} {why}"));
        let url = Url::parse(text).map_err(|_| wrong("is no URL"))?;
        match url.scheme() {
            "https" => {}
            "http" if self.insecure => {}
            _ => return Err(wrong("is not https")),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(wrong("carries credentials or a fragment"));
        }
        Ok(url)
    }

    /// Sends and reads to the end. Servers that are overloaded or broken (429, 5xx) are unavailable.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, SourceError> {
        let lost = |e: reqwest::Error| SourceError::unavailable(&self.name, causes(&e.without_url()));
        let mut response = sent(request).await.map_err(lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > self.body_bytes_max {
                let why = format!("its answer is longer than {} bytes", self.body_bytes_max);
                return Err(SourceError::unavailable(&self.name, why));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(SourceError::unavailable(&self.name, format!("it answered {status}")));
        }
        Ok(Answer { status, headers, body })
    }

    /// The JSON document at `url`.
    pub(crate) async fn get_json<T: DeserializeOwned>(&self, url: Url) -> Result<T, SourceError> {
        let shown = url.to_string();
        let answer = self.send(self.client.get(url)).await?;
        if !answer.status.is_success() {
            let why = format!("{shown} answered {}", answer.status);
            return Err(SourceError::misconfigured(&self.name, why));
        }
        self.json(&answer, &shown)
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, answer: &Answer, what: &str) -> Result<T, SourceError> {
        // The parser's own words may repeat what it read.
        serde_json::from_slice(&answer.body).map_err(|e| {
            let why = format!("{what}: not the expected JSON (line {}, column {})", e.line(), e.column());
            SourceError::misconfigured(&self.name, why)
        })
    }
}

/// The error with what caused it: the outer text alone rarely tells.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        inner = cause.source();
    }
    text
}

/// Sends; a question that changes nothing once more where the connection was lost before there was an answer, as
/// busy servers do with connections they have no place for.
async fn sent(request: RequestBuilder) -> reqwest::Result<reqwest::Response> {
    let again = request.try_clone();
    match request.send().await {
        Err(error) if error.is_request() && !error.is_timeout() && !error.is_connect() => match again {
            Some(again) if is_get(&again) => again.send().await,
            _ => Err(error),
        },
        answered => answered,
    }
}

fn is_get(request: &RequestBuilder) -> bool {
    let built = request.try_clone().and_then(|request| request.build().ok());
    built.is_some_and(|request| request.method() == reqwest::Method::GET)
}
