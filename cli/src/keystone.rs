//! The Keystone v3 API as the commands use it: sign-in, tokens, passwords.

use std::time::Duration;

use gantry_base::secret::Secret;
use http::Method;
use jiff::Timestamp;
use reqwest::Certificate;
use serde::Deserialize;
use serde_json::{Value, json};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// argon2 and a queue before it take their time; nothing takes this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Where the API is at the front door.
const ROOT: &str = "/identity/v3";

/// What the identity service answered instead of what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum KeystoneError {
    /// Its own words, which are written for people.
    #[error("{message}")]
    Refused { code: u16, title: String, message: String },
    /// Right so far, for the user with the id; each of `rules` is a set of methods that would be enough.
    #[error("more is asked for: one of {}", rules.iter().map(|rule| rule.join("+")).collect::<Vec<_>>().join(", "))]
    MoreNeeded { receipt: Secret<String>, user: String, done: Vec<String>, rules: Vec<Vec<String>> },
    #[error("the identity service cannot be reached: {0:#}")]
    Unreachable(anyhow::Error),
    #[error("the identity service answered what it should not: {0}")]
    Answer(String),
}

impl KeystoneError {
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::MoreNeeded { .. } => Some(401),
            Self::Unreachable(_) | Self::Answer(_) => None,
        }
    }

    /// Id of the user whose password was right and has to be changed first.
    pub fn expired_password_of(&self) -> Option<&str> {
        let Self::Refused { code: 401, message, .. } = self else { return None };
        let (before, id) = message.split_once("needs to be changed for user:")?;
        before.contains("password").then_some(id.trim().trim_end_matches('.'))
    }
}

/// A user, as Keystone has one named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName {
    /// Name of the domain; absent: the default one.
    pub domain: Option<String>,
    pub name: String,
}

impl UserName {
    fn json(&self) -> Value {
        json!({ "name": self.name, "domain": domain(self.domain.as_deref()) })
    }
}

impl std::fmt::Display for UserName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.domain.as_deref().unwrap_or(gantry_identity_api::DEFAULT_DOMAIN), self.name)
    }
}

fn domain(name: Option<&str>) -> Value {
    match name {
        Some(name) => json!({ "name": name }),
        None => json!({ "id": gantry_identity_api::DEFAULT_DOMAIN }),
    }
}

/// One thing that proves who somebody is.
#[derive(Clone, Debug)]
pub enum Proof {
    Password {
        user: UserName,
        password: Secret<String>,
    },
    Totp {
        user: UserName,
        code: String,
    },
    Token(Secret<String>),
    ApplicationCredential {
        id: String,
        secret: Secret<String>,
    },
    /// The credential by its user's name for it.
    NamedApplicationCredential {
        user: UserName,
        name: String,
        secret: Secret<String>,
    },
}

/// What a token is asked to be good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// What the server gives who asks for nothing: the default project, or the scope a credential has.
    #[default]
    Default,
    Unscoped,
    System,
    Domain(String),
    Project {
        name: String,
        domain: Option<String>,
    },
    /// As an earlier token had it.
    Kept(Value),
}

impl Scope {
    fn json(&self) -> Option<Value> {
        Some(match self {
            Self::Default => return None,
            Self::Unscoped => "unscoped".into(),
            Self::System => json!({ "system": { "all": true } }),
            Self::Domain(name) => json!({ "domain": { "name": name } }),
            Self::Project { name, domain: of } => {
                json!({ "project": { "name": name, "domain": domain(of.as_deref()) } })
            }
            Self::Kept(scope) => scope.clone(),
        })
    }
}

