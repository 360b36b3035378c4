//! Crashes, restarts and refusals: nothing acknowledged is lost, no container is restarted, nothing is
//! left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use gantry_testkit::{Instance, eventually, eventually_some, free_port, run, skip, unused_name};

use crate::support::{SOON, expect_field, has_all, tools_pod, wait_ready};

/// It serves, and it logs twice a second.
const BUSY: &str = "mkdir -p /www; echo served > /www/index.html; httpd -p 8080 -h /www; \
                    i=0; while :; do echo line $i; i=$((i+1)); sleep 0.5; done";

/// What must not change while nobody restarts a container.
const IDENTITY: &str = "{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} \
                        {.status.containerStatuses[0].restartCount}";

fn served(ip: &str) -> bool {
    run(Command::new("curl").args(["-sS", "--max-time", "3", &format!("http://{ip}:8080/")])).stdout
        == "served\n"
}

/// Lines the container has written to its log file, whoever runs.
fn lines_logged(gantry: &Instance) -> usize {
    let mut lines = 0;
    let pods = std::fs::read_dir(gantry.data_dir().join("log/pods")).into_iter().flatten().flatten();
    for pod in pods.filter(|entry| entry.file_name().to_string_lossy().contains("_busy_")) {
        let text = std::fs::read_to_string(pod.path().join("main/0.log")).unwrap_or_default();
        lines += text.lines().filter(|line| line.contains(" line ")).count();
    }
    lines
}

/// The process id of this instance's containerd.
fn containerd(gantry: &Instance) -> i32 {
    let run_dir = gantry.run_dir().display().to_string();
    eventually_some("containerd runs", SOON, || {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let found = processes.filter_map(|entry| {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let program = line.split('\0').next()?;
            let ours = program.ends_with("/containerd") && line.contains(&run_dir)
                || program.ends_with("/containerd")
                    && line.contains(&gantry.data_dir().display().to_string());
            ours.then(|| entry.file_name().to_string_lossy().parse::<i32>().ok()).flatten()
        });
        found.min().ok_or("no containerd")
    })
}

#[test]
fn containers_and_writes_outlive_a_killed_platform_and_a_killed_containerd() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.apply(&tools_pod("busy", BUSY).to_string());
    wait_ready(&gantry, "pod/busy");
    let (identity, ip) =
        (gantry.jsonpath(&["pod/busy"], IDENTITY), gantry.jsonpath(&["pod/busy"], "{.status.podIP}"));
    has_all(&identity, &["containerd://", " 0"]);
    eventually("the pod serves", SOON, || served(&ip));

    gantry.kubectl(&["create", "configmap", "last-word", "--from-literal=a=b"]).ok();
    gantry.kill9();
    let before = lines_logged(&gantry);
    eventually("the container goes on logging", SOON, || lines_logged(&gantry) > before + 2);
    assert!(served(&ip), "the container goes on serving");
    gantry.restart();
    assert_eq!(gantry.jsonpath(&["configmap/last-word"], "{.data.a}"), "b", "the write was acknowledged");
    expect_field(&gantry, &["pod/busy"], IDENTITY, &identity);
    assert!(served(&ip), "still there after the restart");
    let seen = gantry.kubectl(&["logs", "busy", "--tail=-1"]).ok();
    assert!(seen.starts_with("line 0\n") && seen.lines().count() > before, "logs are whole: {seen}");

    gantry.kill_process(containerd(&gantry));
    assert!(served(&ip), "containers do not need containerd");
    eventually("containerd is back", SOON, || gantry.status()["ready"] == true);
    expect_field(&gantry, &["pod/busy"], IDENTITY, &identity);
    assert_eq!(gantry.kubectl(&["exec", "busy", "--", "echo", "alive"]).ok(), "alive\n");
    // And new pods can be made.
    gantry.apply(&tools_pod("later", BUSY).to_string());
    wait_ready(&gantry, "pod/later");
}

#[test]
fn down_leaves_nothing_and_up_goes_on_with_the_data() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.apply(&tools_pod("busy", BUSY).to_string());
    wait_ready(&gantry, "pod/busy");
    let namespaces = gantry.network_namespaces();
    assert!(!namespaces.is_empty(), "a running pod has a network namespace");
    has_all(&gantry.up().fails(), &["runs already (pid "]);
    gantry.down(&[]).ok();
    let left = gantry.leftovers_beside_data(&namespaces);
    assert!(left.is_empty(), "left after `gantry down`: {left:#?}");
    assert_eq!(gantry.status()["running"], false);
    gantry.restart();
    // The pod's containers went with `down`; they are made anew from what is stored.
    wait_ready(&gantry, "pod/busy");
    let ip = gantry.jsonpath(&["pod/busy"], "{.status.podIP}");
    eventually("the pod serves again", SOON, || served(&ip));
}

