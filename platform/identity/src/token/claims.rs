//! What a token says.

use std::ops::Range;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// For what a token is good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenScope {
    /// To say who one is, and to get a scoped token.
    #[default]
    Unscoped,
    System,
    /// The id of a domain.
    Domain(String),
    /// A project and the domain it is in.
    Project {
        id: String,
        domain: String,
    },
}

/// How a federated user came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Federation {
    #[serde(rename = "idp")]
    pub provider: String,
    #[serde(rename = "prt")]
    pub protocol: String,
    /// Ids of the groups the mapping gave.
    #[serde(rename = "grp", skip_serializing_if = "Vec::is_empty", default)]
    pub groups: Vec<String>,
}

/// An OAuth1 token that stands behind this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth {
    #[serde(rename = "con")]
    pub consumer: String,
    #[serde(rename = "acc")]
    pub access_token: String,
}

/// Names for verifiers that cannot look them up: clusters that take us as their OIDC issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// `acme/alice`, claim `preferred_username`.
    pub username: String,
    /// `acme/devs`, claim `groups`.
    pub groups: Vec<String>,
}

/// A verified token's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Unique; Keystone's audit id, and what revocation names.
    pub id: String,
    /// Id of the user.
    pub user: String,
    /// Id of the user's domain.
    pub user_domain: String,
    pub audiences: Vec<String>,
    /// When the user began to prove who they are: a revocation later than that is about this token, also
    /// one that came while the password was still being compared. Microseconds.
    pub issued_at: Timestamp,
    /// Whole seconds.
    pub expires_at: Timestamp,
    /// `password`, `token`, `totp`, `application_credential`, …
    pub methods: Vec<String>,
    pub scope: TokenScope,
    /// The id of the first token of the chain this one was got with; absent in the first.
    pub chain: Option<String>,
    pub trust: Option<String>,
    pub application_credential: Option<String>,
    /// The token is good for these roles only. Absent: for all the user has in the scope.
    pub roles: Option<Vec<String>>,
    pub federation: Option<Federation>,
    pub oauth: Option<OAuth>,
    pub profile: Option<Profile>,
}

impl Claims {
    /// Of a token of nothing but its user's, without a scope.
    pub(crate) fn unscoped(id: &str, user: &str, user_domain: &str, lives: Range<Timestamp>) -> Self {
        Self {
            id: id.to_owned(),
            user: user.to_owned(),
            user_domain: user_domain.to_owned(),
            audiences: Vec::new(),
            issued_at: lives.start,
            expires_at: lives.end,
            methods: Vec::new(),
            scope: TokenScope::Unscoped,
            chain: None,
            trust: None,
            application_credential: None,
            roles: None,
            federation: None,
            oauth: None,
            profile: None,
        }
    }

    /// Keystone's `audit_ids`: the token's own and, in a token got with a token, the chain's.
    pub fn audit_ids(&self) -> Vec<&str> {
        std::iter::once(self.id.as_str()).chain(self.chain.as_deref()).collect()
    }

    /// What a token got with this one has as its chain.
    pub fn chain_id(&self) -> &str {
        self.chain.as_deref().unwrap_or(&self.id)
    }
}

/// A token to be made. What is not asked for is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewToken {
    pub user: String,
    pub user_domain: String,
    /// Empty: the configuration's.
    pub audiences: Vec<String>,
    /// When the user began to prove who they are; see [`Claims::issued_at`].
    pub authenticated_at: Timestamp,
    /// Absent: the configured lifetime from now. Never more than the longest allowed.
    pub expires_at: Option<Timestamp>,
    pub methods: Vec<String>,
    pub scope: TokenScope,
    /// The parent's [`Claims::chain_id`].
    pub chain: Option<String>,
    pub trust: Option<String>,
    pub application_credential: Option<String>,
    pub roles: Option<Vec<String>>,
    pub federation: Option<Federation>,
    pub oauth: Option<OAuth>,
    pub profile: Option<Profile>,
}

