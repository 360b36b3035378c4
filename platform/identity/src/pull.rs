//! The credential in a project's image pull secrets: good for pulling what the project may pull, and for nothing else.
//!
//! It is a password that says its namespace and its end, under a MAC. Nothing is kept of it, and for a time it is
//! always the same one: so the reconciler that writes it ([`crate::tenancy`]) can tell by looking whether the Secret
//! is as it should be, and writes nothing after a restart. It is not a service account's token because every member
//! of a project can have such tokens made that live for as long as they like. See `docs/adr/0028-image-pull-secret.md`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gantry_identity_api::extra;
use gantry_kube_types::{Attributes, Authenticator, ConnectionInfo, Decision, StatusError, UserInfo};
use gantry_registry_api::Owner;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use ring::hmac;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::authenticator::{decoded, scheme};
use crate::authorizer::{REPOSITORIES, named_after};
use crate::directory::State;
use crate::tenancy::{Tenancy, World};

/// What stands before the password, for clients that need a name; nobody looks at it.
pub const USER_NAME: &str = "gantry-registry";
/// A new password comes so often.
pub const PERIOD_SECONDS: i64 = 12 * 3600;
/// So long one is good from the beginning of its period: whoever read it just before the next one came has as long
/// again to read that.
pub const LIFETIME_SECONDS: i64 = 2 * PERIOD_SECONDS;

/// A secret that is to be renewed later is looked at this often: while a machine sleeps, and when its clock is set, the
/// time until then is another one. The period is a multiple.
const LOOK_SECONDS: i64 = 3600;
/// Begins every password, by which it is told apart from other secrets, and found where it should not be.
const PREFIX: &str = "gantry-pull";
/// Not `system:`, which parts of the cluster are called, and without the `/` that users' names have.
const CALLER_PREFIX: &str = "gantry:pull:";
/// Said in the audit trail.
const METHOD: &str = "pull_secret";

/// Makes the credentials, and knows them again.
pub struct PullCredentials {
    key: hmac::Key,
    /// Every `HOST:PORT` of the registry.
    hosts: Vec<String>,
}

impl PullCredentials {
    /// Reads the key, or makes it. With another key, every secret is written anew and the old ones are worthless.
    pub fn open(key: &Path, hosts: Vec<String>) -> std::io::Result<Self> {
        let key = gantry_base::fs::secret_key(key)?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), hosts })
    }

    /// The content of `.dockerconfigjson` for this time.
    pub(crate) fn docker_config(&self, project: &str, namespace: &str, now: Timestamp) -> String {
        let password = self.password(project, namespace, now);
        let auth = STANDARD.encode(format!("{USER_NAME}:{password}"));
        let auths = self.hosts.iter().map(|host| (host.clone(), json!({ "auth": auth })));
        json!({ "auths": auths.collect::<serde_json::Map<_, _>>() }).to_string()
    }

    /// `gantry-pull.NAMESPACE.END.MAC`: a namespace's name has no dots, and the end is in seconds since the epoch.
    pub(crate) fn password(&self, project: &str, namespace: &str, now: Timestamp) -> String {
        let end = period_begin(namespace, now) + LIFETIME_SECONDS;
        let mac = hmac::sign(&self.key, signed(project, namespace, end).as_bytes());
        format!("{PREFIX}.{namespace}.{end}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// The namespace of a good password. `project_of`: whose a namespace is now; it may have been another's.
    fn namespace<'a>(
        &self,
        password: &'a str,
        project_of: impl Fn(&str) -> Option<Arc<str>>,
        now: Timestamp,
    ) -> Option<(&'a str, Arc<str>)> {
        let mut parts = password.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
        let (namespace, end, mac) = (parts.next()?, parts.next()?, parts.next()?);
        let end: i64 = end.parse().ok().filter(|_| parts.next().is_none())?;
        let project = project_of(namespace)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.key, signed(&project, namespace, end).as_bytes(), &mac).ok()?;
        let left = end.saturating_sub(now.as_second());
        // One with more was made while the clock was wrong.
        (1..=LIFETIME_SECONDS).contains(&left).then_some((namespace, project))
    }
}

/// What the MAC is of. No part can have a NUL in it, so no two credentials have one text.
fn signed(project: &str, namespace: &str, end: i64) -> String {
    format!("{PREFIX}\0{project}\0{namespace}\0{end}")
}

