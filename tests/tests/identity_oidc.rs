//! People of a real OpenID provider (npm's oidc-provider) sign in with `gantry login --idp`: code flow with PKCE, back
//! by the loopback, or on another device; the groups in their tokens become rights here.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gantry_testkit::{Instance, binary, eventually, eventually_some, free_port, skip, spawn};
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};

use crate::people::Person;
use crate::support::{SOON, has_all, identity_object};

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Ended when dropped.
pub struct Provider {
    child: Child,
    pub issuer: String,
    authority: String,
}

impl Provider {
    /// `None`, with the reason printed, where it is not installed. `gantry` is the client `console`, for browsers, and
    /// `cli`, for the command.
    pub fn start(gantry: &Instance) -> Option<Self> {
        let folder = gantry.scratch().join("idp");
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/oidc");
        let chosen = std::env::var("GANTRY_TEST_OIDC_PROVIDER").ok().filter(|value| !value.is_empty());
        let entry = chosen.map_or(default, PathBuf::from).join("node_modules/oidc-provider/lib/index.js");
        if !entry.is_file() {
            skip(format!("{} is not there (cargo xtask setup installs it)", entry.display()));
            return None;
        }
        std::fs::create_dir_all(&folder).expect("a folder");
        let identity =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let (key, certificate) = (folder.join("idp.key"), folder.join("idp.crt"));
        std::fs::write(&key, identity.signing_key.serialize_pem()).expect("written");
        std::fs::write(&certificate, identity.cert.pem()).expect("written");
        let signing = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let port = free_port();
        let issuer = format!("https://127.0.0.1:{port}");
        let settings = json!({
            "entry": entry.canonicalize().expect("it is a file"), "issuer": issuer, "port": port,
            "tlsKey": key, "tlsCertificate": certificate, "idTokenSeconds": 300, "claimsInIdToken": true,
            "keys": [{ "pem": signing.serialize_pem(), "kid": "key-1", "alg": "ES256" }],
            "clients": [{
                "client_id": "cli", "token_endpoint_auth_method": "none", "application_type": "native",
                "grant_types": ["authorization_code", DEVICE_GRANT], "redirect_uris": ["http://127.0.0.1/callback"],
                "id_token_signed_response_alg": "ES256",
            }, {
                "client_id": "console", "token_endpoint_auth_method": "none", "redirect_uris": [callback(gantry)],
                "post_logout_redirect_uris": [goodbye(gantry)], "id_token_signed_response_alg": "ES256",
            }],
        });
        let script =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../platform/identity/sources/tests/oidc_provider.mjs");
        let mut command = Command::new("node");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("node starts");
        writeln!(child.stdin.take().expect("it is piped"), "{settings}").expect("it reads its settings");
        let provider = Self { child, issuer, authority: identity.cert.pem() };
        eventually("the provider listens", SOON, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(provider)
    }

    pub fn browser(&self, gantry: &Instance) -> Browser {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let here = std::fs::read_to_string(gantry.data_dir().join("pki/ca.crt")).expect("its authority");
        let authorities = [&self.authority, &here]
            .map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).expect("a certificate"));
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let client = client.tls_certs_only(authorities).no_proxy().build().expect("a client");
        Browser { client, cookies: BTreeMap::new() }
    }

    /// The organisation whose people come from here: `idp:devs` are the group acme/devs, which may work in web.
    /// `registration` is ours at the provider: its `clientId` and where it leads back to.
    pub fn organisation(&self, registration: &Value) -> String {
        let mut config = json!({
            "issuer": self.issuer,
            "scopes": ["openid", "profile", "email", "groups"],
            "claims": { "groups": ["groups"], "groupsPrefix": "idp:" },
            "http": { "caPem": self.authority },
        });
        for (name, value) in registration.as_object().expect("settings") {
            config[name] = value.clone();
        }
        let provider = json!({
            "name": "corporate",
            "type": "oidc",
            "domain": "acme",
            "enabled": true,
            "config": config,
            "groupMapping": { "idp:devs": ["acme-devs"] },
        });
        let all = [
            identity_object("Domain", "acme", json!({ "name": "acme" })),
            identity_object(
                "Project",
                "web",
                json!({ "name": "web", "domain": "acme", "environments": [{ "name": "dev" }] }),
            ),
            identity_object("Group", "acme-devs", json!({ "name": "devs", "domain": "acme" })),
            identity_object(
                "RoleAssignment",
                "devs-of-web",
                json!({ "role": "member", "group": "acme-devs", "project": "web" }),
            ),
            identity_object("IdentityProvider", "acme-corporate", provider),
        ];
        all.map(|object| object.to_string()).join("\n")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The registration of the command.
fn cli() -> Value {
    json!({ "clientId": "cli", "redirectUris": ["http://127.0.0.1/callback"] })
}

/// Where the provider leads browsers back to.
pub fn callback(gantry: &Instance) -> String {
    format!("https://127.0.0.1:{}/identity/session/callback", gantry.port())
}

/// Where the provider leads who has signed out.
pub fn goodbye(gantry: &Instance) -> String {
    format!("https://127.0.0.1:{}/goodbye", gantry.port())
}

/// Follows redirects, keeps cookies, fills in forms.
pub struct Browser {
    pub client: reqwest::Client,
    /// By name: the path that it is sent to, and its value. Ports do not keep cookies apart.
    pub cookies: BTreeMap<String, (String, String)>,
}

impl Browser {
    /// Opens the address as `user` and goes on until it is sent to `back`: that page. `Err`: the page that asks for
    /// nothing more.
    async fn sign_in(&mut self, address: &str, user: &str, back: &str) -> Result<reqwest::Response, String> {
        let url = self.walk(address, user, back).await?;
        Ok(self.send(self.client.get(url)).await)
    }

    /// Sends the request with the cookies that are meant for its path, and keeps those that come.
    pub async fn send(&mut self, request: reqwest::RequestBuilder) -> reqwest::Response {
        let (client, request) = request.build_split();
        let mut request = request.expect("a request");
        let path = request.url().path().to_owned();
        let meant = self.cookies.iter().filter(|(_, (scope, _))| path.starts_with(scope.as_str()));
        let cookies: Vec<String> = meant.map(|(name, (_, value))| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request.headers_mut().insert(COOKIE, cookies.join("; ").parse().expect("cookies"));
        }
        let response = client.execute(request).await.expect("an answer");
        for cookie in response.headers().get_all(SET_COOKIE) {
            let mut parts = cookie.to_str().expect("text").split(';').map(str::trim);
            let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            let attributes: Vec<(String, &str)> = parts
                .map(|part| part.split_once('=').unwrap_or((part, "")))
                .map(|(attribute, value)| (attribute.to_ascii_lowercase(), value))
                .collect();
            let attribute =
                |wanted: &str| attributes.iter().find(|(name, _)| name == wanted).map(|(_, v)| *v);
            let kept = (attribute("path").unwrap_or("/").to_owned(), value.to_owned());
            match attribute("max-age") {
                Some("0") => drop(self.cookies.remove(name)),
                _ => drop(self.cookies.insert(name.to_owned(), kept)),
            }
        }
        response
    }

    /// Opens the address as `user` and goes on until it is sent to `back`: where to, with what the provider says there.
    pub async fn walk(&mut self, address: &str, user: &str, back: &str) -> Result<reqwest::Url, String> {
        let mut url: reqwest::Url = address.parse().expect("an address");
        let mut form: Option<Vec<(String, String)>> = None;
        for _ in 0..30 {
            if url.as_str().starts_with(back) {
                return Ok(url);
            }
            let request = match form.take() {
                None => self.client.get(url.clone()),
                Some(fields) => {
                    // The query of a URL is written as a form is.
                    let body = reqwest::Url::parse_with_params("http://x/", fields).expect("fields");
                    let body = body.query().unwrap_or_default().to_owned();
                    self.client
                        .post(url.clone())
                        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                        .body(body)
                }
            };
            let response = self.send(request).await;
            if let Some(location) = response.headers().get(LOCATION) {
                url = url.join(location.to_str().expect("text")).expect("a place");
                continue;
            }
            let page = response.text().await.expect("a page");
            let Some((action, fields)) = filled_in(&page, user) else { return Err(page) };
            url = url.join(&action).expect("a place");
            form = Some(fields);
        }
        panic!("thirty pages and no end: {url}")
    }
}

/// The first form of a page: where it goes and its fields, with `user` as the name.
fn filled_in(page: &str, user: &str) -> Option<(String, Vec<(String, String)>)> {
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.replace("&amp;", "&").replace("&#39;", "'"))
    };
    let (_, form) = page.split_once("<form")?;
    let (form, _) = form.split_once("</form>")?;
    let action = attribute(form, "action")?;
    let inputs = form.split("<input").skip(1).filter_map(|input| {
        let input = input.split_once('>')?.0;
        let name = attribute(input, "name")?;
        let value = match name.as_str() {
            "login" => user.to_owned(),
            "password" => "anything".to_owned(),
            _ => attribute(input, "value")?,
        };
        Some((name, value))
    });
    Some((action, inputs.collect()))
}

