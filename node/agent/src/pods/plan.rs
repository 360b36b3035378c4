//! What has to happen next for a pod: a pure function of the spec, what the runtime shows, what probes found and
//! the back-off state. The worker carries the plan out and asks again; an empty plan means nothing is left to do.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::backoff::Backoffs;
use super::observe::{Observed, Run, RunState, Sandbox};
use super::spec::{self, Kind, Member, Restart};
use crate::probes::{ProbeFailure, ProbeView};

/// Everything the plan depends on.
pub(crate) struct World<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) probes: &'a ProbeView,
    pub(crate) backoffs: &'a Backoffs,
    pub(crate) now: Timestamp,
}

/// Why a running container is to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillWhy {
    Liveness,
    Startup,
    /// The spec now names another image.
    Changed,
    /// The runtime lost track of it; killing makes its end known.
    Lost,
}

/// Kill one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) why: KillWhy,
}

/// Start one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) name: String,
    /// Restarts before this run.
    pub(crate) attempt: u32,
    /// It replaces a run that ended, so the next try has to wait longer.
    pub(crate) restart: bool,
}

/// A container that has to wait before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) until: Timestamp,
    pub(crate) delay: Duration,
}

/// The next steps, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The pod reached its end: stop what still runs and keep it stopped.
    pub(crate) finished: bool,
    /// Sandboxes that died or were replaced, with what is left in them.
    pub(crate) stop_sandboxes: Vec<String>,
    /// Create a sandbox with this attempt number.
    pub(crate) create_sandbox: Option<u32>,
    /// Kill these containers.
    pub(crate) kill: Vec<Kill>,
    /// Remove these containers, which were created and never started.
    pub(crate) remove: Vec<String>,
    /// Start these containers, in this order.
    pub(crate) start: Vec<Start>,
    /// Containers in back-off, by name.
    pub(crate) held: BTreeMap<String, Held>,
}

impl Plan {
    /// Nothing to do now.
    pub(crate) fn is_empty(&self) -> bool {
        !self.finished
            && self.stop_sandboxes.is_empty()
            && self.create_sandbox.is_none()
            && self.kill.is_empty()
            && self.remove.is_empty()
            && self.start.is_empty()
    }

    /// When to plan again without any news.
    pub(crate) fn wake(&self) -> Option<Timestamp> {
        self.held.values().map(|held| held.until).min()
    }
}

/// The next steps for a pod that is neither deleted nor known to be finished.
pub(crate) fn plan(world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    if finished(world) {
        plan.finished = true;
        return plan;
    }
    match world.observed.ready_sandbox() {
        Some(sandbox) => {
            // An older sandbox that still counts as ready is left over from a crash between two steps.
            plan.stop_sandboxes = older_ready(world.observed);
            containers(world, sandbox, &mut plan);
        }
        None => {
            let newest = world.observed.sandboxes.first();
            let dead = newest.filter(|s| world.observed.alive().any(|(_, run)| run.sandbox_id == s.id));
            plan.stop_sandboxes = older_ready(world.observed);
            plan.stop_sandboxes.extend(dead.map(|s| s.id.clone()));
            plan.create_sandbox = Some(newest.map_or(0, |s| s.attempt + 1));
        }
    }
    plan
}

fn older_ready(observed: &Observed) -> Vec<String> {
    observed.sandboxes.iter().skip(1).filter(|s| s.ready).map(|s| s.id.clone()).collect()
}

/// No container of the pod will run again.
pub(crate) fn finished(world: &World<'_>) -> bool {
    let ended_for_good = |member: &Member<'_>| {
        let run = world.observed.run(member.name());
        run.is_some_and(|run| run.state == RunState::Exited && !member.restart.again(run.exit_code))
    };
    let mains_done = spec::main_members(world.pod).all(|m| ended_for_good(&m));
    mains_done || failed_init(world)
}

/// An init container failed and must not be tried again.
fn failed_init(world: &World<'_>) -> bool {
    let newest = world.observed.sandboxes.first().map(|s| s.id.as_str()).unwrap_or_default();
    let begun = spec::main_members(world.pod).any(|m| world.observed.run_in(m.name(), newest).is_some());
    !begun
        && spec::init_members(world.pod).any(|m| {
            m.restart == Restart::Never
                && world
                    .observed
                    .run(m.name())
                    .is_some_and(|r| r.state == RunState::Exited && r.exit_code != 0)
        })
}

