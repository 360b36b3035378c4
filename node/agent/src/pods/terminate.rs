//! The end of a pod: hooks and signals within the grace, then everything it held is given back.

use std::time::Duration;

use futures::future::join_all;

use super::spec::{self, Kind};
use super::worker::{Next, Worker};
use crate::events::Kind as EventKind;
use crate::volumes;

impl Worker {
    /// Brings the pod to its end; safe to repeat at any point.
    pub(super) async fn end(&mut self) -> Next {
        self.probes.stop_all();
        if self.observed.any_running() {
            self.publish();
            self.write_status(false).await;
            self.stop_containers().await;
            if self.observe().await.is_err() || self.observed.any_running() {
                return self.later();
            }
        }
        self.publish();
        // A status that cannot be written now is written before anything of its ground is removed.
        if !self.write_status(true).await {
            return self.later();
        }
        for sandbox in self.observed.sandboxes.clone().iter().filter(|s| s.ready) {
            if !self.stop_sandbox(&sandbox.id).await {
                return self.later();
            }
        }
        if !self.give_back().await {
            return self.later();
        }
        if !self.desired.borrow().ending() {
            // The stored phase is terminal: only the deletion of the object is still to come.
            let _ = self.observe().await;
            self.publish();
            self.write_status(true).await;
            return Next::Wait(None);
        }
        for sandbox in &self.observed.sandboxes {
            self.remove_sandbox(&sandbox.id).await;
        }
        for run in self.observed.runs.values().flatten() {
            self.remove_container(&run.id).await;
        }
        self.shared.remove_logs(&self.pod);
        self.shared.table.remove(spec::namespace(&self.pod), spec::name(&self.pod), spec::uid(&self.pod));
        if !self.desired.borrow().gone
            && let Err(super::sink::SinkError::Failed(error)) = self.shared.sink.delete(&self.pod).await
        {
            tracing::debug!(pod = %spec::display(&self.pod), error, "pod object not deleted");
            return self.later();
        }
        Next::Done
    }

    fn later(&mut self) -> Next {
        let pause = Duration::from_secs(1);
        Next::Wait(jiff::Timestamp::now().checked_add(pause).ok())
    }

    /// Stops everything: normal containers at once, then sidecars against their order. A shorter grace that comes
    /// meanwhile counts at once.
    async fn stop_containers(&mut self) {
        loop {
            let grace = spec::grace(&self.desired.borrow().pod);
            let mut desired = self.desired.clone();
            let shorter = desired.wait_for(|d| spec::grace(&d.pod) < grace);
            tokio::select! {
                () = self.stop_in_order(grace) => return,
                Ok(_) = shorter => {}
            }
            if self.observe().await.is_err() {
                return;
            }
        }
    }

    async fn stop_in_order(&self, grace: Duration) {
        let begun = tokio::time::Instant::now();
        let mut groups: Vec<Vec<String>> = vec![Vec::new()];
        for member in spec::members(&self.pod) {
            match member.kind {
                Kind::Sidecar => groups.insert(1, vec![member.name().to_owned()]),
                _ => groups[0].push(member.name().to_owned()),
            }
        }
        for group in groups {
            let left = grace.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
            let running = group.iter().flat_map(|name| {
                let runs = self.observed.runs.get(name).into_iter().flatten();
                runs.filter(|r| r.running()).map(move |run| (name, run.id.clone()))
            });
            join_all(running.map(|(name, id)| async move {
                let path = spec::member(&self.pod, name).map(|m| m.field_path());
                self.event(path, EventKind::Normal, "Killing", &format!("Stopping container {name}"));
                self.stop_container(name, &id, left).await;
            }))
            .await;
        }
    }

    /// Volumes and cgroups.
    async fn give_back(&self) -> bool {
        let root = self.shared.config.dirs.pod(spec::uid(&self.pod));
        let removed = tokio::task::spawn_blocking(move || volumes::remove_pod_dir(&root)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(pod = %spec::display(&self.pod), %error, "volumes not removed");
            return false;
        }
        let group = self.shared.cgroups.pod(&self.pod);
        if let Err(error) = self.shared.cgroups.remove(&group).await {
            tracing::warn!(pod = %spec::display(&self.pod), %error, "cgroup not removed");
            return false;
        }
        true
    }
}
