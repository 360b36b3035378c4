//! Crashes, restarts and refusals: nothing acknowledged is lost, no container is restarted, nothing is
//! left behind.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_testkit::{Instance, eventually, eventually_some, free_port, run, skip, unused_name};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};

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
    let renewed = || gantry.jsonpath(&["-n", "kube-node-lease", "leases"], "{.items[0].spec.renewTime}");
    let first = renewed();
    assert!(first.ends_with('Z'), "{first}");
    // What the host can do is tried in the background, and shown on the Node object.
    let features = gantry.gantry(&["doctor", "-o", "json"]).ok();
    let features: serde_json::Value = serde_json::from_str(&features).expect("doctor prints JSON");
    assert_eq!(features["overlayfs"]["available"], true, "{features}");
    for feature in ["overlayfs", "bridge", "nft_maps"] {
        let path = format!("{{.items[0].metadata.annotations.host\\.gantry\\.dev/{feature}}}");
        expect_field(&gantry, &["nodes"], &path, "true");
    }
    // Every ten seconds, in UTC and of fixed length: later is greater.
    eventually("the lease is renewed", Duration::from_secs(25), || renewed() > first);
}

/// A pod whose process the host can find by `mark`.
fn marked(name: &str, mark: &str, policy: &str) -> String {
    let mut pod = tools_pod(name, &format!(": {mark}; while :; do sleep 1; done"));
    pod["spec"]["restartPolicy"] = policy.into();
    pod.to_string()
}

/// The process on the host that has `mark` among its arguments.
fn process(mark: &str) -> i32 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = processes.filter_map(|entry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let ours = line.starts_with("sh\0-c\0") && line.contains(mark);
        ours.then(|| entry.file_name().to_string_lossy().parse::<i32>().ok()).flatten()
    });
    found.min().unwrap_or_else(|| panic!("no process has {mark:?} among its arguments"))
}

/// What was asked right before the end is done after it, what ended meanwhile is treated by its policy, the
/// loss of both processes is survived, and the instance can be removed without being started again.
#[test]
fn a_killed_platform_goes_on_where_it_was_or_goes_without_a_trace() {
    let Some(mut gantry) = Instance::start() else { return };
    gantry.push_tools();
    let (again, once) = (format!("{}-again", gantry.name()), format!("{}-once", gantry.name()));
    gantry.apply(&format!("{}\n{}", marked("again", &again, "Always"), marked("once", &once, "Never")));
    gantry.apply(&tools_pod("busy", BUSY).to_string());
    gantry.apply(DEPLOYMENT);
    for pod in ["pod/again", "pod/once", "pod/busy"] {
        wait_ready(&gantry, pod);
    }
    gantry.kubectl(&["scale", "deployment/many", "--replicas=4"]).ok();
    gantry.kill9();
    gantry.kill_process(process(&again));
    gantry.kill_process(process(&once));
    gantry.restart();
    expect_field(&gantry, &["deployment/many"], "{.status.readyReplicas}", "4");
    expect_field(&gantry, &["pod/again"], "{.status.containerStatuses[0].restartCount}", "1");
    wait_ready(&gantry, "pod/again");
    expect_field(&gantry, &["pod/once"], "{.status.phase}", "Failed");
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(gantry.jsonpath(&["pod/once"], code), "137");

    let (identity, ip) =
        (gantry.jsonpath(&["pod/busy"], IDENTITY), gantry.jsonpath(&["pod/busy"], "{.status.podIP}"));
    let runtime = containerd(&gantry);
    gantry.kill9();
    gantry.kill_process(runtime);
    assert!(served(&ip), "containers need neither");
    gantry.restart();
    expect_field(&gantry, &["pod/busy"], IDENTITY, &identity);
    assert_eq!(gantry.kubectl(&["exec", "busy", "--", "echo", "alive"]).ok(), "alive\n");
    assert!(served(&ip), "still the same container");

    gantry.kill9();
    let left = gantry.purge();
    assert!(left.is_empty(), "left after kill -9 and `gantry down --purge`: {left:#?}");
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 1
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "demo/tools:1", command: [sleep, "3600"]}]
"#;

/// Writers that do not stop before the kill: whatever was acknowledged to any of them is there afterwards.
#[test]
fn every_write_acknowledged_before_a_kill_is_there_after_it() {
    const WRITERS: usize = 8;
    const WRITTEN_MIN: usize = 300;
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for round in 0..3 {
        let written = Arc::new(AtomicUsize::new(0));
        let refused = Arc::new(Mutex::new(Vec::new()));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (kubeconfig, written, refused) = (gantry.kubeconfig(), written.clone(), refused.clone());
                runtime.spawn(async move {
                    let client = crate::clients::client(&kubeconfig).await;
                    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
                    let mut acknowledged = Vec::new();
                    loop {
                        let name = format!("w-{round}-{writer}-{}", acknowledged.len());
                        let map = crate::clients::map(&name, &name);
                        if let Err(error) = maps.create(&PostParams::default(), &map).await {
                            refused.lock().expect("nobody panics").push(error);
                            return acknowledged;
                        }
                        acknowledged.push(name);
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        eventually_some("the writers write", SOON, || {
            let written = written.load(Ordering::Relaxed);
            // The first refusal of each is to be the end of the platform.
            let refused = refused.lock().expect("nobody panics");
            assert!(refused.is_empty(), "before the kill: {refused:?}");
            if written > WRITTEN_MIN { Ok(()) } else { Err(written) }
        });
        gantry.kill9();
        let acknowledged = runtime.block_on(async {
            let mut all = Vec::new();
            for writer in writers {
                all.extend(writer.await.expect("a writer does not panic"));
            }
            all
        });
        assert!(acknowledged.len() > WRITTEN_MIN);
        gantry.restart();
        let there = runtime.block_on(async {
            let client = crate::clients::client(&gantry.kubeconfig()).await;
            let maps: Api<ConfigMap> = Api::namespaced(client, "default");
            maps.list(&ListParams::default()).await.expect("a list").items
        });
        let value = |map: ConfigMap| Some((map.metadata.name?, map.data?.remove("k")?));
        let there: BTreeMap<String, String> = there.into_iter().filter_map(value).collect();
        let lost: Vec<&String> = acknowledged.iter().filter(|name| there.get(*name) != Some(name)).collect();
        assert!(lost.is_empty(), "round {round}: {} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    }
}