/// `gantry login --idp`, with a browser that does what it is told.
fn sign_in(gantry: &Instance, provider: &Provider, person: &Person, as_whom: &str) -> gantry_testkit::Output {
    let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
    let mut command = person.command(binary("gantry"));
    command.args(["login", &gantry.registry(), "--idp", "corporate", "--no-browser", "--ca", &ca]);
    let login = spawn(&mut command);
    let address = eventually_some("an address is printed", SOON, || {
        let said = login.stderr();
        let found = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("https://"))
            .map(|rest| format!("https://{rest}"));
        found.ok_or(said)
    });
    assert!(address.contains("code_challenge_method=S256") && address.contains("nonce="), "{address}");
    let parsed: reqwest::Url = address.parse().expect("an address");
    let back =
        parsed.query_pairs().find(|(name, _)| name == "redirect_uri").expect("a way back").1.into_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Somebody else's answer is none.
        let foreign =
            provider.browser(gantry).client.get(format!("{back}?code=stolen&state=guessed")).send().await;
        assert_eq!(foreign.expect("an answer").status(), 404);
        let end = provider.browser(gantry).sign_in(&address, as_whom, &back).await;
        assert_eq!(end.expect("it is sent back").status(), 200);
    });
    login.wait(SOON)
}

#[test]
fn who_has_no_browser_here_signs_in_on_another_device() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let Some(provider) = Provider::start(&gantry) else { return };
    gantry.apply(&provider.organisation(&cli()));
    let alice = Person::known(&gantry, "acme/alice", "");
    let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
    let mut command = alice.command(binary("gantry"));
    command.args(["login", &gantry.registry(), "--idp", "corporate", "--device", "--ca", &ca]);
    let login = spawn(&mut command);
    let address = eventually_some("an address is printed", SOON, || {
        let said = login.stderr();
        let found = said.lines().map(str::trim).find(|line| line.starts_with("https://")).map(str::to_owned);
        found.ok_or(said)
    });
    let (_, code) = address.split_once("user_code=").expect("the address has the code");
    has_all(&login.stderr(), &["Open on any machine", &format!("compare the code: {code}")]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let end =
        runtime.block_on(async { provider.browser(&gantry).sign_in(&address, "alice", "nowhere:").await });
    has_all(&end.expect_err("it ends with a page").to_lowercase(), &["success"]);
    has_all(&login.wait(SOON).ok(), &["Signed in as:  acme/alice"]);
    eventually("the group's role is hers", SOON, || {
        alice.kubectl(&["get", "pods", "-n", "web-dev"]).succeeded()
    });
}

