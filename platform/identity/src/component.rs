//! The component as one part: opened before the API is served, because the engine asks it, and started after.

use std::sync::Arc;
use std::time::Duration;

use gantry_host::Host;
use gantry_identity_api::GROUP;
use gantry_kube_types::{
    Admission, AuditSink, Authenticator, Authorizer, Standing, UserInfo, Visibility, groups,
};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::access_rules;
use crate::admin::Admin;
use crate::admission::DisabledTokens;
use crate::authenticator::{PasswordAuthenticator, SessionAuthenticator, TokenAuthenticator, TokenStanding};
use crate::bootstrap::{self, BootstrapError};
use crate::core::{Config, Core, OpenError};
use crate::errors::IdentityError;
use crate::password::Password;
use crate::pull::PullAuthenticator;
use crate::rights;
use crate::tenancy::{Callbacks, Tenancy};

/// How often keys and revocations are looked after at the least.
const TEND_INTERVAL: Duration = Duration::from_secs(600);

/// Why the component cannot begin its work.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("its own rights: {0}")]
    Rights(kube::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Organisations, users, rights and tokens of one instance. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    core: Arc<Core>,
    tenancy: Tenancy,
}

impl Identity {
    /// Opens vault and keys. It knows nobody until it is started.
    ///
    /// Blocks on files: call it at start.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let core = Arc::new(Core::open(config)?);
        let tenancy = Tenancy::new(core.directory.clone());
        Ok(Self { core, tenancy })
    }

    /// Security events go there from now on.
    pub fn audit_to(&self, sink: Arc<dyn AuditSink>) {
        self.core.audit_to(sink);
    }

    /// Knows our tokens, for the front door.
    pub fn tokens(&self) -> Arc<dyn Authenticator> {
        Arc::new(TokenAuthenticator::new(self.core.clone()))
    }

    /// Knows which of our tokens are not good any more.
    pub fn standing(&self) -> Arc<dyn Standing> {
        Arc::new(TokenStanding(self.core.clone()))
    }

    /// Knows the sessions of browsers, for the front door. To be asked after other credentials that a request shows, and
    /// before those of its connection.
    pub fn sessions(&self) -> Arc<dyn Authenticator> {
        Arc::new(SessionAuthenticator::new(self.core.clone()))
    }

    /// Knows our tokens, for services that ask by TokenReview.
    pub fn tokens_elsewhere(&self) -> Arc<dyn Authenticator> {
        Arc::new(TokenAuthenticator::elsewhere(self.core.clone()))
    }

    /// Holds the callers of a service to the access rules of their credentials. `caller` finds who made the request,
    /// whoever they act as.
    pub fn hold(
        &self,
        service: axum::Router,
        caller: fn(&http::Extensions) -> Option<&UserInfo>,
    ) -> axum::Router {
        access_rules::hold(self.core.clone(), service, caller)
    }

    /// Knows names and passwords, for clients that have no other way.
    pub fn passwords(&self) -> Arc<dyn Authenticator> {
        Arc::new(PasswordAuthenticator(self.core.clone()))
    }

    /// Knows the passwords in image pull secrets. To be asked before other authenticators of names and passwords.
    pub fn pull_secrets(&self) -> Arc<dyn Authenticator> {
        Arc::new(PullAuthenticator::new(self.core.pull.clone(), &self.tenancy, Timestamp::now))
    }

    /// Puts identity's rules around the engine's authoriser.
    pub fn wrap(&self, engine: Arc<dyn Authorizer>) -> Arc<dyn Authorizer> {
        self.tenancy.wrap(engine)
    }

    pub fn admission(&self) -> Vec<Arc<dyn Admission>> {
        let mut all = self.tenancy.admission();
        // Last: what is refused by the others ends nothing.
        all.push(Arc::new(DisabledTokens::new(self.core.clone())));
        all
    }

    pub fn visibility(&self) -> Arc<dyn Visibility> {
        self.tenancy.visibility()
    }

    /// Serves `/identity`: the Keystone API, the sessions of browsers, and the OpenID documents by which others verify
    /// our tokens.
    pub fn router(&self) -> axum::Router {
        let core = || self.core.clone();
        crate::issuer::router(core())
            .merge(crate::browser::router(core()))
            .merge(crate::keystone::router(core()))
    }

    /// What [`Identity::router`] answers.
    pub fn paths() -> Vec<String> {
        [crate::issuer::paths(), crate::browser::paths(), crate::keystone::paths()].concat()
    }

    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Installs the kinds, learns what there is, starts the loops, and sees to an administrator.
    ///
    /// `host.client` speaks as [`rights::OWN_USER`]; `masters` is used once, to give that user its rights.
    /// `password`: the first administrator's, where the operator chose it.
    pub async fn start(
        &self,
        host: &Host,
        masters: &Client,
        password: Option<Password>,
    ) -> Result<Admin, StartError> {
        install_rights(masters).await.map_err(StartError::Rights)?;
        bootstrap::install_kinds(&host.client).await?;
        self.core.objects.connect(host.client.clone());
        self.core.directory.follow(&host.tasks, &host.client);
        self.core.directory.synced().await;
        bootstrap::install_defaults(&host.client, &self.core.directory).await?;
        let callbacks =
            Callbacks { secrets: self.core.clone(), pull: self.core.pull.clone(), now: Timestamp::now };
        self.tenancy.start(host, callbacks);
        let admin = self.core.ensure_admin(password).await?;
        self.core.ensure_catalogue().await?;
        tend(&self.core, host);
        crate::providers::start(&self.core, host);
        Ok(admin)
    }
}

