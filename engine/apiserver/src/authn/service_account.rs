//! Service account tokens: signed here, and believed only while what they are bound to lives.

use std::path::PathBuf;

use gantry_kube_logic::meta;
use gantry_kube_types::{StatusError, UserInfo};
use gantry_store::{Key, Snapshot, Store};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde_json::Value;

use super::bearer::{TokenAuthenticator, TokenIdentity, refused};
use super::claims::{Bound, Claims, subject};
use super::keys::{KeyError, SigningKey};

/// How long clocks may differ, and how long a token outlives the deletion request of what it is bound
/// to (upstream's `jwt.DefaultLeeway`): a pod that shuts down can still say so.
const LEEWAY_SECONDS: i64 = 60;

/// Where tokens come from and for whom they are.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// Holds the signing key; made with mode 0700 where it is absent.
    pub key_directory: PathBuf,
    /// The `iss` of every token, an https URL: `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// The API server's own names; the default of TokenRequests and TokenReviews.
    pub audiences: Vec<String>,
}

impl TokenConfig {
    /// The issuer and audience in-cluster clients expect under the cluster domain (`cluster.local`).
    pub fn of_cluster(key_directory: PathBuf, cluster_domain: &str) -> Self {
        let issuer = format!("https://kubernetes.default.svc.{cluster_domain}");
        Self { key_directory, audiences: vec![issuer.clone()], issuer }
    }
}

/// Issues and verifies service account tokens (ES256).
pub struct ServiceAccountTokens {
    pub(crate) store: Store,
    pub(crate) key: SigningKey,
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
}

impl ServiceAccountTokens {
    /// Loads the signing key, or makes one.
    pub fn open(store: Store, config: TokenConfig) -> Result<Self, KeyError> {
        // Only the first call of a process installs; a feature of another crate must not choose for us.
        let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
        let key = SigningKey::load_or_create(&config.key_directory)?;
        Ok(Self { store, key, issuer: config.issuer, audiences: config.audiences })
    }

    /// The API server's own audiences.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, StatusError> {
        let header = Header { kid: Some(self.key.id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key.encoding).map_err(StatusError::internal)
    }

    /// Is it one of ours? Said before it is verified, so that the tokens of others stay theirs.
    fn claims_to_be_ours(&self, token: &str) -> bool {
        #[derive(serde::Deserialize)]
        struct Issuer {
            iss: String,
        }
        jsonwebtoken::dangerous::insecure_decode::<Issuer>(token)
            .is_ok_and(|data| data.claims.iss == self.issuer)
    }

    fn verify(&self, token: &str, wanted: &[String]) -> Result<(Claims, Vec<String>), StatusError> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.leeway = 0;
        rules.validate_nbf = false;
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(wanted);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let data = jsonwebtoken::decode::<Claims>(token, &self.key.decoding, &rules)
            .map_err(|error| refused(format!("service account token: {error}")))?;
        let now = Timestamp::now().as_second();
        // The library's leeway is one for both ends; an expired token has none here.
        if data.claims.nbf > now + LEEWAY_SECONDS {
            return Err(refused("service account token: it is not valid yet"));
        }
        let held = data.claims.aud.as_slice();
        let audiences = wanted.iter().filter(|wanted| held.contains(wanted)).cloned().collect();
        Ok((data.claims, audiences))
    }
}

impl std::fmt::Debug for ServiceAccountTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccountTokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenIdentity>, StatusError> {
        if !self.claims_to_be_ours(token) {
            return Ok(None);
        }
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let (claims, audiences) = self.verify(token, wanted)?;
        check_live(&self.store.snapshot(), &claims)?;
        Ok(Some(TokenIdentity { user: identity(&claims), audiences }))
    }
}

/// The service account and what else the token is bound to must still be the ones it was made for.
fn check_live(snapshot: &Snapshot, claims: &Claims) -> Result<(), StatusError> {
    let bound = &claims.kubernetes;
    let namespace = bound.namespace.as_str();
    if claims.sub != subject(namespace, &bound.serviceaccount.name) {
        return Err(refused("service account token: its subject is not its service account"));
    }
    let all = [
        ("serviceaccounts", namespace, Some(&bound.serviceaccount)),
        ("secrets", namespace, bound.secret.as_ref()),
        ("pods", namespace, bound.pod.as_ref()),
        // A node beside a pod is told, not required: the pod lives and dies with its node.
        ("nodes", "", bound.node.as_ref().filter(|_| bound.pod.is_none())),
    ];
    for (resource, namespace, bound) in all {
        if let Some(bound) = bound {
            check_object(snapshot, resource, namespace, bound)?;
        }
    }
    Ok(())
}

fn check_object(
    snapshot: &Snapshot,
    resource: &str,
    namespace: &str,
    bound: &Bound,
) -> Result<(), StatusError> {
    let name = &bound.name;
    let stored = snapshot
        .get(&Key::new("", resource, namespace, name))
        .and_then(|object| serde_json::from_slice::<Value>(&object.value).ok());
    let Some(object) = stored else {
        return Err(refused(format!("service account token: {resource} {name:?} is gone")));
    };
    if meta::uid(&object) != bound.uid {
        return Err(refused(format!("service account token: {resource} {name:?} is another one now")));
    }
    let deleted = meta::deletion_timestamp(&object).and_then(|at| at.parse::<Timestamp>().ok());
    if deleted.is_some_and(|at| at.as_second() < Timestamp::now().as_second() - LEEWAY_SECONDS) {
        return Err(refused(format!("service account token: {resource} {name:?} has been deleted")));
    }
    Ok(())
}

fn identity(claims: &Claims) -> UserInfo {
    let bound = &claims.kubernetes;
    let account = &bound.serviceaccount;
    let mut user = UserInfo::service_account(&bound.namespace, &account.name, &account.uid);
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    extra("credential-id", &format!("JTI={}", claims.jti));
    for (kind, bound) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(bound) = bound {
            extra(&format!("{kind}-name"), &bound.name);
            extra(&format!("{kind}-uid"), &bound.uid);
        }
    }
    user
}
