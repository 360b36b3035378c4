//! One task per pod. Its states:
//!
//! - **Admitting**: nothing of the pod runs yet; the node may refuse it.
//! - **Syncing**: observe, plan, act, until nothing is left to do; then sleep until news or a deadline.
//! - **Ending**: deleted, finished or failed; containers are stopped, volumes and cgroups removed.
//! - **Ended**: a terminal phase is stored; the remains stay for `kubectl logs` until the object is deleted.
//!
//! Every state is derived anew from what the runtime and the API server say, so a worker that starts after a crash
//! of the agent continues where the last one stopped: that is the whole of adoption.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::backoff::Backoffs;
use super::observe::{Observed, Observer};
use super::plan::{self, Held, Plan, World};
use super::sink::SinkError;
use super::status::{self, Facts};
use super::{admission, messages, spec};
use crate::api::{ContainerRecord, PodRecord};
use crate::errors::PodProblem;
use crate::events::Kind as EventKind;
use crate::probes::{ProbeSet, Subject, Unhealthy};
use crate::shared::Shared;
use crate::volumes::sources::{Objects, Subscription};
use crate::volumes::{PodVolumes, VolumeContext};

/// Safety net against a lost event.
const RELIST: Duration = Duration::from_secs(60);
/// Pause after a failed step that has no back-off of its own, doubled up to the cap.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(10);
/// Probe failures that wait to become events.
const UNHEALTHY_MAX: usize = 16;

/// What the API server wants of the pod.
#[derive(Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The object no longer exists.
    pub(crate) gone: bool,
}

impl Desired {
    pub(crate) fn ending(&self) -> bool {
        self.gone || spec::is_deleting(&self.pod)
    }
}

/// A running worker as the dispatcher sees it.
pub(crate) struct Handle {
    pub(crate) desired: watch::Sender<Desired>,
    pub(crate) wake: Arc<Notify>,
    exited: Arc<Mutex<BTreeSet<String>>>,
    pub(crate) task: JoinHandle<()>,
}

impl Handle {
    /// Starts the worker of a pod.
    pub(crate) fn spawn(shared: Arc<Shared>, desired: Desired) -> Self {
        let (sender, receiver) = watch::channel(desired.clone());
        let wake = Arc::new(Notify::new());
        let exited = Arc::default();
        let worker = Worker::new(shared, receiver, wake.clone(), Arc::clone(&exited));
        Self { desired: sender, wake, exited, task: tokio::spawn(worker.run()) }
    }

    /// Tells the worker that one of its containers or sandboxes ended.
    pub(crate) fn exited(&self, id: &str) {
        self.exited.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        self.wake.notify_one();
    }
}

/// What the worker does after a round.
pub(super) enum Next {
    Again,
    Wait(Option<Timestamp>),
    Done,
}

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) pod: Arc<Pod>,
    wake: Arc<Notify>,
    exited: Arc<Mutex<BTreeSet<String>>>,
    observer: Observer,
    pub(super) observed: Observed,
    pub(super) volumes: PodVolumes,
    subscription: Option<Subscription>,
    pub(super) objects: Objects,
    pub(super) probes: ProbeSet,
    unhealthy: mpsc::Receiver<Unhealthy>,
    pub(super) backoffs: Backoffs,
    pub(super) pull_backoffs: Backoffs,
    pub(super) problems: BTreeMap<String, PodProblem>,
    held: BTreeMap<String, Held>,
    messages: BTreeMap<String, String>,
    pub(super) failed: Option<PodProblem>,
    /// The status as stored, as far as known.
    stored: PodStatus,
    pub(super) retry_at: Option<Timestamp>,
    retry_pause: Duration,
    admitted: bool,
    relist_at: tokio::time::Instant,
}

