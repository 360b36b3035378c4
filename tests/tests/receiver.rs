//! A receiver of webhooks as somebody else would write it: HTTPS, Standard Webhooks, CloudEvents; and one that can be
//! told what to answer, and to be away.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_base::pki;
use gantry_testkit::{Instance, eventually_some};
use http::{HeaderMap, StatusCode};
use ring::hmac;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::SOON;

/// A request, and what was answered.
#[derive(Clone, Debug)]
pub struct Got {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: u16,
}

impl Got {
    /// A structured event.
    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether one of its signatures is made with the key.
    pub fn is_signed_by(&self, key: &[u8]) -> bool {
        let signed = [
            self.header("webhook-id").as_bytes(),
            b".",
            self.header("webhook-timestamp").as_bytes(),
            b".",
            &self.body,
        ]
        .concat();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        self.header("webhook-signature").split(' ').any(|one| {
            let signature = one.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
            signature.is_some_and(|signature| hmac::verify(&key, &signed, &signature).is_ok())
        })
    }
}

#[derive(Default)]
struct Shared {
    got: Vec<Got>,
    /// What is answered next; then 204.
    answers: VecDeque<u16>,
}

pub struct Receiver {
    address: SocketAddr,
    authority: String,
    tls: TlsAcceptor,
    shared: Arc<Mutex<Shared>>,
    /// Absent while it is away.
    running: Option<Runtime>,
}

struct Listener(tokio::net::TcpListener, TlsAcceptor);

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.0.accept().await else { continue };
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Receiver {
    /// At a port that stays its own, with a certificate of an authority that nobody knows.
    pub fn start(gantry: &Instance, name: &str) -> Self {
        let directory = gantry.scratch().join(name);
        let authority = pki::CertificateAuthority::open(&directory, name).expect("an authority");
        let certificate = authority
            .server_certificate("receiver", &["localhost".to_owned()], &[Ipv4Addr::LOCALHOST.into()])
            .expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = pki::certificates(&certificate.certificate_pem).expect("a chain");
        let key = pki::private_key(certificate.key_pem.expose()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they fit");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let mut receiver = Self {
            address: listener.local_addr().expect("an address"),
            authority: authority.certificate_pem().to_owned(),
            tls: TlsAcceptor::from(Arc::new(config)),
            shared: Arc::default(),
            running: None,
        };
        receiver.serve(listener);
        receiver
    }

    fn serve(&mut self, listener: TcpListener) {
        let runtime = Runtime::new().expect("threads");
        let (tls, shared) = (self.tls.clone(), self.shared.clone());
        listener.set_nonblocking(true).expect("set");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let router = Router::new().fallback(take).with_state(shared);
            axum::serve(Listener(listener, tls), router).await
        });
        self.running = Some(runtime);
    }

    /// Nothing listens any more, and connections are cut.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.running.take() {
            runtime.shutdown_background();
        }
    }

    pub fn resume(&mut self) {
        let listener = eventually_some("the port is free again", SOON, || {
            TcpListener::bind(self.address).map_err(|error| error.to_string())
        });
        self.serve(listener);
    }

    pub fn answer(&self, statuses: &[u16]) {
        self.shared.lock().expect("a lock").answers.extend(statuses);
    }

    pub fn got(&self) -> Vec<Got> {
        self.shared.lock().expect("a lock").got.clone()
    }

    /// What it took.
    pub fn taken(&self) -> Vec<Got> {
        self.got().into_iter().filter(|got| got.status < 300).collect()
    }

    /// Waits until it took an event for which this holds.
    #[track_caller]
    pub fn expect(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Got {
        eventually_some(what, SOON, || {
            let taken = self.taken();
            let found = taken.iter().find(|got| wanted(&got.event())).cloned();
            found.ok_or_else(|| format!("{:?}", taken.iter().map(|got| got.event()).collect::<Vec<_>>()))
        })
    }

    /// What a webhook needs to say to get here.
    pub fn spec(&self, more: &Value) -> Value {
        let mut spec = json!({ "url": format!("https://{}/hook", self.address), "secret": { "name": "hook" },
            "certificateAuthority": self.authority });
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        spec
    }
}

async fn take(State(shared): State<Arc<Mutex<Shared>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut shared = shared.lock().expect("a lock");
    let status = shared.answers.pop_front().unwrap_or(204);
    shared.got.push(Got { headers, body, status });
    StatusCode::from_u16(status).expect("a status")
}

/// A webhook as it is applied.
pub fn webhook(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "RegistryWebhook",
        "metadata": { "namespace": namespace, "name": name }, "spec": spec })
}
