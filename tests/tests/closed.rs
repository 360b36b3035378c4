//! Nothing on any port answers without knowing who asks: every route of every service, walked through with no
//! credential, with every kind of bad one, and with another project's. The routes are those that the server's own
//! tables list, so a new one is tried from its first day; what strangers may have is a golden file.

mod others;
mod routes;
mod tokens;
mod tricks;

use std::collections::BTreeMap;

use base64::Engine as _;
use futures::StreamExt as _;
use gantry_testkit::{Instance, eventually};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::SOON;
use routes::{Open, Served, filled};
use tokens::Bad;

/// What `GET` of a Kubernetes resource list is for an anonymous caller, and what a bad token always is.
const REFUSED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
/// Every method a handler may look at.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
/// Has what some handlers want to read before they ask whose it is: what is wrong in itself would say nothing of rights.
const BODY: &str = r#"{"tags":["x"],"application_credential":{"name":"x"}}"#;
/// Requests of a walk that wait for their answers.
const AT_ONCE: usize = 16;
/// What is known to be served is more; fewer means that a list was lost.
const ROUTES_MIN: usize = 300;

/// The port of an instance, for plain requests.
pub struct Door {
    pub client: Client,
    pub base: String,
}

impl Door {
    pub fn of(gantry: &Instance) -> Self {
        // Another test of this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = std::fs::read(gantry.data_dir().join("pki/ca.crt")).expect("the instance's authority");
        let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
        let client = Client::builder().tls_certs_only([ca]).build().expect("a client");
        Self { client, base: format!("https://127.0.0.1:{}", gantry.port()) }
    }

    pub async fn ask(&self, method: Method, path: &str, token: Option<(&str, &str)>) -> StatusCode {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base));
        if let Some((header, value)) = token {
            request = request.header(header, value);
            // As a page of ours sends it: else it would not even be looked at.
            if header == "cookie" {
                request = request.header("sec-fetch-site", "same-origin");
            }
        }
        if matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            request = request.header("content-type", "application/json").body(BODY);
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let status = answer.status();
        // A connection is used again only when its answer was read. What succeeds may go on for ever.
        if !status.is_success() {
            drop(answer.bytes().await);
        }
        status
    }

    async fn json(&self, path: &str, token: &str) -> Value {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(token);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Signs in; gives the token.
    pub async fn login(&self, body: &Value) -> String {
        let request = self.client.post(format!("{}/identity/v3/auth/tokens", self.base)).json(body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
        let token = answer.headers()["x-subject-token"].to_str().expect("text");
        token.to_owned()
    }
}

fn admin_login(gantry: &Instance) -> Value {
    let password = std::fs::read_to_string(gantry.data_dir().join("identity/admin-password"));
    let password = password.expect("the first administrator's password").trim().to_owned();
    json!({ "auth": {
        "identity": {
            "methods": ["password"],
            "password": { "user": { "name": "admin", "domain": { "id": "default" }, "password": password } },
        },
        "scope": { "system": { "all": true } },
    }})
}

/// The first administrator's token, once its rights are bound.
pub fn administrator(gantry: &Instance, runtime: &Runtime, door: &Door) -> String {
    let token = runtime.block_on(door.login(&admin_login(gantry)));
    eventually("the administrator may do everything", SOON, || {
        let may =
            |path| runtime.block_on(door.ask(Method::GET, path, Some(("x-auth-token", &token)))).is_success();
        may("/") && may("/api/v1/namespaces")
    });
    token
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// One request of a walk through the routes.
#[derive(Clone)]
struct Try {
    method: Method,
    template: String,
    path: String,
    header: Option<(&'static str, String)>,
}

impl std::fmt::Display for Try {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.method, self.path, self.template)
    }
}

/// Asks all of it, several at once; the answers come in the order of the paths.
async fn walk(door: &Door, tries: Vec<Try>) -> Vec<(Try, StatusCode)> {
    let asked = futures::stream::iter(tries).map(|one| async move {
        let header = one.header.as_ref().map(|(name, value)| (*name, value.as_str()));
        let status = door.ask(one.method.clone(), &one.path, header).await;
        (one, status)
    });
    let mut answers: Vec<(Try, StatusCode)> = asked.buffer_unordered(AT_ONCE).collect().await;
    answers.sort_by(|(a, _), (b, _)| (&a.path, a.method.as_str()).cmp(&(&b.path, b.method.as_str())));
    answers
}

/// Every route with every method.
fn everything(served: &Served) -> Vec<Try> {
    let with = |template: &String, method: &Method| Try {
        method: method.clone(),
        template: template.clone(),
        path: filled(template, |_| None),
        header: None,
    };
    served
        .templates
        .iter()
        .flat_map(|template| METHODS.iter().map(move |method| with(template, method)))
        .collect()
}

#[test]
fn no_route_answers_without_a_good_credential() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let (runtime, door, login) = (runtime(), Door::of(&gantry), admin_login(&gantry));
    let good = administrator(&gantry, &runtime, &door);
    runtime.block_on(async {
        let (served, open) = (Served::by(&door, &good).await, Open::read());
        assert!(served.templates.len() > ROUTES_MIN, "{} routes are not all", served.templates.len());
        assert_eq!(open.stale(&served), Vec::<String>::new(), "in open-routes.txt and not served");

        let closed = strangers(&door, &served, &open).await;
        let bad = tokens::all(&gantry, &door, &login).await;
        let mut answered = Vec::new();
        for bad in &bad {
            answered.extend(let_in(&door, &served, &closed, bad).await);
        }
        answered.extend(wrong_passwords(&door, &served).await);
        assert!(answered.is_empty(), "{} answered:\n{}", answered.len(), answered.join("\n"));
        // It was not the server that was unwell.
        let well = door.ask(Method::GET, "/api/v1/namespaces", Some(("x-auth-token", &good))).await;
        assert!(well.is_success(), "{well}");
    });
}