/// The body of a sign-in.
pub fn auth_request(proofs: &[Proof], scope: &Scope) -> Value {
    let mut identity = json!({ "methods": [] });
    for proof in proofs {
        let (method, value) = match proof {
            Proof::Password { user, password } => {
                let mut user = user.json();
                user["password"] = password.expose().as_str().into();
                ("password", json!({ "user": user }))
            }
            Proof::Totp { user, code } => {
                let mut user = user.json();
                user["passcode"] = code.as_str().into();
                ("totp", json!({ "user": user }))
            }
            Proof::Token(token) => ("token", json!({ "id": token.expose() })),
            Proof::ApplicationCredential { id, secret } => {
                ("application_credential", json!({ "id": id, "secret": secret.expose() }))
            }
            Proof::NamedApplicationCredential { user, name, secret } => (
                "application_credential",
                json!({ "name": name, "user": user.json(), "secret": secret.expose() }),
            ),
        };
        identity[method] = value;
        if let Some(methods) = identity["methods"].as_array_mut() {
            methods.push(method.into());
        }
    }
    let mut auth = json!({ "identity": identity });
    if let Some(scope) = scope.json() {
        auth["scope"] = scope;
    }
    json!({ "auth": auth })
}

/// An id with a name, and the domain where it has one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reference {
    pub id: String,
    pub name: String,
    pub domain: Option<Box<Reference>>,
}

impl Reference {
    /// `acme/alice`
    pub fn full_name(&self) -> String {
        match &self.domain {
            Some(domain) => format!("{}/{}", domain.name, self.name),
            None => self.name.clone(),
        }
    }
}

/// What a token says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct TokenBody {
    pub user: Reference,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    #[serde(default)]
    pub methods: Vec<String>,
    #[serde(default)]
    pub roles: Vec<Reference>,
    #[serde(default)]
    pub project: Option<Reference>,
    #[serde(default)]
    pub domain: Option<Reference>,
    #[serde(default)]
    pub system: Option<Value>,
    #[serde(default)]
    pub application_credential: Option<Reference>,
}

impl TokenBody {
    /// The scope, as a request for another token of the same scope has it.
    pub fn scope(&self) -> Value {
        match (&self.project, &self.domain, &self.system) {
            (Some(project), ..) => json!({ "project": { "id": project.id } }),
            (None, Some(domain), _) => json!({ "domain": { "id": domain.id } }),
            (None, None, Some(_)) => json!({ "system": { "all": true } }),
            (None, None, None) => "unscoped".into(),
        }
    }

    /// `project acme/web`
    pub fn scope_words(&self) -> String {
        match (&self.project, &self.domain, &self.system) {
            (Some(project), ..) => format!("project {}", project.full_name()),
            (None, Some(domain), _) => format!("domain {}", domain.name),
            (None, None, Some(_)) => "the system".to_owned(),
            (None, None, None) => "none: everything that is assigned".to_owned(),
        }
    }
}

/// A token and what it says of itself.
#[derive(Clone, Debug)]
pub struct Signed {
    pub token: Secret<String>,
    pub body: TokenBody,
}

/// A client of one server's identity service.
#[derive(Clone)]
pub struct Keystone {
    http: reqwest::Client,
    server: String,
    token: Option<Secret<String>>,
}

/// A plain client that trusts the authorities in `ca_pem`, or the system's where there are none.
pub fn http_client(ca_pem: Option<&str>) -> anyhow::Result<reqwest::Client> {
    let mut builder =
        reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT).https_only(true);
    if let Some(pem) = ca_pem {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem.as_bytes())?);
    }
    Ok(builder.build()?)
}

impl Keystone {
    /// `http` may carry the caller's own credentials; `server` is the front door's address.
    pub fn new(http: reqwest::Client, server: &str) -> Self {
        Self { http, server: server.trim_end_matches('/').to_owned(), token: None }
    }

    /// The same, asking with a token.
    pub fn with_token(&self, token: Secret<String>) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    /// Signs in. `receipt`: of an earlier part of the same sign-in.
    pub async fn sign_in(
        &self,
        proofs: &[Proof],
        scope: &Scope,
        receipt: Option<&Secret<String>>,
    ) -> Result<Signed, KeystoneError> {
        let mut request = self.request(Method::POST, "/auth/tokens").json(&auth_request(proofs, scope));
        if let Some(receipt) = receipt {
            request = request.header("Openstack-Auth-Receipt", sensitive(receipt)?);
        }
        signed(send(request).await?).await
    }