#[test]
fn a_refused_start_says_why_in_one_sentence_and_leaves_nothing() {
    let Some(first) = Instance::builder().no_node().start() else { return };
    let folder = first.scratch();
    let (data, run_dir) = (folder.join("second/data"), folder.join("second/run"));
    let gantry = std::env::current_exe().expect("this test");
    let gantry = gantry.parent().and_then(|deps| deps.parent()).expect("PROFILE/deps").join("gantry");
    let start = |listen: &str, name: &str| {
        let mut command = Command::new(&gantry);
        command.args(["up", "--detach", "--no-node", "--instance", name, "--listen", listen]);
        run(command.arg("--data-dir").arg(&data).arg("--run-dir").arg(&run_dir))
    };
    let taken = start(&first.registry(), &unused_name());
    assert_eq!(taken.code, 1, "{taken}");
    has_all(&taken.stderr, &[&format!("{} is in use by another program", first.registry()), "--listen"]);
    let sentence = taken.stderr.lines().filter(|line| line.starts_with("gantry:")).count();
    assert_eq!(sentence, 1, "{taken}");
    let bad = start(&format!("127.0.0.1:{}", free_port()), "No_Such_Name");
    assert_eq!(bad.code, 1, "{bad}");
    has_all(&bad.stderr, &["cannot name an instance"]);
    for path in [&data, &run_dir] {
        assert!(!path.exists(), "{} was left behind", path.display());
    }
    assert!(first.kubectl(&["get", "namespaces"]).succeeded(), "the first instance does not notice");
}

#[test]
fn without_root_everything_but_the_node_runs() {
    if !nix::unistd::geteuid().is_root() {
        skip("becoming another user needs root");
        return;
    }
    let folder = std::env::temp_dir().join(unused_name());
    let Some(program) = copy_for_everybody(&folder) else { return };
    let (data, run_dir) = (folder.join("data"), folder.join("run"));
    let nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(words);
        command.args(["--instance", "t-nobody", "--data-dir"]).arg(&data).arg("--run-dir").arg(&run_dir);
        run(command.env("HOME", &folder))
    };
    let listen = format!("127.0.0.1:{}", free_port());
    let up = nobody(&["up", "--detach", "--listen", &listen]);
    let checks = std::panic::catch_unwind(|| {
        assert!(up.succeeded(), "{up}");
        has_all(&up.stderr, &["No node:", "not started as root"]);
        let status: serde_json::Value =
            serde_json::from_str(&nobody(&["status", "-o", "json"]).ok()).expect("JSON");
        assert_eq!((&status["ready"], &status["node"]), (&true.into(), &false.into()), "{status}");
        let mut kubectl = Command::new(gantry_testkit::kubectl_program());
        kubectl.arg("--kubeconfig").arg(data.join("kubeconfig")).args(["get", "namespaces", "-o", "name"]);
        has_all(&run(kubectl.env("HOME", &folder)).ok(), &["namespace/default", "namespace/kube-system"]);
    });
    let down = nobody(&["down", "--purge"]);
    let gone = !data.exists() && !run_dir.exists();
    std::fs::remove_dir_all(&folder).expect("our own folder");
    if let Err(panic) = checks {
        std::panic::resume_unwind(panic);
    }
    assert!(down.succeeded() && gone, "{down}");
}

/// The build's folder may be closed to other users.
fn copy_for_everybody(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let test = std::env::current_exe().expect("this test");
    let built = test.parent().and_then(|deps| deps.parent()).expect("PROFILE/deps").join("gantry");
    if !built.is_file() {
        skip(format!("{} is not built", built.display()));
        return None;
    }
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("our own folder");
    let program = folder.join("gantry");
    std::fs::copy(built, &program).expect("a copy");
    Some(program)
}

#[test]
fn doctor_and_status_tell_what_is() {
    let Some(gantry) = Instance::start() else { return };
    let status = gantry.status();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["pid"].as_i64(), Some(gantry.pid().into()));
    assert_eq!(status["registry"], gantry.registry());
    assert_eq!(status["api"], format!("https://{}", gantry.registry()));
    for part in ["api", "containerd", "node"] {
        assert_eq!(status["health"][part]["state"], "ok", "{status}");
    }
    has_all(&gantry.gantry(&["doctor"]).ok(), &["A node can run here."]);
    let node = gantry.kubectl(&["get", "nodes"]).ok();
    has_all(&node, &["Ready", "STATUS", "VERSION"]);
    let ready = "{.items[0].status.conditions[?(@.type=='Ready')].reason}";
    assert_eq!(gantry.jsonpath(&["nodes"], ready), "KubeletReady");
    eventually("the lease is renewed", Duration::from_secs(15), || {
        !gantry.jsonpath(&["-n", "kube-node-lease", "leases"], "{.items[0].spec.renewTime}").is_empty()
    });
}
