//! Liveness, readiness and startup probes: timers per container, results in a view that plans and statuses read.

mod check;
mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_cri::Runtime;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(crate) use check::{Outcome, Target, run_probe};
pub(crate) use http::HttpCheck;

/// Which probe gave a container up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeFailure {
    Liveness,
    Startup,
}

/// What probes found, by run id. A snapshot is cheap: it holds the pod's running containers only.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbeView {
    started: BTreeSet<String>,
    ready: BTreeSet<String>,
    failed: BTreeMap<String, ProbeFailure>,
}

impl ProbeView {
    /// The running container finished starting.
    pub(crate) fn started(&self, container: &Container, id: &str) -> bool {
        container.startup_probe.is_none() || self.started.contains(id)
    }

    /// The running container takes requests.
    pub(crate) fn ready(&self, container: &Container, id: &str) -> bool {
        container.readiness_probe.is_none() || self.ready.contains(id)
    }

    pub(crate) fn failure(&self, id: &str) -> Option<ProbeFailure> {
        self.failed.get(id).copied()
    }

    pub(crate) fn set_started(&mut self, id: &str) {
        self.started.insert(id.to_owned());
    }

    pub(crate) fn set_failed(&mut self, id: &str, failure: ProbeFailure) {
        self.failed.insert(id.to_owned(), failure);
    }

    fn set_ready(&mut self, id: &str, ready: bool) -> bool {
        if ready { self.ready.insert(id.to_owned()) } else { self.ready.remove(id) }
    }

    fn forget(&mut self, id: &str) {
        self.started.remove(id);
        self.ready.remove(id);
        self.failed.remove(id);
    }
}

/// A failed or unclear check, for an event.
pub(crate) struct Unhealthy {
    pub(crate) container: String,
    pub(crate) message: String,
}

/// The probes of one pod.
pub(crate) struct ProbeSet {
    view: Arc<Mutex<ProbeView>>,
    wake: Arc<Notify>,
    unhealthy: tokio::sync::mpsc::Sender<Unhealthy>,
    runtime: Runtime,
    tasks: BTreeMap<String, JoinHandle<()>>,
}

impl Drop for ProbeSet {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// A running container as its probes see it.
pub(crate) struct Subject {
    pub(crate) container: Container,
    pub(crate) run_id: String,
    pub(crate) started_at: Timestamp,
    pub(crate) pod_ip: IpAddr,
    /// What the API server last knew of this very run, so that a restart of the agent makes nobody unready.
    pub(crate) was_started: bool,
    pub(crate) was_ready: bool,
}

impl ProbeSet {
    /// No probes yet. `wake` is notified when a result changes; failures go to `unhealthy`, which may overflow:
    /// the events they become are aggregated anyway.
    pub(crate) fn new(
        runtime: Runtime,
        wake: Arc<Notify>,
        unhealthy: tokio::sync::mpsc::Sender<Unhealthy>,
    ) -> Self {
        Self { view: Arc::default(), wake, unhealthy, runtime, tasks: BTreeMap::new() }
    }