/// When the namespace's period began, in seconds since the epoch. Each namespace has periods of its own, so that not
/// all secrets are written in one second.
pub(crate) fn period_begin(namespace: &str, now: Timestamp) -> i64 {
    let hash = Sha256::digest(namespace.as_bytes());
    let shift = i64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])) % PERIOD_SECONDS;
    (now.as_second() - shift).div_euclid(PERIOD_SECONDS) * PERIOD_SECONDS + shift
}

/// How long until the namespace's secret is to be looked at: when it gets its next password, and at whole hours before
/// that, which are its own as the period is.
pub(crate) fn looked_at_in(namespace: &str, now: Timestamp) -> Duration {
    let gone = now.as_second() - period_begin(namespace, now);
    Duration::from_secs((LOOK_SECONDS - gone % LOOK_SECONDS).unsigned_abs())
}

/// Recognises the credentials, shown as `Authorization: Basic`.
pub struct PullAuthenticator {
    credentials: Arc<PullCredentials>,
    world: Arc<World>,
    now: fn() -> Timestamp,
}

impl PullAuthenticator {
    /// Asks `tenancy` whose a namespace is.
    pub fn new(credentials: Arc<PullCredentials>, tenancy: &Tenancy, now: fn() -> Timestamp) -> Self {
        Self { credentials, world: tenancy.0.clone(), now }
    }

    fn caller(&self, password: &str) -> Option<UserInfo> {
        let project_of = |namespace: &str| self.world.namespaces.project_of(namespace);
        let (namespace, project) = self.credentials.namespace(password, project_of, (self.now)())?;
        let state = self.world.directory.read();
        state.projects.get(&project).filter(|found| state.project_enabled(found))?;
        let mut caller = UserInfo::authenticated(format!("{CALLER_PREFIX}{namespace}"), &[]);
        // With a project, and without a user who has roles in it, it would have no rights anywhere either: what is
        // asked of `PULLS` is the one thing that it may.
        for key in [extra::PULLS, extra::PROJECT] {
            caller.extra.insert(key.to_owned(), vec![project.to_string()]);
        }
        caller.extra.insert(extra::METHOD.to_owned(), vec![METHOD.to_owned()]);
        Some(caller)
    }
}

#[async_trait::async_trait]
impl Authenticator for PullAuthenticator {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        _: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let basic = headers.get(AUTHORIZATION).and_then(|value| scheme(value.to_str().ok()?, "basic"));
        let Some((_, password)) = basic.and_then(decoded) else { return Ok(None) };
        if !password.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('.')) {
            return Ok(None);
        }
        self.caller(&password).map(Some).ok_or_else(StatusError::unauthorized)
    }
}

/// Whether the caller came with such a credential, or with a token that was made from one.
pub(crate) fn is_pull_secret(caller: &UserInfo) -> bool {
    caller.extra.contains_key(extra::PULLS)
}

/// Where the credential may be shown at all: the registry's own protocol.
pub(crate) fn may_reach(path: &str) -> bool {
    ["/v2", "/token"]
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// What a caller with such a credential may: pull what belongs to the project and to its domain. The registry asks
/// this once more for each project and domain that the repository is shared with, and knows itself what is public.
pub(crate) fn decide(state: &State, asked: &Attributes) -> Decision {
    let resource = (asked.group.as_str(), asked.resource.as_str());
    if !asked.is_resource_request || resource != REPOSITORIES || asked.verb != "pull" {
        return Decision::Deny("a pull secret is good for pulling images, and for nothing else".to_owned());
    }
    let project = match asked.user.extra.get(extra::PULLS).map(Vec::as_slice) {
        Some([id]) => state.projects.get(id).filter(|project| state.project_enabled(project)),
        _ => None,
    };
    let owner = match asked.namespace.as_str() {
        "" => named_after(state, &asked.name).map(Owner::of_project),
        said => said.parse().ok(),
    };
    let granted = project.zip(owner).is_some_and(|(project, owner)| match (owner.project, owner.domain) {
        (Some(id), _) => project.metadata.name.as_ref() == Some(&id),
        (None, Some(domain)) => project.spec.domain == domain,
        (None, None) => false,
    });
    match granted {
        true => Decision::Allow("identity: the pull secret of a namespace of the project".to_owned()),
        // Another answer may come from whom the repository is shared with.
        false => Decision::NoOpinion("the pull secret is of another project".to_owned()),
    }
}

#[cfg(test)]
#[path = "pull/tests.rs"]
mod tests;
