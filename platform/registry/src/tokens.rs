//! Registry tokens: short-lived, limited to scopes (the token flow of OCI clients, `docker login` included).

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use gantry_kube_types::{
    AUDIT_ID, Attributes, AuditNotes, Authenticator, Authorizer, ConnectionInfo, Decision, Explanation,
    StatusError, UserInfo,
};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use serde_json::json;

use crate::Registry;
use crate::access::Access;
use crate::admin::refused;
use crate::errors::{ApiError, ErrorCode};

/// The `service` of challenges.
pub(crate) const SERVICE: &str = "gantry";
/// In `UserInfo::extra` of who came with a registry token: the scopes it is limited to.
pub(crate) const SCOPES_KEY: &str = "registry.gantry.dev/scopes";

const ISSUER: &str = "gantry";
const AUDIENCE: &str = "gantry-registry";
const LIFETIME: Duration = Duration::from_secs(15 * 60);
const FORM_MAX_BYTES: usize = 64 * 1024;
const SCOPES_MAX: usize = 64;

/// `TYPE:NAME:ACTION[,ACTION]`, e.g. `repository:demo/hello:pull,push` or `registry:catalog:*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub kind: String,
    pub name: String,
    pub actions: Vec<String>,
}

impl Scope {
    pub(crate) fn covers(&self, verb: &str, repository: &str) -> bool {
        let action = |verb: &str| self.actions.iter().any(|a| a == verb || a == "*");
        match verb {
            "list" => self.kind == "registry" && self.name == "catalog" && action("*"),
            verb => self.kind == "repository" && self.name == repository && action(verb),
        }
    }

    /// What of the scope the caller really has.
    fn granted(self, access: &Access, user: &UserInfo) -> Option<Self> {
        let actions: Vec<String> = match (self.kind.as_str(), self.name.as_str()) {
            ("repository", name) => {
                let every = self.actions.iter().any(|a| a == "*");
                let asked = |verb: &&str| every || self.actions.iter().any(|a| a == verb);
                let verbs = ["pull", "push", "delete"].into_iter().filter(asked);
                verbs.filter(|verb| access.allows(user, verb, name)).map(str::to_owned).collect()
            }
            // What the list shows is looked up when it is made.
            ("registry", "catalog") if !user.is_anonymous() => vec!["*".to_owned()],
            _ => Vec::new(),
        };
        (!actions.is_empty()).then_some(Self { actions, ..self })
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, rest) = text.split_once(':').ok_or(())?;
        let (name, actions) = rest.rsplit_once(':').ok_or(())?;
        let actions = actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect();
        Ok(Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

/// Who came with a token, and when it was made for them.
pub struct Bearer {
    pub user: UserInfo,
    pub issued_at: Timestamp,
}

/// Makes tokens and recognises its own: here [`JwtIssuer`].
pub trait TokenIssuer: Send + Sync {
    /// A token for `user` that is good for `scopes` only. It counts as made when they began to prove who they are.
    fn issue(
        &self,
        user: &UserInfo,
        scopes: &[Scope],
        issued_at: Timestamp,
        lifetime: Duration,
    ) -> Result<String, StatusError>;

    /// `Ok(None)`: no token of this issuer. `Err`: one of it that is forged or too old.
    fn authenticate(&self, token: &str) -> Result<Option<Bearer>, StatusError>;
}

/// JSON Web Tokens signed with a key of its own (HS256).
pub struct JwtIssuer {
    signing: jsonwebtoken::EncodingKey,
    verifying: jsonwebtoken::DecodingKey,
    /// The key's name, by which other issuers' tokens are told apart before any is verified.
    key_id: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    /// `iat` to the microsecond: what is revoked was made before, also within a second.
    #[serde(default)]
    iat_us: i64,
    user: UserInfo,
    scopes: Vec<String>,
}

impl JwtIssuer {
    /// Reads the key file, or makes it (0600).
    pub fn open(key_file: &Path) -> std::io::Result<Self> {
        let key = gantry_base::fs::secret_key(key_file)?;
        let key_id = gantry_oci::Digest::of(&key).hex()[..16].to_owned();
        Ok(Self {
            signing: jsonwebtoken::EncodingKey::from_secret(&key),
            verifying: jsonwebtoken::DecodingKey::from_secret(&key),
            key_id: format!("registry-{key_id}"),
        })
    }
}

impl TokenIssuer for JwtIssuer {
    fn issue(
        &self,
        user: &UserInfo,
        scopes: &[Scope],
        issued_at: Timestamp,
        lifetime: Duration,
    ) -> Result<String, StatusError> {
        let now = issued_at.as_second().unsigned_abs();
        let mut user = user.clone();
        user.extra.remove(SCOPES_KEY);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            iat: now,
            exp: now + lifetime.as_secs(),
            iat_us: issued_at.as_microsecond(),
            user,
            scopes: scopes.iter().map(Scope::to_string).collect(),
        };
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &claims, &self.signing).map_err(StatusError::internal)
    }

