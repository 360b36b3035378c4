//! The agent as a whole: start, health, purge.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use gantry_base::health::{Health, HealthBoard};
use gantry_base::tasks::Tasks;
use gantry_cri::{NetworkConfig, RuntimeConfig, UpdateRuntimeConfigRequest};
use tokio::sync::{mpsc, watch};

use crate::api::{AgentApi, PodTable};
use crate::cgroups::Cgroups;
use crate::config::AgentConfig;
use crate::containerd::{self, Containerd};
use crate::dispatch::{self, Dispatcher, Orphans, PodNews, PodWatch};
use crate::errors::AgentError;
use crate::events::Recorder;
use crate::files;
use crate::images::{self, Images};
use crate::node::{self, host::HostFacts};
use crate::pods::sandbox;
use crate::pods::sink::{ApiSink, PodSink};
use crate::shared::{Services, Shared};
use crate::volumes::sources::Sources;

/// Pods that wait for the dispatcher.
const PODS_QUEUE_MAX: usize = 256;
/// How long the loops may take to end: a pod's step may be in the middle of stopping a container.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Where pods come from and where their statuses go.
pub enum PodSource {
    /// The API server.
    Api,
    /// A channel and a sink, without Node object, lease or watches: the runtime side alone.
    Direct(mpsc::Receiver<PodNews>, Arc<dyn PodSink>),
}

/// A running agent. Dropping it, or cancelling `config.shutdown`, leaves every container running.
pub struct Agent {
    shared: Arc<Shared>,
    containerd: Containerd,
    node: watch::Receiver<Health>,
    /// The agent's own loops and how they are.
    tasks: Tasks,
}