    /// A token for others, who verify it by the platform's published keys.
    pub async fn token_for(
        &self,
        token: &Secret<String>,
        audiences: &[String],
    ) -> Result<Signed, KeystoneError> {
        let mut body = auth_request(&[Proof::Token(token.clone())], &Scope::Unscoped);
        body["auth"]["audiences"] = json!(audiences);
        self.post_signed("/auth/tokens", &body).await
    }

    /// What the token says of itself; refused where it is not good any more.
    pub async fn validate(&self, token: &Secret<String>) -> Result<TokenBody, KeystoneError> {
        let request = self.request(Method::GET, "/auth/tokens").header("X-Subject-Token", sensitive(token)?);
        token_body(accepted(send(request).await?).await?).await
    }

    /// Makes the token worthless.
    pub async fn revoke(&self, token: &Secret<String>) -> Result<(), KeystoneError> {
        let request =
            self.request(Method::DELETE, "/auth/tokens").header("X-Subject-Token", sensitive(token)?);
        accepted(send(request).await?).await.map(drop)
    }

    /// Any other call; `path` begins behind `/v3`. `Null` where the answer has no body.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, KeystoneError> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let bytes = accepted(send(request).await?).await?.bytes().await.map_err(unreachable)?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| KeystoneError::Answer(error.to_string()))
    }

    /// A call that is answered with a token.
    pub async fn post_signed(&self, path: &str, body: &Value) -> Result<Signed, KeystoneError> {
        signed(send(self.request(Method::POST, path).json(body)).await?).await
    }

    /// Changes the password of a user who knows it; needs no token.
    pub async fn change_password(
        &self,
        user_id: &str,
        old: &Secret<String>,
        new: &Secret<String>,
    ) -> Result<(), KeystoneError> {
        let body = json!({ "user": { "original_password": old.expose(), "password": new.expose() } });
        self.call(Method::POST, &format!("/users/{user_id}/password"), Some(&body)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{ROOT}{path}", self.server));
        match self.token.as_ref().map(sensitive) {
            Some(Ok(token)) => request.header("X-Auth-Token", token),
            // A token that is no header is none of ours: the server will say that one is needed.
            Some(Err(_)) | None => request,
        }
    }
}

