//! What is revoked, and what a token is asked about.

use gantry_identity_api::extra;
use gantry_kube_types::UserInfo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::token::{Claims, TokenScope};

/// Which tokens an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One token, by its id; whose it is, for the case that there are too many single ones.
    Token {
        id: String,
        user: String,
    },
    /// A token and all that were got with it.
    Chain {
        id: String,
        user: String,
    },
    /// All of a user.
    User(String),
    /// Those of a user that are scoped to a project.
    UserInProject {
        user: String,
        project: String,
    },
    /// All that are scoped to a project.
    Project(String),
    /// Those of the domain's users, and those scoped to the domain or to a project of it.
    Domain(String),
    ApplicationCredential(String),
    Trust(String),
    OAuthConsumer(String),
    OAuthAccessToken(String),
    /// Those of users who came by an identity provider.
    Provider(String),
    /// All there are: the last resort.
    Everything,
}

/// Why, for the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody revoked the token.
    Revoked,
    Logout,
    PasswordChanged,
    Disabled,
    Deleted,
    /// The roles were taken away that the token rested on.
    RightsChanged,
    /// There were more single events than are kept; a wider one stands for them.
    Coarsened,
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub target: Target,
    pub cause: Cause,
    /// The tokens issued until then; a single token and a chain are meant whenever they were issued.
    pub issued_before: Timestamp,
    pub revoked_at: Timestamp,
}

impl Event {
    /// Everything of the target that was issued until now.
    pub fn new(target: Target, cause: Cause, now: Timestamp) -> Self {
        Self { target, cause, issued_before: now, revoked_at: now }
    }

    /// One token.
    pub fn token(claims: &Claims, cause: Cause, now: Timestamp) -> Self {
        Self::new(Target::Token { id: claims.id.clone(), user: claims.user.clone() }, cause, now)
    }

    /// A token, the one it was got with, and all that were got with either.
    pub fn chain(claims: &Claims, cause: Cause, now: Timestamp) -> Self {
        Self::new(Target::Chain { id: claims.chain_id().to_owned(), user: claims.user.clone() }, cause, now)
    }
}

/// What of a token events are about, borrowed from its claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    pub id: &'a str,
    pub chain: &'a str,
    pub user: &'a str,
    pub user_domain: &'a str,
    /// The project the token is scoped to, if it is.
    pub project: Option<&'a str>,
    /// The domain the token is scoped to, or the one its project is in.
    pub scope_domain: Option<&'a str>,
    pub application_credential: Option<&'a str>,
    pub trust: Option<&'a str>,
    pub oauth_consumer: Option<&'a str>,
    pub oauth_access_token: Option<&'a str>,
    pub provider: Option<&'a str>,
    pub issued_at: Timestamp,
}

impl<'a> Facts<'a> {
    /// Of the token that the caller came with, as far as callers are told of it ([`extra`]), for what was handed out for
    /// it at that time. `None`: it was none of ours. `domain_of`: whose a project is.
    pub fn of_caller(
        caller: &'a UserInfo,
        issued_at: Timestamp,
        domain_of: impl FnOnce(&str) -> Option<&'a str>,
    ) -> Option<Self> {
        let all = |key: &str| caller.extra.get(key).map(Vec::as_slice).unwrap_or_default();
        let one = |key: &str| all(key).first().map(String::as_str);
        let id = one(extra::TOKEN_ID)?;
        let project = one(extra::PROJECT);
        Some(Self {
            id,
            chain: one(extra::TOKEN_CHAIN).unwrap_or(id),
            user: one(extra::USER_ID)?,
            user_domain: one(extra::DOMAIN)?,
            project,
            scope_domain: one(extra::SCOPE_DOMAIN).or_else(|| domain_of(project?)),
            application_credential: one(extra::APPLICATION_CREDENTIAL),
            trust: one(extra::TRUST),
            oauth_consumer: one(extra::OAUTH),
            oauth_access_token: all(extra::OAUTH).get(1).map(String::as_str),
            provider: one(extra::PROVIDER),
            issued_at,
        })
    }
}

impl<'a> From<&'a Claims> for Facts<'a> {
    fn from(claims: &'a Claims) -> Self {
        let (project, scope_domain) = match &claims.scope {
            TokenScope::Unscoped | TokenScope::System => (None, None),
            TokenScope::Domain(id) => (None, Some(id.as_str())),
            TokenScope::Project { id, domain } => (Some(id.as_str()), Some(domain.as_str())),
        };
        Self {
            id: &claims.id,
            chain: claims.chain_id(),
            user: &claims.user,
            user_domain: &claims.user_domain,
            project,
            scope_domain,
            application_credential: claims.application_credential.as_deref(),
            trust: claims.trust.as_deref(),
            oauth_consumer: claims.oauth.as_ref().map(|oauth| oauth.consumer.as_str()),
            oauth_access_token: claims.oauth.as_ref().map(|oauth| oauth.access_token.as_str()),
            provider: claims.federation.as_ref().map(|federation| federation.provider.as_str()),
            issued_at: claims.issued_at,
        }
    }
}
