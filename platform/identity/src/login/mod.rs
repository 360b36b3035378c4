//! Signing in: methods prove who somebody is, rules say whether that is enough, a scope says what for.

mod methods;
pub mod request;
mod scope;
pub(crate) mod secrets;

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_identity_api::{Trust, User};
use gantry_kube_types::{AuditEvent, AuditObject, ConnectionInfo, SecurityEvent, UserInfo};
use jiff::{SignedDuration, Timestamp};

pub(crate) use methods::source;
pub use request::{CredentialRef, DomainRef, LoginRequest, Method, ProjectRef, ScopeRequest, UserRef};

use crate::core::Core;
use crate::directory::table::Entry;
use crate::errors::IdentityError;
use crate::session::Session;
use crate::token::{Checks, Federation, NewToken, Profile};

/// Who a receipt of an incomplete sign-in is for: nobody but the next sign-in.
const RECEIPT_AUDIENCE: &str = "gantry-receipt";
const RECEIPT_LIFETIME: SignedDuration = SignedDuration::from_mins(5);
/// Of a token for others: they do not ask us whether it is revoked.
const ELSEWHERE_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// A new token.
pub struct Issued {
    pub token: String,
    pub session: Arc<Session>,
}

/// What the methods together proved.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) user: Arc<User>,
    /// Keystone's words, each once, in the order they were shown.
    pub(crate) methods: Vec<String>,
    /// The session of a token that was shown: the new token lives no longer, and keeps its chain.
    pub(crate) token: Option<Arc<Session>>,
    pub(crate) application_credential: Option<String>,
}

impl Proof {
    /// Is what was shown good for less than the user is?
    fn is_narrow(&self) -> bool {
        self.application_credential.is_some()
            || self.token.as_ref().is_some_and(|session| !session.is_whole())
    }
}

/// Where a sign-in comes from, for counting failures and for the record.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub connection: ConnectionInfo,
    /// Id of the request it is part of.
    pub request: String,
}

impl Core {
    /// Signs somebody in. The answer to a failure never says what was wrong with what was shown; who has proved who they
    /// are is told that a trust is not there.
    pub async fn login(&self, request: LoginRequest, origin: &Origin) -> Result<Issued, IdentityError> {
        let asked = request.methods.iter().find_map(Method::who).unwrap_or_default();
        let methods: Vec<&str> = request.methods.iter().map(Method::word).collect();
        let methods = methods.join(",");
        let done = self.signed_in(request, origin).await;
        let event = match &done {
            Ok(issued) => AuditEvent::security(SecurityEvent::Login, issued.session.info.clone())
                .about(user_object(&issued.session.user.id())),
            Err(error) => {
                let code = if matches!(error, IdentityError::TooMany { .. }) { 429 } else { 401 };
                AuditEvent::security(SecurityEvent::LoginFailed, UserInfo::anonymous())
                    .about(user_object(&asked))
                    .failed(code, "Unauthorized", &error.to_string())
            }
        };
        self.record(event.with(gantry_identity_api::extra::METHOD, methods), origin).await?;
        done
    }

    async fn signed_in(&self, request: LoginRequest, origin: &Origin) -> Result<Issued, IdentityError> {
        let now = self.now();
        let mut proof = self.prove(request.methods, origin, now).await?;
        if let Some(receipt) = &request.receipt {
            self.add_receipt(&mut proof, receipt, now)?;
        }
        self.enough(&proof, now)?;
        let scope = self.scope(&proof, &request.scope)?;
        if let Some(trust) = &scope.trust {
            self.use_trust(trust).await?;
        }
        self.issue(&proof, scope, request.audiences, now).await
    }

    /// Multi-factor rules: one of the user's rules must be complete. Tokens and credentials were made by a
    /// complete sign-in and need no second.
    fn enough(&self, proof: &Proof, now: Timestamp) -> Result<(), IdentityError> {
        let options = &proof.user.spec.options;
        let rules = options.multi_factor_auth_rules.as_deref().unwrap_or_default();
        let exempt = proof.token.is_some() || proof.application_credential.is_some();
        if options.multi_factor_auth_enabled == Some(false) || rules.is_empty() || exempt {
            return Ok(());
        }
        let shown: BTreeSet<&str> = proof.methods.iter().map(String::as_str).collect();
        if rules.iter().any(|rule| !rule.is_empty() && rule.iter().all(|m| shown.contains(m.as_str()))) {
            return Ok(());
        }
        let receipt = self.tokens.issue(
            NewToken {
                user: proof.user.id(),
                user_domain: proof.user.spec.domain.clone(),
                audiences: vec![RECEIPT_AUDIENCE.to_owned()],
                authenticated_at: now,
                expires_at: now.checked_add(RECEIPT_LIFETIME).ok(),
                methods: proof.methods.clone(),
                ..NewToken::default()
            },
            now,
        );
        let receipt = receipt.map_err(|error| IdentityError::Unavailable(error.to_string()))?.token;
        Err(IdentityError::MoreRequired { receipt, user: proof.user.id(), methods: proof.methods.clone() })
    }

