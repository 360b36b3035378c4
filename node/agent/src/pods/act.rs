//! Carrying out a plan: sandboxes, kills, removals. Starts are in `start.rs`.

use std::time::Duration;

use gantry_cri::{
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest,
};
use jiff::Timestamp;

use super::observe::Run;
use super::plan::{Kill, KillWhy, Plan};
use super::worker::Worker;
use super::{hooks, sandbox, spec};
use crate::errors::PodProblem;
use crate::events::Kind as EventKind;
use crate::files;

impl Worker {
    /// Carries out the plan; false when some step has to be tried again later.
    pub(super) async fn act(&mut self, plan: &Plan) -> bool {
        for id in &plan.stop_sandboxes {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.event(None, EventKind::Normal, "SandboxChanged", text);
            if !self.stop_sandbox(id).await {
                return false;
            }
        }
        if let Some(attempt) = plan.create_sandbox {
            return self.create_sandbox(attempt).await;
        }
        for kill in &plan.kill {
            self.kill(kill).await;
        }
        for id in &plan.remove {
            self.remove_container(id).await;
        }
        if plan.start.is_empty() {
            return true;
        }
        if !self.volumes.ready()
            && let Err(problem) = self.ensure_volumes(Timestamp::now()).await
        {
            self.event(None, EventKind::Warning, problem.reason, &problem.message);
            return false;
        }
        let mut done = true;
        for start in &plan.start {
            if self.desired.borrow().ending() {
                return true;
            }
            match self.start(start).await {
                Ok(()) => {
                    self.problems.remove(&start.name);
                }
                Err(problem) => {
                    done = false;
                    self.problems.insert(start.name.clone(), problem);
                }
            }
        }
        done
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> bool {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        match self.shared.runtime.stop_pod_sandbox(request).await {
            Err(error) if !error.is_not_found() => {
                let text = format!("error killing pod: failed to \"KillPodSandbox\" for \"{id}\": {error}");
                self.event(None, EventKind::Warning, "FailedKillPod", &text);
                false
            }
            _ => true,
        }
    }

    pub(super) async fn remove_sandbox(&self, id: &str) {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        if let Err(error) = self.shared.runtime.remove_pod_sandbox(request).await
            && !error.is_not_found()
        {
            tracing::warn!(sandbox = id, %error, "sandbox not removed");
        }
    }

    pub(super) async fn remove_container(&self, id: &str) {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        if let Err(error) = self.shared.runtime.remove_container(request).await
            && !error.is_not_found()
        {
            tracing::warn!(container = id, %error, "container not removed");
        }
    }

    /// The sandbox, while volumes are made and images pulled beside it.
    async fn create_sandbox(&mut self, attempt: u32) -> bool {
        if let Err(problem) = self.prepare() {
            self.event(None, EventKind::Warning, problem.reason, &problem.message);
            return false;
        }
        let shared = self.shared.clone();
        let cgroup = shared.cgroups.pod(&self.pod);
        let config = sandbox::config(&shared.config, &self.pod, attempt, cgroup, &shared.host_dns);
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let (created, volumes) =
            tokio::join!(shared.runtime.run_pod_sandbox(request), self.ensure_volumes(Timestamp::now()));
        let mut done = true;
        if let Err(error) = created {
            let text = format!("Failed to create pod sandbox: {error}");
            self.event(None, EventKind::Warning, "FailedCreatePodSandBox", &text);
            done = false;
        }
        if let Err(problem) = volumes {
            self.event(None, EventKind::Warning, problem.reason, &problem.message);
            done = false;
        }
        // Dead sandboxes of the pod are of no use once there is a new one.
        if done {
            for old in self.observed.sandboxes.iter().filter(|s| !s.ready) {
                if !self.observed.runs.values().flatten().any(|run| run.sandbox_id == old.id) {
                    self.remove_sandbox(&old.id).await;
                }
            }
        }
        done
    }

    /// Directories and the cgroup of the pod.
    fn prepare(&self) -> Result<(), PodProblem> {
        let dirs = &self.shared.config.dirs;
        let (namespace, name, uid) =
            (spec::namespace(&self.pod), spec::name(&self.pod), spec::uid(&self.pod));
        let failed = |reason| move |e: std::io::Error| PodProblem::new(reason, e.to_string());
        files::create_dir(&dirs.pod(uid), 0o750).map_err(failed("FailedToMakePodDataDirectories"))?;
        files::create_dir(&dirs.pod_logs(namespace, name, uid), 0o755)
            .map_err(failed("FailedToMakePodDataDirectories"))?;
        self.shared.cgroups.create_pod(&self.pod).map_err(failed("FailedToCreatePodContainer"))
    }

    async fn kill(&mut self, kill: &Kill) {
        let Some(member) = spec::member(&self.pod, &kill.name) else { return };
        let name = &kill.name;
        let (text, probe) = match kill.why {
            KillWhy::Liveness => (
                format!("Container {name} failed liveness probe, will be restarted"),
                &member.container.liveness_probe,
            ),
            KillWhy::Startup => (
                format!("Container {name} failed startup probe, will be restarted"),
                &member.container.startup_probe,
            ),
            KillWhy::Changed => (format!("Container {name} definition changed, will be restarted"), &None),
            KillWhy::Lost => {
                (format!("Container {name} is in unknown state, try killing it before restart"), &None)
            }
        };
        let own = probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
        let own = own.and_then(|s| u64::try_from(s).ok()).map(|s| Duration::from_secs(s.max(1)));
        let grace = own.unwrap_or_else(|| spec::grace(&self.pod));
        self.event(Some(member.field_path()), EventKind::Normal, "Killing", &text);
        self.stop_container(name, &kill.id, grace).await;
    }

    /// The hook before the stop, then the stop, together within `grace`.
    pub(super) async fn stop_container(&self, name: &str, id: &str, grace: Duration) {
        let begun = tokio::time::Instant::now();
        let member = spec::member(&self.pod, name);
        if let Some(member) = &member
            && let Some(hook) = member.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
        {
            let ip = self.pod_ips().first().and_then(|ip| ip.parse().ok());
            let hook = hooks::run(&self.shared.runtime, hook, &member.container, id, ip);
            let failed = match tokio::time::timeout(grace, hook).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(_) => Some("PreStop hook not completed in grace period".to_owned()),
            };
            if let Some(error) = failed {
                let text = format!("PreStopHook failed: {error}");
                self.event(Some(member.field_path()), EventKind::Warning, "FailedPreStopHook", &text);
            }
        }
        // A hook that used up the grace leaves the container a moment for its signal.
        let left = grace.saturating_sub(begun.elapsed()).max(Duration::from_secs(2).min(grace));
        let seconds = i64::try_from(left.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        if let Err(error) = self.shared.runtime.stop_container(id, seconds).await
            && !error.is_not_found()
        {
            let path = member.map(|m| m.field_path());
            let text = format!("error killing pod: failed to \"KillContainer\" for \"{name}\": {error}");
            self.event(path, EventKind::Warning, "FailedKillPod", &text);
        }
    }

    /// Keeps the newest ended run of each container for `kubectl logs --previous`, and no more.
    pub(super) async fn drop_old_runs(&mut self) {
        let old: Vec<Run> =
            self.observed.runs.values().flat_map(|runs| runs.iter().skip(2)).cloned().collect();
        for run in old.iter().filter(|run| run.ended()) {
            self.remove_container(&run.id).await;
            for path in crate::logs::files_of(&run.log_path) {
                let _ = std::fs::remove_file(path);
            }
            self.shared.remove_log_link(&run.log_path);
        }
    }
}
