//! The composition root: every part of the platform, put together once, in the order they need each
//! other.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use gantry_agent::config::AgentConfig;
use gantry_agent::{Agent, PodSource};
use gantry_audit::Audit;
use gantry_base::fs as durable;
use gantry_base::health::{Health, HealthBoard};
use gantry_base::pki::{CertificateAuthority, KeyedCertificate};
use gantry_base::settings::InstanceDirs;
use gantry_base::tasks::Tasks;
use gantry_embedded::EmbeddedConfig;
use gantry_frontdoor::{AuthPolicy, FrontDoor, HealthChecks, TlsSource, server_config};
use gantry_identity::Identity;
use gantry_kube_types::{Authenticator, UserInfo, groups};
use gantry_netstack::{NetConfig, NetStack};
use gantry_registry::{Collected, Registry};
use gantry_routes::Routes;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::addresses::{self, Addresses};
use crate::commands::{slots_dir, up::Report};
use crate::config::ConfigFile;
use crate::instance::InstanceRecord;
use crate::routes::Service;
use crate::{clients, kubeconfig, metrics, node, routes};

/// How often what nobody names any more is taken out of the registry.
const REGISTRY_GC_INTERVAL: Duration = Duration::from_secs(3600);

/// What a person chose.
#[derive(Clone, Debug)]
pub struct Settings {
    pub instance: String,
    pub dirs: InstanceDirs,
    pub listen: SocketAddr,
    pub node: bool,
    pub node_name: Option<String>,
    pub cluster_domain: String,
    /// Of the first administrator; absent: one is generated.
    pub admin_password: Option<gantry_identity::password::Password>,
    pub config: ConfigFile,
}

/// A running instance.
pub struct Platform {
    record: InstanceRecord,
    tasks: Tasks,
    access: Access,
    node: Option<node::LocalNode>,
}

impl Platform {
    /// Starts everything; [`Self::wait_ready`] says when all of it is well.
    pub async fn start(
        settings: Settings,
        listener: std::net::TcpListener,
        report: &Report,
        tasks: Tasks,
    ) -> anyhow::Result<Self> {
        let health = tasks.health().clone();
        let dirs = &settings.dirs;
        for directory in [&dirs.data, &dirs.run] {
            durable::create_directory(directory, 0o755).with_context(|| directory.display().to_string())?;
        }
        let addresses = if settings.node {
            addresses::allocate(&dirs.data, &slots_dir())?
        } else {
            // Nothing on the host is touched, so no other instance can be in the way.
            Addresses::of_slot(0)
        };
        let host = HostFacts::read(settings.node_name.as_deref());
        let authority = CertificateAuthority::open(&dirs.pki(), &format!("gantry-{}", settings.instance))?;
        let server = server_address(settings.listen);

        report.step("Opening the store ...");
        let config = engine_config(&settings, &addresses, &server, &authority, &tasks);
        let hosts = registry_hosts(&settings, &server, &host);
        let access = Access::open(&settings, config, external_url(&settings, &host), hosts.clone()).await?;
        let embedded = &access.embedded;
        let (registry, registry_tokens) = open_registry(&settings, &access, hosts, &tasks)?;
        tend_registry(&tasks, &registry);
        let front_door = front_door(&access, &registry, registry_tokens, &health);
        serve(&settings, &tasks, &front_door, &authority, listener, &addresses, &host).await?;

        report.step("Starting the control plane ...");
        embedded
            .start_loops(&front_door, addresses.api_service(), settings.node.then(|| addresses.dns()))
            .await?;
        access.start(&settings, &registry, &front_door, &tasks, report).await?;
        health.set("api", Health::Ok);
        let admin = authority.client_certificate("admin", "gantry-admin", &[groups::MASTERS])?;
        kubeconfig::write(
            &dirs.kubeconfig(),
            &settings.instance,
            &format!("https://{server}"),
            authority.certificate_pem(),
            &admin,
        )?;
        show_registry(&settings, &authority, &admin, report);
        let record = record(&settings, &server, &addresses);
        let node = if settings.node {
            report.step("Starting the node ...");
            seed_pause_image(&registry).await?;
            let context = node::NodeContext {
                settings: &settings,
                addresses: &addresses,
                host: &host,
                authority: &authority,
                front_door: &front_door,
                server: &server,
                tasks: &tasks,
                recorder: access.audit.recorder(),
            };
            Some(node::start(context, embedded).await?)
        } else {
            health.set("node", Health::Off("this machine runs no containers".to_owned()));
            None
        };
        Ok(Self { record, tasks, access, node })
    }

