//! The front door's way of knowing users: a token as `Authorization: Bearer`, `X-Auth-Token` or a browser's cookie or,
//! for registry clients, name and password as `Basic`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_kube_types::{
    AUDIT_ID, Authenticator, ConnectionInfo, Cookie, Memory, SESSION_COOKIE, Standing, StatusError, UserInfo,
};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;

use crate::core::Core;
use crate::errors::IdentityError;
use crate::login::{CredentialRef, LoginRequest, Method, Origin, ScopeRequest, UserRef};
use crate::password::Password;
use crate::session::Session;
use crate::sessions::Last;
use crate::token::{Checks, TokenError, Verified};

/// Keystone's header.
const X_AUTH_TOKEN: &str = "x-auth-token";
/// A longer header is no credential of ours.
const BASIC_BYTES_MAX: usize = 8 << 10;
/// Before an application credential used as a user name: its id (`docker login -u app:ID`), or whose it is and what it
/// is called (`app:acme/alice/ci`).
pub const APPLICATION_CREDENTIAL_PREFIX: &str = "app:";

/// Recognises tokens.
pub struct TokenAuthenticator {
    core: Arc<Core>,
    /// It answers to services that know nothing of access rules.
    elsewhere: bool,
}

impl TokenAuthenticator {
    /// For the front door, behind which every service is held to access rules.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, elsewhere: false }
    }

    /// For TokenReviews: who asks takes the caller for all that the user is. A token that is good for less (for one
    /// project, for some roles, by an application credential) is not known there.
    pub fn elsewhere(core: Arc<Core>) -> Self {
        Self { core, elsewhere: true }
    }

    fn knows(&self, session: &Session) -> bool {
        !self.elsewhere || session.is_whole()
    }

    /// The token, whose signature is ours.
    fn shown(&self, token: &str, connection: &ConnectionInfo) -> Result<Arc<Shown>, TokenError> {
        match connection.memory.get::<Shown>().filter(|shown| *shown.token == *token) {
            Some(shown) => Ok(shown),
            None => Ok(Shown::put(&connection.memory, token, self.core.tokens.verified(token)?)),
        }
    }

    /// Whose it is, while it is good.
    fn caller(&self, shown: &Shown) -> Result<UserInfo, StatusError> {
        let (now, unauthorized) = (self.core.now(), StatusError::unauthorized);
        let claims = self.core.tokens.check(&shown.verified, Checks::at(now)).map_err(|_| unauthorized())?;
        let session = self.core.session_again(&shown.session, claims, now).filter(|s| self.knows(s));
        Ok(session.ok_or_else(unauthorized)?.info.clone())
    }
}

#[async_trait::async_trait]
impl Authenticator for TokenAuthenticator {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| scheme(value.to_str().ok()?, "bearer"));
        let keystone = headers.get(X_AUTH_TOKEN).and_then(|value| value.to_str().ok());
        let Some(token) = bearer.or(keystone) else { return Ok(None) };
        match self.shown(token, connection) {
            Ok(shown) => self.caller(&shown).map(Some),
            // A service account's, for example: the next authenticator may know it.
            Err(TokenError::Foreign) if keystone != Some(token) => Ok(None),
            Err(_) => Err(StatusError::unauthorized()),
        }
    }
}

/// Recognises the cookie of a browser's session, which is a token. The front door has taken it out where it does not
/// count.
pub struct SessionAuthenticator(TokenAuthenticator);

impl SessionAuthenticator {
    pub fn new(core: Arc<Core>) -> Self {
        Self(TokenAuthenticator::new(core))
    }
}

#[async_trait::async_trait]
impl Authenticator for SessionAuthenticator {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let token = match Cookie::of(headers, SESSION_COOKIE) {
            Cookie::Absent => return Ok(None),
            // Who shows a credential is who that says, whatever a browser adds: also when it is a bad one.
            _ if headers.contains_key(AUTHORIZATION) || headers.contains_key(X_AUTH_TOKEN) => {
                return Ok(None);
            }
            Cookie::One(token) => token,
            Cookie::Unclear => return Err(StatusError::unauthorized()),
        };
        let shown = self.0.shown(token, connection).map_err(|_| StatusError::unauthorized())?;
        self.0.caller(&shown).map(Some)
    }
}

/// Knows whether tokens that were shown some time ago are still good.
pub(crate) struct TokenStanding(pub(crate) Arc<Core>);

