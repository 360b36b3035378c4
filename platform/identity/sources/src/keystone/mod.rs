//! People of another Keystone: they bring a token or a password of it and keep their roles.

mod cache;
mod config;
mod listing;
mod system;
mod wire;

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

pub use config::{KeystoneAccount, KeystoneConfig, KeystoneLimits};
pub use listing::KeystoneListing;

use crate::http::{Answer, Http};
use crate::{ExternalGrant, ExternalScope, ExternalUser, Named, SourceError};
use cache::{Cache, TokenHash};
use wire::{Assignment, TokenDocument};

const NAME: &str = "the other Keystone";
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
const TOKEN_BYTES_MAX: usize = 8 * 1024;
const NAME_BYTES_MAX: usize = 256;
const PASSWORD_BYTES_MAX: usize = 4096;
/// Domains and roles are few.
const SHORT_LIST_MAX: usize = 10_000;
/// Our own token is renewed when less than this is left.
const RENEW_SECONDS: i64 = 60;

/// A Keystone. Cheap to clone; clones share the cache.
#[derive(Clone)]
pub struct KeystoneSource {
    inner: Arc<Inner>,
}

struct Inner {
    config: KeystoneConfig,
    password: SecretString,
    http: Http,
    root: Url,
    cache: Cache,
    /// Our own token, with when it ends.
    own: Mutex<Option<(SecretString, Timestamp)>>,
}

/// Who somebody is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeystoneIdentity {
    /// The person. `grants` holds the roles of the token's scope; without a scope, all that the person has.
    pub user: ExternalUser,
    /// Where the token holds.
    pub scope: Option<ExternalScope>,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// How the person authenticated there.
    pub methods: Vec<String>,
}

impl KeystoneSource {
    /// Checks the configuration; nothing is sent yet. `password` belongs to `config.account`.
    pub fn new(config: KeystoneConfig, password: SecretString) -> Result<Self, SourceError> {
        let http = Http::new(&config.http, NAME)?;
        let root = http.url("url", &config.url)?;
        if !root.path().trim_end_matches('/').ends_with("/v3") || root.query().is_some() {
            return Err(SourceError::misconfigured(NAME, "url must end in /v3"));
        }
        let cache = Cache::new(config.limits.cache_entries_max, config.limits.cache_seconds_max);
        let own = Mutex::new(None);
        Ok(Self { inner: Arc::new(Inner { config, password, http, root, cache, own }) })
    }

    /// Does it answer, and may our account list people and assignments?
    pub async fn test(&self) -> Result<(), SourceError> {
        *self.inner.own.lock().await = None;
        let own = self.inner.config.account.user.as_str();
        let users: Vec<wire::User> = self.get_list("users", &[("name", own)]).await?;
        let _: Vec<wire::Domain> = self.get_list("domains", &[]).await?;
        if let Some(user) = users.first() {
            self.grants(&user.id).await?;
        }
        Ok(())
    }

    /// Whose token this is. Answers may be as old as [`KeystoneLimits::cache_seconds_max`].
    pub async fn validate(&self, token: &SecretString) -> Result<KeystoneIdentity, SourceError> {
        let subject = sensitive(token).ok_or(SourceError::BadCredentials)?;
        let (hash, now) = (hash(token), now_seconds());
        if let Some(known) = self.inner.cache.get(&hash, now) {
            return Ok(known);
        }
        let url = self.url(&["auth", "tokens"], &[("nocatalog", "true")]);
        let request =
            |client: &reqwest::Client| client.get(url.clone()).header(SUBJECT_TOKEN, subject.clone());
        let answer = self.as_service(request).await?;
        let identity = match answer.status {
            StatusCode::OK => self.identity(&answer).await?,
            StatusCode::NOT_FOUND => return Err(SourceError::BadCredentials),
            status => return Err(refused("validating a token", status)),
        };
        if identity.expires_at.as_second() <= now {
            return Err(SourceError::BadCredentials);
        }
        self.inner.cache.put(hash, identity.clone(), now);
        Ok(identity)
    }

