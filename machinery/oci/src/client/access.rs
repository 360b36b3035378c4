//! How a registry is told who asks: `Basic`, or tokens that its `WWW-Authenticate` says where to get (the token
//! flow of the distribution project, which OCI registries share).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use gantry_base::secret::Secret;
use http::Method;
use http::header::WWW_AUTHENTICATE;
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;

use super::{ClientError, Url, read, refusal};

/// Tokens of so many repositories are kept.
const TOKENS_MAX: usize = 1000;
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// A name and a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub user: String,
    pub password: Secret<String>,
}

/// What is known of how to get in.
#[derive(Debug, Default)]
pub(super) struct Access {
    credentials: Option<Credentials>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The registry wants the password with every request.
    basic: bool,
    /// By what is asked for.
    tokens: HashMap<Scope, Secret<String>>,
}

/// What one token is good for: reading or writing a repository (or, without a name, the registry).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    repository: String,
    writes: bool,
}

impl Scope {
    pub(super) fn of(method: &Method, url: &Url) -> Self {
        let path = url.path();
        let path = path.split_once("/v2/").map_or(path, |(_, rest)| rest);
        let ends = ["/manifests/", "/blobs/", "/tags/list", "/referrers/"];
        let end = ends.iter().filter_map(|word| path.rfind(word)).min().unwrap_or(0);
        let writes = !matches!(*method, Method::GET | Method::HEAD) || path.contains("/blobs/uploads/");
        Self { repository: path[..end].to_owned(), writes }
    }
}

impl Access {
    pub(super) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what is known to open the door.
    pub(super) fn sign(&self, request: RequestBuilder, scope: &Scope) -> RequestBuilder {
        let known = self.known();
        match (known.tokens.get(scope), &self.credentials) {
            (Some(token), _) => request.bearer_auth(token.expose()),
            (None, Some(given)) if known.basic => {
                request.basic_auth(&given.user, Some(given.password.expose()))
            }
            _ => request,
        }
    }

    /// Does what a 401 asks for. False: nothing could be done.
    pub(super) async fn answer(
        &self,
        refused: &Response,
        http: &reqwest::Client,
        scope: Scope,
    ) -> Result<bool, ClientError> {
        let challenges = refused.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        for challenge in challenges {
            let Some((scheme, rest)) = challenge.split_once(' ') else { continue };
            if scheme.eq_ignore_ascii_case("basic") && self.credentials.is_some() {
                let before = std::mem::replace(&mut self.known().basic, true);
                return Ok(!before);
            }
            if scheme.eq_ignore_ascii_case("bearer") {
                let token = self.fetch(refused.url(), &parameters(rest), http).await?;
                let mut known = self.known();
                if known.tokens.len() >= TOKENS_MAX {
                    known.tokens.clear();
                }
                known.tokens.insert(scope, token);
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn fetch(
        &self,
        asked: &Url,
        parameters: &HashMap<String, String>,
        http: &reqwest::Client,
    ) -> Result<Secret<String>, ClientError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let protocol = |what: &str| ClientError::Protocol(what.to_owned());
        let realm = parameters.get("realm").ok_or_else(|| protocol("its challenge has no realm"))?;
        let mut realm: Url = realm.parse().map_err(|_| protocol("its challenge has a bad realm"))?;
        // A password that came in over TLS does not leave without.
        if realm.scheme() != "https" && asked.scheme() == "https" {
            return Err(protocol("its tokens are made without TLS"));
        }
        for name in ["service", "scope"] {
            if let Some(value) = parameters.get(name) {
                realm.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = http.get(realm);
        if let Some(given) = &self.credentials {
            request = request.basic_auth(&given.user, Some(given.password.expose()));
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let body = read(response, TOKEN_BYTES_MAX).await?;
        let token: Token =
            serde_json::from_slice(&body).map_err(|_| protocol("its token is not readable"))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        token.map(Secret::new).ok_or_else(|| protocol("it gives no token"))
    }
}

/// `realm="https://…",service="x"`: names in small letters, with their values.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"') {
                Some((value, next)) => (value, next),
                None => (quoted, ""),
            },
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = next.trim_start_matches([',', ' ']);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let found = parameters(
            r#"realm="https://auth.example/token",service=registry.example, scope="repository:a/b:pull,push""#,
        );
        assert_eq!(found["realm"], "https://auth.example/token");
        assert_eq!(found["service"], "registry.example");
        assert_eq!(found["scope"], "repository:a/b:pull,push");
        for odd in ["", "=", "realm", "realm=\"x", ",,,=\"\"\""] {
            drop(parameters(odd));
        }
    }

    #[test]
    fn a_token_is_for_a_repository_and_for_reading_or_writing() {
        let scope = |method: Method, path: &str| {
            Scope::of(&method, &format!("https://r.example/{path}").parse().expect("a URL"))
        };
        let reads = Scope { repository: "a/b".to_owned(), writes: false };
        let writes = Scope { repository: "a/b".to_owned(), writes: true };
        for (method, path, want) in [
            (Method::GET, "v2/a/b/manifests/1", &reads),
            (Method::HEAD, "v2/a/b/blobs/sha256:00", &reads),
            (Method::GET, "v2/a/b/tags/list?n=1", &reads),
            (Method::PUT, "v2/a/b/manifests/1", &writes),
            (Method::GET, "v2/a/b/blobs/uploads/7", &writes),
            (Method::PATCH, "v2/a/b/blobs/uploads/7?x=/manifests/", &writes),
        ] {
            assert_eq!(scope(method, path), *want, "{path}");
        }
        assert_ne!(scope(Method::GET, "v2/_catalog"), reads);
    }
}