    pub fn record(&self) -> &InstanceRecord {
        &self.record
    }

    /// Comes back when every part is ready; after `timeout` with a sentence about one that is not.
    pub async fn wait_ready(&self, timeout: Duration) -> anyhow::Result<()> {
        let ready = async {
            while !self.tasks.health().is_ready() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(timeout, ready).await.is_ok() {
            return Ok(());
        }
        let parts = self.tasks.health().all();
        tracing::error!(health = ?parts, "not every part is ready");
        match unready(&parts) {
            None => Ok(()),
            Some((part, why)) => bail!("{part} is not ready after {} s: {why}", timeout.as_secs()),
        }
    }

    /// Reads again what may change while it runs: the audit policy.
    pub fn reload(&self) {
        match self.access.audit.reload_policy() {
            Ok(()) => tracing::info!("the audit policy was read again"),
            Err(error) => tracing::error!(%error, "the audit policy stays as it was"),
        }
    }

    /// Ends every loop and closes the store. Containers go on.
    pub async fn stop(self, timeout: Duration) -> bool {
        if let Some(node) = self.node {
            node.stop().await;
        }
        let drained = self.tasks.drain(timeout).await;
        self.access.audit.close().await;
        self.access.embedded.close().await;
        drained
    }
}

/// A part that is unwell, one that says why before one that has only not begun.
fn unready(parts: &BTreeMap<String, Health>) -> Option<(&str, &str)> {
    let degraded = parts.iter().find_map(|(part, health)| match health {
        Health::Degraded(why) => Some((part.as_str(), why.as_str())),
        _ => None,
    });
    let starting = parts.iter().find(|(_, health)| **health == Health::Starting);
    degraded.or(starting.map(|(part, _)| (part.as_str(), "it is still starting")))
}

fn engine_config(
    settings: &Settings,
    addresses: &Addresses,
    server: &str,
    authority: &CertificateAuthority,
    tasks: &Tasks,
) -> EmbeddedConfig {
    EmbeddedConfig {
        data: settings.dirs.data.clone(),
        keys: settings.dirs.pki(),
        service_cidr: addresses.service_cidr,
        cluster_domain: settings.cluster_domain.clone(),
        external_url: format!("https://{server}"),
        root_ca_pem: authority.certificate_pem().to_owned(),
        tasks: tasks.clone(),
    }
}

/// What this machine is called and where it is reached.
pub struct HostFacts {
    pub name: String,
    pub addresses: Vec<Ipv4Addr>,
}

impl HostFacts {
    fn read(name: Option<&str>) -> Self {
        let own = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok());
        let name = name.map(str::to_owned).or(own).unwrap_or_else(|| "localhost".to_owned());
        Self { name: name.to_ascii_lowercase(), addresses: host_addresses() }
    }

    /// The address others reach this machine by; loopback on a machine without a network.
    pub fn address(&self) -> Ipv4Addr {
        self.addresses.first().copied().unwrap_or(Ipv4Addr::LOCALHOST)
    }
}

/// IPv4 addresses of interfaces that are up, bridges and tunnels of container engines left out.
fn host_addresses() -> Vec<Ipv4Addr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let foreign = ["gantry", "gt-", "docker", "br-", "veth", "cni", "virbr"];
    let mut found: Vec<Ipv4Addr> = interfaces
        .filter(|i| !foreign.iter().any(|prefix| i.interface_name.starts_with(prefix)))
        .filter_map(|i| i.address?.as_sockaddr_in().map(|a| a.ip()))
        .filter(|ip| !ip.is_loopback() && !ip.is_link_local())
        .collect();
    found.dedup();
    found
}

/// The address clients on this machine use.
fn server_address(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() { format!("127.0.0.1:{}", listen.port()) } else { listen.to_string() }
}

