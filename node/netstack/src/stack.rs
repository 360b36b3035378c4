//! The network of one instance on this host, from start to purge.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use gantry_base::health::{Health, HealthBoard};
use gantry_base::tasks::Tasks;
use tokio::net::UnixListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::attach::Attacher;
use crate::cni;
use crate::config::NetConfig;
use crate::dns::Dns;
use crate::error::{Context, Result};
use crate::ipam::{Ipam, Lease};
use crate::rules::{self, Rules};
use crate::service::World;
use crate::{link, sysctl, watch};

/// A part's name on the health board.
const SERVICES: &str = "services";
const DNS: &str = "dns";
const NETLINK: &str = "network/netlink";
/// How long the loops may take to end: one nft transaction, at worst.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(40);

/// The running network of one instance: bridge, addresses, CNI socket, services, DNS.
///
/// Dropping it changes nothing on the host: pods and services go on, and the next start takes over.
pub struct NetStack {
    attacher: Arc<Attacher>,
    tasks: Tasks,
}

impl NetStack {
    /// Makes or repairs the host's side, then serves the CNI socket, services and DNS until `shutdown`.
    ///
    /// Comes back when pods can be attached; services follow as soon as `client` has listed them
    /// (see [`Self::health`]).
    pub async fn start(config: NetConfig, client: kube::Client, shutdown: CancellationToken) -> Result<Self> {
        config.validate()?;
        // Stopping the network alone must not stop the process.
        let shutdown = shutdown.child_token();
        let tasks = Tasks::new(shutdown.clone(), HealthBoard::default());
        prepare_directories(&config)?;
        let (connection, handle, _) = rtnetlink::new_connection().context(|| "opening netlink".to_owned())?;
        watch_netlink(connection, &tasks);
        let mtu = link::uplink_mtu();
        let ipam = Ipam::open(&config.lease_file(), config.pod_cidr, [config.gateway()])?;
        // Forwarding is the whole host's setting and stays on: others may have come to need it.
        sysctl::set("ipv4/ip_forward", "1")?;
        let bridge = link::ensure_bridge(&handle, &config, mtu).await?;
        set_bridge_options(&config.bridge)?;
        let leases = ipam.leases().filter(|lease| lease.has_rules()).cloned().collect();
        let rules = Arc::new(Rules::start(config.clone(), leases).await?);
        let dns = Dns::start(&config, &tasks).await?;
        let ipam = Mutex::new(ipam);
        let attacher =
            Arc::new(Attacher { config: config.clone(), handle, bridge, mtu, ipam, rules: rules.clone() });
        // What an interrupted ADD or DEL left: links without a lease.
        attacher.reconcile(|_| true).await?;
        let listener = Arc::new(listen(&config)?);
        cni::install(&config)?;
        let (served, cancelled) = (attacher.clone(), shutdown.clone());
        tasks.supervise("network/cni", move || {
            let serving = cni::serve(listener.clone(), served.clone(), cancelled.clone());
            async move {
                serving.await;
                Ok::<(), Infallible>(())
            }
        });
        follow_services(&tasks, client, rules, dns);
        Ok(Self { attacher, tasks })
    }

    /// The parts `services` and `dns`, starting until the API's objects are known, and the loops behind them.
    pub fn health(&self) -> HealthBoard {
        self.tasks.health().clone()
    }

    /// Releases the addresses and links of every container that is not among `live_sandbox_ids`: to be
    /// called when the runtime has been asked for its sandboxes after a start.
    pub async fn reconcile(&self, live_sandbox_ids: &BTreeSet<String>) -> Result<()> {
        self.attacher.reconcile(|lease| live_sandbox_ids.contains(&lease.container_id)).await
    }

    /// Who has which address now.
    pub async fn leases(&self) -> Vec<Lease> {
        self.attacher.ipam.lock().await.leases().cloned().collect()
    }

    /// Ends the tasks (not the network); used where the process goes on after it.
    pub async fn stop(&self) {
        if !self.tasks.drain(DRAIN_TIMEOUT).await {
            tracing::warn!("some of the network's loops had not ended in time");
        }
    }

