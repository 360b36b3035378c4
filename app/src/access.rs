//! Who may do what, and the trail of who did: identity, audit and the engine put together.
//!
//! The engine asks identity (admission, authoriser, visibility), identity writes through the engine, and both leave
//! records in the trail, which asks the engine who may read it. So identity is opened first, knowing nobody; then
//! the engine; then the trail; and identity begins its work when the API is served.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use gantry_audit::Audit;
use gantry_base::tasks::Tasks;
use gantry_embedded::{Embedded, EmbeddedConfig, Seams};
use gantry_frontdoor::{FrontDoor, ImpersonatedBy};
use gantry_host::{Capabilities, Host};
use gantry_identity::admin::{Admin, Generated};
use gantry_identity::core::Config as IdentityConfig;
use gantry_identity::password::Password;
use gantry_identity::{Identity, installer, own_user};
use gantry_kube_types::{Authenticator, Authorizer, ConnectionInfo, StatusError, UserInfo};
use gantry_registry::{
    Catalogue, ImageGate, Registry, RepositoryAdmission, RepositoryRights, RepositoryVisibility,
};
use http::HeaderMap;

use crate::commands::up::Report;
use crate::platform::Settings;

/// How long identity and the registry may take to learn what there is. A hundred thousand assignments take seconds, and on
/// a busy machine half a minute; what takes so long has got stuck.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// The engine with those it asks.
pub struct Access {
    pub identity: Identity,
    pub audit: Audit,
    pub embedded: Embedded,
    /// Whose each repository is.
    pub repositories: Catalogue,
    /// Which images pods may run; to be connected with the registry.
    pub gate: ImageGate,
    /// Who may do what, before the engine opens its filtered lists to everybody who is signed in.
    pub rights: Arc<dyn Authorizer>,
}

impl Access {
    /// Opens files, keys and the store. Nothing is served yet. `external_url`: where clients reach the platform;
    /// `registry_hosts`: every `HOST:PORT` that they name the registry by.
    pub async fn open(
        settings: &Settings,
        config: EmbeddedConfig,
        external_url: String,
        registry_hosts: Vec<String>,
    ) -> anyhow::Result<Self> {
        let dirs = &settings.dirs;
        let identity_config = IdentityConfig {
            data: dirs.data.join("identity"),
            keys: dirs.pki(),
            external_url,
            registry_hosts,
            settings: settings.config.identity.clone(),
        };
        let opened = tokio::task::spawn_blocking(move || Identity::open(identity_config));
        let identity = opened.await?.context("identity")?;
        let (wraps, repositories) = (identity.clone(), Catalogue::default());
        let (catalogue, anonymous_pull) = (repositories.clone(), settings.config.registry.anonymous_pull);
        let rights: Arc<OnceLock<Arc<dyn Authorizer>>> = Arc::default();
        let known = rights.clone();
        let visible = RepositoryVisibility::new(repositories.clone(), rights.clone(), identity.visibility());
        let mut admission = identity.admission();
        admission.push(Arc::new(RepositoryAdmission));
        let gate = ImageGate::default();
        admission.push(Arc::new(gate.clone()));
        let seams = Seams {
            admission,
            authenticators: vec![identity.tokens_elsewhere()],
            wrap_authorizer: Some(Box::new(move |engine| {
                let rights = RepositoryRights::new(catalogue, wraps.wrap(engine), anonymous_pull);
                known.get_or_init(|| Arc::new(rights)).clone()
            })),
            visibility: vec![identity.visibility(), Arc::new(visible)],
            seldom_read: gantry_identity::SELDOM_READ,
            beside: vec![Audit::discovered()],
            ..Seams::default()
        };
        let embedded = Embedded::open_with(config, seams).await?;
        let rights = rights.get().context("the engine asks nobody")?.clone();
        let mut audit_config = gantry_audit::Config::new(dirs.data.join("audit"));
        audit_config.key = dirs.pki().join("audit.key");
        let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        settings.config.audit.apply(&mut audit_config, host_name.as_deref().unwrap_or("localhost"));
        let authorizer = embedded.authorizer();
        let built = tokio::task::spawn_blocking(move || gantry_audit::build(audit_config, authorizer));
        let audit = built.await?.context("the audit trail")?;
        identity.audit_to(audit.sink());
        Ok(Self { identity, audit, embedded, repositories, gate, rights })
    }