    fn authenticate(&self, token: &str) -> Result<Option<Bearer>, StatusError> {
        let ours = jsonwebtoken::decode_header(token).is_ok_and(|h| h.kid.as_ref() == Some(&self.key_id));
        if !ours {
            return Ok(None);
        }
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[ISSUER]);
        rules.leeway = 5;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &rules)
            .map_err(|_| StatusError::unauthorized())?
            .claims;
        let mut user = claims.user;
        user.extra.insert(SCOPES_KEY.to_owned(), claims.scopes);
        let issued_at = Timestamp::from_microsecond(claims.iat_us).unwrap_or_default();
        Ok(Some(Bearer { user, issued_at }))
    }
}

/// Is it still good what somebody came with, to whom a token was handed out at this time?
pub type StillGood = Arc<dyn Fn(&UserInfo, Timestamp) -> bool + Send + Sync>;

/// The front door's authenticator for registry tokens. One that was handed out for something that is revoked meanwhile
/// is as little worth.
pub struct RegistryTokens {
    issuer: Arc<dyn TokenIssuer>,
    still_good: StillGood,
}

impl RegistryTokens {
    pub fn new(issuer: Arc<dyn TokenIssuer>, still_good: StillGood) -> Self {
        Self { issuer, still_good }
    }
}

#[async_trait::async_trait]
impl Authenticator for RegistryTokens {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let Some(token) = credential(headers, "bearer ") else { return Ok(None) };
        let Some(Bearer { user, issued_at }) = self.issuer.authenticate(token)? else { return Ok(None) };
        if (self.still_good)(&user, issued_at) { Ok(Some(user)) } else { Err(StatusError::unauthorized()) }
    }
}

/// Takes `Authorization: Basic` whose password is a token that another authenticator knows as
/// `Authorization: Bearer`: how OCI clients log in. The user name is not looked at: the token says who it is.
pub struct PasswordIsToken(pub Arc<dyn Authenticator>);

#[async_trait::async_trait]
impl Authenticator for PasswordIsToken {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let Some(encoded) = credential(headers, "basic ") else { return Ok(None) };
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim());
        let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (_, password) =
            text.as_deref().and_then(|t| t.split_once(':')).ok_or_else(StatusError::unauthorized)?;
        authenticate_password(&*self.0, password, headers.get(AUDIT_ID), connection).await.map(Some)
    }
}

const NOT_BEYOND: &str = "a registry token is good for the registry only";

/// Keeps registry tokens in the registry. A token names its user and the user's groups, so without this
/// every other service would take a token that is good for pulling one repository as the whole user. The registry's own
/// kinds are the Kubernetes API's: a token that may pull is none to delete repositories with.
pub struct NotBeyondRegistry(pub Arc<dyn Authorizer>);

impl Authorizer for NotBeyondRegistry {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.extra.contains_key(SCOPES_KEY) {
            return Decision::Deny(NOT_BEYOND.to_owned());
        }
        self.0.authorize(attributes)
    }

    fn decisions_version(&self, user: &UserInfo) -> Option<u64> {
        self.0.decisions_version(user)
    }

    fn explain(&self, attributes: &Attributes, listener: &UserInfo) -> Option<Explanation> {
        self.0.explain(attributes, listener)
    }
}

/// [`NotBeyondRegistry`] for a service that the front door lets everybody with a good credential into, without asking
/// an authoriser.
pub fn not_beyond_registry(service: Router) -> Router {
    service.layer(from_fn(refuse_registry_tokens))
}

