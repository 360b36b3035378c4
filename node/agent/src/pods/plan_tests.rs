//! Tables over the plan: what stands, what must come next.

use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
        .expect("a pod")
}

/// `c:0=running` in the newest sandbox; `c:0=exit1` ended with 1; `@old` belongs to an older sandbox.
fn observed(ready: bool, runs: &[&str]) -> Observed {
    let mut observed = Observed {
        sandboxes: vec![Sandbox {
            id: "s1".into(),
            attempt: 1,
            ready,
            created_at_ns: 2,
            ips: vec![],
            host_network: false,
        }],
        ..Default::default()
    };
    for (index, text) in runs.iter().enumerate() {
        let (head, state) = text.split_once('=').expect("name:attempt=state");
        let (name, attempt) = head.split_once(':').expect("name:attempt");
        let (state, sandbox) = state.split_once('@').unwrap_or((state, "s1"));
        let exit = state.strip_prefix("exit").and_then(|code| code.parse().ok());
        let run = Run {
            id: format!("{name}-{attempt}"),
            sandbox_id: sandbox.into(),
            attempt: attempt.parse().expect("number"),
            state: match state {
                "running" => RunState::Running,
                "created" => RunState::Created,
                "unknown" => RunState::Unknown,
                _ => RunState::Exited,
            },
            created_at_ns: i64::try_from(index).expect("small"),
            started_at_ns: 1,
            finished_at_ns: 100_000_000_000,
            exit_code: exit.unwrap_or(0),
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            hash: String::new(),
            log_path: "/l".into(),
            message_path: None,
            message_policy: String::new(),
        };
        observed.runs.entry(name.into()).or_default().insert(0, run);
    }
    observed
}

/// The plan in short words.
fn words(plan: &Plan) -> String {
    let mut out = Vec::new();
    if plan.finished {
        out.push("finished".to_owned());
    }
    out.extend(plan.stop_sandboxes.iter().map(|s| format!("stop {s}")));
    out.extend(plan.create_sandbox.map(|attempt| format!("sandbox {attempt}")));
    out.extend(plan.kill.iter().map(|k| format!("kill {} {:?}", k.id, k.why)));
    out.extend(plan.remove.iter().map(|id| format!("remove {id}")));
    out.extend(plan.start.iter().map(|s| format!("start {}:{}", s.name, s.attempt)));
    out.extend(plan.held.iter().map(|(name, held)| format!("hold {name} {}s", held.delay.as_secs())));
    out.join(", ")
}

fn check(spec: &Value, state: &Observed, want: &str) {
    check_with(spec, state, &ProbeView::default(), &Backoffs::default(), want);
}

fn check_with(spec: &Value, state: &Observed, probes: &ProbeView, backoffs: &Backoffs, want: &str) {
    let pod = pod(spec.clone());
    let now = Timestamp::from_second(101).expect("in range");
    let plan = plan(&World { pod: &pod, observed: state, probes, backoffs, now });
    assert_eq!(words(&plan), want, "{spec} with {:?}", state.runs.keys());
}

#[test]
fn normal_containers() {
    let always = json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    let never = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]});
    let on_failure = json!({"restartPolicy": "OnFailure", "containers": [
        {"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    check(&always, &Observed::default(), "sandbox 0");
    check(&always, &observed(true, &[]), "start a:0, start b:0");
    check(&always, &observed(true, &["a:0=running", "b:0=running"]), "");
    check(&always, &observed(true, &["a:0=running", "b:3=exit0"]), "start b:4");
    check(&always, &observed(true, &["a:0=created", "b:0=running"]), "remove a-0, start a:0");
    check(&always, &observed(true, &["a:0=unknown", "b:0=running"]), "kill a-0 Lost");
    check(&never, &observed(true, &["a:0=exit3"]), "finished");
    check(&never, &observed(true, &["a:0=exit0"]), "finished");
    check(&on_failure, &observed(true, &["a:0=exit0", "b:0=exit0"]), "finished");
    check(&on_failure, &observed(true, &["a:0=exit0", "b:0=exit1"]), "start b:1");
    check(&on_failure, &observed(true, &["a:0=exit0", "b:0=running"]), "");
}

#[test]
fn dead_sandboxes_are_replaced_with_what_ran_in_them() {
    let always = json!({"containers": [{"name": "a", "image": "i"}]});
    let never = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]});
    check(&always, &observed(false, &["a:0=running"]), "stop s1, sandbox 2");
    check(&always, &observed(false, &["a:0=exit137"]), "sandbox 2");
    check(&never, &observed(false, &["a:0=exit137"]), "finished");
    check(&always, &observed(true, &["a:0=exit137@old"]), "start a:1");
    let init =
        json!({"initContainers": [{"name": "i", "image": "i"}], "containers": [{"name": "a", "image": "i"}]});
    check(&init, &observed(true, &["i:0=exit0@old", "a:0=exit137@old"]), "start i:1");
}