fn containers(world: &World<'_>, sandbox: &Sandbox, plan: &mut Plan) {
    if !inits(world, sandbox, plan) {
        return;
    }
    for member in spec::main_members(world.pod).chain(spec::ephemeral_members(world.pod)) {
        main(world, sandbox, &member, plan);
    }
}

/// Plans init containers and sidecars; true when the normal containers may run.
fn inits(world: &World<'_>, sandbox: &Sandbox, plan: &mut Plan) -> bool {
    let run_of = |name: &str| world.observed.run_in(name, &sandbox.id);
    // Once normal containers began, init containers are done, whether or not their remains are still there.
    let begun = spec::main_members(world.pod).any(|m| run_of(m.name()).is_some());
    for member in spec::init_members(world.pod) {
        let run = run_of(member.name());
        if member.kind == Kind::Init {
            if begun || run.is_some_and(|r| r.state == RunState::Exited && r.exit_code == 0) {
                continue;
            }
            if !run.is_some_and(Run::running) {
                start(world, &member, run, plan);
            }
            return false;
        }
        let up = match run {
            Some(run) if run.running() => {
                check_running(world, &member, run, plan);
                world.probes.started(&member.container, &run.id)
            }
            run => {
                start(world, &member, run, plan);
                false
            }
        };
        if !up && !begun {
            return false;
        }
    }
    true
}

fn main(world: &World<'_>, sandbox: &Sandbox, member: &Member<'_>, plan: &mut Plan) {
    match world.observed.run(member.name()) {
        Some(run) if run.sandbox_id == sandbox.id && run.running() => check_running(world, member, run, plan),
        Some(run) if run.state == RunState::Exited && !member.restart.again(run.exit_code) => {}
        run => start(world, member, run.filter(|r| r.sandbox_id == sandbox.id || r.ended()), plan),
    }
}

/// Kills a running container that its probes gave up or that no longer is what the spec says.
fn check_running(world: &World<'_>, member: &Member<'_>, run: &Run, plan: &mut Plan) {
    let changed =
        member.kind == Kind::Main && !run.hash.is_empty() && run.hash != spec::hash(&member.container);
    let why = match world.probes.failure(&run.id) {
        _ if changed => KillWhy::Changed,
        Some(ProbeFailure::Liveness) => KillWhy::Liveness,
        Some(ProbeFailure::Startup) => KillWhy::Startup,
        None => return,
    };
    plan.kill.push(Kill { name: member.name().to_owned(), id: run.id.clone(), why });
}

/// Starts a container, unless its last run makes that wait.
fn start(world: &World<'_>, member: &Member<'_>, run: Option<&Run>, plan: &mut Plan) {
    let name = member.name().to_owned();
    let attempt = next_attempt(world, &name);
    match run {
        None => plan.start.push(Start { restart: attempt > 0, name, attempt }),
        Some(run) => match run.state {
            RunState::Created => {
                plan.remove.push(run.id.clone());
                plan.start.push(Start { name, attempt: run.attempt, restart: run.attempt > 0 });
            }
            RunState::Unknown => plan.kill.push(Kill { name, id: run.id.clone(), why: KillWhy::Lost }),
            RunState::Running => {}
            RunState::Exited => {
                let since = run.finished_at().unwrap_or(world.now);
                match world.backoffs.hold(&name, since, world.now) {
                    Some((until, delay)) => {
                        plan.held.insert(name, Held { until, delay });
                    }
                    None => plan.start.push(Start { name, attempt, restart: true }),
                }
            }
        },
    }
}

/// One more than the newest run's; the API server's count where the runtime lost its records.
fn next_attempt(world: &World<'_>, name: &str) -> u32 {
    if let Some(run) = world.observed.run(name) {
        return run.attempt + 1;
    }
    let status = world.pod.status.as_ref();
    let known = status
        .into_iter()
        .flat_map(|s| s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten()))
        .find(|s| s.name == name && s.container_id.is_some());
    known.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0) + 1)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
