//! A front door with a certificate authority, two clients and an echo behind it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use bytes::Bytes;
use futures::StreamExt;
use gantry_base::pki::{self, CertificateAuthority, KeyedCertificate};
use gantry_frontdoor::{
    AuthPolicy, FrontDoor, HealthChecks, ImpersonatedBy, Limits, ServeError, server_config,
};
use gantry_kube_types::{
    Attributes, AuditNotes, AuditSink, Authenticator, Authorizer, ConnectionInfo, Cookie, Decision, GoesOn,
    SESSION_COOKIE, Standing, StatusError, UserInfo, groups,
};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Knows the certificates it was given, by their bytes.
struct Certificates(HashMap<Vec<u8>, UserInfo>);

#[async_trait::async_trait]
impl Authenticator for Certificates {
    async fn authenticate(
        &self,
        _: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        Ok(connection.client_certificates.first().and_then(|leaf| self.0.get(leaf)).cloned())
    }
}

/// `bob-token` is bob's, `stale` has expired, others are nobody's.
struct Tokens;

#[async_trait::async_trait]
impl Authenticator for Tokens {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        match headers.get("authorization").and_then(|v| v.to_str().ok()) {
            Some("Bearer bob-token") => Ok(Some(UserInfo::authenticated("bob", &[]))),
            Some("Bearer stale") => Err(StatusError::new(401, "Unauthorized", "it expired at noon")),
            _ => Ok(None),
        }
    }
}

/// Alice reads pods of `demo` and may act as bob; bob lists nodes; everybody sees the health.
#[derive(Default)]
pub(crate) struct Rules {
    changes: AtomicU64,
    /// Why what is allowed is; `None`: nothing is.
    why: Mutex<Option<&'static str>>,
    /// Alice may no more than act as bob.
    without_alice: AtomicBool,
    /// Nobody may do this.
    forbidden: Mutex<&'static str>,
}