    pub(crate) fn view(&self) -> ProbeView {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the probes of a container that runs. Safe to repeat.
    pub(crate) fn ensure(&mut self, subject: Subject) {
        let probed = [
            &subject.container.startup_probe,
            &subject.container.readiness_probe,
            &subject.container.liveness_probe,
        ];
        if self.tasks.contains_key(&subject.run_id) || probed.iter().all(|p| p.is_none()) {
            return;
        }
        {
            let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
            if subject.was_started {
                view.set_started(&subject.run_id);
            }
            if subject.was_ready {
                view.set_ready(&subject.run_id, true);
            }
        }
        let id = subject.run_id.clone();
        let prober = Prober {
            subject,
            view: self.view.clone(),
            wake: self.wake.clone(),
            unhealthy: self.unhealthy.clone(),
            runtime: self.runtime.clone(),
        };
        self.tasks.insert(id, tokio::spawn(async move { prober.run().await }));
    }

    /// Stops the probes of containers that no longer run.
    pub(crate) fn retain(&mut self, running: &BTreeSet<&str>) {
        let view = &self.view;
        self.tasks.retain(|id, task| {
            let keep = running.contains(id.as_str());
            if !keep {
                task.abort();
                view.lock().unwrap_or_else(PoisonError::into_inner).forget(id);
            }
            keep
        });
    }

    /// Stops all probes; what they found stays readable.
    pub(crate) fn stop_all(&mut self) {
        for task in std::mem::take(&mut self.tasks).into_values() {
            task.abort();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Startup,
    Readiness,
    Liveness,
}

impl Class {
    fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

struct Prober {
    subject: Subject,
    view: Arc<Mutex<ProbeView>>,
    wake: Arc<Notify>,
    unhealthy: tokio::sync::mpsc::Sender<Unhealthy>,
    runtime: Runtime,
}

fn seconds(value: Option<i32>, default: u64, min: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default).max(min))
}

fn count(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

impl Prober {
    async fn run(self) {
        let container = &self.subject.container;
        if let Some(probe) = &container.startup_probe
            && !self.subject.was_started
        {
            self.repeat(Class::Startup, probe).await;
        }
        let readiness = async {
            if let Some(probe) = &container.readiness_probe {
                self.repeat(Class::Readiness, probe).await;
            }
        };
        let liveness = async {
            if let Some(probe) = &container.liveness_probe {
                self.repeat(Class::Liveness, probe).await;
            }
        };
        tokio::join!(readiness, liveness);
    }

    /// Checks until the probe has said its last word: a startup probe's success, or a container given up.
    async fn repeat(&self, class: Class, probe: &Probe) {
        let age = Timestamp::now().duration_since(self.subject.started_at);
        let age = Duration::try_from(age).unwrap_or(Duration::ZERO);
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0, 0).saturating_sub(age)).await;
        let mut timer = tokio::time::interval(seconds(probe.period_seconds, 10, 1));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (failures_max, successes_min) =
            (count(probe.failure_threshold, 3), count(probe.success_threshold, 1));
        let (mut failures, mut successes) = (0, 0);
        loop {
            timer.tick().await;
            match self.check(class, probe).await {
                Outcome::Success => {
                    failures = 0;
                    successes += 1;
                    if successes >= successes_min && self.passed(class) {
                        return;
                    }
                }
                Outcome::Failure(message) => {
                    successes = 0;
                    failures += 1;
                    self.report(format!("{} probe failed: {message}", class.word()));
                    if failures >= failures_max && self.gave_up(class) {
                        return;
                    }
                }
                // Not the container's fault: neither better nor worse.
                Outcome::Unclear(message) => {
                    self.report(format!("{} probe errored: {message}", class.word()))
                }
            }
        }
    }

    async fn check(&self, _class: Class, probe: &Probe) -> Outcome {
        let limit = seconds(probe.timeout_seconds, 1, 1);
        let target = Target {
            container: &self.subject.container,
            run_id: &self.subject.run_id,
            ip: self.subject.pod_ip,
        };
        run_probe(&self.runtime, probe, &target, limit).await
    }

    /// Notes a passed probe; true when it need not run again.
    fn passed(&self, class: Class) -> bool {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match class {
            Class::Startup => {
                view.set_started(&self.subject.run_id);
                true
            }
            Class::Readiness => view.set_ready(&self.subject.run_id, true),
            Class::Liveness => false,
        };
        drop(view);
        if changed {
            self.wake.notify_one();
        }
        class == Class::Startup
    }

    /// Notes a failed probe; true when it need not run again.
    fn gave_up(&self, class: Class) -> bool {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match class {
            Class::Startup => {
                view.set_failed(&self.subject.run_id, ProbeFailure::Startup);
                true
            }
            Class::Liveness => {
                view.set_failed(&self.subject.run_id, ProbeFailure::Liveness);
                true
            }
            Class::Readiness => view.set_ready(&self.subject.run_id, false),
        };
        drop(view);
        if changed {
            self.wake.notify_one();
        }
        class != Class::Readiness
    }

    fn report(&self, message: String) {
        // A full queue drops the event only; the result itself is in the view.
        let _ =
            self.unhealthy.try_send(Unhealthy { container: self.subject.container.name.clone(), message });
        self.wake.notify_one();
    }
}