    /// Starts the loops of identity, audit and the registry, each as its own user, and says where the first
    /// administrator's password is.
    pub async fn start(
        &self,
        settings: &Settings,
        registry: &Registry,
        front_door: &FrontDoor,
        tasks: &Tasks,
        report: &Report,
    ) -> anyhow::Result<()> {
        let host = |user: UserInfo| Host {
            client: kube::Client::new(front_door.connect_as(user), "default"),
            tasks: tasks.clone(),
            capabilities: Capabilities::default(),
        };
        let password = settings.admin_password.clone();
        let identity_host = host(own_user());
        let masters = host(installer()).client;
        let starting = self.identity.start(&identity_host, &masters, password);
        let admin = tokio::time::timeout(START_TIMEOUT, starting).await;
        match admin.context("identity does not come up")?.context("identity")? {
            Admin::There => {}
            Admin::Made { user, generated: Some(Generated { password, file }) } => {
                let (password, file) = (password.expose(), file.display());
                report
                    .step(&format!("Administrator {user}, password {password} (shown once; kept in {file})"));
            }
            Admin::Made { user, generated: None } => report.step(&format!("Administrator {user}")),
        }
        self.audit.install(&masters).await.context("the rights of the audit trail")?;
        self.audit.start(&host(UserInfo::authenticated(gantry_audit::OWN_USER, &[])));
        let registry_host = host(UserInfo::authenticated(gantry_registry::OWN_USER, &[]));
        let starting = tokio::time::timeout(START_TIMEOUT, registry.start(&registry_host, &masters)).await;
        starting.context("the registry does not come up")?.context("the registry")?;
        Ok(())
    }
}

impl Access {
    /// Holds the callers of a service to the access rules of their credentials.
    pub fn hold(&self, service: axum::Router) -> axum::Router {
        self.identity.hold(service, |all| {
            let acting = all.get::<ImpersonatedBy>().map(|by| &by.0);
            acting.or_else(|| all.get::<UserInfo>())
        })
    }

    /// Knows names with passwords, application credentials, pull secrets, and tokens in the place of a password.
    pub fn passwords(&self) -> Arc<dyn Authenticator> {
        // Passwords last: a token or a pull secret under somebody's name is not a failure of theirs to sign in.
        Arc::new(FirstOf(vec![
            self.identity.pull_secrets(),
            self.embedded.basic_authenticator(),
            self.identity.passwords(),
        ]))
    }

    /// Knows every kind of bearer token there is: service accounts' and users'.
    pub fn bearer(&self) -> Arc<dyn Authenticator> {
        Arc::new(FirstOf(vec![self.identity.tokens(), self.embedded.bearer_authenticator()]))
    }
}

/// The first that knows the credential; a refusal only where none does.
struct FirstOf(Vec<Arc<dyn Authenticator>>);

#[async_trait::async_trait]
impl Authenticator for FirstOf {
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &ConnectionInfo,
    ) -> Result<Option<UserInfo>, StatusError> {
        let mut refused = None;
        for one in &self.0 {
            match one.authenticate(headers, connection).await {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}

/// Reads `--admin-password-file`: the first line.
pub fn read_password(path: &std::path::Path) -> anyhow::Result<Password> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let line = text.lines().next().unwrap_or_default();
    anyhow::ensure!(
        !line.is_empty(),
        "{} is empty: a password is expected in its first line",
        path.display()
    );
    Ok(Password::new(line))
}