impl Agent {
    /// Starts containerd (or finds the one that runs) and the agent's loops.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        Self::start_with(config, PodSource::Api).await
    }

    /// [`Self::start`] with another source of pods.
    pub async fn start_with(config: AgentConfig, source: PodSource) -> Result<Self, AgentError> {
        // Probes speak TLS; another part of the process may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        create_dirs(&config)?;
        let containerd = Containerd::start(&config).await?;
        let tasks = Tasks::new(config.shutdown.clone(), HealthBoard::default());
        let (recorder, events) = Recorder::new(config.client.clone(), &config.node_name);
        let (pods, watch, sink) = match source {
            PodSource::Direct(pods, sink) => (pods, None, Some(sink)),
            PodSource::Api => {
                let (sender, pods) = mpsc::channel(PODS_QUEUE_MAX);
                (pods, Some(PodWatch::new(config.client.clone(), &config.node_name, sender)), None)
            }
        };
        let shared = Arc::new(share(config, &containerd, recorder, sink)?);
        let (status, node) = watch::channel(Health::Starting);
        let agent = Self { shared: shared.clone(), containerd, node, tasks };
        let shutdown = shared.config.shutdown.clone();
        agent.supervise("node/events", move |_| events.clone().run(shutdown.clone()));
        match watch {
            Some(watch) => agent.register(watch, status),
            None => {
                status.send_replace(Health::Ok);
                shared.services.set(Vec::new());
            }
        }
        tell_pod_cidr(&shared).await;
        agent.supervise_to_its_end("node/log-rotation", crate::logs::rotate_forever);
        agent.supervise("node/image-gc", images::gc::run);
        let (supervisor, shutdown) = (agent.containerd.supervisor.clone(), shared.config.shutdown.clone());
        agent.supervise("node/containerd", move |_| supervisor.clone().run(shutdown.clone()));
        let dispatcher = Dispatcher::new(shared, pods);
        let runtime_events = dispatcher.clone();
        agent.supervise("node/runtime-events", move |_| dispatch::follow_runtime(runtime_events.clone()));
        agent.supervise_to_its_end("node/dispatcher", move |_| dispatcher.clone().run());
        Ok(agent)
    }

    /// Starts what speaks to the API server: pods, services, the Node object and its lease.
    fn register(&self, watch: Arc<PodWatch>, status: watch::Sender<Health>) {
        let shutdown = self.shared.config.shutdown.clone();
        self.supervise("node/pods", move |_| watch.clone().run(shutdown.clone()));
        self.supervise("node/services", |shared| {
            let config = &shared.config;
            dispatch::watch_services(config.client.clone(), shared.services.clone(), config.shutdown.clone())
        });
        let runtime_ready = self.containerd.ready.clone();
        self.supervise("node/status", move |shared| node::run(shared, runtime_ready.clone(), status.clone()));
        self.supervise("node/lease", node::renew_lease);
        self.supervise("node/sandbox-image", require_pause);
    }

    /// A loop that may be left at any point where it waits: at the shutdown it is. One that fails is shown and
    /// started again.
    fn supervise<F, Fut>(&self, part: &str, run: F)
    where
        F: Fn(Arc<Shared>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.supervise_to_its_end(part, move |shared| {
            let (shutdown, running) = (shared.config.shutdown.clone(), run(shared));
            async move {
                tokio::select! {
                    () = running => {}
                    () = shutdown.cancelled() => {}
                }
            }
        });
    }

    /// A loop that finishes its step after the shutdown, and then ends by itself.
    fn supervise_to_its_end<F, Fut>(&self, part: &str, run: F)
    where
        F: Fn(Arc<Shared>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let shared = self.shared.clone();
        self.tasks.supervise(part, move || {
            let running = run(shared.clone());
            async move {
                running.await;
                Ok::<(), Infallible>(())
            }
        });
    }

    /// What the endpoints of the node need.
    pub fn api(&self) -> AgentApi {
        AgentApi {
            pods: self.shared.table.clone(),
            runtime: self.shared.runtime.clone(),
            dirs: self.shared.config.dirs.clone(),
            node_name: self.shared.config.node_name.clone(),
            cgroup_root: self.shared.cgroups.root().to_owned(),
        }
    }

    /// How the agent is now: `containerd`, the Node object (`node`), and every loop (`node/…`).
    pub fn health(&self) -> BTreeMap<String, Health> {
        let mut parts = self.tasks.health().all();
        let runtime = if *self.containerd.ready.borrow() {
            Health::Ok
        } else {
            Health::Degraded("it does not answer; it is being started again".to_owned())
        };
        parts.insert("containerd".to_owned(), runtime);
        parts.insert("node".to_owned(), self.node.borrow().clone());
        parts
    }

    /// Waits until the node is ready.
    pub async fn wait_ready(&self) {
        let mut node = self.node.clone();
        // Only a stopped agent drops the sender.
        let _ = node.wait_for(|health| *health == Health::Ok).await;
    }

    /// The ids of all sandboxes the runtime knows, dead ones included: who may still hold an address.
    pub async fn sandbox_ids(&self) -> Result<BTreeSet<String>, AgentError> {
        let listed = self.shared.runtime.list_pod_sandbox(gantry_cri::ListPodSandboxRequest::default()).await;
        let listed = listed?;
        Ok(listed.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    /// Stops the agent's loops and leaves every container running.
    pub async fn shutdown(self) {
        self.end(DRAIN_TIMEOUT).await;
    }

    /// [`Self::shutdown`] for one that is shared; false when a loop had not ended by then. A pod whose step
    /// is under way finishes it.
    pub async fn end(&self, timeout: Duration) -> bool {
        self.tasks.drain(timeout).await
    }

    /// Stops the agent, every pod and containerd; gives back mounts, cgroups and logs. With `remove_images` the
    /// runtime's own files go too.
    pub async fn purge(self, remove_images: bool) -> Result<(), AgentError> {
        self.end(DRAIN_TIMEOUT).await;
        // A runtime that is stopped in the middle of a removal leaves them behind.
        let namespaces = containerd::network_namespaces(&self.shared.config);
        Orphans::find(&self.shared, &BTreeSet::new()).await.remove(&self.shared).await;
        let pods = self.shared.config.dirs.data.join("pods");
        files::unmount_below(&pods).map_err(AgentError::file("unmount", &pods))?;
        self.containerd.stop().await?;
        containerd::remove_namespaces(&namespaces)?;
        self.shared
            .cgroups
            .remove_all()
            .await
            .map_err(AgentError::file("remove cgroups under", "/sys/fs/cgroup"))?;
        if remove_images {
            self.containerd.remove_files()?;
        }
        Ok(())
    }
}

/// What [`Agent::purge`] does, for a machine whose containerd cannot be started any more: containers end with
/// their cgroups, and what the runtime had mounted and made is taken away by path.
pub async fn purge_without_runtime(config: &AgentConfig) -> Result<(), AgentError> {
    let cgroups =
        Cgroups::detect(&config.instance).map_err(AgentError::file("read", "/proc/self/mountinfo"))?;
    cgroups.remove_all().await.map_err(AgentError::file("remove cgroups under", "/sys/fs/cgroup"))?;
    containerd::remove_traces(config).await?;
    let pods = config.dirs.data.join("pods");
    files::unmount_below(&pods).map_err(AgentError::file("unmount", &pods))
}

/// What the loops and pod workers share.
fn share(
    config: AgentConfig,
    containerd: &Containerd,
    recorder: Recorder,
    sink: Option<Arc<dyn PodSink>>,
) -> Result<Shared, AgentError> {
    let cgroups =
        Cgroups::detect(&config.instance).map_err(AgentError::file("read", "/proc/self/mountinfo"))?;
    let host_dns = std::fs::read_to_string(&config.host_resolv_conf).unwrap_or_default();
    let shared = Shared {
        runtime: containerd.runtime.clone(),
        images: Images::new(containerd.runtime.clone()),
        sources: Sources::new(config.client.clone()),
        services: Services::default(),
        recorder,
        table: PodTable::default(),
        sink: sink.unwrap_or_else(|| Arc::new(ApiSink(config.client.clone()))),
        host: HostFacts::read(),
        host_dns: sandbox::parse_resolv_conf(&host_dns),
        cgroups,
        config,
    };
    let base = shared.cgroups.create_base(shared.allocatable().0);
    base.map_err(AgentError::file("create cgroups under", "/sys/fs/cgroup"))?;
    Ok(shared)
}

fn create_dirs(config: &AgentConfig) -> Result<(), AgentError> {
    let dirs = &config.dirs;
    for (path, mode) in [
        (dirs.data.clone(), 0o711),
        (dirs.run.clone(), 0o711),
        (dirs.data.join("pods"), 0o711),
        (dirs.pod_logs.clone(), 0o755),
        (dirs.container_logs.clone(), 0o755),
    ] {
        files::create_dir(&path, mode).map_err(AgentError::file("create", &path))?;
    }
    Ok(())
}

/// The runtime fills the range into a CNI template, where it has one.
async fn tell_pod_cidr(shared: &Shared) {
    let Some(pod_cidr) = shared.config.pod_cidr.clone() else { return };
    let runtime_config = Some(RuntimeConfig { network_config: Some(NetworkConfig { pod_cidr }) });
    if let Err(error) =
        shared.runtime.update_runtime_config(UpdateRuntimeConfigRequest { runtime_config }).await
    {
        tracing::warn!(%error, "the runtime does not take the pod address range");
    }
}

/// Pulls the sandbox image ahead of the first pod.
async fn require_pause(shared: Arc<Shared>) {
    let mut pause = Duration::from_millis(100);
    while let Err(error) = shared.images.require(&shared.config.pause_image).await {
        tracing::debug!(error, "sandbox image not there yet");
        tokio::select! {
            () = shared.config.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(10));
    }
    shared.config.shutdown.cancelled().await;
}
