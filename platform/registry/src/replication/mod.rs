//! Copies of repositories to other registries and from them, by rules that are objects.

mod cron;
mod measure;
mod plan;
mod run;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use gantry_host::Host;
use gantry_oci::RepositoryName;
use gantry_oci::client::{Pace, RegistryClient};
use gantry_reconcile::{Again, Informer, Queue, work};
use gantry_registry_api::{
    Direction, Replication, ReplicationSpec, ReplicationStatus, replication_conditions,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::Recorder;
use kube::{Api, Resource, ResourceExt};

use self::cron::Schedule;
pub(crate) use self::measure::{Measured, Totals};
pub(crate) use self::run::{Outcome, Watch};
use crate::Registry;
use crate::objects::{Turns, condition, now, recorder, write_status};
use crate::quota::quantity;

/// Pushes come in groups: they are copied together after this time.
const SETTLE: Duration = Duration::from_secs(1);
/// Between a run that failed and the next.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A schedule's time is over when it is looked at again.
const CLOCK_TICK: Duration = Duration::from_millis(10);
/// Rules that are run at the same time.
const WORKERS: usize = 2;

const TURNS: Turns = Turns {
    condition: replication_conditions::SYNCED,
    action: "Replicate",
    good: ("Replicated", "Everything is copied again."),
    bad: ("ReplicationFailed", "Not everything is copied"),
};

/// What the rules have to do.
#[derive(Default)]
pub(crate) struct Replications {
    started: OnceLock<Started>,
    queue: Queue<String>,
    state: Mutex<State>,
}

struct Started {
    kube: kube::Client,
    rules: Informer<Replication>,
    recorder: Recorder,
}

#[derive(Default)]
struct State {
    /// Rules that something changed for since their last good run.
    dirty: HashSet<String>,
    /// Generations that had a run since this process began.
    ran: HashMap<String, Option<i64>>,
    /// Runs that failed one after the other.
    failures: HashMap<String, u32>,
    /// Since when something waits to be copied.
    behind: HashMap<String, Timestamp>,
    totals: HashMap<String, Totals>,
    /// One run of a rule at a time.
    running: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl Replications {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a rule waits that failed: from a second on twice as long each time.
    fn pause(&self, name: &str, good: bool) -> Option<Duration> {
        let mut state = self.state();
        if good {
            state.failures.remove(name);
            return None;
        }
        let failures = state.failures.entry(name.to_owned()).or_default();
        *failures += 1;
        Some(PAUSE_MIN.saturating_mul(1 << (*failures - 1).min(16)).min(PAUSE_MAX))
    }

    /// Something was pushed to the repository or taken from it.
    pub(crate) fn changed(&self, repository: &RepositoryName) {
        let Some(started) = self.started.get() else { return };
        for rule in started.rules.list() {
            let spec = &rule.spec;
            let meant = spec.direction == Direction::Push && spec.on_change && !spec.suspend;
            if meant && plan::has_repository(spec, repository.as_str()) {
                let mut state = self.state();
                state.dirty.insert(rule.name_any());
                state.behind.entry(rule.name_any()).or_insert_with(Timestamp::now);
                drop(state);
                self.queue.add_after(rule.name_any(), SETTLE);
            }
        }
    }
}

impl Registry {
    /// Keeps the rules from now on.
    pub(crate) async fn start_replications(&self, host: &Host) {
        let api: Api<Replication> = Api::all(host.client.clone());
        let rules = Informer::start(&host.tasks, "registry/replications", api);
        let replications = &self.inner.replications;
        let changed = replications.queue.clone();
        rules.on_change(move |change| {
            // Not of their status, which is ours: a run that failed must not be the reason of the next.
            let generation =
                |object: &Option<Arc<Replication>>| object.as_ref().map(|o| o.metadata.generation);
            if generation(&change.old) != generation(&change.new)
                && let Some(object) = change.object()
            {
                changed.add(object.name_any());
            }
        });
        rules.synced().await;
        // A registry is started once.
        let _ = replications.started.set(Started {
            kube: host.client.clone(),
            rules,
            recorder: recorder(host.client.clone()),
        });
        let registry = self.clone();
        work(&host.tasks, "replications", replications.queue.clone(), WORKERS, move |name| {
            let registry = registry.clone();
            async move { registry.keep_replication(&name).await }
        });
    }

    /// Runs a rule now; `None`: there is no such rule.
    pub(crate) async fn replicate(&self, name: &str, watch: Watch<'_>) -> Option<Result<Outcome, String>> {
        let started = self.inner.replications.started.get()?;
        let object = started.rules.get("", name)?;
        Some(self.run_replication(started, &object, watch).await)
    }

    async fn keep_replication(&self, name: &str) -> Result<Again, String> {
        let replications = &self.inner.replications;
        let Some(started) = replications.started.get() else { return Ok(Again::OnChange) };
        let Some(object) = started.rules.get("", name).filter(|o| o.metadata.deletion_timestamp.is_none())
        else {
            let mut state = replications.state();
            state.dirty.remove(name);
            state.ran.remove(name);
            state.failures.remove(name);
            state.behind.remove(name);
            state.totals.remove(name);
            state.running.remove(name);
            return Ok(Again::OnChange);
        };
        if object.spec.suspend {
            return Ok(Again::OnChange);
        }
        let schedule = object.spec.schedule.as_deref().and_then(|text| text.parse::<Schedule>().ok());
        let now = Timestamp::now();
        let next = |after: Timestamp| schedule.as_ref().and_then(|schedule| schedule.next(after));
        let due = {
            let state = replications.state();
            let new = state.ran.get(name) != Some(&object.metadata.generation);
            // What changed while nobody looked, and rules nobody knew: looked at once.
            let first = new && (object.spec.on_change || object.status.is_none());
            let status = object.status.as_ref();
            let last = status.and_then(|s| s.last_run.clone()).or(object.metadata.creation_timestamp.clone());
            let late = last.and_then(|last| next(last.0)).is_some_and(|at| at <= now);
            first || late || state.dirty.contains(name)
        };
        let again = match due {
            true => {
                let run = self.run_replication(started, &object, &|_, _| true).await;
                replications.pause(name, run.is_ok())
            }
            false => None,
        };
        let wait = next(Timestamp::now()).map(|at| at.duration_since(Timestamp::now()));
        let wait = wait.and_then(|wait| Duration::try_from(wait).ok()).map(|wait| wait + CLOCK_TICK);
        let first = [again, wait].into_iter().flatten().min();
        Ok(first.map_or(Again::OnChange, Again::After))
    }

    async fn run_replication(
        &self,
        started: &Started,
        object: &Replication,
        watch: Watch<'_>,
    ) -> Result<Outcome, String> {
        let name = object.name_any();
        let turn = self.inner.replications.state().running.entry(name.clone()).or_default().clone();
        let _mine = turn.lock().await;
        let begun = Timestamp::now();
        {
            let mut state = self.inner.replications.state();
            // What changes from here on is another run's.
            state.dirty.remove(&name);
            state.ran.insert(name.clone(), object.metadata.generation);
        }
        let client = made(&started.kube, &object.spec).await;
        let accepted = client.as_ref().map(drop).map_err(Clone::clone);
        let outcome = match client {
            Ok(client) => run::Run::new(self, &client, (&name, &object.spec)).run(watch).await,
            Err(why) => Err(why),
        };
        let failed = outcome.as_ref().map_or(true, |outcome| outcome.pending > 0);
        self.inner.replications.ran(&name, begun, !failed);
        // Also where the rule is not good: the Secret that it names may come.
        if failed {
            self.inner.replications.state().dirty.insert(name);
        }
        self.show_replication(started, object, accepted, &outcome).await?;
        match outcome {
            Ok(outcome) if outcome.pending > 0 => Err(outcome.errors.join("; ")),
            outcome => outcome,
        }
    }

    async fn show_replication(
        &self,
        started: &Started,
        object: &Replication,
        accepted: Result<(), String>,
        outcome: &Result<Outcome, String>,
    ) -> Result<(), String> {
        let old = object.status.clone().unwrap_or_default();
        let now = now();
        let done = outcome.clone().unwrap_or_default();
        let synced = match outcome {
            Ok(outcome) if outcome.pending == 0 => Ok("Copied".to_owned()),
            Ok(outcome) => Err(("Incomplete".to_owned(), outcome.errors.join("; "))),
            Err(why) => Err(("Failed".to_owned(), why.clone())),
        };
        let success = if synced.is_ok() { Some(Time(now)) } else { old.last_success.clone() };
        let since =
            success.as_ref().or(object.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
        let generation = object.metadata.generation;
        let accepted = accepted.map(|()| "Accepted".to_owned()).map_err(|why| ("Invalid".to_owned(), why));
        let status = ReplicationStatus {
            last_run: Some(Time(now)),
            last_success: success,
            lag_seconds: now.as_second() - since.as_second(),
            pending: done.pending,
            tags: done.tags,
            blobs: done.blobs,
            bytes: i64::try_from(done.bytes).unwrap_or(i64::MAX),
            deleted: done.deleted,
            conditions: vec![
                condition(&old.conditions, replication_conditions::ACCEPTED, accepted, generation),
                condition(&old.conditions, replication_conditions::SYNCED, synced, generation),
            ],
        };
        TURNS.tell(&started.recorder, &object.object_ref(&()), &old.conditions, &status.conditions).await;
        write_status(&Api::<Replication>::all(started.kube.clone()), &object.name_any(), &status).await
    }
}

/// The client of a rule, if the rule is good.
async fn made(kube: &kube::Client, spec: &ReplicationSpec) -> Result<RegistryClient, String> {
    if let Some(schedule) = &spec.schedule {
        schedule.parse::<Schedule>().map_err(|why| format!("schedule: {why}"))?;
    }
    if spec.on_change && spec.direction == Direction::Pull {
        return Err("onChange: what changes elsewhere is not seen here; give a schedule".to_owned());
    }
    let pace = spec.bandwidth.as_deref().map(|text| {
        let bytes = quantity(text).filter(|bytes| *bytes > 0);
        bytes.ok_or_else(|| format!("bandwidth: {text:?} is no quantity such as 10Mi"))
    });
    let pace = pace.transpose()?.map(Pace::new);
    let client = crate::remote::client(kube, &spec.remote).await.map_err(|error| error.to_string())?;
    Ok(client.paced(pace))
}