/// The component is a user like others: this is what it may.
async fn install_rights(masters: &Client) -> kube::Result<()> {
    let metadata = || ObjectMeta { name: Some(rights::OWN_USER.to_owned()), ..ObjectMeta::default() };
    let role = ClusterRole { metadata: metadata(), rules: Some(rights::rules()), ..ClusterRole::default() };
    let binding = ClusterRoleBinding {
        metadata: metadata(),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "ClusterRole".to_owned(),
            name: rights::OWN_USER.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "User".to_owned(),
            name: rights::OWN_USER.to_owned(),
            namespace: None,
        }]),
    };
    let apply = PatchParams::apply("gantry").force();
    let roles: Api<ClusterRole> = Api::all(masters.clone());
    roles.patch(rights::OWN_USER, &apply, &Patch::Apply(&role)).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(masters.clone());
    bindings.patch(rights::OWN_USER, &apply, &Patch::Apply(&binding)).await?;
    Ok(())
}

/// Keys are rotated and old revocations forgotten when it is time.
fn tend(core: &Arc<Core>, host: &Host) {
    let (core, shutdown) = (core.clone(), host.tasks.shutdown().clone());
    host.tasks.supervise("identity", move || {
        let (core, shutdown) = (core.clone(), shutdown.clone());
        async move {
            loop {
                core.tend_keys(core.now()).await?;
                core.revocations.prune(core.now()).await.map_err(|error| error.to_string())?;
                tokio::select! {
                    () = tokio::time::sleep(TEND_INTERVAL) => {}
                    () = shutdown.cancelled() => return Ok::<(), String>(()),
                }
            }
        }
    });
}

/// Kinds of which there are many, or which are large, and which are read from the directory or an index of rights and
/// not from the store.
pub const SELDOM_READ: &[(&str, &str)] = &[
    (GROUP, "roleassignments"),
    (GROUP, "users"),
    (GROUP, "groups"),
    (GROUP, "applicationcredentials"),
    (GROUP, "projects"),
    ("", "limitranges"),
    ("", "serviceaccounts"),
    ("rbac.authorization.k8s.io", "rolebindings"),
];

/// Whom in-process clients of the component speak as.
pub fn own_user() -> gantry_kube_types::UserInfo {
    gantry_kube_types::UserInfo::authenticated(rights::OWN_USER, &[])
}

/// Whom the rights of [`rights::OWN_USER`] are installed as.
pub fn installer() -> gantry_kube_types::UserInfo {
    gantry_kube_types::UserInfo::authenticated("system:gantry:installer", &[groups::MASTERS])
}
