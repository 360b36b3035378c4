//! A registry behind a plain-HTTP listener.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use gantry_kube_types::{
    Attributes, Authenticator, Authorizer, ConnectionInfo, Decision, StatusError, UserInfo,
};
use gantry_registry::{Access, Catalogue, Config, JwtIssuer, PasswordIsToken, Registry, RegistryTokens};
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// `admin` may do everything, `alice` what is below `demo/`, everybody may pull from `public/`.
pub struct Rules;

impl Authorizer for Rules {
    fn authorize(&self, asked: &Attributes) -> Decision {
        assert_eq!((asked.group.as_str(), asked.resource.as_str()), ("registry.gantry.dev", "repositories"));
        let allowed = match asked.user.username.as_str() {
            "admin" => true,
            "alice" => {
                asked.name.starts_with("demo/") || (asked.verb == "pull" && asked.name.starts_with("public/"))
            }
            _ => asked.verb == "pull" && asked.name.starts_with("public/"),
        };
        if allowed { Decision::Allow("test".into()) } else { Decision::NoOpinion("test".into()) }
    }
}

/// The token of a user is `NAME-token`.
pub struct UserTokens;

#[async_trait::async_trait]
impl Authenticator for UserTokens {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let Some(value) = headers.get("authorization").and_then(|v| v.to_str().ok()) else { return Ok(None) };
        let Some(token) = value.strip_prefix("Bearer ") else { return Ok(None) };
        match token.strip_suffix("-token") {
            Some(name) => Ok(Some(UserInfo::authenticated(name, &[]))),
            None => Err(StatusError::unauthorized()),
        }
    }
}

pub struct TestRegistry {
    pub registry: Registry,
    directory: Option<Arc<tempfile::TempDir>>,
}

pub fn open(directory: Arc<tempfile::TempDir>, change: impl FnOnce(&mut Config)) -> TestRegistry {
    let test = open_at(directory.path(), change);
    TestRegistry { directory: Some(directory), ..test }
}

/// In a directory that somebody else keeps.
pub fn open_at(directory: &Path, change: impl FnOnce(&mut Config)) -> TestRegistry {
    let mut config = Config::new(directory.join("registry"));
    change(&mut config);
    let issuer = Arc::new(JwtIssuer::open(&directory.join("token.key")).expect("a key"));
    let access = Access {
        authorizer: Arc::new(Rules),
        issuer,
        passwords: Arc::new(PasswordIsToken(Arc::new(UserTokens))),
        bearers: Arc::new(UserTokens),
    };
    let registry = gantry_registry::build(config, access, Catalogue::default()).expect("a registry");
    TestRegistry { registry, directory: None }
}

pub fn new() -> TestRegistry {
    open(Arc::new(tempfile::tempdir().expect("a directory")), |_| {})
}

/// A response read whole.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("text"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The first error's code.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().expect("a code").to_owned()
    }
}

impl TestRegistry {
    /// The directory it is in, which lives as long as somebody has this.
    pub fn directory(&self) -> Arc<tempfile::TempDir> {
        self.directory.clone().expect("a directory of its own")
    }

    /// One request of `user`, without a socket.
    pub async fn ask(
        &self,
        user: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let method: Method = method.parse().expect("a method");
        let mut request = http::Request::builder().method(method).uri(path).header("host", "registry.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).expect("a request");
        if !user.is_empty() {
            request.extensions_mut().insert(UserInfo::authenticated(user, &[]));
        }
        let response: Response<Body> = self.registry.router().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Listens on loopback with the authentication chain of a front door; returns `127.0.0.1:PORT`.
    pub async fn serve(self, directory: Arc<tempfile::TempDir>) -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(self.registry);
        let url = format!("http://{address}");
        let test = open(directory.clone(), |config| config.external_url = Some(url));
        let issuer = Arc::new(JwtIssuer::open(&directory.path().join("token.key")).expect("a key"));
        let chain: Arc<Vec<Box<dyn Authenticator>>> = Arc::new(vec![
            Box::new(RegistryTokens(issuer)),
            Box::new(PasswordIsToken(Arc::new(UserTokens))),
            Box::new(UserTokens),
        ]);
        let app = test.registry.router().layer(axum::middleware::from_fn(move |request, next| {
            authenticate(chain.clone(), request, next)
        }));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (test, address)
    }
}

async fn authenticate(
    chain: Arc<Vec<Box<dyn Authenticator>>>,
    mut request: Request,
    next: Next,
) -> axum::response::Response {
    use axum::response::IntoResponse;
    for authenticator in chain.iter() {
        match authenticator.authenticate(request.headers(), &ConnectionInfo::default()).await {
            Ok(Some(user)) => {
                request.extensions_mut().insert(user);
                break;
            }
            Ok(None) => {}
            Err(_) => return http::StatusCode::UNAUTHORIZED.into_response(),
        }
    }
    next.run(request).await
}
