//! Signing in at an OpenID provider: the code flow with PKCE and a loopback redirect (RFC 8252), or a code that is
//! typed on another machine (RFC 8628). The provider's tokens stay with the server; this program sees none.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::commands::identity::values::escaped;
use crate::keystone::{Keystone, KeystoneError, Signed};

/// How long the person may take in the browser.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(300);
/// A browser that connects and says nothing does not hold up the one that does.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// The path the provider sends the browser back to.
const CALLBACK: &str = "/callback";
/// RFC 8628, 3.5: how much slower to ask after `slow_down`.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// How the person gets to the provider's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Browser { open: bool },
    Device,
}

/// What the server says of a provider.
#[derive(Clone, Debug, Deserialize)]
struct Login {
    client_id: String,
    scopes: Vec<String>,
    authorization_endpoint: String,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
}

/// A code to type elsewhere.
#[derive(Clone, Debug, Deserialize)]
struct Device {
    device_code: String,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: u64,
}

pub async fn sign_in(provider: &str, flow: Flow, keystone: &Keystone) -> anyhow::Result<Signed> {
    let root = format!("/OS-FEDERATION/identity_providers/{}", escaped(provider));
    let answer = keystone.call(Method::GET, &format!("{root}/login"), None).await;
    let answer = answer.map_err(|error| match error.code() {
        Some(404) => {
            anyhow!("there is no identity provider {provider:?} that people sign in at in a browser")
        }
        _ => error.into(),
    })?;
    let login: Login = serde_json::from_value(answer["login"].clone()).context("the server's answer")?;
    let protocol = format!("{root}/protocols/openid");
    match flow {
        Flow::Browser { open } => browser(&login, open, &protocol, keystone).await,
        Flow::Device if login.device_authorization_endpoint.is_some() => device(&protocol, keystone).await,
        Flow::Device => bail!("{provider} offers no sign-in on another device: leave --device away"),
    }
}

/// What this sign-in alone knows.
struct Pending {
    state: String,
    nonce: String,
    verifier: String,
    redirect: String,
}

impl Pending {
    fn new(port: u16) -> anyhow::Result<Self> {
        let redirect = format!("http://127.0.0.1:{port}{CALLBACK}");
        Ok(Self { state: random()?, nonce: random()?, verifier: random()?, redirect })
    }

