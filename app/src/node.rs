//! This machine as a node: network, containers, and what the API server asks of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gantry_agent::Agent;
use gantry_agent::config::{AgentConfig, CniDirs, Dirs, Programs, RegistryHost, Reserved};
use gantry_agent::sink::{PodSink, SinkFuture};
use gantry_base::health::Health;
use gantry_base::pki::CertificateAuthority;
use gantry_base::tasks::Tasks;
use gantry_embedded::Embedded;
use gantry_frontdoor::FrontDoor;
use gantry_kube_types::{SessionRecorder, groups};
use gantry_netstack::{NetConfig, NetStack};
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use tokio_util::sync::CancellationToken;

use crate::addresses::Addresses;
use crate::platform::{HostFacts, Settings, api_socket, node_user};

/// How often the parts are asked how they are, until all are well; then as often again.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
const KUBELET_PORT: u16 = 10250;
/// How long the agent's loops may take to end.
const AGENT_END_TIMEOUT: Duration = Duration::from_secs(8);
/// Prefix of the annotations that say what the host can do.
const FEATURES: &str = "host.gantry.dev";

/// What a node starts from.
pub struct NodeContext<'a> {
    pub settings: &'a Settings,
    pub addresses: &'a Addresses,
    pub host: &'a HostFacts,
    pub authority: &'a CertificateAuthority,
    pub front_door: &'a FrontDoor,
    /// `HOST:PORT` of the front door for programs on this machine.
    pub server: &'a str,
    pub tasks: &'a Tasks,
    /// Keeps terminal sessions, where a policy says so.
    pub recorder: Arc<dyn SessionRecorder>,
}

/// The running node.
pub struct LocalNode {
    network: Arc<NetStack>,
    agent: Arc<Agent>,
    shutdown: CancellationToken,
}

impl LocalNode {
    /// Ends the node's loops; containers, addresses and rules stay.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.network.stop().await;
        if !self.agent.end(AGENT_END_TIMEOUT).await {
            tracing::warn!("some of the node's loops had not ended in time");
        }
    }
}

pub async fn start(context: NodeContext<'_>, embedded: &Embedded) -> anyhow::Result<LocalNode> {
    let NodeContext { settings, addresses, host, authority, front_door, server, tasks, recorder } = context;
    let user = node_user(&host.name);
    // containerd pulls as the node, by certificate.
    authority.client_certificate("node", &user.username, &[groups::NODES])?;
    let client = kube::Client::new(front_door.connect_as(user), "default");
    let shutdown = tasks.shutdown().child_token();
    let network =
        NetStack::start(network_config(settings, addresses, host), client.clone(), shutdown.clone())
            .await
            .context("the node's network cannot be set up")?;
    let config = agent_config(settings, addresses, host, server, client.clone(), shutdown.clone());
    let agent = match Agent::start(config).await {
        Ok(agent) => agent,
        Err(error) => {
            network.stop().await;
            return Err(error).context("the node agent cannot start");
        }
    };
    let endpoints = gantry_agent::streaming::router(agent.api());
    let endpoints = gantry_agent::streaming::recorded(endpoints, recorder);
    embedded.nodes().insert(&host.name, endpoints);
    let (network, agent) = (Arc::new(network), Arc::new(agent));
    follow_health(tasks, &network, &agent);
    forget_dead_sandboxes(tasks, &network, &agent);
    show_features(tasks, &agent, client, &host.name);
    Ok(LocalNode { network, agent, shutdown })
}

/// Keeps the health board true about network and agent.
fn follow_health(tasks: &Tasks, network: &Arc<NetStack>, agent: &Arc<Agent>) {
    let board = tasks.health().clone();
    board.set("node", Health::Starting);
    let (network, agent, shutdown) = (network.clone(), agent.clone(), tasks.shutdown().clone());
    tasks.supervise("node health", move || {
        let (board, network, agent, shutdown) =
            (board.clone(), network.clone(), agent.clone(), shutdown.clone());
        async move {
            loop {
                for (part, health) in network.health().all().into_iter().chain(agent.health()) {
                    board.set(&part, health);
                }
                tokio::select! {
                    () = tokio::time::sleep(HEALTH_INTERVAL) => {}
                    () = shutdown.cancelled() => return Ok::<(), String>(()),
                }
            }
        }
    });
}

/// Addresses of sandboxes that died while nobody looked are released, once, after the start.
fn forget_dead_sandboxes(tasks: &Tasks, network: &Arc<NetStack>, agent: &Arc<Agent>) {
    let (network, agent) = (network.clone(), agent.clone());
    once_ready(tasks, "network/leases", agent.clone(), move || {
        let (network, agent) = (network.clone(), agent.clone());
        async move {
            let live = agent.sandbox_ids().await.context("the runtime's sandboxes cannot be listed")?;
            network.reconcile(&live).await.context("addresses of dead sandboxes were not released")
        }
    });
}

