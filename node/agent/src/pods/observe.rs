//! What the runtime knows of one pod.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use gantry_cri::{
    ContainerFilter, ContainerState, ContainerStatusRequest, CriError, ListContainersRequest,
    ListPodSandboxRequest, NamespaceMode, PodSandboxFilter, PodSandboxState, PodSandboxStatusRequest,
    Runtime,
};
use jiff::Timestamp;

use super::spec;

/// How long CRI's record may lag behind containerd's exit event before it is taken as it is.
const EXIT_RECORD_WAIT: Duration = Duration::from_secs(5);

/// A sandbox of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) created_at_ns: i64,
    /// Empty for the host's network.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) host_network: bool,
}

/// Where a run of a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunState {
    Created,
    Running,
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) sandbox_id: String,
    /// Restarts before this run.
    pub(crate) attempt: u32,
    pub(crate) state: RunState,
    pub(crate) created_at_ns: i64,
    pub(crate) started_at_ns: i64,
    pub(crate) finished_at_ns: i64,
    pub(crate) exit_code: i32,
    /// `OOMKilled`, `Completed`, `Error`, `StartError` …
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_ref: String,
    pub(crate) hash: String,
    pub(crate) log_path: PathBuf,
    /// Host path of the termination message, when one is mounted.
    pub(crate) message_path: Option<PathBuf>,
    pub(crate) message_policy: String,
}

impl Run {
    pub(crate) fn running(&self) -> bool {
        self.state == RunState::Running
    }

    pub(crate) fn ended(&self) -> bool {
        matches!(self.state, RunState::Exited | RunState::Unknown)
    }

    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        timestamp(self.started_at_ns)
    }

    pub(crate) fn finished_at(&self) -> Option<Timestamp> {
        timestamp(self.finished_at_ns)
    }
}

/// Unix nanoseconds to a time; `None` for 0 or less, which the runtime uses for "not yet".
pub(crate) fn timestamp(ns: i64) -> Option<Timestamp> {
    (ns > 0).then(|| Timestamp::from_nanosecond(i128::from(ns)).ok()).flatten()
}

/// Everything the runtime holds for the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Newest first.
    pub(crate) sandboxes: Vec<Sandbox>,
    /// Runs by container name, newest first.
    pub(crate) runs: BTreeMap<String, Vec<Run>>,
}

impl Observed {
    /// The newest sandbox, when it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The newest run of the container.
    pub(crate) fn run(&self, container: &str) -> Option<&Run> {
        self.runs.get(container)?.first()
    }

    /// The newest run of the container, when it belongs to the given sandbox.
    pub(crate) fn run_in(&self, container: &str, sandbox_id: &str) -> Option<&Run> {
        self.run(container).filter(|run| run.sandbox_id == sandbox_id)
    }

    /// Runs that are not over.
    pub(crate) fn alive(&self) -> impl Iterator<Item = (&str, &Run)> {
        self.runs
            .iter()
            .flat_map(|(name, runs)| runs.iter().map(move |run| (name.as_str(), run)))
            .filter(|(_, run)| matches!(run.state, RunState::Running | RunState::Created | RunState::Unknown))
    }

    pub(crate) fn any_running(&self) -> bool {
        self.runs.values().flatten().any(Run::running)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.runs.is_empty()
    }
}

/// Reads the runtime; remembers what cannot change any more.
pub(crate) struct Observer {
    runtime: Runtime,
    uid: String,
    /// Ended runs by id.
    ended: HashMap<String, Run>,
    /// Ready sandboxes by id; their addresses do not change.
    sandboxes: HashMap<String, Sandbox>,
}

impl Observer {
    pub(crate) fn new(runtime: Runtime, uid: &str) -> Self {
        Self { runtime, uid: uid.to_owned(), ended: HashMap::new(), sandboxes: HashMap::new() }
    }