#[test]
fn init_containers_run_in_order() {
    let spec = json!({"initContainers": [{"name": "i", "image": "i"}, {"name": "j", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]});
    check(&spec, &observed(true, &[]), "start i:0");
    check(&spec, &observed(true, &["i:0=running"]), "");
    check(&spec, &observed(true, &["i:0=exit1"]), "start i:1");
    check(&spec, &observed(true, &["i:0=exit0"]), "start j:0");
    check(&spec, &observed(true, &["i:0=exit0", "j:0=exit0"]), "start a:0");
    check(&spec, &observed(true, &["a:0=running"]), "");
    let mut never = spec.clone();
    never["restartPolicy"] = json!("Never");
    check(&never, &observed(true, &["i:0=exit1"]), "finished");
    check(&never, &observed(true, &["i:0=exit0", "j:0=exit0"]), "start a:0");
}

#[test]
fn sidecars_start_in_order_and_stay() {
    let spec = json!({"restartPolicy": "OnFailure", "initContainers": [
        {"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}},
        {"name": "i", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]});
    let mut up = ProbeView::default();
    up.set_started("s-0");
    let none = Backoffs::default();
    check(&spec, &observed(true, &["s:0=running"]), "");
    check_with(&spec, &observed(true, &["s:0=running"]), &up, &none, "start i:0");
    check_with(&spec, &observed(true, &["s:0=running", "i:0=exit0"]), &up, &none, "start a:0");
    check(&spec, &observed(true, &["s:0=exit0", "i:0=exit0", "a:0=running"]), "start s:1");
    check(&spec, &observed(true, &["s:0=running", "i:0=exit0", "a:0=exit0"]), "finished");
}

#[test]
fn probes_and_changes_kill() {
    let spec = json!({"containers": [{"name": "a", "image": "i"}]});
    let mut probes = ProbeView::default();
    probes.set_failed("a-0", ProbeFailure::Liveness);
    let none = Backoffs::default();
    check_with(&spec, &observed(true, &["a:0=running"]), &probes, &none, "kill a-0 Liveness");
    let mut changed = observed(true, &["a:0=running"]);
    changed.runs.get_mut("a").expect("there")[0].hash = "other".into();
    check(&spec, &changed, "kill a-0 Changed");
}

#[test]
fn crashing_containers_wait() {
    let spec = json!({"containers": [{"name": "a", "image": "i"}]});
    let mut backoffs = Backoffs::default();
    backoffs.next("a", Timestamp::from_second(90).expect("in range"));
    check_with(&spec, &observed(true, &["a:1=exit1"]), &ProbeView::default(), &backoffs, "hold a 10s");
}

#[test]
fn restart_counts_survive_a_lost_runtime() {
    let mut pod = pod(json!({"containers": [{"name": "a", "image": "i"}]}));
    pod.status =
        serde_json::from_value(json!({"containerStatuses": [{"name": "a", "restartCount": 4, "image": "i",
        "imageID": "", "ready": true, "containerID": "containerd://gone"}]}))
        .expect("a status");
    let state = observed(true, &[]);
    let (probes, backoffs) = (ProbeView::default(), Backoffs::default());
    let now = Timestamp::UNIX_EPOCH;
    let plan = plan(&World { pod: &pod, observed: &state, probes: &probes, backoffs: &backoffs, now });
    assert_eq!(words(&plan), "start a:5");
}
