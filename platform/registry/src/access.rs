//! May this caller do this? The platform's rights, narrowed by the scopes of a registry token.

use std::sync::Arc;

use gantry_kube_types::{Attributes, Authenticator, Authorizer, UserInfo};
use gantry_registry_api::{GROUP, RESOURCE};
use http::header::HOST;

use crate::errors::{ApiError, ErrorCode};
use crate::tokens::{SCOPES_KEY, Scope, TokenIssuer};
use crate::{Config, Registry};

/// Who decides on rights, and who makes tokens.
#[derive(Clone)]
pub struct Access {
    pub authorizer: Arc<dyn Authorizer>,
    pub issuer: Arc<dyn TokenIssuer>,
    /// Recognises the name and password of a client's `POST /token`, shown to it as `Authorization: Basic`.
    pub passwords: Arc<dyn Authenticator>,
    /// Recognises the token that such a client comes back with, shown to it as `Authorization: Bearer`.
    pub bearers: Arc<dyn Authenticator>,
}

impl Access {
    pub(crate) fn allows(&self, user: &UserInfo, verb: &str, repository: &str) -> bool {
        let attributes = Attributes {
            user: user.clone(),
            verb: verb.to_owned(),
            is_resource_request: true,
            group: GROUP.to_owned(),
            version: "v1".to_owned(),
            resource: RESOURCE.to_owned(),
            name: repository.to_owned(),
            ..Attributes::default()
        };
        self.authorizer.authorize(&attributes).is_allowed()
    }
}

/// The caller as the handlers see it.
pub(crate) struct Caller<'a> {
    pub(crate) user: UserInfo,
    registry: &'a Registry,
    realm: String,
}

impl<'a> Caller<'a> {
    pub(crate) fn of(registry: &'a Registry, request: &axum::extract::Request) -> Self {
        let user = request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous);
        Self { user, registry, realm: realm(registry.config(), request) }
    }

    /// Who began what goes on without a request.
    pub(crate) fn later(registry: &'a Registry, user: UserInfo) -> Self {
        Self { user, registry, realm: String::new() }
    }

    /// The scopes the caller's registry token is limited to; `None` for other credentials.
    fn scopes(&self) -> Option<&Vec<String>> {
        self.user.extra.get(SCOPES_KEY)
    }

    /// Whether the caller has the right, without an answer for when it has not.
    pub(crate) fn may(&self, verb: &str, repository: &str) -> bool {
        let scoped = self.scopes().is_none_or(|scopes| {
            scopes.iter().filter_map(|s| s.parse::<Scope>().ok()).any(|s| s.covers(verb, repository))
        });
        scoped && self.registry.inner.access.allows(&self.user, verb, repository)
    }

    /// The right, or the answer that says how to get it.
    pub(crate) fn require(&self, verb: &str, repository: &str) -> Result<(), ApiError> {
        if self.may(verb, repository) {
            return Ok(());
        }
        let scope = match verb {
            "list" => "registry:catalog:*".to_owned(),
            "push" => format!("repository:{repository}:pull,push"),
            verb => format!("repository:{repository}:{verb}"),
        };
        self.refuse(&scope).map_or_else(
            || {
                let who = &self.user.username;
                Err(ApiError::new(ErrorCode::Denied)
                    .message(format!("{who:?} cannot {verb} {RESOURCE}.{GROUP} {repository:?}")))
            },
            Err,
        )
    }

    /// The catalogue shows each caller what they may pull; strangers, and tokens for something else, are sent away.
    pub(crate) fn require_catalog(&self) -> Result<(), ApiError> {
        let scoped = |scopes: &Vec<String>| {
            scopes.iter().filter_map(|s| s.parse::<Scope>().ok()).any(|s| s.covers("list", ""))
        };
        if !self.user.is_anonymous() && self.scopes().is_none_or(scoped) {
            return Ok(());
        }
        Err(self.refuse("registry:catalog:*").unwrap_or_else(|| ApiError::new(ErrorCode::Denied)))
    }

    /// Whether the caller has the right, by whatever token they have it.
    pub(crate) fn has(&self, verb: &str, repository: &str) -> bool {
        self.registry.inner.access.allows(&self.user, verb, repository)
    }

    /// `GET /v2/`: strangers are told where tokens are made, because clients look only here.
    pub(crate) fn require_identity(&self) -> Result<(), ApiError> {
        if self.user.is_anonymous() && self.scopes().is_none() {
            let challenge = format!(r#"Bearer realm="{}",service="{}""#, self.realm, crate::tokens::SERVICE);
            return Err(ApiError::challenge(&challenge));
        }
        Ok(())
    }

    /// 401 for who could come back with a (better) token, `None` for who is known and has not the right.
    fn refuse(&self, scope: &str) -> Option<ApiError> {
        let scoped = self.scopes().is_some();
        if !scoped && !self.user.is_anonymous() {
            return None;
        }
        let mut challenge =
            format!(r#"Bearer realm="{}",service="{}",scope="{scope}""#, self.realm, crate::tokens::SERVICE);
        if scoped {
            challenge.push_str(r#",error="insufficient_scope""#);
        }
        Some(ApiError::challenge(&challenge))
    }
}

fn realm(config: &Config, request: &axum::extract::Request) -> String {
    let base = config.external_url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
    base.unwrap_or_else(|| {
        let header = request.headers().get(HOST).and_then(|h| h.to_str().ok());
        // HTTP/2 has it in the URL.
        let host = header.or(request.uri().authority().map(|a| a.as_str())).unwrap_or("localhost");
        // Comes from the client and goes into a quoted string.
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(*c)).take(255).collect();
        format!("https://{host}")
    }) + "/token"
}