/// Asks everything without a credential; gives what was refused, which bad credentials are to be refused too.
///
/// # Panics
/// When a route answers that is not in `open-routes.txt`, and when one cannot be tried.
async fn strangers(door: &Door, served: &Served, open: &Open) -> Vec<Try> {
    let answers = walk(door, everything(served)).await;
    let closed: Vec<_> =
        answers.into_iter().filter(|(one, _)| !open.has(&one.method, &one.template)).collect();
    // A method that a path does not have tells nothing.
    let nothing = |status: StatusCode| status == StatusCode::METHOD_NOT_ALLOWED;
    let answered = closed.iter().filter(|(_, status)| !REFUSED.contains(status) && !nothing(*status));
    let answered: Vec<String> = answered.map(|(one, status)| format!("{one}: {status}")).collect();
    assert!(answered.is_empty(), "without a credential and not in open-routes.txt:\n{}", answered.join("\n"));

    let mut tried: BTreeMap<&str, bool> = BTreeMap::new();
    for (one, status) in &closed {
        *tried.entry(&one.template).or_default() |= !nothing(*status);
    }
    let is_open = |path: &str| METHODS.iter().any(|method| open.has(method, path));
    let untried = tried.iter().filter(|(path, tried)| !**tried && !is_open(path));
    let mut untried: Vec<&str> = untried.map(|(path, _)| *path).collect();
    untried.extend(served.unlisted.iter().map(String::as_str));
    assert_eq!(untried, routes::golden_untried(), "served and not tried");
    assert!(untried.is_empty(), "untried-routes.txt is to stay empty: {untried:?}");
    closed.into_iter().filter(|(_, status)| !nothing(*status)).map(|(one, _)| one).collect()
}

/// What answers to a bad token, as a bearer's and, where there are other ways to show it, as Keystone's header and as a
/// browser's session.
async fn let_in(door: &Door, served: &Served, closed: &[Try], bad: &Bad) -> Vec<String> {
    let is_good = |path: &str| bad.good_at.iter().any(|prefix| path.starts_with(prefix));
    let mut tries = Vec::new();
    for one in closed.iter().filter(|one| !is_good(&one.path)) {
        let header = ("authorization", format!("Bearer {}", bad.token));
        tries.push(Try { header: Some(header), ..one.clone() });
        // The Kubernetes API is behind the same authenticators as the others: once for its thousand routes is enough.
        if served.services.contains(&one.template) {
            tries.push(Try { header: Some(("x-auth-token", bad.token.clone())), ..one.clone() });
            let cookie = format!("__Host-gantry-session={}", bad.token);
            tries.push(Try { header: Some(("cookie", cookie)), ..one.clone() });
        }
    }
    let answers = walk(door, tries).await.into_iter().filter(|(_, status)| !REFUSED.contains(status));
    let header = |one: &Try| one.header.as_ref().map_or("", |(name, _)| *name);
    answers.map(|(one, status)| format!("{one} with {} {}: {status}", header(&one), bad.what)).collect()
}

/// Guessing is slowed down, so a wrong password is tried on one route of each service.
async fn wrong_passwords(door: &Door, served: &Served) -> Vec<String> {
    let basic = base64::engine::general_purpose::STANDARD.encode("default/admin:wrong");
    let basic = format!("Basic {basic}");
    let mut answered = Vec::new();
    for path in [
        "/api/v1/namespaces",
        "/identity/v3/users",
        "/v2/_catalog",
        "/registry/v1/archives",
        "/gantry/health",
        "/gantry/routes",
        "/metrics",
        "/apis/audit.gantry.dev/v1alpha1/records",
    ] {
        assert!(served.templates.contains(path), "{path} is not served");
        let status = door.ask(Method::GET, path, Some(("authorization", basic.as_str()))).await;
        if !(REFUSED.contains(&status) || status == StatusCode::TOO_MANY_REQUESTS) {
            answered.push(format!("GET {path} with a wrong password: {status}"));
        }
    }
    answered
}
