//! The embedded engine as one part: store, API server, rights, controllers and scheduler, for the
//! composition root. Nobody else sees the engine.

mod bootstrap;
mod nodes;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gantry_apiserver::authn::{
    BasicTokenAuthenticator, BearerTokenAuthenticator, ClientCertificates, ForeignTokens,
    ServiceAccountTokens, TokenAuthenticator, TokenConfig, discovery_routes,
};
use gantry_apiserver::authz::{
    self, ExplainApi, NodeAuthorizer, NodeRestriction, RbacAuthorizer, RbacEscalation, Signers, Union,
};
use gantry_apiserver::metrics::MetricsApi;
use gantry_apiserver::{ApiServer, Discovered, Neutral, ViewAuthorizer, Views, kinds};
use gantry_base::health::Health;
use gantry_base::tasks::Tasks;
use gantry_frontdoor::FrontDoor;
use gantry_host::{Capabilities, Host};
use gantry_kube_types::{Admission, Authenticator, Authorizer, UserInfo, Visibility, groups, users};
use gantry_routes::Routes;
use gantry_store::{Options, Packed, Store};
use ipnet::Ipv4Net;

pub use gantry_apiserver::kinds::PodSecurity;
pub use nodes::LocalNodes;

/// Longest silence of a node before it counts as lost.
const NODE_GRACE: Duration = Duration::from_secs(40);
const EVENT_TTL: Duration = Duration::from_secs(3600);
const TERMINATED_PODS_MAX: usize = 12_500;
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Resources whose values are encrypted in the store's file.
const SEALED: &[(&str, &str)] = &[("", "secrets")];
/// `schedulerName`s the scheduler answers to.
const SCHEDULERS: &[&str] = &["default-scheduler", "gantry"];

/// Puts its own rules before or around the engine's authoriser.
pub type WrapAuthorizer = Box<dyn FnOnce(Arc<dyn Authorizer>) -> Arc<dyn Authorizer> + Send>;

/// Where components take part in the engine's decisions.
#[derive(Default)]
pub struct Seams {
    /// After the engine's own mutations and before its quotas, in this order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Whose bearer tokens TokenReviews know, too. The composition root gives the same to the front door.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// For credentials narrower than their user. What it returns is asked by everybody: front door,
    /// reviews, escalation checks, filtered lists. It must answer `NoOpinion`, not `Deny`, where a
    /// filtered list may still show a part.
    pub wrap_authorizer: Option<WrapAuthorizer>,
    /// What users see of cluster-scoped lists beyond the namespaces they are bound in.
    pub visibility: Vec<Arc<dyn Visibility>>,
    /// What others serve behind the same front door, for discovery.
    pub beside: Vec<Discovered>,
    /// Who is held to no pod security level, and what holds in namespaces without labels.
    pub pod_security: PodSecurity,
    /// Resources (group, plural) of which there may be many and whose readers keep what they need: they are kept
    /// small in memory, and take a microsecond more to read.
    pub seldom_read: &'static [(&'static str, &'static str)],
}