impl Standing for TokenStanding {
    fn version(&self) -> u64 {
        self.0.standing_version()
    }

    fn is_good(&self, caller: &UserInfo, since: Timestamp) -> bool {
        self.0.still_good(caller, since)
    }
}

/// The token that the connection showed last: that it is ours is not asked again, whether it is good is.
struct Shown {
    token: Box<str>,
    verified: Verified,
    session: Last,
}

impl Shown {
    fn put(memory: &Memory, token: &str, verified: Verified) -> Arc<Self> {
        let shown = Arc::new(Self { token: token.into(), verified, session: Last::default() });
        memory.keep(shown.clone());
        shown
    }
}

/// Recognises names and passwords. Every use costs a password hash: for the doors whose clients know no better.
pub struct PasswordAuthenticator(pub Arc<Core>);

#[async_trait::async_trait]
impl Authenticator for PasswordAuthenticator {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let basic = headers.get(AUTHORIZATION).and_then(|value| scheme(value.to_str().ok()?, "basic"));
        let Some((name, secret)) = basic.and_then(decoded) else { return Ok(None) };
        // A token as the password, with any name: what `docker login` is given by `gantry token`.
        if let Ok(claims) = self.0.tokens.verify(&secret, Checks::at(self.0.now())) {
            let session = self.0.session(claims, self.0.now()).ok_or_else(StatusError::unauthorized)?;
            return Ok(Some(session.info.clone()));
        }
        let password = Password::new(secret);
        let (method, scope) = match name.strip_prefix(APPLICATION_CREDENTIAL_PREFIX) {
            Some(shown) => {
                let credential = credential(shown);
                (Method::ApplicationCredential { credential, secret: password }, ScopeRequest::Default)
            }
            // Names of other authenticators have no organisation in them.
            None if !name.contains('/') => return Ok(None),
            None => (Method::Password { user: UserRef::parse(&name), password }, ScopeRequest::Unscoped),
        };
        let request = LoginRequest { methods: vec![method], scope, ..LoginRequest::default() };
        let id = headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        let origin = Origin { connection: connection.clone(), request: id.to_owned() };
        match self.0.login(request, &origin).await {
            Ok(issued) => Ok(Some(issued.session.info.clone())),
            Err(error @ IdentityError::TooMany { .. }) => Err(StatusError::from(&error)),
            Err(_) => Err(StatusError::unauthorized()),
        }
    }
}

/// `ID` or `DOMAIN/USER/NAME`.
fn credential(shown: &str) -> CredentialRef {
    match shown.rsplit_once('/') {
        Some((user, name)) => CredentialRef::Name { name: name.to_owned(), user: UserRef::parse(user) },
        None => CredentialRef::Id(shown.to_owned()),
    }
}

pub(crate) fn scheme<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
}

pub(crate) fn decoded(basic: &str) -> Option<(String, String)> {
    if basic.len() > BASIC_BYTES_MAX {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
    let (name, secret) = text.split_once(':')?;
    // `app:ID:SECRET`: the name of an application credential has a colon itself.
    match name == APPLICATION_CREDENTIAL_PREFIX.trim_end_matches(':') {
        true => {
            let (id, secret) = secret.split_once(':')?;
            Some((format!("{APPLICATION_CREDENTIAL_PREFIX}{id}"), secret.to_owned()))
        }
        false => Some((name.to_owned(), secret.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_secrets_are_read_from_basic_credentials() {
        for (text, want) in [
            ("acme/alice:pass:word", Some(("acme/alice", "pass:word"))),
            ("app:0123:s3cret", Some(("app:0123", "s3cret"))),
            ("nothing", None),
        ] {
            let got = decoded(&STANDARD.encode(text));
            let want = want.map(|(name, secret)| (name.to_owned(), secret.to_owned()));
            assert_eq!(got, want, "{text}");
        }
        assert_eq!(credential("0123"), CredentialRef::Id("0123".to_owned()));
        let named = CredentialRef::Name { name: "ci".to_owned(), user: UserRef::parse("acme/alice") };
        assert_eq!(credential("acme/alice/ci"), named);
        assert_eq!(decoded("not base64 !"), None);
        assert_eq!(scheme("BEARER  x", "bearer"), Some("x"));
        assert_eq!(scheme("Bearerx", "bearer"), None);
    }
}
