//! A pod's status from what is known of it: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::go_duration;
use super::conditions;
use super::observe::{Observed, Run, RunState};
use super::plan::Held;
use super::spec::{self, Kind, Member, Restart};
use crate::errors::PodProblem;
use crate::probes::ProbeView;
use crate::resources;

/// Everything a status depends on.
pub(crate) struct Facts<'a> {
    /// The object as the API server has it; its status is the ground for transition times.
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) probes: &'a ProbeView,
    pub(crate) held: &'a BTreeMap<String, Held>,
    /// What went wrong at the last try to start a container, by its name.
    pub(crate) problems: &'a BTreeMap<String, PodProblem>,
    /// Termination messages by run id.
    pub(crate) messages: &'a BTreeMap<String, String>,
    /// The node decided that the pod ends (deadline, eviction, refusal).
    pub(crate) failed: Option<&'a PodProblem>,
    /// Nothing of the pod runs or will run.
    pub(crate) ended: bool,
    pub(crate) node_ips: &'a [IpAddr],
    pub(crate) now: Timestamp,
}

/// The whole status.
pub(crate) fn pod_status(facts: &Facts<'_>) -> PodStatus {
    let before = facts.pod.status.clone().unwrap_or_default();
    let init_done = initialized(facts);
    let list = |members: Vec<Member<'_>>| -> Vec<ContainerStatus> {
        members.iter().map(|member| container_status(facts, member, init_done)).collect()
    };
    let init = list(spec::init_members(facts.pod).collect());
    let main = list(spec::main_members(facts.pod).collect());
    let ephemeral = list(spec::ephemeral_members(facts.pod).collect());
    let phase = match (facts.failed, spec::phase(facts.pod)) {
        // A terminal phase never changes again.
        (_, terminal @ ("Succeeded" | "Failed")) => terminal,
        (Some(_), _) => "Failed",
        _ => phase(facts, &init, &main),
    };
    let ips = pod_ips(facts);
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason: facts.failed.map(|p| p.reason.to_owned()).or(before.reason.clone()),
        message: facts.failed.map(|p| p.message.clone()).or(before.message.clone()),
        start_time: before.start_time.clone().or(Some(Time(whole_seconds(facts.now)))),
        host_ip: facts.node_ips.first().map(ToString::to_string),
        host_ips: Some(facts.node_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: before.qos_class.clone().or(Some(resources::qos(facts.pod).as_str().to_owned())),
        observed_generation: facts.pod.metadata.generation,
        container_statuses: Some(main),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..before
    };
    status.conditions = Some(conditions::conditions(facts, &status, init_done));
    status
}

/// The API's times have whole seconds.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn pod_ips(facts: &Facts<'_>) -> Vec<String> {
    let ready = facts.observed.ready_sandbox();
    if spec::host_network(facts.pod) {
        let known = ready.is_some() || facts.pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some());
        return facts.node_ips.iter().filter(|_| known).map(ToString::to_string).collect();
    }
    match ready {
        Some(sandbox) => sandbox.ips.iter().map(ToString::to_string).collect(),
        // The last address stays visible after the pod ended.
        None => {
            let before = facts.pod.status.as_ref().and_then(|s| s.pod_ips.as_ref());
            before.into_iter().flatten().map(|ip| ip.ip.clone()).collect()
        }
    }
}

/// All init containers ended well and all sidecars are up, or normal containers already began.
fn initialized(facts: &Facts<'_>) -> bool {
    let newest = facts.observed.sandboxes.first().map(|s| s.id.as_str()).unwrap_or_default();
    if spec::main_members(facts.pod).any(|m| facts.observed.run_in(m.name(), newest).is_some()) {
        return true;
    }
    spec::init_members(facts.pod).all(|m| {
        let run = facts.observed.run(m.name());
        match m.kind {
            Kind::Sidecar => run.is_some_and(|r| r.running() && facts.probes.started(&m.container, &r.id)),
            _ => run.is_some_and(|r| r.state == RunState::Exited && r.exit_code == 0),
        }
    })
}

fn before<'a>(pod: &'a Pod, member: &Member<'_>) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let list = match member.kind {
        Kind::Init | Kind::Sidecar => status.init_container_statuses.as_ref(),
        Kind::Main => status.container_statuses.as_ref(),
        Kind::Ephemeral => status.ephemeral_container_statuses.as_ref(),
    };
    list?.iter().find(|s| s.name == member.name())
}

fn container_status(facts: &Facts<'_>, member: &Member<'_>, init_done: bool) -> ContainerStatus {
    let name = member.name();
    let runs: &[Run] = facts.observed.runs.get(name).map_or(&[], Vec::as_slice);
    let known = before(facts.pod, member);
    let mut status = ContainerStatus {
        name: name.to_owned(),
        image: member.container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..Default::default()
    };
    let Some(run) = runs.first() else {
        if let Some(known) = known.filter(|k| facts.ended || k.container_id.is_some()) {
            return lost(facts, member, known);
        }
        status.state = Some(waiting(facts, member, init_done));
        return status;
    };
    status.container_id = Some(format!("containerd://{}", run.id));
    if !run.image.is_empty() {
        status.image.clone_from(&run.image);
    }
    status.image_id.clone_from(&run.image_ref);
    status.restart_count = i32::try_from(run.attempt).unwrap_or(i32::MAX);
    let previous = runs.get(1).filter(|r| r.ended()).map(|r| terminated(facts, r));
    let kept =
        || known.filter(|k| k.restart_count == status.restart_count).and_then(|k| k.last_state.clone());
    status.last_state = previous.or_else(kept);
    let shown_waiting = facts.problems.contains_key(name) || facts.held.contains_key(name);
    status.state = Some(match run.state {
        RunState::Running => {
            status.started = Some(facts.probes.started(&member.container, &run.id));
            status.ready = status.started == Some(true) && facts.probes.ready(&member.container, &run.id);
            ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: run.started_at().map(whole_seconds).map(Time),
                }),
                ..Default::default()
            }
        }
        RunState::Created => waiting(facts, member, true),
        RunState::Exited | RunState::Unknown if shown_waiting && !facts.ended => {
            status.last_state = Some(terminated(facts, run));
            waiting(facts, member, true)
        }
        RunState::Exited | RunState::Unknown => {
            // An init container that did its work counts as ready.
            status.ready = member.kind == Kind::Init && run.exit_code == 0;
            terminated(facts, run)
        }
    });
    status
}