impl Worker {
    fn new(
        shared: Arc<Shared>,
        desired: watch::Receiver<Desired>,
        wake: Arc<Notify>,
        exited: Arc<Mutex<BTreeSet<String>>>,
    ) -> Self {
        let pod = desired.borrow().pod.clone();
        let (sender, unhealthy) = mpsc::channel(UNHEALTHY_MAX);
        let root = shared.config.dirs.pod(spec::uid(&pod));
        Self {
            observer: Observer::new(shared.runtime.clone(), spec::uid(&pod)),
            volumes: PodVolumes::new(root, shared.config.client.clone()),
            probes: ProbeSet::new(shared.runtime.clone(), wake.clone(), sender),
            stored: pod.status.clone().unwrap_or_default(),
            shared,
            desired,
            pod,
            wake,
            exited,
            unhealthy,
            observed: Observed::default(),
            subscription: None,
            objects: Objects::default(),
            backoffs: Backoffs::default(),
            pull_backoffs: Backoffs::default(),
            problems: BTreeMap::new(),
            held: BTreeMap::new(),
            messages: BTreeMap::new(),
            failed: None,
            retry_at: None,
            retry_pause: RETRY,
            admitted: false,
            relist_at: tokio::time::Instant::now() + RELIST,
        }
    }

    async fn run(mut self) {
        loop {
            match self.round().await {
                Next::Again => {}
                Next::Done => return,
                Next::Wait(until) => {
                    if !self.wait(until).await {
                        return;
                    }
                }
            }
        }
    }

    /// Sleeps until there is a reason for another round; false when the agent stops.
    async fn wait(&mut self, until: Option<Timestamp>) -> bool {
        let now = Timestamp::now();
        let pause = until.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        let deadline = match (until, pause) {
            (Some(_), pause) => (tokio::time::Instant::now() + pause.unwrap_or_default()).min(self.relist_at),
            (None, _) => self.relist_at,
        };
        let shutdown = self.shared.config.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => return false,
            changed = self.desired.changed() => return changed.is_ok(),
            () = self.wake.notified() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        true
    }

    async fn round(&mut self) -> Next {
        self.take_desired();
        self.report_unhealthy();
        if let Err(error) = self.observe().await {
            tracing::debug!(pod = %spec::display(&self.pod), %error, "runtime not readable");
            return Next::Wait(Some(self.retry_later()));
        }
        let now = Timestamp::now();
        let ending = self.desired.borrow().ending();
        if ending || self.failed.is_some() || self.is_terminal() {
            return self.end().await;
        }
        if !self.admit() {
            return Next::Again;
        }
        if let Some(left) = self.deadline(now)
            && left <= now
        {
            let text = "Pod was active on the node longer than the specified deadline";
            self.failed = Some(PodProblem::new("DeadlineExceeded", text));
            self.event(None, EventKind::Normal, "DeadlineExceeded", text);
            return Next::Again;
        }
        self.refresh_sources().await;
        let plan = self.plan(now);
        self.hold(&plan.held);
        self.follow_probes();
        self.publish();
        self.write_status(false).await;
        if plan.finished {
            return self.end().await;
        }
        if self.volumes.ready()
            && let Err(problem) = self.ensure_volumes(now).await
        {
            self.event(None, EventKind::Warning, problem.reason, &problem.message);
        }
        if plan.is_empty() {
            self.retry_pause = RETRY;
            self.drop_old_runs().await;
            let deadline = self.deadline(now);
            let wakes = [plan.wake(), self.volumes.renew_at(), deadline, self.retry_at.take()];
            return Next::Wait(wakes.into_iter().flatten().min());
        }
        match self.act(&plan).await {
            true => Next::Again,
            false => {
                let later = match self.retry_at.take() {
                    Some(at) => at,
                    None => self.retry_later(),
                };
                self.hold(&plan.held);
                if let Ok(()) = self.observe().await {
                    self.follow_probes();
                    self.publish();
                    self.write_status(false).await;
                }
                Next::Wait(plan.wake().into_iter().chain([later]).min())
            }
        }
    }

    fn retry_later(&mut self) -> Timestamp {
        let pause = self.retry_pause;
        self.retry_pause = (pause * 2).min(RETRY_CAP);
        Timestamp::now().checked_add(pause).unwrap_or(Timestamp::MAX)
    }

