//! The agent as a whole: start, health, purge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_cri::{NetworkConfig, RuntimeConfig, UpdateRuntimeConfigRequest};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::{AgentApi, PodTable};
use crate::cgroups::Cgroups;
use crate::config::AgentConfig;
use crate::containerd::Containerd;
use crate::dispatch::{self, Orphans, PodNews};
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

/// Where pods come from and where their statuses go.
pub enum PodSource {
    /// The API server.
    Api,
    /// A channel and a sink, without Node object, lease or watches: the runtime side alone.
    Direct(mpsc::Receiver<PodNews>, Arc<dyn PodSink>),
}

/// How the agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentHealth {
    /// containerd answers.
    pub runtime: bool,
    /// The Node object says Ready.
    pub node_ready: bool,
}

/// A running agent. Dropping it, or cancelling `config.shutdown`, leaves every container running.
pub struct Agent {
    shared: Arc<Shared>,
    containerd: Containerd,
    node_ready: watch::Receiver<bool>,
    dispatcher: JoinHandle<()>,
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
        let cgroups =
            Cgroups::detect(&config.instance).map_err(AgentError::file("read", "/proc/self/mountinfo"))?;
        let host_dns = std::fs::read_to_string(&config.host_resolv_conf).unwrap_or_default();
        let (pods, sink) = match source {
            PodSource::Direct(pods, sink) => (pods, Some(sink)),
            PodSource::Api => {
                let (sender, pods) = mpsc::channel(PODS_QUEUE_MAX);
                dispatch::watch_pods(config.client.clone(), &config.node_name, sender);
                (pods, None)
            }
        };
        let registers = sink.is_none();
        let shared = Arc::new(Shared {
            runtime: containerd.runtime.clone(),
            images: Images::new(containerd.runtime.clone()),
            sources: Sources::new(config.client.clone()),
            services: Services::default(),
            recorder: Recorder::start(config.client.clone(), &config.node_name),
            table: PodTable::default(),
            sink: sink.unwrap_or_else(|| Arc::new(ApiSink(config.client.clone()))),
            host: HostFacts::read(),
            host_dns: sandbox::parse_resolv_conf(&host_dns),
            cgroups,
            config,
        });
        let base = shared.cgroups.create_base(shared.allocatable().0);
        base.map_err(AgentError::file("create cgroups under", "/sys/fs/cgroup"))?;
        let (sender, node_ready) = watch::channel(!registers);
        if registers {
            dispatch::watch_services(shared.config.client.clone(), shared.services.clone());
            tokio::spawn(node::run(shared.clone(), containerd.ready.clone(), sender));
            tokio::spawn(require_pause(shared.clone()));
        } else {
            shared.services.set(Vec::new());
        }
        tell_pod_cidr(&shared).await;
        tokio::spawn(crate::logs::rotate_forever(shared.clone()));
        tokio::spawn(images::gc::run(shared.clone()));
        let dispatcher = tokio::spawn(dispatch::run(shared.clone(), pods));
        Ok(Self { shared, containerd, node_ready, dispatcher })
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

    /// How the agent is now.
    pub fn health(&self) -> AgentHealth {
        AgentHealth { runtime: *self.containerd.ready.borrow(), node_ready: *self.node_ready.borrow() }
    }

    /// Waits until the node is ready.
    pub async fn wait_ready(&self) {
        let mut ready = self.node_ready.clone();
        // Only a stopped agent drops the sender.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// The ids of all sandboxes the runtime knows, dead ones included: who may still hold an address.
    pub async fn sandbox_ids(&self) -> Result<BTreeSet<String>, AgentError> {
        let listed = self.shared.runtime.list_pod_sandbox(gantry_cri::ListPodSandboxRequest::default()).await;
        let listed = listed?;
        Ok(listed.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    /// Stops the agent's loops and leaves every container running.
    pub async fn shutdown(self) {
        self.shared.config.shutdown.cancel();
        let _ = self.dispatcher.await;
    }

    /// Stops the agent, every pod and containerd; gives back mounts, cgroups and logs. With `remove_images` the
    /// runtime's own files go too.
    pub async fn purge(self, remove_images: bool) -> Result<(), AgentError> {
        self.shared.config.shutdown.cancel();
        let _ = self.dispatcher.await;
        Orphans::find(&self.shared, &BTreeSet::new()).await.remove(&self.shared).await;
        let pods = self.shared.config.dirs.data.join("pods");
        files::unmount_below(&pods).map_err(AgentError::file("unmount", &pods))?;
        self.containerd.stop().await?;
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
}
