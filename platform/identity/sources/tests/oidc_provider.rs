//! The OpenID provider of npm's `oidc-provider`, and a browser that clicks through its pages.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use gantry_base::pki::CertificateAuthority;
use gantry_identity_sources::{OidcConfig, OidcSecrets, OidcSource};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use regex::Regex;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::json;
use url::Url;

use crate::peers::{Child, eventually, free_port, tool};

pub const WEB_REDIRECT: &str = "https://gantry.example/console/callback";
pub const CLIENT_SECRET: &str = "client-secret-5512 with+odd:letters/%";

/// An installation of `oidc-provider` that can run.
pub struct OidcProvider {
    pub issuer: String,
    pub ca_pem: String,
    pub id_token_seconds: u64,
    pub claims_in_id_token: bool,
    /// Its signing key in PEM, with the key's id.
    pub key: (String, String),
    entry: PathBuf,
    port: u16,
    child: Option<Child>,
    directory: tempfile::TempDir,
}

impl OidcProvider {
    /// `None`, with the reason printed, where it is not installed.
    pub async fn start() -> Option<Self> {
        let mut provider = Self::prepare()?;
        provider.run().await;
        Some(provider)
    }

    pub fn prepare() -> Option<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let modules = tool("GANTRY_TEST_OIDC_PROVIDER", "oidc").join("node_modules");
        let entry = modules.join("oidc-provider/lib/index.js");
        let has_node = Command::new("node").arg("--version").output().is_ok_and(|o| o.status.success());
        if !entry.is_file() || !has_node {
            gantry_testkit::skip(format!(
                "node or {} is not there (cargo xtask setup installs it)",
                entry.display()
            ));
            return None;
        }
        let entry = entry.canonicalize().expect("it is a file");
        let directory = tempfile::tempdir().expect("a directory");
        let pki = directory.path().join("pki");
        let authority = CertificateAuthority::open(&pki, "test authority").expect("an authority");
        authority.server_certificate("idp", &[], &[[127, 0, 0, 1].into()]).expect("a certificate");
        let port = free_port();
        Some(Self {
            issuer: format!("https://127.0.0.1:{port}"),
            ca_pem: authority.certificate_pem().to_owned(),
            id_token_seconds: 300,
            claims_in_id_token: true,
            key: (new_key(), "key-1".to_owned()),
            entry,
            port,
            child: None,
            directory,
        })
    }

    /// Starts it, again after [`OidcProvider::stop`]; it has forgotten every session then.
    pub async fn run(&mut self) {
        let pki = self.directory.path().join("pki");
        let code = ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"];
        let settings = json!({
            "entry": self.entry, "issuer": self.issuer, "port": self.port,
            "tlsKey": pki.join("idp.key"), "tlsCertificate": pki.join("idp.crt"),
            "idTokenSeconds": self.id_token_seconds, "claimsInIdToken": self.claims_in_id_token,
            "keys": [{"pem": self.key.0, "kid": self.key.1, "alg": "ES256"}],
            "clients": [
                {"client_id": "gantry", "client_secret": CLIENT_SECRET, "grant_types": code,
                 "redirect_uris": [WEB_REDIRECT], "id_token_signed_response_alg": "ES256",
                 "post_logout_redirect_uris": ["https://gantry.example/bye"]},
                {"client_id": "cli", "token_endpoint_auth_method": "none", "application_type": "native",
                 "grant_types": code, "redirect_uris": ["http://127.0.0.1/callback"],
                 "id_token_signed_response_alg": "ES256"},
            ],
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oidc_provider.mjs");
        let mut command = Command::new("node");
        command.arg(script).stdin(Stdio::piped());
        let mut child = Child::start(command, self.directory.path().join("idp.log"));
        let mut input = child.stdin().expect("it is piped");
        writeln!(input, "{settings}").expect("it reads its settings");
        self.child = Some(child);
        let port = self.port;
        eventually("the provider listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
    }

    pub fn stop(&mut self) {
        self.child = None;
    }

    /// The confidential client, as the console uses it.
    pub fn config(&self) -> OidcConfig {
        let mut config = OidcConfig::new(&self.issuer, "gantry", vec![WEB_REDIRECT.to_owned()]);
        config.scopes =
            ["openid", "profile", "email", "groups", "offline_access"].map(str::to_owned).to_vec();
        config.claims.groups = Some(vec!["groups".to_owned()]);
        config.claims.groups_prefix = "idp:".to_owned();
        config.post_logout_redirect_uris = vec!["https://gantry.example/bye".to_owned()];
        config.http.ca_pem = Some(self.ca_pem.clone());
        config
    }

    pub fn source(&self, change: impl FnOnce(&mut OidcConfig)) -> OidcSource {
        let mut config = self.config();
        change(&mut config);
        let client_secret = (config.client_id == "gantry").then(|| CLIENT_SECRET.into());
        let secrets = OidcSecrets { client_secret, sealing_key: None };
        OidcSource::new(config, secrets).expect("the configuration is right")
    }

    pub fn browser(&self) -> Browser {
        let ca = reqwest::Certificate::from_pem(self.ca_pem.as_bytes()).expect("a certificate");
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([ca])
            .no_proxy()
            .build()
            .expect("a client");
        Browser { client, cookies: BTreeMap::new() }
    }
}

pub fn new_key() -> String {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key").serialize_pem()
}

/// Follows redirects, keeps cookies, fills in forms.
pub struct Browser {
    client: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Opens `url` as `user` and goes on until the provider sends the browser away to `back` or shows a page
    /// without a form: the place it is sent to, or the page.
    pub async fn sign_in(&mut self, url: Url, user: &str, back: &str) -> Result<Url, String> {
        let (mut url, mut form) = (url, None::<Vec<(String, String)>>);
        for _ in 0..30 {
            let request = match form.take() {
                None => self.client.get(url.clone()),
                Some(fields) => {
                    let body =
                        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                    let kind = "application/x-www-form-urlencoded";
                    self.client.post(url.clone()).header("content-type", kind).body(body)
                }
            };
            let cookies: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let response =
                request.header(COOKIE, cookies.join("; ")).send().await.expect("the provider answers");
            for cookie in response.headers().get_all(SET_COOKIE) {
                let text = cookie.to_str().expect("text").split(';').next().unwrap_or_default().to_owned();
                let (name, value) = text.split_once('=').expect("a cookie");
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
            if let Some(location) = response.headers().get(LOCATION) {
                url = url.join(location.to_str().expect("text")).expect("a place");
                if url.as_str().starts_with(back) {
                    return Ok(url);
                }
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

fn filled_in(page: &str, user: &str) -> Option<(String, Vec<(String, String)>)> {
    let attribute = |tag: &str, name: &str| {
        let found = Regex::new(&format!("{name}=\"([^\"]*)\""))
            .expect("a pattern")
            .captures(tag)
            .map(|c| c[1].to_owned());
        found.map(|text| text.replace("&amp;", "&").replace("&#39;", "'"))
    };
    let form = Regex::new("(?s)<form.*?</form>").expect("a pattern").find(page)?.as_str();
    let action = attribute(form, "action")?;
    let inputs = Regex::new("<input[^>]*>").expect("a pattern");
    let fields = inputs.find_iter(form).filter_map(|input| {
        let name = attribute(input.as_str(), "name")?;
        let value = match name.as_str() {
            "login" => user.to_owned(),
            "password" => "anything".to_owned(),
            _ => attribute(input.as_str(), "value")?,
        };
        Some((name, value))
    });
    Some((action, fields.collect()))
}
