//! Users from outside: which sources there are, signing in through them, and the periodic comparison.
//!
//! [`IdentityProvider`] objects say where users come from; [`gantry_identity_sources`] speaks to those places. A
//! person from there is a *shadow*: a [`gantry_identity_api::User`] with `spec.provider`, whose id follows from
//! provider and outside id, so that a name given to somebody else later is somebody else here too.
//!
//! `spec.config` is the source's own configuration and, in its member `sync`, [`SyncOptions`].

mod ended;
mod grants;
mod options;
mod outside;
mod plan;
mod reconcile;
mod shadow;
mod signin;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_identity_api::{IdentityProvider, IdentityProviderSpec, Named as _, ProviderType};
use gantry_identity_sources::{
    ExternalUser, KeystoneSource, LdapSource, OidcSecrets, OidcSource, SourceError,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use options::SyncOptions;
pub(crate) use reconcile::start;
pub(crate) use shadow::{DISABLED_BY_SOURCE, ensure_user};

use crate::core::Core;
use crate::directory::State;
use crate::errors::IdentityError;

/// A place users come from, ready to be asked. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Source {
    Ldap(LdapSource),
    Oidc(OidcSource),
    Keystone(KeystoneSource),
}

/// A source with the object it was made from.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) provider: Arc<IdentityProvider>,
    pub(crate) options: SyncOptions,
    pub(crate) source: Source,
    /// The revision of the Secret it was made with.
    secret: Option<String>,
}

impl Built {
    pub(crate) fn id(&self) -> String {
        self.provider.name_any()
    }

    pub(crate) fn spec(&self) -> &IdentityProviderSpec {
        &self.provider.spec
    }

    /// Of an OpenID provider; what is of another type signs nobody in so.
    pub(crate) fn oidc(&self) -> Result<&OidcSource, IdentityError> {
        match &self.source {
            Source::Oidc(oidc) => Ok(oidc),
            Source::Ldap(_) | Source::Keystone(_) => Err(IdentityError::Unauthorized),
        }
    }

    /// What the provider's domain is called at another Keystone.
    pub(crate) fn remote_domain(&self, state: &State) -> String {
        let own = || state.domains.get(&self.spec().domain).map(|d| d.display_name()).unwrap_or_default();
        self.options.remote_domain.clone().unwrap_or_else(own)
    }

    /// Another Keystone has domains of its own; people of one of them appear here.
    pub(crate) fn counts(&self, state: &State, user: &ExternalUser) -> bool {
        user.domain.as_ref().is_none_or(|domain| domain.name == self.remote_domain(state))
    }

    /// Keystone's word for how users of the source come here.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.source {
            Source::Ldap(_) => "ldap",
            Source::Oidc(_) => "openid",
            Source::Keystone(_) => "keystone",
        }
    }
}

/// Why there is no source for a provider.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// Words for the operator, who has to change something.
    #[error("{0}")]
    Misconfigured(String),
    /// The API did not answer.
    #[error(transparent)]
    Api(#[from] IdentityError),
}

impl From<SourceError> for BuildError {
    fn from(error: SourceError) -> Self {
        Self::Misconfigured(error.to_string())
    }
}

impl From<BuildError> for IdentityError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Misconfigured(why) => Self::Unavailable(why),
            BuildError::Api(error) => error,
        }
    }
}

/// The sources made so far.
#[derive(Default)]
pub struct Providers(Mutex<HashMap<String, Built>>);

impl Providers {
    /// The source of the provider as it is now; made anew when its object has changed.
    pub(crate) async fn source(
        &self,
        core: &Core,
        provider: &Arc<IdentityProvider>,
    ) -> Result<Built, BuildError> {
        let id = provider.name_any();
        let known = self.lock().get(&id).cloned();
        match known.filter(|built| built.provider.uid() == provider.uid() && built.spec() == &provider.spec) {
            Some(built) => Ok(built),
            None => self.build(core, provider).await,
        }
    }

    /// The same, made anew also when the Secret has changed: for who asks now and then.
    pub(crate) async fn fresh(
        &self,
        core: &Core,
        provider: &Arc<IdentityProvider>,
    ) -> Result<Built, BuildError> {
        let built = self.source(core, provider).await?;
        let secret = secret(core, &provider.spec).await?;
        let revision = secret.as_ref().and_then(ResourceExt::resource_version);
        if revision == built.secret { Ok(built) } else { self.build(core, provider).await }
    }

    /// Forgets providers that are gone, and with them their connections and secrets.
    pub(crate) fn keep(&self, ids: &[String]) {
        self.lock().retain(|id, _| ids.contains(id));
    }