/// The claims as they stand in the token: short names, since it travels in a header with every request.
#[derive(Serialize, Deserialize)]
pub(super) struct Wire {
    iss: String,
    sub: String,
    aud: Audiences,
    jti: String,
    iat: i64,
    /// Microseconds to be added to `iat`.
    #[serde(skip_serializing_if = "is_zero", default)]
    us: u32,
    nbf: i64,
    exp: i64,
    #[serde(rename = "dom")]
    user_domain: String,
    #[serde(rename = "amr", default)]
    methods: Vec<String>,
    #[serde(rename = "scp", skip_serializing_if = "Option::is_none", default)]
    scope: Option<WireScope>,
    #[serde(rename = "chn", skip_serializing_if = "Option::is_none", default)]
    chain: Option<String>,
    #[serde(rename = "tru", skip_serializing_if = "Option::is_none", default)]
    trust: Option<String>,
    #[serde(rename = "apc", skip_serializing_if = "Option::is_none", default)]
    application_credential: Option<String>,
    #[serde(rename = "rol", skip_serializing_if = "Option::is_none", default)]
    roles: Option<Vec<String>>,
    #[serde(rename = "fed", skip_serializing_if = "Option::is_none", default)]
    federation: Option<Federation>,
    #[serde(rename = "oau", skip_serializing_if = "Option::is_none", default)]
    oauth: Option<OAuth>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    preferred_username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    groups: Option<Vec<String>>,
}

/// One audience may stand alone (RFC 7519, 4.1.3).
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize, Deserialize)]
enum WireScope {
    #[serde(rename = "sys")]
    System,
    #[serde(rename = "dom")]
    Domain(String),
    /// In the user's own domain.
    #[serde(rename = "prj")]
    Project(String),
    #[serde(rename = "prd")]
    ProjectElsewhere(String, String),
}

impl Wire {
    pub(super) fn new(claims: &Claims, issuer: &str) -> Self {
        let audiences = match claims.audiences.as_slice() {
            [one] => Audiences::One(one.clone()),
            many => Audiences::Many(many.to_vec()),
        };
        let scope = match &claims.scope {
            TokenScope::Unscoped => None,
            TokenScope::System => Some(WireScope::System),
            TokenScope::Domain(id) => Some(WireScope::Domain(id.clone())),
            TokenScope::Project { id, domain } if *domain == claims.user_domain => {
                Some(WireScope::Project(id.clone()))
            }
            TokenScope::Project { id, domain } => {
                Some(WireScope::ProjectElsewhere(id.clone(), domain.clone()))
            }
        };
        let micros = claims.issued_at.as_microsecond();
        Self {
            iss: issuer.to_owned(),
            sub: claims.user.clone(),
            aud: audiences,
            jti: claims.id.clone(),
            iat: micros.div_euclid(1_000_000),
            us: u32::try_from(micros.rem_euclid(1_000_000)).unwrap_or(0),
            nbf: micros.div_euclid(1_000_000),
            exp: claims.expires_at.as_second(),
            user_domain: claims.user_domain.clone(),
            methods: claims.methods.clone(),
            scope,
            chain: claims.chain.clone(),
            trust: claims.trust.clone(),
            application_credential: claims.application_credential.clone(),
            roles: claims.roles.clone(),
            federation: claims.federation.clone(),
            oauth: claims.oauth.clone(),
            preferred_username: claims.profile.as_ref().map(|profile| profile.username.clone()),
            groups: claims.profile.as_ref().map(|profile| profile.groups.clone()),
        }
    }

    /// `None`: another issuer's, or times that are none.
    pub(super) fn into_claims(self, issuer: &str) -> Option<Claims> {
        if self.iss != issuer || self.us >= 1_000_000 || self.nbf != self.iat {
            return None;
        }
        let micros = self.iat.checked_mul(1_000_000)?.checked_add(i64::from(self.us))?;
        let scope = match self.scope {
            None => TokenScope::Unscoped,
            Some(WireScope::System) => TokenScope::System,
            Some(WireScope::Domain(id)) => TokenScope::Domain(id),
            Some(WireScope::Project(id)) => TokenScope::Project { id, domain: self.user_domain.clone() },
            Some(WireScope::ProjectElsewhere(id, domain)) => TokenScope::Project { id, domain },
        };
        let groups = self.groups;
        let profile =
            self.preferred_username.map(|username| Profile { username, groups: groups.unwrap_or_default() });
        Some(Claims {
            id: self.jti,
            user: self.sub,
            user_domain: self.user_domain,
            audiences: match self.aud {
                Audiences::One(one) => vec![one],
                Audiences::Many(many) => many,
            },
            issued_at: Timestamp::from_microsecond(micros).ok()?,
            expires_at: Timestamp::from_second(self.exp).ok()?,
            methods: self.methods,
            scope,
            chain: self.chain,
            trust: self.trust,
            application_credential: self.application_credential,
            roles: self.roles,
            federation: self.federation,
            oauth: self.oauth,
            profile,
        })
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