    /// Counts a use of the trust, where only so many are allowed.
    async fn use_trust(&self, id: &str) -> Result<(), IdentityError> {
        let counted = self.directory.read().trusts.get(id).is_some_and(|trust| trust.spec.uses_max.is_some());
        if !counted {
            return Ok(());
        }
        let count = |trust: &mut Trust| {
            let status = trust.status.get_or_insert_default();
            if trust.spec.uses_max.is_some_and(|max| status.uses >= max) {
                return Err(IdentityError::Forbidden("The trust has no uses left.".to_owned()));
            }
            status.uses += 1;
            Ok(())
        };
        self.objects.update_status(id, count).await.map(drop)
    }

    fn add_receipt(&self, proof: &mut Proof, receipt: &str, now: Timestamp) -> Result<(), IdentityError> {
        let audiences = [RECEIPT_AUDIENCE.to_owned()];
        let receipt = self.tokens.verify(receipt, Checks::at(now).audiences(&audiences));
        let receipt = receipt.map_err(|_| IdentityError::Unauthorized)?;
        if receipt.user != proof.user.id() || self.revocations.is_revoked(&receipt) {
            return Err(IdentityError::Unauthorized);
        }
        for method in &receipt.methods {
            if !proof.methods.contains(method) {
                proof.methods.push(method.clone());
            }
        }
        Ok(())
    }

    /// Names for who cannot look them up.
    fn profile(&self, user: &User) -> Option<Profile> {
        let state = self.directory.read();
        Some(Profile { username: state.kubernetes_name(user)?, groups: state.kubernetes_groups(user) })
    }

    pub(crate) async fn issue(
        &self,
        proof: &Proof,
        scope: scope::Chosen,
        audiences: Vec<String>,
        now: Timestamp,
    ) -> Result<Issued, IdentityError> {
        let parent = proof.token.as_ref().map(|session| session.claims.as_ref());
        let user = match &scope.user {
            Some(id) => self.directory.read().users.get(id).cloned().ok_or(IdentityError::Unauthorized)?,
            None => proof.user.clone(),
        };
        let ends = parent.map(|claims| claims.expires_at);
        let (profile, expires_at) = match audiences.is_empty() {
            true => (None, ends),
            false => {
                let is_whole = scope.target.is_none() && scope.trust.is_none() && !proof.is_narrow();
                let profile = is_whole.then(|| self.profile(&user)).flatten();
                let soon = now.checked_add(ELSEWHERE_LIFETIME).unwrap_or(now);
                (Some(profile.ok_or_else(not_elsewhere)?), Some(ends.map_or(soon, |end| end.min(soon))))
            }
        };
        let new = NewToken {
            user: user.id(),
            user_domain: user.spec.domain.clone(),
            audiences,
            profile,
            federation: federation(&user),
            authenticated_at: now,
            // A token got with a token lives no longer than that one.
            expires_at,
            methods: proof.methods.clone(),
            scope: scope.target.unwrap_or_default(),
            chain: parent.map(|claims| claims.chain_id().to_owned()),
            trust: scope.trust,
            application_credential: proof.application_credential.clone(),
            roles: parent.and_then(|claims| claims.roles.clone()),
            oauth: None,
        };
        // Proving took time; what was revoked meanwhile is not outlived.
        let made = self.tokens.issue(new, self.now());
        let made = made.map_err(|error| IdentityError::Unavailable(error.to_string()))?;
        let session = self.session(made.claims, self.now()).ok_or(IdentityError::Unauthorized)?;
        Ok(Issued { token: made.token, session })
    }
}

/// What a verifier elsewhere cannot ask: it sees the whole user, and no end before the token's.
fn not_elsewhere() -> IdentityError {
    let why =
        "A token for others is all that its user is: it cannot be got with less than that, or for one scope.";
    IdentityError::Forbidden(why.to_owned())
}

/// By which provider the user comes, so that what was got by it ends with it.
fn federation(user: &User) -> Option<Federation> {
    let provider = user.spec.provider.clone()?;
    let protocol = user.spec.federated.iter().find(|f| f.provider == provider).map(|f| f.protocol.clone());
    Some(Federation { provider, protocol: protocol.unwrap_or_default(), groups: Vec::new() })
}

pub(crate) fn user_object(id: &str) -> AuditObject {
    AuditObject::new(gantry_identity_api::GROUP, "users", id)
}