fn sensitive(token: &Secret<String>) -> Result<http::HeaderValue, KeystoneError> {
    let value = http::HeaderValue::try_from(token.expose().as_str());
    let mut value = value.map_err(|_| KeystoneError::Answer("a token that is no text".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, KeystoneError> {
    request.send().await.map_err(unreachable)
}

fn unreachable(error: reqwest::Error) -> KeystoneError {
    KeystoneError::Unreachable(error.into())
}

/// The answer to a sign-in.
async fn signed(response: reqwest::Response) -> Result<Signed, KeystoneError> {
    let response = accepted(response).await?;
    let token = header(&response, "X-Subject-Token")
        .ok_or_else(|| KeystoneError::Answer("a sign-in without a token".to_owned()))?;
    Ok(Signed { token: Secret::new(token), body: token_body(response).await? })
}

async fn token_body(response: reqwest::Response) -> Result<TokenBody, KeystoneError> {
    #[derive(Deserialize)]
    struct Body {
        token: TokenBody,
    }
    let body: Body = response.json().await.map_err(|error| KeystoneError::Answer(error.to_string()))?;
    Ok(body.token)
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

async fn accepted(response: reqwest::Response) -> Result<reqwest::Response, KeystoneError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let code = response.status().as_u16();
    let receipt = header(&response, "Openstack-Auth-Receipt");
    let text = response.text().await.unwrap_or_default();
    Err(refusal(code, receipt, &text))
}

/// Reads a refusal: Keystone's, or a Kubernetes `Status` of the front door before it.
fn refusal(code: u16, receipt: Option<String>, text: &str) -> KeystoneError {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    if let (401, Some(receipt)) = (code, receipt) {
        let words = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|w| w.as_str().map(str::to_owned)).collect()
        };
        let rules = body["required_auth_methods"].as_array().into_iter().flatten().map(words).collect();
        let done = words(&body["receipt"]["methods"]);
        let user = body["receipt"]["user"]["id"].as_str().unwrap_or_default().to_owned();
        return KeystoneError::MoreNeeded { receipt: Secret::new(receipt), user, done, rules };
    }
    let message = body["error"]["message"].as_str().or_else(|| body["message"].as_str());
    let message = message.filter(|message| !message.is_empty());
    let message =
        message.map_or_else(|| format!("the identity service refused with status {code}"), str::to_owned);
    let title = body["error"]["title"].as_str().unwrap_or_default().to_owned();
    KeystoneError::Refused { code, title, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> UserName {
        UserName { domain: Some("acme".to_owned()), name: "alice".to_owned() }
    }

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn requests_are_keystones() {
        let password = Proof::Password { user: alice(), password: secret("pw") };
        let totp = Proof::Totp { user: alice(), code: "123456".to_owned() };
        let web = Scope::Project { name: "web".to_owned(), domain: None };
        assert_eq!(
            auth_request(&[password, totp], &web),
            json!({"auth": {
                "identity": {
                    "methods": ["password", "totp"],
                    "password": {"user": {"name": "alice", "domain": {"name": "acme"}, "password": "pw"}},
                    "totp": {"user": {"name": "alice", "domain": {"name": "acme"}, "passcode": "123456"}},
                },
                "scope": {"project": {"name": "web", "domain": {"id": "default"}}},
            }})
        );
        let robot = Proof::ApplicationCredential { id: "7f".to_owned(), secret: secret("s") };
        assert_eq!(
            auth_request(&[robot], &Scope::Default),
            json!({"auth": {"identity": {
                "methods": ["application_credential"],
                "application_credential": {"id": "7f", "secret": "s"},
            }}})
        );
        let token = auth_request(&[Proof::Token(secret("t"))], &Scope::Unscoped);
        assert_eq!(token["auth"]["scope"], json!("unscoped"));
    }

    #[test]
    fn refusals_are_told_apart() {
        let more = refusal(
            401,
            Some("r".to_owned()),
            r#"{"receipt":{"methods":["password"]},"required_auth_methods":[["password","totp"]]}"#,
        );
        assert_eq!(more.to_string(), "more is asked for: one of password+totp");
        assert!(!format!("{more:?}").contains("\"r\""), "the receipt is a secret");
        let expired = r#"{"error":{"code":401,"message":"The password is expired and needs to be changed for user: 4f2a.","title":"Unauthorized"}}"#;
        assert_eq!(refusal(401, None, expired).expired_password_of(), Some("4f2a"));
        let wrong = r#"{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}"#;
        assert_eq!(refusal(401, None, wrong).expired_password_of(), None);
        let status = r#"{"kind":"Status","message":"users is forbidden"}"#;
        assert_eq!(refusal(403, None, status).to_string(), "users is forbidden");
        assert_eq!(refusal(502, None, "<html>").to_string(), "the identity service refused with status 502");
    }

    #[test]
    fn tokens_are_read_with_their_scope() {
        let token = |rest: &str| -> TokenBody {
            let text = format!(
                r#"{{"user":{{"id":"1","name":"alice","domain":{{"id":"a","name":"acme"}}}},
                "issued_at":"2026-01-01T00:00:00.000000Z","expires_at":"2026-01-01T08:00:00.000000Z"{rest}}}"#
            );
            serde_json::from_str(&text).expect("a token")
        };
        let web = token(r#","project":{"id":"p","name":"web","domain":{"id":"a","name":"acme"}}"#);
        assert_eq!(web.scope(), json!({"project": {"id": "p"}}));
        assert_eq!(web.scope_words(), "project acme/web");
        assert_eq!(web.user.full_name(), "acme/alice");
        assert_eq!(token("").scope(), json!("unscoped"));
        assert_eq!(token(r#","system":{"all":true}"#).scope(), json!({"system": {"all": true}}));
        assert_eq!(token(r#","domain":{"id":"a","name":"acme"}"#).scope_words(), "domain acme");
    }
}