/// Where clients reach the platform, from this machine and from others.
fn external_url(settings: &Settings, host: &HostFacts) -> String {
    let listen = settings.listen;
    settings.config.identity.external_url.clone().unwrap_or_else(|| match listen.ip().is_unspecified() {
        true => format!("https://{}:{}", host.address(), listen.port()),
        false => format!("https://{listen}"),
    })
}

fn record(settings: &Settings, server: &str, addresses: &Addresses) -> InstanceRecord {
    InstanceRecord {
        instance: settings.instance.clone(),
        pid: i32::try_from(std::process::id()).unwrap_or(0),
        api: format!("https://{server}"),
        kubeconfig: settings.dirs.kubeconfig(),
        registry: server.to_owned(),
        console: None,
        data_dir: settings.dirs.data.clone(),
        run_dir: settings.dirs.run.clone(),
        log_dir: settings.dirs.logs.clone(),
        node: settings.node,
        pod_cidr: settings.node.then(|| addresses.pod_cidr.to_string()),
        service_cidr: addresses.service_cidr.to_string(),
        started: now(),
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The registry, which scans what is pushed, and what recognises its own tokens.
fn open_registry(
    settings: &Settings,
    access: &Access,
    hosts: Vec<String>,
    tasks: &Tasks,
) -> anyhow::Result<(Registry, Arc<dyn Authenticator>)> {
    let (gate, sink) = (access.gate.clone(), access.audit.sink());
    let issuer = Arc::new(gantry_registry::JwtIssuer::open(&settings.dirs.pki().join("registry-token.key"))?);
    let repositories = access.repositories.clone();
    let identity = access.identity.core().clone();
    let access = gantry_registry::Access {
        authorizer: access.rights.clone(),
        issuer: issuer.clone(),
        passwords: access.passwords(),
        bearers: access.bearer(),
    };
    let data = &settings.dirs.data;
    let mut config = gantry_registry::Config::new(data.join("registry"));
    let advisories = settings.config.registry.advisories.clone();
    config.advisories = advisories.unwrap_or_else(|| data.join("advisories"));
    config.webhooks_may_reach.clone_from(&settings.config.registry.webhooks_may_reach);
    config.hosts = hosts;
    config.s3.clone_from(&settings.config.registry.s3);
    config.s3_keys = gantry_registry::AccessKeys::of_environment(gantry_base::settings::environment);
    let registry = gantry_registry::build(config, access, repositories).context("the registry")?;
    gate.connect(&registry);
    registry.audit_to(sink);
    if settings.config.registry.scan {
        registry.scan(tasks);
    }
    let still_good = Arc::new(move |caller: &UserInfo, at| identity.still_good(caller, at));
    Ok((registry, Arc::new(gantry_registry::RegistryTokens::new(issuer, still_good))))
}

/// Every `HOST:PORT` that an image may name the registry by.
fn registry_hosts(settings: &Settings, server: &str, host: &HostFacts) -> Vec<String> {
    let port = settings.listen.port();
    let mut hosts = clients::names(settings.listen);
    hosts.extend(external_url(settings, host).strip_prefix("https://").map(str::to_owned));
    hosts.push(server.to_owned());
    hosts.push(format!("localhost:{port}"));
    hosts.push(format!("{}:{port}", host.name));
    hosts.extend(host.addresses.iter().map(|ip| format!("{ip}:{port}")));
    hosts.sort();
    hosts.dedup();
    hosts
}

async fn seed_pause_image(registry: &Registry) -> anyhow::Result<()> {
    let options = gantry_oci::pack::PackOptions::default();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let program = bytes::Bytes::from_static(gantry_agent::PAUSE);
    let image = gantry_oci::pack::pack_static(program, "/pause", architecture, &options)?;
    registry.put_image(&"gantry/pause".parse()?, &"1".parse()?, &image).await?;
    Ok(())
}

fn front_door(
    access: &Access,
    registry: &Registry,
    registry_tokens: Arc<dyn Authenticator>,
    health: &HealthBoard,
) -> FrontDoor {
    let board = health.clone();
    let checks = HealthChecks::new().ready("parts", move || {
        let unwell: Vec<String> = board
            .all()
            .into_iter()
            .filter(|(_, health)| !matches!(health, Health::Ok | Health::Off(_)))
            .map(|(part, health)| format!("{part}: {health:?}"))
            .collect();
        if unwell.is_empty() { Ok(()) } else { Err(unwell.join("; ")) }
    });
    let (embedded, identity) = (&access.embedded, &access.identity);
    // Registry tokens first: to the others they are forged tokens of their own kind.
    let mut builder = FrontDoor::builder()
        .authenticator(registry_tokens)
        .authenticator(identity.tokens())
        .authenticator(identity.sessions());
    for authenticator in embedded.authenticators() {
        builder = builder.authenticator(authenticator);
    }
    let builder = builder
        .authenticator(access.passwords())
        .audit(access.audit.sink())
        .standing(identity.standing())
        .authorizer(Arc::new(gantry_registry::NotBeyondRegistry(embedded.authorizer())))
        .health(checks)
        .fallback(access.hold(embedded.router()));
    let services = services(access, registry, health);
    routes::serve(builder, services, |list| gantry_registry::not_beyond_registry(access.hold(list))).build()
}

/// What the front door serves beside the Kubernetes API.
fn services(access: &Access, registry: &Registry, health: &HealthBoard) -> Vec<Service> {
    use AuthPolicy::{Authenticated, Delegated, Kubernetes};
    let (embedded, identity) = (&access.embedded, &access.identity);
    let registry_at = |prefix, policy| {
        let service = Service::new(prefix, policy, registry.router(), &Registry::paths());
        service.within(|router| access.hold(router))
    };
    let identity = Service::new("/identity", Delegated, identity.router(), &Identity::paths());
    let audit = "/apis/audit.gantry.dev";
    let audit = Service::new(audit, Authenticated, access.audit.router(), &Audit::paths());
    let shown = health.clone();
    let parts = axum::routing::get(move || {
        let shown = shown.clone();
        async move { axum::Json(shown.all()) }
    });
    let parts = Routes::new().route("/gantry/health", parts);
    let parts = Service::of("/gantry/health", Authenticated, parts);
    let metrics = metrics::routes(health.clone(), registry.clone());
    let metrics = Service::of(metrics::PATH, Kubernetes, metrics);
    let not_beyond = |router| gantry_registry::not_beyond_registry(access.hold(router));
    vec![
        registry_at("/v2", Delegated),
        registry_at("/token", Delegated),
        registry_at("/registry", Authenticated),
        identity,
        audit.within(not_beyond),
        parts.within(not_beyond),
        metrics.within(|router| access.hold(router)),
        Service::of("/.well-known/openid-configuration", Kubernetes, embedded.token_discovery()),
        Service::of("/openid", Kubernetes, embedded.token_discovery()),
    ]
}

/// Opens the front door: on the chosen address, with a certificate for every name it is called by.
async fn serve(
    settings: &Settings,
    tasks: &Tasks,
    front_door: &FrontDoor,
    authority: &CertificateAuthority,
    listener: std::net::TcpListener,
    addresses: &Addresses,
    host: &HostFacts,
) -> anyhow::Result<()> {
    let domain = &settings.cluster_domain;
    let mut names = vec!["localhost".to_owned(), host.name.clone()];
    for short in ["kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        names.push(short.to_owned());
    }
    names.push(format!("kubernetes.default.svc.{domain}"));
    let mut reached_at: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), addresses.api_service().into()];
    reached_at.push(addresses.gateway().into());
    reached_at.extend(host.addresses.iter().map(|ip| IpAddr::V4(*ip)));
    if !settings.listen.ip().is_unspecified() {
        reached_at.push(settings.listen.ip());
    }
    let external =
        settings.config.identity.external_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    if let Some(name) = external.as_ref().and_then(http::Uri::host) {
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => reached_at.push(address),
            Err(_) if names.iter().any(|known| known.eq_ignore_ascii_case(name)) => {}
            Err(_) => names.push(name.to_ascii_lowercase()),
        }
    }
    reached_at.sort();
    reached_at.dedup();
    let certificate = authority.server_certificate("front-door", &names, &reached_at)?;
    // The authority goes along: a newcomer's `gantry login` shows its fingerprint before it trusts it.
    let chain = format!("{}\n{}", certificate.certificate_pem.trim_end(), authority.certificate_pem());
    let certificate = KeyedCertificate { certificate_pem: chain, ..certificate };
    let tls = TlsSource::new(server_config(&certificate, authority.certificate_pem())?);
    let shutdown = tasks.shutdown().clone();
    let listener = Arc::new(listener);
    let door = front_door.clone();
    tasks.supervise("front door", move || {
        let (door, tls, shutdown, listener) = (door.clone(), tls.clone(), shutdown.clone(), listener.clone());
        async move {
            let listener = listener.try_clone().and_then(tokio::net::TcpListener::from_std);
            let listener = listener.map_err(|error| error.to_string())?;
            door.serve(listener, tls, shutdown).await.map_err(|error| error.to_string())
        }
    });
    Ok(())
}