#[test]
fn people_of_an_openid_provider_sign_in_and_have_what_their_groups_have() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let Some(provider) = Provider::start(&gantry) else { return };
    gantry.apply(&provider.organisation(&cli()));
    let alice = Person::known(&gantry, "acme/alice", "");
    has_all(&sign_in(&gantry, &provider, &alice, "alice").ok(), &["Signed in as:  acme/alice"]);
    let who: Value = serde_json::from_str(&alice.gantry(&["whoami", "-o", "json"]).ok()).expect("JSON");
    assert!(who["groups"].as_array().is_some_and(|groups| groups.contains(&"acme/devs".into())), "{who}");
    assert_eq!(who["methods"], json!(["openid"]));
    eventually("the group's role is hers", SOON, || {
        alice.kubectl(&["get", "pods", "-n", "web-dev"]).succeeded()
    });
    alice.kubectl(&["create", "configmap", "made-by-alice", "-n", "web-dev"]).ok();
    alice.kubectl(&["get", "pods", "-n", "default"]).fails();
    has_all(&gantry.gantry(&["audit", "search", "--event", "login"]).ok(), &["acme/alice"]);
    // Her address is the provider's word, and a password is none of ours.
    let user: Value = serde_json::from_str(&gantry.gantry(&["user", "get", "acme/alice", "-o", "json"]).ok())
        .expect("JSON");
    assert_eq!(user["spec"]["email"], "alice@example.org");
    Person::known(&gantry, "acme/alice", "anything").login(&gantry, &[]).fails();

    // Known to the provider and in no group that means anything here.
    let mallory = Person::known(&gantry, "acme/mallory", "");
    has_all(&sign_in(&gantry, &provider, &mallory, "mallory").ok(), &["Signed in as:  acme/mallory"]);
    mallory.kubectl(&["get", "pods", "-n", "web-dev"]).fails();
    assert_eq!(mallory.kubectl(&["get", "namespaces", "-o", "name"]).stdout, "");

    alice.gantry(&["logout"]).ok();
    alice.kubectl(&["get", "pods", "-n", "web-dev"]).fails();
    // A signed-in person of the provider whom the operator disables is out at once, and stays out.
    let token = mallory.gantry(&["token", "--raw"]).ok();
    assert!(!token.trim().is_empty());
    gantry.gantry(&["user", "set", "acme/mallory", "--disable"]).ok();
    mallory.kubectl(&["auth", "whoami"]).fails();
    assert_ne!(sign_in(&gantry, &provider, &mallory, "mallory").code, 0);
}
