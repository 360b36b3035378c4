//! A registry behind a plain-HTTP listener.

use std::path::Path;
pub use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use gantry_base::secret::Secret;
use gantry_kube_types::{
    Attributes, AuditNotes, Authenticator, Authorizer, ConnectionInfo, Decision, StatusError, UserInfo,
};
use gantry_oci::Digest;
use gantry_oci::client::RegistryClient;
use gantry_registry::{
    Access, AccessKeys, Catalogue, Config, JwtIssuer, PasswordIsToken, Registry, RegistryTokens, S3Settings,
};
use gantry_testkit::S3Server;
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use reqwest::redirect::Policy;
use tower::ServiceExt;

/// `admin` may do everything, `alice` what is below `demo/`, everybody may pull from `public/`.
pub struct Rules;

impl Authorizer for Rules {
    fn authorize(&self, asked: &Attributes) -> Decision {
        assert_eq!(asked.group, "registry.gantry.dev");
        let is_repository = asked.resource == "repositories";
        let allowed = match asked.user.username.as_str() {
            "admin" => true,
            _ if !is_repository => false,
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

/// Where a registry of a test is.
pub struct Place {
    directory: tempfile::TempDir,
    /// What has the content of its blobs, if not the directory.
    pub s3: Option<Mutex<S3Server>>,
}

impl Place {
    pub fn files() -> Arc<Self> {
        Arc::new(Self { directory: tempfile::tempdir().expect("a directory"), s3: None })
    }

    pub fn s3() -> Arc<Self> {
        let s3 = Some(Mutex::new(S3Server::start()));
        Arc::new(Self { directory: tempfile::tempdir().expect("a directory"), s3 })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The server; there is one.
    pub fn server(&self) -> MutexGuard<'_, S3Server> {
        let server = self.s3.as_ref().expect("a place on S3");
        server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn endpoint(&self) -> Option<String> {
        self.s3.as_ref().map(|_| self.server().endpoint())
    }

    /// Takes content away behind the registry's back.
    pub fn lose(&self, digest: &Digest) {
        let name = format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex());
        let path = match &self.s3 {
            Some(_) => self.server().object(&format!("{PREFIX}/{name}")),
            None => self.path().join("registry").join(name),
        };
        std::fs::remove_file(path).expect("a blob");
    }
}

/// Of the names in the bucket.
pub const PREFIX: &str = "of/the/test";

/// The bucket of a server that [`S3Server`] started, maybe in another process.
pub fn on_s3(config: &mut Config, endpoint: &str) {
    // Another test of the process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    config.s3 = Some(S3Settings {
        regionendpoint: Some(endpoint.to_owned()),
        rootdirectory: PREFIX.to_owned(),
        ..S3Settings::new(S3Server::BUCKET)
    });
    config.s3_keys = Some(AccessKeys {
        id: S3Server::KEY_ID.to_owned(),
        secret: Secret::new(S3Server::SECRET_KEY.to_owned()),
        session_token: None,
    });
}

pub struct TestRegistry {
    pub registry: Registry,
    place: Option<Arc<Place>>,
}

pub fn open(place: Arc<Place>, change: impl FnOnce(&mut Config)) -> TestRegistry {
    let test = open_at(place.path(), place.endpoint().as_deref(), change);
    TestRegistry { place: Some(place), ..test }
}

/// In a directory that somebody else keeps, with the blobs at an endpoint of S3, if there is one.
pub fn open_at(directory: &Path, s3: Option<&str>, change: impl FnOnce(&mut Config)) -> TestRegistry {
    let registry = try_open_at(directory, s3, change).expect("a registry");
    TestRegistry { registry, place: None }
}

pub fn try_open_at(
    directory: &Path,
    s3: Option<&str>,
    change: impl FnOnce(&mut Config),
) -> std::io::Result<Registry> {
    let mut config = Config::new(directory.join("registry"));
    if let Some(endpoint) = s3 {
        on_s3(&mut config, endpoint);
    }
    change(&mut config);
    let issuer = Arc::new(JwtIssuer::open(&directory.join("token.key")).expect("a key"));
    let access = Access {
        authorizer: Arc::new(Rules),
        issuer,
        passwords: Arc::new(PasswordIsToken(Arc::new(UserTokens))),
        bearers: Arc::new(UserTokens),
    };
    gantry_registry::build(config, access, Catalogue::default())
}

/// Our own client, for who may do everything.
pub fn client(address: &str, redirects: Policy) -> RegistryClient {
    // Another test of the process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer admin-token".parse().expect("a header"));
    let http = reqwest::Client::builder().default_headers(headers).redirect(redirects);
    let http = http.build().expect("a client");
    RegistryClient::new(format!("http://{address}").parse().expect("a URL"), http)
}

/// A response read whole.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// For the audit trail.
    pub notes: Option<AuditNotes>,
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
    /// Where it is, which lives as long as somebody has this.
    pub fn place(&self) -> Arc<Place> {
        self.place.clone().expect("a place of its own")
    }

    /// One request of `user`, without a socket. A path with a host before it is as HTTP/2 has it, without `Host`.
    pub async fn ask(
        &self,
        user: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let method: Method = method.parse().expect("a method");
        let mut request = http::Request::builder().method(method).uri(path);
        if path.starts_with('/') {
            request = request.header("host", "registry.test");
        }
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
        let notes = parts.extensions.get::<AuditNotes>().cloned();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, notes }
    }

    /// Listens on loopback with the authentication chain of a front door; returns `127.0.0.1:PORT`.
    pub async fn serve(self, place: Arc<Place>) -> (Self, String) {
        self.serve_with(place, |_| {}).await
    }

    pub async fn serve_with(self, place: Arc<Place>, change: impl FnOnce(&mut Config)) -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(self.registry);
        let url = format!("http://{address}");
        let test = open(place.clone(), |config| {
            config.external_url = Some(url);
            change(config);
        });
        let issuer = Arc::new(JwtIssuer::open(&place.path().join("token.key")).expect("a key"));
        let chain: Arc<Vec<Box<dyn Authenticator>>> = Arc::new(vec![
            Box::new(RegistryTokens::new(issuer, Arc::new(|_, _| true))),
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