/// Garbage and forgotten uploads go; a registry whose files cannot be read is shown.
fn tend_registry(tasks: &Tasks, registry: &Registry) {
    let (registry, shutdown) = (registry.clone(), tasks.shutdown().clone());
    tasks.supervise("registry", move || {
        let (registry, shutdown) = (registry.clone(), shutdown.clone());
        async move {
            loop {
                // A rule that cannot be kept is no reason to keep garbage.
                let retained = registry.retain_all().await;
                let collected = registry.gc().await.map_err(|error| error.to_string())?;
                if collected != Collected::default() {
                    tracing::info!(?collected, "the registry's garbage was collected");
                }
                retained.map_err(|error| error.to_string())?;
                tokio::select! {
                    () = tokio::time::sleep(REGISTRY_GC_INTERVAL) => {}
                    () = shutdown.cancelled() => return Ok::<(), String>(()),
                }
            }
        }
    });
}

/// Root's own skopeo, podman and buildah work without a flag; where `/etc` cannot be written they need one.
fn show_registry(
    settings: &Settings,
    authority: &CertificateAuthority,
    admin: &KeyedCertificate,
    report: &Report,
) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let names = clients::names(settings.listen);
    let (directory, data) = (clients::directory(), &settings.dirs.data);
    if let Err(error) = clients::write(&directory, &names, data, authority.certificate_pem(), admin) {
        report.step(&format!("skopeo and podman will need --cert-dir: {error:#}"));
    }
}