    /// The provider's page (RFC 6749, 4.1.1; RFC 7636, 4.3).
    fn url(&self, login: &Login) -> Result<Url, url::ParseError> {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()));
        let mut url = Url::parse(&login.authorization_endpoint)?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &login.client_id)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("scope", &login.scopes.join(" "))
            .append_pair("state", &self.state)
            .append_pair("nonce", &self.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("this machine has no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

async fn browser(login: &Login, open: bool, protocol: &str, keystone: &Keystone) -> anyhow::Result<Signed> {
    let listener =
        TcpListener::bind(("127.0.0.1", 0)).await.context("no port for the browser to come back to")?;
    let pending = Pending::new(listener.local_addr()?.port())?;
    let url = pending.url(login).context("the provider's address")?;
    let opened = open && open_browser(&url).await;
    let what =
        if opened { "A browser opens. If it does not, open" } else { "Open in a browser on this machine" };
    eprintln!("{what}\n\n  {url}\n");
    let code = tokio::time::timeout(BROWSER_TIMEOUT, code(&listener, &pending.state)).await;
    let code = code
        .map_err(|_| anyhow!("nobody came back from the browser within {} s", BROWSER_TIMEOUT.as_secs()))??;
    let body = json!({
        "code": code,
        "code_verifier": pending.verifier,
        "redirect_uri": pending.redirect,
        "nonce": pending.nonce,
    });
    let signed = keystone.post_signed(&format!("{protocol}/auth"), &body).await;
    signed.context("the provider's answer was not taken")
}

/// Starts the user's browser; `false` where there is none to start.
async fn open_browser(url: &Url) -> bool {
    let mut command = tokio::process::Command::new("xdg-open");
    command.arg(url.as_str()).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    matches!(command.status().await, Ok(status) if status.success())
}

/// Waits for the browser that comes back with our state. Others that come to the port are sent away.
async fn code(listener: &TcpListener, state: &str) -> anyhow::Result<String> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let target = tokio::time::timeout(REQUEST_TIMEOUT, target(&mut stream)).await;
        let Ok(Some(target)) = target else { continue };
        let came = callback(&target, state);
        let page = match &came {
            Callback::Code(_) => ("200 OK", "You are signed in. This page can be closed."),
            Callback::Refused(_) => ("200 OK", "The provider refused. See the terminal."),
            Callback::Foreign => ("404 Not Found", "There is nothing here."),
        };
        // A browser that does not read its page has brought the code all the same.
        let _ = answer(&mut stream, page).await;
        match came {
            Callback::Code(code) => return Ok(code),
            Callback::Refused(why) => bail!("the provider refused: {why}"),
            Callback::Foreign => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Callback {
    Code(String),
    Refused(String),
    /// Not the answer to our question.
    Foreign,
}

/// Reads the target of the browser's request.
fn callback(target: &str, state: &str) -> Callback {
    let Ok(url) = Url::parse("http://127.0.0.1").and_then(|base| base.join(target)) else {
        return Callback::Foreign;
    };
    let get =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    if url.path() != CALLBACK || get("state").as_deref() != Some(state) {
        return Callback::Foreign;
    }
    match (get("code"), get("error")) {
        (Some(code), None) => Callback::Code(code),
        (_, Some(error)) => {
            let why =
                get("error_description").map_or_else(|| error.clone(), |text| format!("{error}: {text}"));
            Callback::Refused(why.chars().filter(|c| !c.is_control()).take(300).collect())
        }
        (None, None) => Callback::Foreign,
    }
}

/// The target of a GET request; `None` where it is none.
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&chunk[..read]);
        if request.len() > REQUEST_BYTES_MAX {
            return None;
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.lines().next()?.split(' ');
    (words.next()? == "GET").then(|| words.next().map(str::to_owned))?
}

async fn answer(stream: &mut TcpStream, (status, text): (&str, &str)) -> std::io::Result<()> {
    let page = format!("<!doctype html><meta charset=utf-8><title>Gantry</title><p>{text}</p>");
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
        page.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.as_bytes()).await?;
    stream.shutdown().await
}

async fn device(protocol: &str, keystone: &Keystone) -> anyhow::Result<Signed> {
    let begun = keystone.call(Method::POST, &format!("{protocol}/device"), Some(&json!({}))).await?;
    let device: Device = serde_json::from_value(begun["device"].clone()).context("the server's answer")?;
    match &device.verification_uri_complete {
        Some(complete) => {
            eprintln!("Open on any machine\n\n  {complete}\n\nand compare the code: {}\n", device.user_code)
        }
        None => eprintln!(
            "Open on any machine\n\n  {}\n\nand type the code {}\n",
            device.verification_uri, device.user_code
        ),
    }
    let body = json!({ "device_code": device.device_code });
    let (path, interval) = (format!("{protocol}/auth"), Duration::from_secs(device.interval.max(1)));
    let polling = poll(&path, &body, interval, keystone);
    let done = tokio::time::timeout(Duration::from_secs(device.expires_in), polling).await;
    done.map_err(|_| anyhow!("the code {} was not used in time", device.user_code))?
}

async fn poll(
    path: &str,
    body: &Value,
    mut interval: Duration,
    keystone: &Keystone,
) -> anyhow::Result<Signed> {
    loop {
        tokio::time::sleep(interval).await;
        match keystone.post_signed(path, body).await {
            Ok(signed) => return Ok(signed),
            Err(error) => match waits(&error) {
                Some(longer) => interval += longer,
                None => return Err(error.into()),
            },
        }
    }
}

/// How much longer to wait from now on; `None`: there is nothing to wait for.
fn waits(error: &KeystoneError) -> Option<Duration> {
    match error {
        KeystoneError::Refused { code: 400, title, .. } if title == "authorization_pending" => {
            Some(Duration::ZERO)
        }
        KeystoneError::Refused { code: 400, title, .. } if title == "slow_down" => Some(SLOW_DOWN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_state_comes_back() {
        for (target, want) in [
            ("/callback?state=s&code=c%2F1", Callback::Code("c/1".to_owned())),
            ("/callback?code=c&state=other", Callback::Foreign),
            ("/callback?code=c", Callback::Foreign),
            ("/other?state=s&code=c", Callback::Foreign),
            ("/favicon.ico", Callback::Foreign),
            ("/callback?state=s", Callback::Foreign),
            ("/callback?state=s&error=access_denied", Callback::Refused("access_denied".to_owned())),
            (
                "/callback?state=s&error=e&error_description=no%0Away",
                Callback::Refused("e: noway".to_owned()),
            ),
            // A code beside an error is not one.
            ("/callback?state=s&code=c&error=e", Callback::Refused("e".to_owned())),
        ] {
            assert_eq!(callback(target, "s"), want, "{target}");
        }
    }

    #[test]
    fn the_providers_page_is_asked_with_pkce() {
        let login = Login {
            client_id: "gantry".to_owned(),
            scopes: vec!["openid".to_owned(), "groups".to_owned()],
            authorization_endpoint: "https://idp.example.com/auth?tenant=1".to_owned(),
            device_authorization_endpoint: None,
        };
        let pending = Pending {
            state: "s".to_owned(),
            nonce: "n".to_owned(),
            // RFC 7636, appendix B.
            verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned(),
            redirect: "http://127.0.0.1:1234/callback".to_owned(),
        };
        assert_eq!(
            pending.url(&login).expect("a URL").as_str(),
            "https://idp.example.com/auth?tenant=1&response_type=code&client_id=gantry\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A1234%2Fcallback&scope=openid+groups&state=s&nonce=n\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
        );
    }

    #[tokio::test]
    async fn the_browser_brings_the_code_and_strangers_do_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let waiting = tokio::spawn(async move { code(&listener, "s").await });
        for (request, status) in [
            ("POST /callback?state=s&code=stolen HTTP/1.1\r\n\r\n", ""),
            ("GET /callback?state=x&code=stolen HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
            ("GET /callback?state=s&code=right HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200"),
        ] {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut page = String::new();
            // A connection that is refused may be reset.
            let _ = stream.read_to_string(&mut page).await;
            assert!(page.starts_with(status), "{request}: {page}");
        }
        assert_eq!(waiting.await.expect("joined").expect("a code"), "right");
    }
}