    /// Removes everything this instance ever made on the host: links, addresses, routes, rules, socket,
    /// files. May be repeated, and needs no state of a running instance.
    pub async fn purge(config: &NetConfig) -> Result<()> {
        let (connection, handle, _) = rtnetlink::new_connection().context(|| "opening netlink".to_owned())?;
        tokio::spawn(connection);
        for name in link::names_with_prefix(&handle, &config.interface_prefix()).await? {
            link::remove(&handle, &name).await?;
        }
        // Its addresses and routes go with it.
        link::remove(&handle, &config.bridge).await?;
        rules::purge(config).await?;
        let lease_directory = config.dirs.data.join("network");
        for path in [config.cni_socket(), config.dirs.run.join("cni"), lease_directory] {
            gantry_base::fs::remove_all(&path).context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}

/// Every request to the kernel goes over this connection. It ends with its last handle; before that, nothing
/// short of a new start makes another.
fn watch_netlink(connection: impl Future<Output = ()> + Send + 'static, tasks: &Tasks) {
    let (health, shutdown) = (tasks.health().clone(), tasks.shutdown().clone());
    health.set(NETLINK, Health::Ok);
    tokio::spawn(async move {
        let ended = tokio::spawn(connection).await;
        if !shutdown.is_cancelled() {
            let why = ended.err().map_or_else(|| "it ended".to_owned(), |panic| panic.to_string());
            let why = format!("no pod can be attached until gantry is started again: {why}");
            tracing::error!(why, "the connection to the kernel's network is gone");
            health.set(NETLINK, Health::Degraded(why));
        }
    });
}

/// Keeps rules and DNS at what the API says.
fn follow_services(tasks: &Tasks, client: kube::Client, rules: Arc<Rules>, dns: Arc<Dns>) {
    let (health, shutdown) = (tasks.health().clone(), tasks.shutdown().clone());
    health.set(SERVICES, Health::Starting);
    health.set(DNS, Health::Starting);
    tasks.supervise("network/watch", move || {
        let (rules, dns, board) = (rules.clone(), dns.clone(), health.clone());
        let (client, shutdown) = (client.clone(), shutdown.clone());
        async move {
            let publish = |world: Arc<World>| publish(world, rules.clone(), dns.clone(), board.clone());
            watch::follow(client, shutdown, publish).await;
            Ok::<(), Infallible>(())
        }
    });
}

/// True when the rules are what `world` asks for.
async fn publish(world: Arc<World>, rules: Arc<Rules>, dns: Arc<Dns>, board: HealthBoard) -> bool {
    dns.set_world(world.clone());
    board.set(DNS, Health::Ok);
    let applied = rules.set_world(world).await;
    if let Err(error) = &applied {
        tracing::error!(%error, "the services' rules were not applied");
    }
    board.set(SERVICES, applied.as_ref().map_or_else(|e| Health::Degraded(e.to_string()), |()| Health::Ok));
    applied.is_ok()
}

fn prepare_directories(config: &NetConfig) -> Result<()> {
    for path in [config.dirs.data.join("network"), config.dirs.run.clone()] {
        gantry_base::fs::create_directory(&path, 0o700).context(|| format!("making {}", path.display()))?;
    }
    Ok(())
}

fn set_bridge_options(bridge: &str) -> Result<()> {
    // Node ports and host ports on 127.0.0.1 leave over the bridge with that source; the rules keep
    // anything else from using it.
    sysctl::set(&format!("ipv4/conf/{bridge}/route_localnet"), "1")?;
    sysctl::set(&format!("ipv4/conf/{bridge}/forwarding"), "1")?;
    sysctl::try_set(&format!("ipv4/conf/{bridge}/send_redirects"), "0");
    sysctl::try_set(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1");
    Ok(())
}

/// Binds the plugin's socket, for root only. A socket that an ended process left is replaced.
fn listen(config: &NetConfig) -> Result<UnixListener> {
    let path = config.cni_socket();
    gantry_base::fs::remove_all(&path).context(|| format!("removing {}", path.display()))?;
    let listener = UnixListener::bind(&path).context(|| format!("listening on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .context(|| format!("protecting {}", path.display()))?;
    Ok(listener)
}
