//! Phases and container states over what the runtime shows.

use serde_json::{Value, json};

use super::*;
use crate::pods::observe::Sandbox;

fn run(name: &str, attempt: u32, state: RunState, exit_code: i32) -> Run {
    Run {
        id: format!("{name}-{attempt}"),
        sandbox_id: "s".into(),
        attempt,
        state,
        created_at_ns: i64::from(attempt),
        started_at_ns: 1_000_000_000,
        finished_at_ns: 2_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "sha256:1".into(),
        hash: String::new(),
        log_path: "/l".into(),
        message_path: None,
        message_policy: String::new(),
    }
}

struct Case {
    pod: Pod,
    observed: Observed,
    held: BTreeMap<String, Held>,
    problems: BTreeMap<String, PodProblem>,
    ended: bool,
}

fn case(spec: Value, runs: Vec<(&str, Run)>) -> Case {
    let pod = serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}),
    );
    let mut observed = Observed::default();
    observed.sandboxes.push(Sandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created_at_ns: 1,
        ips: vec!["10.0.0.2".parse().expect("an address")],
        host_network: false,
    });
    for (name, run) in runs {
        observed.runs.entry(name.to_owned()).or_default().push(run);
    }
    let (held, problems) = (BTreeMap::new(), BTreeMap::new());
    Case { pod: pod.expect("a pod"), observed, held, problems, ended: false }
}

fn status(case: &Case) -> PodStatus {
    pod_status(&Facts {
        pod: &case.pod,
        observed: &case.observed,
        probes: &ProbeView::default(),
        held: &case.held,
        problems: &case.problems,
        messages: &BTreeMap::new(),
        failed: None,
        ended: case.ended,
        node_ips: &["192.0.2.1".parse().expect("an address")],
        now: Timestamp::from_second(10).expect("in range"),
    })
}

fn condition(status: &PodStatus, kind: &str) -> (String, Option<String>) {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == kind).expect("always there");
    (found.status.clone(), found.reason.clone())
}

#[test]
fn a_running_pod_is_ready() {
    let case = case(json!({"containers": [{"name": "a"}]}), vec![("a", run("a", 0, RunState::Running, 0))]);
    let status = status(&case);
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.0.0.2")));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&status, kind), ("True".into(), None), "{kind}");
    }
    assert!(status.container_statuses.expect("one")[0].ready);
}

#[test]
fn phases() {
    let a = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
    let exited = |code| vec![("a", run("a", 0, RunState::Exited, code))];
    let with_init = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    for (spec, runs, ended, want) in [
        (a("Always"), vec![], false, "Pending"),
        (a("Always"), exited(0), false, "Running"),
        (a("OnFailure"), exited(1), false, "Running"),
        (a("OnFailure"), exited(0), false, "Succeeded"),
        (a("Never"), exited(1), false, "Failed"),
        (a("Always"), exited(0), true, "Succeeded"),
        (a("Always"), exited(137), true, "Failed"),
        (with_init, vec![("i", run("i", 0, RunState::Running, 0))], false, "Pending"),
    ] {
        let mut case = case(spec.clone(), runs);
        case.ended = ended;
        assert_eq!(status(&case).phase.as_deref(), Some(want), "{spec}");
    }
}

#[test]
fn a_running_sidecar_keeps_the_pod_running() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]});
    for (sidecar, ended, want) in [
        (run("s", 0, RunState::Running, 0), false, "Running"),
        (run("s", 0, RunState::Exited, 137), true, "Succeeded"),
    ] {
        let mut case = case(spec.clone(), vec![("a", run("a", 0, RunState::Exited, 0)), ("s", sidecar)]);
        case.ended = ended;
        assert_eq!(status(&case).phase.as_deref(), Some(want));
    }
}

#[test]
fn a_crashing_container_shows_its_back_off() {
    let mut case =
        case(json!({"containers": [{"name": "a"}]}), vec![("a", run("a", 2, RunState::Exited, 1))]);
    let delay = std::time::Duration::from_secs(20);
    case.held.insert("a".into(), Held { until: Timestamp::UNIX_EPOCH, delay });
    let status = status(&case);
    let container = &status.container_statuses.as_ref().expect("one")[0];
    let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let message = "back-off 20s restarting failed container=a pod=p_n(u)";
    assert_eq!(waiting.message.as_deref(), Some(message));
    let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref()).expect("last state");
    assert_eq!((last.reason.as_deref(), last.exit_code, container.restart_count), (Some("Error"), 1, 2));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready"), ("False".into(), Some("ContainersNotReady".into())));
}

#[test]
fn a_pull_failure_is_shown_before_the_first_run() {
    let mut case = case(json!({"containers": [{"name": "a"}]}), vec![]);
    case.problems.insert("a".into(), PodProblem::new("ErrImagePull", "no such image"));
    let status = status(&case);
    let container = &status.container_statuses.as_ref().expect("one")[0];
    let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref()).expect("waiting");
    assert_eq!((waiting.reason.as_deref(), status.phase.as_deref()), (Some("ErrImagePull"), Some("Pending")));
}