/// What the engine starts from.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// The store is a file in here.
    pub data: PathBuf,
    /// Signing keys of tokens.
    pub keys: PathBuf,
    pub service_cidr: Ipv4Net,
    pub cluster_domain: String,
    /// `https://127.0.0.1:6443`.
    pub external_url: String,
    pub root_ca_pem: String,
    pub tasks: Tasks,
}

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(transparent)]
    Store(#[from] gantry_store::OpenError),
    #[error("the key that secrets are encrypted with: {0}")]
    SealingKey(std::io::Error),
    #[error("the signing key of tokens: {0}")]
    Keys(#[from] gantry_apiserver::authn::KeyError),
    #[error("the default roles could not be written: {0}")]
    Roles(String),
    #[error("the cluster's first objects could not be written: {0}")]
    Bootstrap(#[from] kube::Error),
}

/// Who decides on rights, from the inside out.
struct Rights {
    rbac: Arc<RbacAuthorizer>,
    views: Arc<Views>,
    /// The outermost.
    authorizer: Arc<dyn Authorizer>,
}

impl Rights {
    fn new(store: &Store, wrap: Option<WrapAuthorizer>, visibility: Vec<Arc<dyn Visibility>>) -> Self {
        let rbac = Arc::new(RbacAuthorizer::new(store.clone()));
        let own: Arc<dyn Authorizer> =
            Arc::new(Union(vec![Arc::new(NodeAuthorizer::new(store.clone())), rbac.clone()]));
        let narrowed = match wrap {
            Some(wrap) => wrap(own),
            None => own,
        };
        let mut sources: Vec<Arc<dyn Visibility>> = vec![rbac.clone()];
        sources.extend(visibility);
        let views = Views::new(store.clone(), narrowed, sources);
        let authorizer = Arc::new(ViewAuthorizer::new(views.clone()));
        Self { rbac, views, authorizer }
    }
}

/// The running engine.
pub struct Embedded {
    config: EmbeddedConfig,
    store: Store,
    server: Arc<ApiServer>,
    tokens: Arc<ServiceAccountTokens>,
    authorizer: Arc<dyn Authorizer>,
    views: Arc<Views>,
    nodes: LocalNodes,
}

impl Embedded {
    /// [`Embedded::open_with`] no component.
    pub async fn open(config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        Self::open_with(config, Seams::default()).await
    }

    /// Opens the store and makes the API server; nothing moves until [`Embedded::start_loops`].
    pub async fn open_with(config: EmbeddedConfig, seams: Seams) -> Result<Self, EmbeddedError> {
        let (path, key) = (config.data.join("store.redb"), config.keys.join("store.key"));
        let packed = Packed::new(seams.seldom_read);
        let opened = tokio::task::spawn_blocking(move || {
            let key = gantry_base::fs::secret_key(&key).map_err(EmbeddedError::SealingKey)?;
            let sealing = Some(Arc::new(gantry_store::Sealing::new(&key, SEALED)));
            Store::open(&path, Options { sealing, packed, ..Options::default() })
                .map_err(EmbeddedError::Store)
        })
        .await;
        let store = opened.map_err(|panic| EmbeddedError::Roles(panic.to_string()))??;
        let token_config = TokenConfig::of_cluster(config.keys.clone(), &config.cluster_domain);
        let tokens = Arc::new(ServiceAccountTokens::open(store.clone(), token_config)?);
        authz::bootstrap(&store).await.map_err(|error| EmbeddedError::Roles(error.to_string()))?;
        let rights = Rights::new(&store, seams.wrap_authorizer, seams.visibility);
        let nodes = LocalNodes::default();
        let rules = kinds::AdmissionConfig {
            service_range: ipnet::IpNet::V4(config.service_cidr),
            node_ports: NODE_PORTS,
            pod_security: seams.pod_security,
        };
        let mut admission = kinds::plugins(rules, store.clone());
        admission.push(Arc::new(NodeRestriction));
        admission.push(Arc::new(RbacEscalation::new(rights.authorizer.clone(), rights.rbac.clone())));
        admission.push(Arc::new(Signers::new(rights.authorizer.clone())));
        for component in seams.admission {
            admission.push(Arc::new(Neutral(component)));
        }
        // Last: what everybody else refuses must not count.
        admission.push(kinds::quota_plugin(store.clone()));
        let mut known: Vec<Arc<dyn TokenAuthenticator>> = vec![tokens.clone()];
        for authenticator in seams.authenticators {
            known.push(Arc::new(ForeignTokens::new(authenticator, tokens.audiences().to_vec())));
        }
        let reviewed = authz::with_reviews(
            kinds::builtin(),
            rights.authorizer.clone(),
            rights.rbac.clone(),
            tokens.clone(),
            known,
        );
        let explain = ExplainApi::new(rights.authorizer.clone(), rights.rbac.clone());
        let server = ApiServer::new(
            store.clone(),
            gantry_apiserver::Config {
                kinds: reviewed,
                admission,
                extensions: vec![MetricsApi::new(store.clone(), Arc::new(nodes.clone())), explain],
                beside: seams.beside,
                nodes: Some(Arc::new(nodes.clone())),
                views: Some(rights.views.clone()),
                git_version: gantry_apiserver::GIT_VERSION.to_owned(),
            },
        );
        let Rights { authorizer, views, .. } = rights;
        Ok(Self { config, store, server, tokens, authorizer, views, nodes })
    }

    /// Where the composition root puts the nodes that live in this process.
    pub fn nodes(&self) -> &LocalNodes {
        &self.nodes
    }

    /// Serves the Kubernetes API.
    pub fn router(&self) -> Router {
        self.server.router()
    }

    pub fn authorizer(&self) -> Arc<dyn Authorizer> {
        self.authorizer.clone()
    }

    /// Certificates and bearer tokens.
    pub fn authenticators(&self) -> Vec<Arc<dyn Authenticator>> {
        vec![self.bearer_authenticator(), Arc::new(ClientCertificates)]
    }

    pub fn bearer_authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(BearerTokenAuthenticator::new(vec![self.tokens.clone()]))
    }

    /// Tokens as passwords, for registry clients.
    pub fn basic_authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(BasicTokenAuthenticator::new(vec![self.tokens.clone()]))
    }

    /// The OpenID documents by which others verify service-account tokens.
    pub fn token_discovery(&self) -> Routes {
        discovery_routes(&self.tokens, &self.config.external_url)
    }

    /// Writes what every cluster begins with, then starts custom resources, controllers and scheduler,
    /// each as itself through the front door.
    pub async fn start_loops(
        &self,
        front_door: &FrontDoor,
        api_service: Ipv4Addr,
        dns: Option<Ipv4Addr>,
    ) -> Result<(), EmbeddedError> {
        let tasks = self.config.tasks.clone();
        let (server, shutdown) = (self.server.clone(), tasks.shutdown().clone());
        tasks.supervise("custom resources", move || {
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = gantry_apiserver::run_custom_resources(server) => Err("the store was closed"),
                    () = shutdown.cancelled() => Ok(()),
                }
            }
        });
        show_store_failure(&tasks, &self.store);
        let (views, shutdown) = (self.views.clone(), tasks.shutdown().clone());
        tasks.supervise("filtered lists", move || {
            let (views, shutdown) = (views.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = gantry_apiserver::run_views(views) => Ok::<(), String>(()),
                    () = shutdown.cancelled() => Ok(()),
                }
            }
        });
        let client = |user: &str, group: &[&str]| {
            kube::Client::new(front_door.connect_as(UserInfo::authenticated(user, group)), "default")
        };
        let own = client(users::API_SERVER, &[groups::MASTERS]);
        bootstrap::run(&own, &bootstrap::Facts { api_service, dns }).await?;
        let host = |client| Host { client, tasks: tasks.clone(), capabilities: Capabilities::default() };
        gantry_controllers::start(
            host(client(users::CONTROLLER_MANAGER, &[])),
            gantry_controllers::Config {
                root_ca_pem: self.config.root_ca_pem.clone(),
                node_grace: NODE_GRACE,
                event_ttl: EVENT_TTL,
                terminated_pods_max: TERMINATED_PODS_MAX,
            },
        );
        gantry_scheduler::start(
            host(client(users::SCHEDULER, &[])),
            gantry_scheduler::Config { names: SCHEDULERS.iter().map(|name| (*name).to_owned()).collect() },
        );
        Ok(())
    }

    /// Writes what waits and closes the store.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

/// A store whose log failed serves reads and refuses writes until it is opened again: the platform is not
/// ready then, and says so.
fn show_store_failure(tasks: &Tasks, store: &Store) {
    let (store, shutdown, health) = (store.clone(), tasks.shutdown().clone(), tasks.health().clone());
    tasks.supervise("store", move || {
        let (store, shutdown, health) = (store.clone(), shutdown.clone(), health.clone());
        async move {
            tokio::select! {
                reason = store.failure() => {
                    let why = format!("writes are refused until gantry is started again: {reason}");
                    health.set("store", Health::Degraded(why));
                }
                () = shutdown.cancelled() => {}
            }
            shutdown.cancelled().await;
            Ok::<(), String>(())
        }
    });
}