    /// Who `user` of `domain` (its name) is, if `password` is theirs. The roles are all that the person has.
    pub async fn authenticate(
        &self,
        user: &str,
        domain: &str,
        password: &SecretString,
    ) -> Result<KeystoneIdentity, SourceError> {
        let length = password.expose_secret().len();
        let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        if length == 0 || length > PASSWORD_BYTES_MAX || !is_name(user) || !is_name(domain) {
            return Err(SourceError::BadCredentials);
        }
        let domain = json!({"name": domain});
        let body = wire::password_body(user, &domain, password.expose_secret(), &json!({"unscoped": {}}));
        let answer = self.log_in(&body).await?;
        match answer.status {
            StatusCode::CREATED => self.identity(&answer).await,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(SourceError::BadCredentials),
            status => Err(refused("signing in", status)),
        }
    }

    /// Every role the person has, with those of groups, inherited and implied ones.
    pub async fn grants(&self, user_id: &str) -> Result<Vec<ExternalGrant>, SourceError> {
        self.grants_of(user_id, &self.groups_of(user_id).await?).await
    }

    /// Forgets validated tokens.
    pub fn forget(&self) {
        self.inner.cache.clear();
    }

    /// Everybody with their groups and roles. See [`KeystoneListing`].
    pub async fn list(&self) -> Result<KeystoneListing, SourceError> {
        listing::list(self).await
    }

    async fn identity(&self, answer: &Answer) -> Result<KeystoneIdentity, SourceError> {
        let mut token = self.inner.http.json::<TokenDocument>(answer, "a token")?.token;
        if !self.counts(&token.user.domain) {
            tracing::info!(
                user = token.user.id,
                domain = token.user.domain.id,
                "not one of the domains that count"
            );
            return Err(SourceError::BadCredentials);
        }
        let scope = token.scope();
        let groups = self.groups_of(&token.user.id).await?;
        let grants = match &scope {
            Some(scope) => {
                let roles = token.roles.into_iter();
                roles.map(|role| ExternalGrant { scope: scope.clone(), role }).collect()
            }
            None => self.grants_of(&token.user.id, &groups).await?,
        };
        let user = ExternalUser {
            id: token.user.id,
            name: token.user.name,
            display_name: None,
            email: None,
            domain: Some(token.user.domain),
            // Keystone neither gives nor validates tokens of disabled people.
            enabled: true,
            groups,
            grants,
        };
        let (expires_at, methods) = (token.expires_at, token.methods);
        Ok(KeystoneIdentity { user: user.ordered(), scope, expires_at, methods })
    }