async fn refuse_registry_tokens(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<UserInfo>();
    if caller.is_some_and(|caller| caller.extra.contains_key(SCOPES_KEY)) {
        return refused(&StatusError::new(403, "Forbidden", NOT_BEYOND));
    }
    next.run(request).await
}

async fn authenticate_password(
    authenticator: &dyn Authenticator,
    password: &str,
    id: Option<&HeaderValue>,
    connection: &ConnectionInfo,
) -> Result<UserInfo, StatusError> {
    authenticate_alone(authenticator, &format!("Bearer {password}"), id, connection).await
}

/// By one header and nothing else of the request but its `id`, under which the sign-in is recorded.
async fn authenticate_alone(
    authenticator: &dyn Authenticator,
    header: &str,
    id: Option<&HeaderValue>,
    connection: &ConnectionInfo,
) -> Result<UserInfo, StatusError> {
    let mut value = HeaderValue::from_str(header).map_err(|_| StatusError::unauthorized())?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    if let Some(id) = id {
        headers.insert(AUDIT_ID, id.clone());
    }
    // Without the connection's certificates: the password must be good by itself.
    let connection = ConnectionInfo { peer: connection.peer, ..ConnectionInfo::default() };
    authenticator.authenticate(&headers, &connection).await?.ok_or_else(StatusError::unauthorized)
}

fn credential<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (start, rest) = value.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Who the credential of a form belongs to, and whether it is a token. `name`: it was sent as a password.
async fn grant_holder(
    access: &Access,
    name: Option<&str>,
    secret: &str,
    id: Option<&HeaderValue>,
    connection: &ConnectionInfo,
) -> Result<(UserInfo, bool), ApiError> {
    if let Ok(user) = authenticate_password(&*access.bearers, secret, id, connection).await {
        return Ok((user, true));
    }
    let refused = |_| ApiError::new(ErrorCode::Unauthorized);
    let name = name.ok_or(StatusError::unauthorized()).map_err(refused)?;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{secret}"));
    let value = format!("Basic {basic}");
    let user = authenticate_alone(&*access.passwords, &value, id, connection).await;
    user.map(|user| (user, false)).map_err(refused)
}

/// `GET /token?service=…&scope=…` and `POST /token` (OAuth 2 form).
pub(crate) async fn serve(registry: &Registry, request: Request<Body>) -> Result<Response, ApiError> {
    let began = Timestamp::now();
    let known = request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous);
    let connection = request.extensions().get::<ConnectionInfo>().cloned().unwrap_or_default();
    let bad = |message: &str| {
        ApiError::new(ErrorCode::Unsupported).status(http::StatusCode::BAD_REQUEST).message(message)
    };
    let id = request.headers().get(AUDIT_ID).cloned();
    let mut notes = None;
    let mut refresh_token = None;
    let (user, fields) = match *request.method() {
        Method::GET => (known, parse_form(request.uri().query().unwrap_or_default().as_bytes())),
        Method::POST => {
            let body = axum::body::to_bytes(request.into_body(), FORM_MAX_BYTES)
                .await
                .map_err(|_| bad("the form could not be read"))?;
            let fields = parse_form(&body);
            let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            let grant = match field("grant_type").as_deref() {
                Some("password") => {
                    field("password").map(|p| (Some(field("username").unwrap_or_default()), p))
                }
                Some("refresh_token") => field("refresh_token").map(|token| (None, token)),
                _ => return Err(bad("grant_type must be password or refresh_token")),
            };
            let (name, secret) = grant.ok_or_else(|| bad("the form has no credential"))?;
            let (user, is_token) =
                grant_holder(&registry.inner.access, name.as_deref(), &secret, id.as_ref(), &connection)
                    .await?;
            // The front door saw no credential.
            let credential = if is_token { "token" } else { "password" };
            notes = Some(AuditNotes {
                user: Some(user.clone()),
                credential: Some(credential.into()),
                ..AuditNotes::default()
            });
            // A password is not handed back to be kept as if it were a token.
            refresh_token = is_token.then_some(secret);
            (user, fields)
        }
        _ => return Err(ApiError::new(ErrorCode::Unsupported)),
    };
    // A token made from a token would outlive it.
    if user.extra.contains_key(SCOPES_KEY) {
        return Err(ApiError::new(ErrorCode::Unauthorized).message("a registry token cannot be exchanged"));
    }
    let access = &registry.inner.access;
    let asked = fields.iter().filter(|(name, _)| name == "scope").flat_map(|(_, value)| value.split(' '));
    let scopes: Vec<Scope> =
        asked.take(SCOPES_MAX).filter_map(|s| s.parse::<Scope>().ok()?.granted(access, &user)).collect();
    let token = access.issuer.issue(&user, &scopes, began, LIFETIME).map_err(|error| {
        tracing::error!(?error, "a registry token could not be made");
        ApiError::new(ErrorCode::Unknown)
    })?;
    let mut answer = json!({
        "token": token,
        "access_token": token,
        "expires_in": LIFETIME.as_secs(),
        "issued_at": began.to_string(),
    });
    if let Some(refresh_token) = refresh_token {
        answer["refresh_token"] = refresh_token.into();
    }
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    let mut response = (headers, answer.to_string()).into_response();
    if let Some(notes) = notes {
        response.extensions_mut().insert(notes);
    }
    Ok(response)
}