/// The user the node is: `system:node:NAME`.
pub fn node_user(name: &str) -> UserInfo {
    UserInfo::authenticated(format!("system:node:{name}"), &[groups::NODES])
}

/// Where the node's network reaches the front door.
pub fn api_socket(listen: SocketAddr) -> SocketAddrV4 {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => ip,
        _ => Ipv4Addr::LOCALHOST,
    };
    SocketAddrV4::new(ip, listen.port())
}

/// Removes everything the instance has on this host beside its data. Works after a crash, too.
pub async fn remove_from_host(instance: &str, dirs: &InstanceDirs) -> anyhow::Result<()> {
    let Some(addresses) = addresses::kept(&dirs.data)? else { return Ok(()) };
    let host = HostFacts::read(None);
    let settings = Settings {
        instance: instance.to_owned(),
        dirs: dirs.clone(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        node: true,
        node_name: None,
        cluster_domain: "cluster.local".to_owned(),
        admin_password: None,
        config: ConfigFile::default(),
    };
    let network = node::network_config(&settings, &addresses, &host);
    if dirs.data.join("node").exists() {
        // The agent's end must not be the network's.
        let shutdown = CancellationToken::new();
        let config =
            node::agent_config(&settings, &addresses, &host, "127.0.0.1:0", node::no_client(), shutdown);
        if let Err(error) = end_containers(&network, config.clone()).await {
            tracing::warn!("containers cannot be ended one by one, so all are killed: {error:#}");
            gantry_agent::purge_without_runtime(&config).await?;
        }
    }
    NetStack::purge(&network).await?;
    Ok(())
}

/// Ends every pod as the node does, which gives back all it has.
async fn end_containers(network: &NetConfig, config: AgentConfig) -> anyhow::Result<()> {
    // containerd gives a sandbox's network back through the plugin, and the plugin asks the network.
    let running = NetStack::start(network.clone(), node::no_client(), CancellationToken::new()).await?;
    let (_sender, pods) = tokio::sync::mpsc::channel(1);
    let ended = async {
        let agent = Agent::start_with(config, PodSource::Direct(pods, Arc::new(node::NoSink))).await?;
        agent.purge(false).await
    };
    let ended = ended.await;
    running.stop().await;
    Ok(ended?)
}