    async fn build(&self, core: &Core, provider: &Arc<IdentityProvider>) -> Result<Built, BuildError> {
        let secret = secret(core, &provider.spec).await?;
        let revision = secret.as_ref().and_then(ResourceExt::resource_version);
        let secrets = Secrets(secret.and_then(|s| s.data).unwrap_or_default());
        let (source, options) = make(&provider.spec, &secrets)?;
        let built = Built { provider: provider.clone(), options, source, secret: revision };
        self.lock().insert(provider.name_any(), built.clone());
        Ok(built)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Built>> {
        // Every change is one call of the map's own.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Do the roles that people have elsewhere become roles here? Where it cannot be read, the source cannot be made.
pub(crate) fn keeps_roles(spec: &IdentityProviderSpec) -> bool {
    let sync = spec.config.get("sync");
    spec.provider_type == ProviderType::Keystone
        && sync.and_then(|sync| sync.get("keepRoles")).is_some_and(|keep| keep != &Value::Bool(false))
}

/// The Secret that the provider names.
async fn secret(core: &Core, spec: &IdentityProviderSpec) -> Result<Option<Secret>, BuildError> {
    let Some(path) = &spec.secret else { return Ok(None) };
    let wrong = |why: &str| BuildError::Misconfigured(format!("secret {path:?} {why}"));
    let (namespace, name) = path.split_once('/').ok_or_else(|| wrong("is not `namespace/name`"))?;
    let api: Api<Secret> = Api::namespaced(core.objects.client()?, namespace);
    let found = api.get_opt(name).await.map_err(|error| IdentityError::Unavailable(error.to_string()))?;
    found.map(Some).ok_or_else(|| wrong("does not exist"))
}

/// What is in a Secret.
struct Secrets(std::collections::BTreeMap<String, k8s_openapi::ByteString>);

impl Secrets {
    fn text(&self, key: &str) -> Result<Option<String>, BuildError> {
        let Some(bytes) = self.0.get(key) else { return Ok(None) };
        let text = String::from_utf8(bytes.0.clone());
        text.map(Some).map_err(|_| BuildError::Misconfigured(format!("{key} of the secret is no text")))
    }

    fn secret(&self, key: &str) -> Result<Option<SecretString>, BuildError> {
        Ok(self.text(key)?.map(SecretString::from))
    }
}

fn make(spec: &IdentityProviderSpec, secrets: &Secrets) -> Result<(Source, SyncOptions), BuildError> {
    let mut config = spec.config.clone();
    let options = match config.remove("sync") {
        Some(value) => read("config.sync", value)?,
        None => SyncOptions::default(),
    };
    if let Some(pem) = secrets.text("caBundle")? {
        trust(&mut config, spec.provider_type, pem)?;
    }
    let config = Value::Object(config);
    let source = match spec.provider_type {
        ProviderType::Ldap => {
            Source::Ldap(LdapSource::new(read("config", config)?, secrets.secret("password")?)?)
        }
        ProviderType::Oidc => {
            let client_secret = secrets.secret("clientSecret")?;
            let secrets = OidcSecrets { client_secret, sealing_key: None };
            Source::Oidc(OidcSource::new(read("config", config)?, secrets)?)
        }
        ProviderType::Keystone => {
            let password = secrets.secret("password")?;
            let password = password.ok_or_else(|| {
                BuildError::Misconfigured("a Secret with `password` of the account is needed".to_owned())
            })?;
            Source::Keystone(KeystoneSource::new(read("config", config)?, password)?)
        }
    };
    Ok((source, options))
}

fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, BuildError> {
    serde_json::from_value(value).map_err(|error| BuildError::Misconfigured(format!("{what}: {error}")))
}

/// Puts the authorities of the Secret where the configuration names none.
fn trust(config: &mut Map<String, Value>, kind: ProviderType, pem: String) -> Result<(), BuildError> {
    let place = match kind {
        ProviderType::Ldap => config,
        ProviderType::Oidc | ProviderType::Keystone => {
            let http = config.entry("http").or_insert_with(|| Value::Object(Map::new()));
            let wrong = || BuildError::Misconfigured("config.http is no object".to_owned());
            http.as_object_mut().ok_or_else(wrong)?
        }
    };
    place.entry("caPem").or_insert(Value::String(pem));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(kind: ProviderType, config: Value, secrets: &[(&str, &str)]) -> Result<SyncOptions, String> {
        let Value::Object(config) = config else { panic!("an object") };
        let spec = IdentityProviderSpec { provider_type: kind, config, ..IdentityProviderSpec::default() };
        let bytes = |v: &str| k8s_openapi::ByteString(v.as_bytes().to_vec());
        let secrets = secrets.iter().map(|(k, v)| ((*k).to_owned(), bytes(v))).collect();
        make(&spec, &Secrets(secrets)).map(|(_, options)| options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bad_configuration_says_what_is_wrong() {
        // The certificate roots of the TLS client need a provider, as the process has one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let users = json!({ "base": "ou=people,dc=x" });
        let account = json!({ "user": "gantry" });
        for (kind, config, secrets, want) in [
            (ProviderType::Ldap, json!({ "urls": ["ldaps://x"], "users": users }), vec![], None),
            (ProviderType::Ldap, json!({ "urls": ["ldap://x"], "users": users }), vec![], Some("startTls")),
            (ProviderType::Ldap, json!({ "users": users }), vec![], Some("urls")),
            (ProviderType::Ldap, json!({ "bogus": 1 }), vec![], Some("bogus")),
            (
                ProviderType::Ldap,
                json!({ "urls": ["ldaps://x"], "users": users, "sync": { "creatUsers": true } }),
                vec![],
                Some("creatUsers"),
            ),
            (
                ProviderType::Keystone,
                json!({ "url": "https://x/v3", "account": account }),
                vec![],
                Some("password"),
            ),
            (
                ProviderType::Keystone,
                json!({ "url": "https://x/v3", "account": account }),
                vec![("password", "p")],
                None,
            ),
            (
                ProviderType::Keystone,
                json!({ "url": "https://x", "account": account }),
                vec![("password", "p")],
                Some("/v3"),
            ),
            (ProviderType::Oidc, json!({ "http": 4 }), vec![("caBundle", "x")], Some("http")),
        ] {
            let got = made(kind, config.clone(), &secrets);
            match want {
                None => assert!(got.is_ok(), "{config}: {got:?}"),
                Some(word) => assert!(got.as_ref().is_err_and(|e| e.contains(word)), "{config}: {got:?}"),
            }
        }
    }
}