/// The runtime has no record of a container that once ran.
fn lost(facts: &Facts<'_>, member: &Member<'_>, known: &ContainerStatus) -> ContainerStatus {
    let mut status = known.clone();
    status.ready = false;
    status.started = Some(false);
    let ended = known.state.as_ref().is_some_and(|s| s.terminated.is_some());
    if ended && (facts.ended || member.kind == Kind::Init) {
        status.ready = known.ready;
        return status;
    }
    let gone = ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            exit_code: 137,
            ..Default::default()
        }),
        ..Default::default()
    };
    if facts.ended {
        status.state = Some(if known.container_id.is_some() { gone } else { waiting(facts, member, true) });
    } else {
        status.last_state = if ended { known.state.clone() } else { Some(gone) };
        status.state = Some(waiting(facts, member, true));
    }
    status
}

fn waiting(facts: &Facts<'_>, member: &Member<'_>, init_done: bool) -> ContainerState {
    let (reason, message) = if let Some(problem) = facts.problems.get(member.name()) {
        (problem.reason, Some(problem.message.clone()))
    } else if let Some(held) = facts.held.get(member.name()) {
        let (delay, pod) = (go_duration(held.delay), spec::display(facts.pod));
        let text = format!("back-off {delay} restarting failed container={} pod={pod}", member.name());
        ("CrashLoopBackOff", Some(text))
    } else if init_done || spec::init_members(facts.pod).next().is_none() {
        ("ContainerCreating", None)
    } else {
        ("PodInitializing", None)
    };
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..Default::default()
    }
}

fn terminated(facts: &Facts<'_>, run: &Run) -> ContainerState {
    let reason = match (run.reason.as_str(), run.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    // A container that never started left an empty file; then the runtime's own words stand.
    let written = facts.messages.get(&run.id).filter(|message| !message.is_empty());
    let message = written.cloned().or_else(|| Some(run.message.clone()));
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("containerd://{}", run.id)),
            exit_code: run.exit_code,
            reason: Some(reason.to_owned()),
            message: message.filter(|m| !m.is_empty()),
            started_at: Some(Time(run.started_at().map_or(Timestamp::UNIX_EPOCH, whole_seconds))),
            finished_at: Some(Time(run.finished_at().map_or(Timestamp::UNIX_EPOCH, whole_seconds))),
            signal: None,
        }),
        ..Default::default()
    }
}

/// The phase, by the kubelet's rules over the container statuses.
fn phase(facts: &Facts<'_>, init: &[ContainerStatus], main: &[ContainerStatus]) -> &'static str {
    let ended =
        |s: &ContainerStatus| s.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    let (mut pending_init, mut failed_init) = (0, 0);
    let begun = main.iter().any(|s| s.container_id.is_some());
    for (member, status) in spec::init_members(facts.pod).zip(init) {
        match (member.kind, ended(status)) {
            _ if begun => {}
            (Kind::Sidecar, _) => pending_init += usize::from(status.started != Some(true)),
            (_, Some(0)) => {}
            (_, Some(_)) if member.restart == Restart::Never => failed_init += 1,
            _ => pending_init += 1,
        }
    }
    let (mut waiting, mut stopped, mut succeeded) = (0, 0, 0);
    // A sidecar that still runs keeps the pod running; how it ended does not count.
    let up = |s: &&ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some());
    let mut running = init.iter().filter(up).filter(|_| begun).count();
    for status in main {
        let had_run = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
        match (&status.state, ended(status)) {
            (_, Some(code)) => {
                stopped += 1;
                succeeded += usize::from(code == 0);
            }
            (Some(state), _) if state.running.is_some() => running += 1,
            _ if had_run => stopped += 1,
            _ => waiting += 1,
        }
    }
    let restarts: Vec<Restart> = spec::main_members(facts.pod).map(|m| m.restart).collect();
    let again =
        || main.iter().zip(&restarts).any(|(status, r)| ended(status).is_none_or(|code| r.again(code)));
    if failed_init > 0 {
        "Failed"
    } else if facts.ended && running == 0 && (stopped > 0 || waiting > 0) {
        if stopped > 0 && stopped == succeeded && waiting == 0 { "Succeeded" } else { "Failed" }
    } else if pending_init > 0 || (waiting > 0 && running == 0) {
        "Pending"
    } else if running > 0 || again() {
        "Running"
    } else if stopped == succeeded {
        "Succeeded"
    } else {
        "Failed"
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
