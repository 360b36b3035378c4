//! Starting one container: image, configuration, create, start, hook.

use gantry_cri::{CreateContainerRequest, Image, StartContainerRequest};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Service};

use super::container::{self, ContainerContext};
use super::env::{self, EnvContext};
use super::plan::Start;
use super::worker::Worker;
use super::{hooks, sandbox, spec};
use crate::errors::PodProblem;
use crate::events::Kind as EventKind;
use crate::files;

impl Worker {
    pub(super) async fn start(&mut self, start: &Start) -> Result<(), PodProblem> {
        let pod = self.pod.clone();
        let Some(member) = spec::member(&pod, &start.name) else { return Ok(()) };
        let path = member.field_path();
        let image = self.image(&member.container, &path).await?;
        let services = self.shared.services.get().await;
        let warn = |problem: PodProblem| {
            let text = format!("Error: {}", problem.message);
            self.event(Some(path.clone()), EventKind::Warning, "Failed", &text);
            problem
        };
        let (sandbox_id, config) =
            self.configure(&member.container, start, &image, &services).map_err(warn)?;
        let shared = self.shared.clone();
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox_id,
            config: Some(config),
            sandbox_config: Some(sandbox::config(
                &shared.config,
                &pod,
                self.observed.ready_sandbox().map_or(0, |s| s.attempt),
                shared.cgroups.pod(&pod),
                &shared.host_dns,
            )),
        };
        let created = shared.runtime.create_container(request).await;
        let id =
            created.map_err(|e| warn(PodProblem::new("CreateContainerError", e.to_string())))?.container_id;
        self.event(
            Some(path.clone()),
            EventKind::Normal,
            "Created",
            &format!("Created container: {}", start.name),
        );
        if start.restart {
            self.backoffs.next(&start.name, Timestamp::now());
        }
        let started =
            shared.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await;
        if let Err(error) = started {
            let problem = PodProblem::new("RunContainerError", error.to_string());
            let text = format!("Error: {}", problem.message);
            self.event(Some(path), EventKind::Warning, "Failed", &text);
            return Err(problem);
        }
        self.event(
            Some(path.clone()),
            EventKind::Normal,
            "Started",
            &format!("Started container {}", start.name),
        );
        shared.link_log(&pod, &start.name, start.attempt, &id);
        let hook = member.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        if let Some(hook) = hook {
            let ip = self.pod_ips().first().and_then(|ip| ip.parse().ok());
            if let Err(error) = hooks::run(&shared.runtime, hook, &member.container, &id, ip).await {
                let text = format!("PostStartHook failed: {error}");
                self.event(Some(path), EventKind::Warning, "FailedPostStartHook", &text);
                self.stop_container(&start.name, &id, spec::grace(&pod)).await;
                return Err(PodProblem::new("PostStartHookError", error));
            }
        }
        Ok(())
    }

    /// The container's configuration, and the sandbox it goes into.
    fn configure(
        &self,
        container: &Container,
        start: &Start,
        image: &Image,
        services: &[Service],
    ) -> Result<(String, gantry_cri::ContainerConfig), PodProblem> {
        let shared = &self.shared;
        let gone = || PodProblem::new("CreateContainerError", "the pod's sandbox is gone");
        let sandbox = self.observed.ready_sandbox().ok_or_else(gone)?;
        let (host_ips, pod_ips) = (shared.host_ips(), self.pod_ips());
        let context = EnvContext {
            objects: &self.objects,
            services,
            host_ips: &host_ips,
            pod_ips: &pod_ips,
            allocatable: shared.allocatable(),
        };
        let env = env::environment(&self.pod, container, &context)?;
        let pod_dir = shared.config.dirs.pod(spec::uid(&self.pod));
        let profiles = shared.config.dirs.seccomp_profiles();
        let hosts = pod_dir.join("etc-hosts");
        let host_file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let text = sandbox::hosts_file(&self.pod, &pod_ips, &shared.config.cluster_domain, &host_file);
        files::write_atomic(&hosts, text.as_bytes(), 0o644)
            .map_err(|e| PodProblem::new("CreateContainerConfigError", e.to_string()))?;
        let config = container::config(&ContainerContext {
            pod: &self.pod,
            container,
            attempt: start.attempt,
            image,
            env,
            volumes: &self.volumes,
            pod_dir: &pod_dir,
            hosts_file: Some(&hosts),
            memory_capacity: shared.host.memory_bytes,
            seccomp_profiles: &profiles,
        })?;
        Ok((sandbox.id.clone(), config))
    }

    /// The container's image, pulled when its policy asks for it and its back-off allows.
    async fn image(&mut self, container: &Container, path: &str) -> Result<Image, PodProblem> {
        let name = container.image.clone().unwrap_or_default();
        let at = |this: &Self, kind, reason: &str, text: &str| {
            this.event(Some(path.to_owned()), kind, reason, text);
        };
        let checked = self.shared.images.check(container).await;
        let (present, pull) = match checked {
            Ok(found) => found,
            Err(problem) => {
                at(self, EventKind::Warning, "InspectFailed", &problem.message);
                at(self, EventKind::Warning, "Failed", &format!("Error: {}", problem.reason));
                return Err(problem);
            }
        };
        if let (Some(image), false) = (present, pull) {
            let text = format!("Container image \"{name}\" already present on machine");
            at(self, EventKind::Normal, "Pulled", &text);
            return Ok(image);
        }
        let key = format!("{} {name}", container.name);
        if let Some(problem) = self.pull_held(container, &key, path) {
            return Err(problem);
        }
        at(self, EventKind::Normal, "Pulling", &format!("Pulling image \"{name}\""));
        let mut desired = self.desired.clone();
        let pulled = tokio::select! {
            pulled = self.shared.images.pull(&self.pod, container, &self.objects) => pulled,
            // A pod that is to go must not wait for its image.
            _ = desired.wait_for(|d| d.ending()) => Err(PodProblem::new("ErrImagePull", "the pod is being deleted")),
        };
        match pulled {
            Ok(present) => {
                self.pull_backoffs.clear(&key);
                if let Some((pull, all)) = present.pulled {
                    let size = present.image.size;
                    let (pull, all) = (pull.as_millis(), all.as_millis());
                    let text = format!(
                        "Successfully pulled image \"{name}\" in {pull}ms ({all}ms including waiting). Image size: {size} bytes."
                    );
                    at(self, EventKind::Normal, "Pulled", &text);
                }
                Ok(present.image)
            }
            Err(problem) => {
                let now = Timestamp::now();
                self.pull_backoffs.next(&key, now);
                let until = self.pull_backoffs.hold(&key, now, now).map(|(until, _)| until);
                // Shown as back-off soon, as users know it, while the next try waits.
                self.retry_at = self
                    .retry_at
                    .into_iter()
                    .chain(now.checked_add(std::time::Duration::from_secs(2)).ok())
                    .chain(until)
                    .min();
                let text = format!("Failed to pull image \"{name}\": {}", problem.message);
                at(self, EventKind::Warning, "Failed", &text);
                at(self, EventKind::Warning, "Failed", "Error: ErrImagePull");
                Err(problem)
            }
        }
    }

    /// The back-off of a pull that failed before, while it lasts.
    fn pull_held(&mut self, container: &Container, key: &str, path: &str) -> Option<PodProblem> {
        let now = Timestamp::now();
        let since = self.pull_backoffs.since(key)?;
        let (until, _) = self.pull_backoffs.hold(key, since, now)?;
        self.retry_at = Some(self.retry_at.map_or(until, |at| at.min(until)));
        let text = format!("Back-off pulling image \"{}\"", container.image.as_deref().unwrap_or_default());
        self.event(Some(path.to_owned()), EventKind::Normal, "BackOff", &text);
        self.event(Some(path.to_owned()), EventKind::Warning, "Failed", "Error: ImagePullBackOff");
        let cause = match self.problems.get(&container.name) {
            Some(p) if p.reason == "ErrImagePull" => format!("{text}: ErrImagePull: {}", p.message),
            Some(p) if p.reason == "ImagePullBackOff" => p.message.clone(),
            _ => text,
        };
        Some(PodProblem::new("ImagePullBackOff", cause))
    }
}