/// What this machine can do, as annotations of its Node object: `host.gantry.dev/NAME`. Tried in the
/// background, because some of it takes its time.
fn show_features(tasks: &Tasks, agent: &Arc<Agent>, client: kube::Client, name: &str) {
    let nodes: kube::Api<Node> = kube::Api::all(client);
    let name = name.to_owned();
    once_ready(tasks, "node/features", agent.clone(), move || {
        let (nodes, name) = (nodes.clone(), name.clone());
        async move {
            let found = tokio::task::spawn_blocking(gantry_probes::probe).await?;
            let patch = serde_json::json!({"metadata": {"annotations": features(&found)}});
            let patch = kube::api::Patch::Merge(patch);
            nodes.patch(&name, &kube::api::PatchParams::default(), &patch).await?;
            Ok(())
        }
    });
}

/// `true`, or `false: ` and what is missing.
fn features(found: &gantry_host::Capabilities) -> BTreeMap<String, String> {
    let value = |c: &gantry_host::Capability| {
        if c.available { "true".to_owned() } else { format!("false: {}", c.detail) }
    };
    found.0.iter().map(|(name, c)| (format!("{FEATURES}/{name}"), value(c))).collect()
}

/// Does `work` once, when the node is ready; where it fails the part is shown degraded and it is done again.
fn once_ready<F, Fut>(tasks: &Tasks, part: &str, agent: Arc<Agent>, work: F)
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let shutdown = tasks.shutdown().clone();
    tasks.supervise(part, move || {
        let (agent, shutdown, work) = (agent.clone(), shutdown.clone(), work());
        async move {
            tokio::select! {
                () = agent.wait_ready() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            work.await.map_err(|error| format!("{error:#}"))?;
            shutdown.cancelled().await;
            Ok::<(), String>(())
        }
    });
}

pub fn network_config(settings: &Settings, addresses: &Addresses, host: &HostFacts) -> NetConfig {
    NetConfig {
        instance: settings.instance.clone(),
        dirs: settings.dirs.clone(),
        bridge: addresses.bridge.clone(),
        pod_cidr: addresses.pod_cidr,
        service_cidr: addresses.service_cidr,
        dns_ip: addresses.dns(),
        cluster_domain: settings.cluster_domain.clone(),
        node_name: host.name.clone(),
        node_ip: host.address(),
        api_server: api_socket(settings.listen),
    }
}

pub fn agent_config(
    settings: &Settings,
    addresses: &Addresses,
    host: &HostFacts,
    server: &str,
    client: kube::Client,
    shutdown: CancellationToken,
) -> AgentConfig {
    let network = network_config(settings, addresses, host);
    let (data, run, logs) = (&settings.dirs.data, &settings.dirs.run, &settings.dirs.logs);
    let find = |name: &str| gantry_probes::find_program(name);
    let default = Programs::default();
    let pki = settings.dirs.pki();
    AgentConfig {
        instance: settings.instance.clone(),
        node_name: host.name.clone(),
        node_ips: vec![host.address().into()],
        dirs: Dirs {
            data: data.join("node"),
            run: run.join("node"),
            pod_logs: logs.join("pods"),
            container_logs: logs.join("containers"),
        },
        client,
        cluster_dns: vec![addresses.dns().into()],
        cluster_domain: settings.cluster_domain.clone(),
        host_resolv_conf: "/etc/resolv.conf".into(),
        registry: Some(RegistryHost {
            host: server.to_owned(),
            ca_file: pki.join("ca.crt"),
            cert_file: pki.join("node.crt"),
            key_file: pki.join("node.key"),
        }),
        pause_image: format!("{server}/gantry/pause:1"),
        pod_cidr: Some(addresses.pod_cidr.to_string()),
        cni: CniDirs { bin: network.cni_bin_dir(), conf: network.cni_conf_dir() },
        programs: Programs {
            containerd: find("containerd").unwrap_or(default.containerd),
            runc: find("runc").unwrap_or(default.runc),
        },
        kubelet_port: KUBELET_PORT,
        node_labels: Default::default(),
        node_conditions: Vec::new(),
        pods_max: 250,
        reserved: Reserved::default(),
        shutdown,
    }
}

/// Statuses of pods that are being removed for good interest nobody.
pub struct NoSink;

impl PodSink for NoSink {
    fn status<'a>(&'a self, _: &'a Pod, _: &'a PodStatus, _: &'a PodStatus) -> SinkFuture<'a> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn delete<'a>(&'a self, _: &'a Pod) -> SinkFuture<'a> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A client for a node without a server: everything it asks fails.
pub fn no_client() -> kube::Client {
    let refuse = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<axum::body::Body>, _>(std::io::Error::other("there is no server"))
    });
    kube::Client::new(refuse, "default")
}