/// `application/x-www-form-urlencoded` pairs, also of query strings.
pub(crate) fn parse_form(bytes: &[u8]) -> Vec<(String, String)> {
    let pairs = bytes.split(|b| *b == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            (decode(&pair[..at]), decode(pair.get(at + 1..).unwrap_or_default()))
        })
        .collect()
}

fn decode(bytes: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let mut byte = [0];
        match first {
            b'+' => decoded.push(b' '),
            b'%' if tail.len() >= 2 && hex::decode_to_slice(&tail[..2], &mut byte).is_ok() => {
                decoded.push(byte[0]);
                rest = &tail[2..];
            }
            other => decoded.push(*other),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    struct Everything;

    impl Authorizer for Everything {
        fn authorize(&self, _: &Attributes) -> Decision {
            Decision::Allow(String::new())
        }
    }

    #[tokio::test]
    async fn a_token_for_what_is_not_good_any_more_is_not_good() {
        let directory = tempfile::tempdir().expect("a directory");
        let issuer = Arc::new(JwtIssuer::open(&directory.path().join("key")).expect("a key"));
        let now = Timestamp::now();
        let alice = UserInfo::authenticated("acme/alice", &[]);
        let token = issuer.issue(&alice, &[], now, LIFETIME).expect("a token");
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("plain"));
        let ask = async |still_good: StillGood| {
            let door = RegistryTokens::new(issuer.clone(), still_good);
            door.authenticate(&headers, &ConnectionInfo::default()).await
        };
        let asked = ask(Arc::new(move |user, at| {
            assert_eq!(user.username, "acme/alice");
            at.as_microsecond() == now.as_microsecond()
        }));
        assert!(asked.await.expect("good").is_some());
        let refused = ask(Arc::new(|_, _| false)).await.expect_err("revoked");
        assert_eq!(refused.code, 401);
    }

    #[test]
    fn a_registry_token_opens_nothing_but_the_registry() {
        let door = NotBeyondRegistry(Arc::new(Everything));
        let mut user = UserInfo::authenticated("admin", &["system:masters"]);
        let ask = |user: &UserInfo, group: &str| {
            let attributes =
                Attributes { user: user.clone(), group: group.to_owned(), ..Attributes::default() };
            door.authorize(&attributes).is_allowed()
        };
        assert!(ask(&user, ""), "other credentials are not touched");
        user.extra.insert(SCOPES_KEY.to_owned(), vec!["repository:a:pull".to_owned()]);
        assert!(!ask(&user, ""));
        assert!(!ask(&user, "apps"));
        assert!(!ask(&user, gantry_registry_api::GROUP), "its kinds are the Kubernetes API's");
    }

    #[tokio::test]
    async fn a_registry_token_opens_no_service_that_takes_everybody() {
        let service = not_beyond_registry(Router::new().fallback(|| async { "served" }));
        let ask = async |user: &UserInfo| {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(user.clone());
            service.clone().oneshot(request).await.expect("an answer").status()
        };
        let mut user = UserInfo::authenticated("admin", &["system:masters"]);
        assert_eq!(ask(&user).await, http::StatusCode::OK);
        user.extra.insert(SCOPES_KEY.to_owned(), vec!["repository:a:pull".to_owned()]);
        assert_eq!(ask(&user).await, http::StatusCode::FORBIDDEN);
    }
}