    fn counts(&self, domain: &Named) -> bool {
        let domains = &self.inner.config.domains;
        domains.is_empty() || domains.iter().any(|d| *d == domain.id || *d == domain.name)
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.inner.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn log_in(&self, body: &Value) -> Result<Answer, SourceError> {
        let http = &self.inner.http;
        http.send(http.client().post(self.url(&["auth", "tokens"], &[])).json(body)).await
    }

    /// Our own token.
    async fn own_token(&self) -> Result<SecretString, SourceError> {
        // Held while asking: who comes meanwhile waits for the same token.
        let mut own = self.inner.own.lock().await;
        if let Some((token, ends)) = &*own
            && ends.as_second() - now_seconds() > RENEW_SECONDS
        {
            return Ok(token.clone());
        }
        let account = &self.inner.config.account;
        let scope = match &account.project {
            Some(project) => {
                json!({"project": {"name": project, "domain": {"name": account.project_domain}}})
            }
            None => json!({"system": {"all": true}}),
        };
        let domain = json!({"name": account.user_domain});
        let password = self.inner.password.expose_secret();
        let answer = self.log_in(&wire::password_body(&account.user, &domain, password, &scope)).await?;
        if answer.status != StatusCode::CREATED {
            let why = format!("it does not let {:?} in ({})", account.user, answer.status);
            return Err(SourceError::misconfigured(NAME, why));
        }
        let document: TokenDocument = self.inner.http.json(&answer, "our own token")?;
        let token = answer.headers.get(SUBJECT_TOKEN).and_then(|value| value.to_str().ok());
        let token = token.ok_or_else(|| SourceError::misconfigured(NAME, "it gives no X-Subject-Token"))?;
        let token = SecretString::from(token);
        *own = Some((token.clone(), document.token.expires_at));
        Ok(token)
    }

    /// Sends as our account; once more with a new token if the one at hand was revoked.
    async fn as_service(
        &self,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Answer, SourceError> {
        let http = &self.inner.http;
        for _ in 0..2 {
            let own = self.own_token().await?;
            let header = sensitive(&own);
            let header = header.ok_or_else(|| SourceError::misconfigured(NAME, "its token is no header"))?;
            let answer = http.send(request(http.client()).header(AUTH_TOKEN, header)).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            *self.inner.own.lock().await = None;
        }
        // Tokens made in the second of a revocation count as revoked: it passes.
        Err(SourceError::unavailable(NAME, "it does not accept the token that it just gave us"))
    }

    async fn groups_of(&self, user_id: &str) -> Result<Vec<Named>, SourceError> {
        let max = self.inner.config.limits.groups_max;
        let groups: Vec<wire::Group> = self.all("groups", &["users", user_id, "groups"], &[], max).await?;
        Ok(groups.into_iter().map(|g| Named { id: g.id, name: g.name }).collect())
    }

    async fn grants_of(&self, user_id: &str, groups: &[Named]) -> Result<Vec<ExternalGrant>, SourceError> {
        let query = [("effective", ""), ("include_names", ""), ("user.id", user_id)];
        let assignments = self.assignments(&query).await?;
        let system = system::roles(self).await?;
        let mut grants: Vec<_> = assignments.into_iter().filter_map(Assignment::grant).collect();
        grants.extend(system.of(user_id, groups));
        Ok(grants)
    }

    async fn assignments(&self, query: &[(&str, &str)]) -> Result<Vec<Assignment>, SourceError> {
        let max = self.inner.config.limits.assignments_max;
        self.all("role_assignments", &["role_assignments"], query, max).await
    }

    async fn get_list<T: DeserializeOwned>(
        &self,
        key: &'static str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, SourceError> {
        self.all(key, &[key], query, SHORT_LIST_MAX).await
    }

    async fn get_url<T: DeserializeOwned>(&self, url: Url) -> Result<T, SourceError> {
        let answer = self.as_service(|client| client.get(url.clone())).await?;
        if answer.status != StatusCode::OK {
            return Err(refused(&format!("reading {}", url.path()), answer.status));
        }
        self.inner.http.json(&answer, url.path())
    }

    /// A whole list, page by page where the server makes pages; an error if it is longer than `max`.
    async fn all<T: DeserializeOwned>(
        &self,
        key: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        max: usize,
    ) -> Result<Vec<T>, SourceError> {
        let too_large = || SourceError::TooLarge { source_name: NAME.to_owned(), what: key, max };
        let mut url = self.url(path, query);
        let mut all = Vec::new();
        loop {
            let mut page: Value = self.get_url(url.clone()).await?;
            if page.get("truncated") == Some(&Value::Bool(true)) {
                let why = format!("it cuts lists off (list_limit): {} is not whole", url.path());
                return Err(SourceError::misconfigured(NAME, why));
            }
            let next = page.pointer("/links/next").and_then(Value::as_str).map(str::to_owned);
            let items: Vec<T> = serde_json::from_value(page[key].take()).map_err(|_| {
                SourceError::misconfigured(NAME, format!("{} is no list of {key}", url.path()))
            })?;
            let moved = !items.is_empty();
            all.extend(items);
            if all.len() > max {
                return Err(too_large());
            }
            // Of the link only the query is taken: our token goes nowhere but to the configured server.
            match next.and_then(|next| Url::parse(&next).ok()).filter(|_| moved) {
                Some(next) if next.query() != url.query() => url.set_query(next.query()),
                _ => return Ok(all),
            }
        }
    }
}

fn refused(doing: &str, status: StatusCode) -> SourceError {
    SourceError::misconfigured(NAME, format!("{doing}: it answered {status}"))
}

fn sensitive(token: &SecretString) -> Option<HeaderValue> {
    let text = token.expose_secret();
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn hash(token: &SecretString) -> TokenHash {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.expose_secret().as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

fn now_seconds() -> i64 {
    Timestamp::now().as_second()
}