    /// Reads the pod's state. `exited` names containers of which containerd said that they ended.
    pub(crate) async fn observe(&mut self, exited: &[String]) -> Result<Observed, CriError> {
        let selector = BTreeMap::from([(spec::LABEL_POD_UID.to_owned(), self.uid.clone())]);
        let sandboxes = self.runtime.list_pod_sandbox(ListPodSandboxRequest {
            filter: Some(PodSandboxFilter { label_selector: selector.clone(), ..Default::default() }),
        });
        let containers = self.runtime.list_containers(ListContainersRequest {
            filter: Some(ContainerFilter { label_selector: selector, ..Default::default() }),
        });
        let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
        let mut observed = Observed::default();
        for sandbox in sandboxes.items {
            let ready = sandbox.state() == PodSandboxState::Ready;
            if let Some(sandbox) = self.sandbox(&sandbox.id, ready, exited.contains(&sandbox.id)).await? {
                observed.sandboxes.push(sandbox);
            }
        }
        observed.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at_ns, s.attempt)));
        self.sandboxes.retain(|id, _| observed.sandboxes.iter().any(|s| s.id == *id));
        let mut ids = Vec::new();
        for container in containers.containers {
            let name = container.labels.get(spec::LABEL_CONTAINER_NAME).cloned().unwrap_or_default();
            ids.push(container.id.clone());
            let run = match self.ended.get(&container.id) {
                Some(run) => Some(run.clone()),
                None => self.run(&container.id, &container.pod_sandbox_id, exited).await?,
            };
            if let Some(run) = run {
                observed.runs.entry(name).or_default().push(run);
            }
        }
        self.ended.retain(|id, _| ids.contains(id));
        for runs in observed.runs.values_mut() {
            runs.sort_by_key(|run| std::cmp::Reverse((run.created_at_ns, run.attempt)));
        }
        Ok(observed)
    }

    async fn sandbox(&mut self, id: &str, ready: bool, exited: bool) -> Result<Option<Sandbox>, CriError> {
        if let Some(known) = self.sandboxes.get(id).filter(|_| ready && !exited) {
            return Ok(Some(known.clone()));
        }
        let deadline = tokio::time::Instant::now() + EXIT_RECORD_WAIT;
        let mut pause = Duration::from_millis(2);
        loop {
            let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
            let status = match self.runtime.pod_sandbox_status(request).await {
                Ok(answer) => answer.status.unwrap_or_default(),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            };
            let ready = status.state() == PodSandboxState::Ready;
            if ready && exited && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
            let sandbox = view_sandbox(status);
            self.sandboxes.insert(id.to_owned(), sandbox.clone());
            return Ok(Some(sandbox));
        }
    }

    async fn run(&mut self, id: &str, sandbox_id: &str, exited: &[String]) -> Result<Option<Run>, CriError> {
        let deadline = tokio::time::Instant::now() + EXIT_RECORD_WAIT;
        let mut pause = Duration::from_millis(2);
        loop {
            let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
            let status = match self.runtime.container_status(request).await {
                Ok(answer) => answer.status.unwrap_or_default(),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            };
            let run = view_run(status, sandbox_id);
            // containerd announces an exit before its CRI plugin has written it down; there is no event for
            // the latter, so the record is read again until it says so too.
            let behind = run.running() && exited.iter().any(|e| e == id);
            if behind && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
            if run.state == RunState::Exited {
                self.ended.insert(id.to_owned(), run.clone());
            }
            return Ok(Some(run));
        }
    }
}

fn view_sandbox(status: gantry_cri::PodSandboxStatus) -> Sandbox {
    let options = status.linux.as_ref().and_then(|l| l.namespaces.as_ref()).and_then(|n| n.options.as_ref());
    let network = status.network.clone().unwrap_or_default();
    let ips = std::iter::once(network.ip.as_str())
        .chain(network.additional_ips.iter().map(|ip| ip.ip.as_str()))
        .filter_map(|ip| ip.parse().ok())
        .collect();
    Sandbox {
        ready: status.state() == PodSandboxState::Ready,
        attempt: status.metadata.as_ref().map_or(0, |m| m.attempt),
        created_at_ns: status.created_at,
        host_network: options.is_some_and(|o| o.network() == NamespaceMode::Node),
        ips,
        id: status.id,
    }
}

fn view_run(status: gantry_cri::ContainerStatus, sandbox_id: &str) -> Run {
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let inside = annotation(spec::ANNOTATION_MESSAGE_PATH);
    let message_path = status
        .mounts
        .iter()
        .find(|mount| !inside.is_empty() && mount.container_path == inside)
        .map(|mount| PathBuf::from(&mount.host_path));
    let restarts = annotation(spec::ANNOTATION_RESTARTS).parse().ok();
    Run {
        sandbox_id: sandbox_id.to_owned(),
        attempt: restarts.unwrap_or_else(|| status.metadata.as_ref().map_or(0, |m| m.attempt)),
        state: match status.state() {
            ContainerState::Created => RunState::Created,
            ContainerState::Running => RunState::Running,
            ContainerState::Exited => RunState::Exited,
            ContainerState::Unknown => RunState::Unknown,
        },
        created_at_ns: status.created_at,
        started_at_ns: status.started_at,
        finished_at_ns: status.finished_at,
        exit_code: status.exit_code,
        hash: annotation(spec::ANNOTATION_HASH),
        message_policy: annotation(spec::ANNOTATION_MESSAGE_POLICY),
        message_path,
        image: status.image.map(|i| i.image).unwrap_or_default(),
        reason: status.reason,
        message: status.message,
        image_ref: status.image_ref,
        log_path: status.log_path.into(),
        id: status.id,
    }
}