impl Rules {
    pub(crate) fn change(&self, why: Option<&'static str>) {
        *self.why.lock().expect("not poisoned") = why;
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Nobody may do this from now on.
    pub(crate) fn forbid(&self, verb: &'static str) {
        *self.forbidden.lock().expect("not poisoned") = verb;
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn leave_alice_out(&self, out: bool) {
        self.without_alice.store(out, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

impl Authorizer for Rules {
    fn authorize(&self, asked: &Attributes) -> Decision {
        if *self.forbidden.lock().expect("not poisoned") == asked.verb {
            return Decision::NoOpinion("nobody may".to_owned());
        }
        let Some(why) = *self.why.lock().expect("not poisoned") else {
            return Decision::NoOpinion("nothing is allowed any more".to_owned());
        };
        let is_out = self.without_alice.load(Ordering::SeqCst) && asked.user.username == "alice";
        if is_out && asked.verb != "impersonate" {
            return Decision::NoOpinion("not alice".to_owned());
        }
        let health = !asked.is_resource_request && asked.path.starts_with("/healthz");
        let allowed = match asked.user.username.as_str() {
            "alice" => match asked.verb.as_str() {
                "impersonate" => asked.resource == "users" && asked.name == "bob",
                "get" | "list" | "watch" | "create" => asked.resource == "pods" && asked.namespace == "demo",
                _ => false,
            },
            "bob" => matches!(asked.verb.as_str(), "list" | "watch") && asked.resource == "nodes",
            "carol" => asked.resource == "pods" && asked.namespace == "demo",
            _ => false,
        };
        if health || allowed || asked.user.in_group(groups::MASTERS) {
            return Decision::Allow(why.to_owned());
        }
        Decision::NoOpinion(if asked.resource == "secrets" { "not for you".into() } else { String::new() })
    }

    fn decisions_version(&self, _: &UserInfo) -> Option<u64> {
        Some(self.changes.load(Ordering::SeqCst))
    }
}

/// Whose credentials are not good any more.
#[derive(Default)]
pub(crate) struct Revoked(Mutex<Vec<&'static str>>);

impl Revoked {
    pub(crate) fn add(&self, user: &'static str) {
        self.0.lock().expect("not poisoned").push(user);
    }
}

impl Standing for Revoked {
    fn version(&self) -> u64 {
        self.0.lock().expect("not poisoned").len() as u64
    }

    fn is_good(&self, caller: &UserInfo, _: Timestamp) -> bool {
        !self.0.lock().expect("not poisoned").contains(&caller.username.as_str())
    }
}

/// `carols` is carol's session.
struct Sessions;

#[async_trait::async_trait]
impl Authenticator for Sessions {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        match Cookie::of(headers, SESSION_COOKIE) {
            Cookie::Absent => Ok(None),
            Cookie::One("carols") => Ok(Some(UserInfo::authenticated("carol", &[]))),
            Cookie::One(_) | Cookie::Unclear => Err(StatusError::unauthorized()),
        }
    }
}

pub(crate) struct Harness {
    pub(crate) door: FrontDoor,
    pub(crate) address: SocketAddr,
    /// Requests that came through to the handler.
    pub(crate) handled: Arc<AtomicUsize>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) revoked: Arc<Revoked>,
    authority: CertificateAuthority,
    alice: KeyedCertificate,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), ServeError>>,
    _directory: TempDir,
}

impl Harness {
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::start_audited(limits, None).await
    }

    pub(crate) async fn start_audited(limits: Limits, sink: Option<Arc<dyn AuditSink>>) -> Self {
        let directory = TempDir::new().expect("a directory");
        let authority = CertificateAuthority::open(directory.path(), "test").expect("an authority");
        let address = "127.0.0.1".parse().expect("an address");
        let server = authority.server_certificate("server", &[], &[address]).expect("a certificate");
        let alice = authority.client_certificate("alice", "alice", &["dev"]).expect("a certificate");
        let leaf = pki::certificates(&alice.certificate_pem).expect("PEM")[0].to_vec();
        let users = HashMap::from([(leaf, UserInfo::authenticated("alice", &["dev"]))]);
        let (handled, rules) = (Arc::new(AtomicUsize::new(0)), Arc::new(Rules::default()));
        let revoked = Arc::new(Revoked::default());
        rules.change(Some(""));
        let mut builder = FrontDoor::builder();
        if let Some(sink) = sink {
            builder = builder.audit(sink);
        }
        let door = builder
            .authenticator(Arc::new(Certificates(users)))
            .authenticator(Arc::new(Tokens))
            .authenticator(Arc::new(Sessions))
            .authorizer(rules.clone())
            .standing(revoked.clone())
            .route_with("/members", AuthPolicy::Authenticated, echo(handled.clone()))
            .route_with("/open", AuthPolicy::Delegated, echo(handled.clone()))
            .fallback(echo(handled.clone()))
            .health(HealthChecks::new().ready("store", || Ok(())))
            .limits(limits)
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let tls = server_config(&server, authority.certificate_pem()).expect("TLS settings");
        let stop = CancellationToken::new();
        let (serve, stopped) = (door.clone(), stop.clone());
        let serving = tokio::spawn(async move { serve.serve(listener, tls, stopped).await });
        Self {
            door,
            address,
            handled,
            rules,
            revoked,
            authority,
            alice,
            stop,
            serving,
            _directory: directory,
        }
    }

    /// Drains, and shows that serving ends.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.expect("no panic").expect("served");
    }

    pub(crate) fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }

    /// A TLS connection, as alice where `certified`.
    pub(crate) async fn connect(&self, certified: bool, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        for root in pki::certificates(self.authority.certificate_pem()).expect("PEM") {
            roots.add(root).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = if certified {
            let chain = pki::certificates(&self.alice.certificate_pem).expect("PEM");
            let key = pki::private_key(self.alice.key_pem.expose()).expect("PEM");
            config.with_client_auth_cert(chain, key).expect("a client certificate")
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("connected");
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
    }

    /// One request over HTTP/1.1: status and body, JSON where it is.
    pub(crate) async fn get(&self, certified: bool, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let (head, body) = self.send(certified, request(path, headers)).await;
        (head.status.as_u16(), body)
    }

    /// The same, with whatever method.
    pub(crate) async fn send(
        &self,
        certified: bool,
        request: http::Request<Full<Bytes>>,
    ) -> (http::response::Parts, Value) {
        let stream = TokioIo::new(self.connect(certified, b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        connection.abort();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        (head, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
    }

    /// Requests over one HTTP/2 connection, at once.
    pub(crate) async fn get_h2(&self, certified: bool, paths: &[&str]) -> Vec<(u16, Value)> {
        let stream = TokioIo::new(self.connect(certified, b"h2").await);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) = handshake.await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let asked = paths.iter().map(|path| {
            let (mut sender, path) = (sender.clone(), format!("https://{}{path}", self.address));
            async move { read(sender.send_request(request(&path, &[])).await.expect("an answer")).await }
        });
        let answers = futures::future::join_all(asked).await;
        connection.abort();
        answers
    }
}

pub(crate) fn request(path: &str, headers: &[(&str, &str)]) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::get(path);
    if path.starts_with('/') {
        request = request.header("host", "gantry");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

pub(crate) async fn read(answer: http::Response<hyper::body::Incoming>) -> (u16, Value) {
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
}

/// Begins, and never ends.
fn endless() -> Body {
    let begin = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b"begun"))]);
    Body::from_stream(begin.chain(futures::stream::pending()))
}

/// Says who asked; `Upgrade: echo` turns the connection into an echo. `X-Answer` has the status of the answer, or `hang`
/// for none, `begin` for one that does not end, `go on` for one that says so; `X-Note` has a name for the record.
fn echo(handled: Arc<AtomicUsize>) -> Router {
    Router::new().fallback(any(move |request: Request| {
        handled.fetch_add(1, Ordering::SeqCst);
        answer(request)
    }))
}

async fn answer(request: Request) -> Response {
    match request.uri().path() {
        "/open/panic" => panic!("on purpose"),
        "/open/hang" => std::future::pending().await,
        "/open/refusal" => {
            let body = axum::Json(json!({ "message": "no" }));
            return (StatusCode::BAD_REQUEST, body).into_response();
        }
        _ => {}
    }
    let [wanted, note] = ["x-answer", "x-note"].map(|name| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    });
    if let Some(name) = note {
        let notes = AuditNotes { name: Some(name), ..AuditNotes::default() };
        return Extension(notes).into_response();
    }
    match wanted.as_deref() {
        None => {}
        Some("hang") => std::future::pending().await,
        Some("begin") => return endless().into_response(),
        Some("go on") => return (Extension(GoesOn), endless()).into_response(),
        Some(code) => return code.parse::<StatusCode>().expect("a status").into_response(),
    }
    let (head, body) = request.into_parts();
    let upgrading = head.headers.contains_key("upgrade");
    let body =
        if upgrading { body } else { axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default().into() };
    let request = Request::from_parts(head, body);
    let user = request.extensions().get::<UserInfo>().cloned().unwrap_or_default();
    let behind = request.extensions().get::<ImpersonatedBy>().map(|by| by.0.username.clone());
    if request.headers().get("upgrade").is_some_and(|v| v == "echo") {
        tokio::spawn(async move {
            let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
        });
        let headers = [("connection", "upgrade"), ("upgrade", "echo")];
        return (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response();
    }
    axum::Json(json!({
        "user": user.username,
        "groups": user.groups,
        "behind": behind,
        "path": request.uri().path(),
        "authorization": request.headers().contains_key("authorization"),
        "token": request.headers().contains_key("x-auth-token"),
        "cookie": request.headers().get("cookie").map(|value| String::from_utf8_lossy(value.as_bytes())),
    }))
    .into_response()
}