    fn take_desired(&mut self) {
        let desired = self.desired.borrow_and_update().clone();
        if !Arc::ptr_eq(&desired.pod, &self.pod) {
            // Our own conditions are newest here; those of others are newest there.
            let theirs = desired.pod.status.as_ref().and_then(|s| s.conditions.as_ref());
            let own = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];
            let conditions = self.stored.conditions.get_or_insert_default();
            conditions.retain(|c| own.contains(&c.type_.as_str()));
            conditions
                .extend(theirs.into_iter().flatten().filter(|c| !own.contains(&c.type_.as_str())).cloned());
            if self.subscription.is_some() && spec_changed(&self.pod, &desired.pod) {
                self.subscription = None;
            }
            self.pod = desired.pod;
        }
        if tokio::time::Instant::now() >= self.relist_at {
            self.relist_at = tokio::time::Instant::now() + RELIST;
            // By now the API server has echoed whatever was written: take its word for what is stored.
            self.stored = self.pod.status.clone().unwrap_or_default();
        }
    }

    pub(super) async fn observe(&mut self) -> Result<(), gantry_cri::CriError> {
        let exited: Vec<String> = {
            let mut set = self.exited.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *set).into_iter().collect()
        };
        self.observed = self.observer.observe(&exited).await?;
        let ended: Vec<_> = self.observed.runs.values().flatten().filter(|r| r.ended()).collect();
        for run in &ended {
            self.messages.entry(run.id.clone()).or_insert_with(|| messages::read(run));
        }
        let ids: BTreeSet<&str> = ended.iter().map(|r| r.id.as_str()).collect();
        self.messages.retain(|id, _| ids.contains(id.as_str()));
        Ok(())
    }

    fn is_terminal(&self) -> bool {
        spec::is_terminal(&self.pod) || matches!(self.stored.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// The node's check of a pod that it sees for the first time; false when it refuses.
    fn admit(&mut self) -> bool {
        if std::mem::replace(&mut self.admitted, true)
            || !self.observed.is_empty()
            || self.stored.start_time.is_some()
        {
            return true;
        }
        let others = self.shared.other_pods(spec::uid(&self.pod));
        let (cpu_millis, memory_bytes) = self.shared.allocatable();
        let labels = self.shared.host.labels(&self.shared.config);
        let pods_max = self.shared.config.pods_max;
        let node =
            admission::NodeView { others: &others, cpu_millis, memory_bytes, pods_max, labels: &labels };
        if let Err(problem) = admission::admit(&self.pod, &node) {
            self.event(None, EventKind::Warning, problem.reason, &problem.message);
            let message = format!("Pod was rejected: {}", problem.message);
            self.failed = Some(PodProblem { reason: problem.reason, message });
            return false;
        }
        // From here on its requests count against the pods that come after it.
        self.publish();
        true
    }

    /// When the pod has run long enough.
    fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let seconds = u64::try_from(spec::pod_spec(&self.pod).active_deadline_seconds?).ok()?;
        let start = self.stored.start_time.as_ref().map_or(now, |t| t.0);
        start.checked_add(Duration::from_secs(seconds)).ok()
    }

    async fn refresh_sources(&mut self) {
        if self.subscription.is_none() {
            self.subscription = Some(self.shared.sources.subscribe(&self.pod, &self.wake));
        }
        if let Some(subscription) = &mut self.subscription {
            self.objects = subscription.objects().await;
        }
    }

    pub(super) async fn ensure_volumes(&mut self, now: Timestamp) -> Result<(), PodProblem> {
        let host_ips = self.shared.host_ips();
        let context = VolumeContext {
            objects: &self.objects,
            allocatable: self.shared.allocatable(),
            host_ips: &host_ips,
            now,
        };
        self.volumes.ensure(&self.pod, &context).await
    }

    fn plan(&self, now: Timestamp) -> Plan {
        let mut pod = Pod::clone(&self.pod);
        pod.status = Some(self.stored.clone());
        let probes = self.probes.view();
        let world =
            World { pod: &pod, observed: &self.observed, probes: &probes, backoffs: &self.backoffs, now };
        plan::plan(&world)
    }

    /// Probes run exactly for the containers that run.
    fn follow_probes(&mut self) {
        let running: BTreeSet<&str> =
            self.observed.runs.values().flatten().filter(|r| r.running()).map(|r| r.id.as_str()).collect();
        self.probes.retain(&running);
        let Some(sandbox) = self.observed.ready_sandbox() else { return };
        let ip = if sandbox.host_network { self.shared.config.node_ips.first() } else { sandbox.ips.first() };
        let Some(ip) = ip.copied() else { return };
        for member in spec::members(&self.pod) {
            let Some(run) = self.observed.run(member.name()).filter(|r| r.running()) else { continue };
            let full_id = format!("containerd://{}", run.id);
            let lists = [&self.stored.container_statuses, &self.stored.init_container_statuses];
            let mut known = lists.into_iter().flatten().flatten();
            let known = known.find(|s| s.container_id.as_ref() == Some(&full_id));
            self.probes.ensure(Subject {
                container: member.container.clone().into_owned(),
                run_id: run.id.clone(),
                started_at: run.started_at().unwrap_or_else(Timestamp::now),
                pod_ip: ip,
                was_started: known.is_some_and(|s| s.started == Some(true)),
                was_ready: known.is_some_and(|s| s.ready),
            });
        }
    }

    /// Remembers whose restart waits, and tells of each wait once.
    fn hold(&mut self, held: &BTreeMap<String, Held>) {
        for (name, now) in held {
            if self.held.get(name).is_none_or(|before| before.until != now.until) {
                let path = spec::member(&self.pod, name).map(|m| m.field_path());
                let pod = spec::display(&self.pod);
                let text = format!("Back-off restarting failed container {name} in pod {pod}");
                self.event(path, EventKind::Warning, "BackOff", &text);
            }
        }
        self.held.clone_from(held);
    }

    fn report_unhealthy(&mut self) {
        while let Ok(unhealthy) = self.unhealthy.try_recv() {
            let path = spec::member(&self.pod, &unhealthy.container).map(|m| m.field_path());
            self.event(path, EventKind::Warning, "Unhealthy", &unhealthy.message);
        }
    }

    pub(super) fn event(&self, path: Option<String>, kind: EventKind, reason: &str, message: &str) {
        self.shared.recorder.pod(&self.pod, path, kind, reason, message);
    }

    /// Addresses of the pod as text.
    pub(super) fn pod_ips(&self) -> Vec<String> {
        match self.observed.ready_sandbox() {
            Some(sandbox) if sandbox.host_network => self.shared.host_ips(),
            Some(sandbox) => sandbox.ips.iter().map(ToString::to_string).collect(),
            None => Vec::new(),
        }
    }

    /// Shows the pod to the endpoints of the node.
    pub(super) fn publish(&self) {
        let containers = spec::members(&self.pod).filter_map(|member| {
            let runs = self.observed.runs.get(member.name())?;
            let run = runs.first()?;
            Some(ContainerRecord {
                name: member.name().to_owned(),
                id: run.id.clone(),
                attempt: run.attempt,
                running: run.running(),
                log_path: run.log_path.clone(),
                previous: runs.get(1).map(|r| (r.id.clone(), r.log_path.clone())),
                started_at_ns: run.started_at_ns,
            })
        });
        let mut pod = Pod::clone(&self.pod);
        pod.status = Some(self.stored.clone());
        self.shared.table.put(PodRecord {
            uid: spec::uid(&self.pod).to_owned(),
            sandbox_id: self.observed.ready_sandbox().map(|s| s.id.clone()),
            ips: self.pod_ips().iter().filter_map(|ip| ip.parse().ok()).collect(),
            containers: containers.collect(),
            cgroup: self.shared.cgroups.pod(&self.pod),
            pod: Arc::new(pod),
        });
    }

    /// Stores the status when it changed. `ended` says that nothing of the pod will run again.
    /// False when it has to be tried again.
    pub(super) async fn write_status(&mut self, ended: bool) -> bool {
        if self.desired.borrow().gone {
            return true;
        }
        let mut pod = Pod::clone(&self.pod);
        pod.status = Some(self.stored.clone());
        let probes = self.probes.view();
        let facts = Facts {
            pod: &pod,
            observed: &self.observed,
            probes: &probes,
            held: &self.held,
            problems: &self.problems,
            messages: &self.messages,
            failed: self.failed.as_ref(),
            ended,
            node_ips: &self.shared.config.node_ips,
            now: Timestamp::now(),
        };
        let status = status::pod_status(&facts);
        if status == self.stored {
            return true;
        }
        match self.shared.sink.status(&self.pod, &self.stored, &status).await {
            Ok(()) => {
                self.stored = status;
                true
            }
            // The watch brings the news that it is gone.
            Err(SinkError::Gone) => true,
            Err(SinkError::Refused(error)) => {
                tracing::error!(pod = %spec::display(&self.pod), error, "status refused by the API server");
                true
            }
            Err(SinkError::Failed(error)) => {
                tracing::debug!(pod = %spec::display(&self.pod), error, "status not written");
                self.retry_at = Some(self.retry_later());
                false
            }
        }
    }
}

/// What a pod refers to may have changed.
fn spec_changed(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec
}
