//! Pods live, end, survive restarts of the agent and of containerd, and leave nothing behind.

use std::time::Duration;

use gantry_agent::{Agent, PodNews};
use gantry_base::health::Health;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use crate::rig::{Rig, SHELL};

fn pod(name: &str, mut spec: Value) -> Pod {
    spec["hostNetwork"] = json!(true);
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["image"] = json!(SHELL);
        }
    }
    let meta =
        json!({"name": name, "namespace": "test", "uid": format!("uid-{name}"), "labels": {"app": name}});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("a pod")
}

fn ready(status: &PodStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn container<'a>(status: &'a PodStatus, name: &str) -> &'a ContainerStatus {
    let found = status.container_statuses.iter().flatten().find(|c| c.name == name);
    found.expect("every container has a status")
}

fn terminated(status: &PodStatus, name: &str) -> Option<(i32, String, String)> {
    let state = container(status, name).state.as_ref()?.terminated.as_ref()?;
    Some((state.exit_code, state.reason.clone()?, state.message.clone().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_over_a_real_containerd() {
    if !nix::unistd::geteuid().is_root() {
        gantry_testkit::skip("containers need root");
        return;
    }
    let rig = Rig::new();
    let agent = rig.start().await;
    rig.import_images();
    rig.tell(PodNews::Synced).await;
    runs_to_the_end(&rig, &agent).await;
    starts_fast(&rig).await;
    crashes_are_counted(&rig).await;
    memory_kills_are_named(&rig).await;
    sidecars_surround(&rig).await;
    probes_decide(&rig).await;
    refusals_are_explained(&rig).await;
    let agent = survives_restarts(&rig, agent).await;
    agent.purge(true).await.expect("purged");
    rig.assert_nothing_left();
}

async fn runs_to_the_end(rig: &Rig, agent: &Agent) {
    let script = "cat /v/a /sub/x; echo $NAME $(( $CPU + 1 )); cat /etc/podinfo/labels; echo bye > /dev/termination-log; exit 3";
    let job = pod(
        "job",
        json!({"restartPolicy": "Never",
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "info", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}],
        "initContainers": [{"name": "i", "args": ["-c", "echo one > /v/a; echo two > /s/x"],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/s", "subPath": "s"}]}],
        "containers": [{"name": "c", "args": ["-c", script],
            "resources": {"limits": {"cpu": "500m", "memory": "32Mi"}},
            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}, {"name": "info", "mountPath": "/etc/podinfo"},
                {"name": "v", "mountPath": "/sub", "subPathExpr": "s"}]}]}),
    );
    rig.set(&job).await;
    let status = rig.wait(&job, "job fails", |s| s.phase.as_deref() == Some("Failed")).await;
    assert_eq!(terminated(&status, "c"), Some((3, "Error".into(), "bye\n".into())));
    let record = agent.api().pods.get("test", "job").expect("in the table");
    let log = std::fs::read_to_string(&record.container("c").expect("created").log_path).expect("a log");
    let lines: Vec<&str> = log.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).collect();
    assert_eq!(lines, ["one", "two", "job 501", "app=\"job\""]);
    assert_eq!(std::fs::read_dir(rig.path("logs/containers")).expect("links").count(), 2);
    rig.delete(&job, 1).await;
    assert!(agent.api().pods.get("test", "job").is_none());
    assert!(!rig.path("data/pods/uid-job").exists() && !rig.path("logs/pods/test_job_uid-job").exists());
}

/// The agent adds little to what the runtime itself takes for the same pod.
async fn starts_fast(rig: &Rig) {
    use gantry_cri::{
        ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
        RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
    };
    let runtime = gantry_cri::Runtime::new(&rig.path("run/containerd/containerd.sock"));
    let namespaces = NamespaceOption { network: NamespaceMode::Node.into(), ..Default::default() };
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let begun = std::time::Instant::now();
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "raw".into(),
                uid: "raw".into(),
                namespace: "raw".into(),
                attempt: round,
            }),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let sandbox = runtime.run_pod_sandbox(request).await.expect("a sandbox").pod_sandbox_id;
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(ImageSpec { image: SHELL.into(), ..Default::default() }),
            args: vec!["-c".into(), "sleep 60".into()],
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        };
        let container_id = runtime.create_container(request).await.expect("a container").container_id;
        runtime.start_container(StartContainerRequest { container_id }).await.expect("started");
        raw.push(begun.elapsed());
        runtime
            .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() })
            .await
            .expect("stopped");
        runtime
            .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox })
            .await
            .expect("removed");

        let fast =
            pod(&format!("fast-{round}"), json!({"containers": [{"name": "c", "args": ["-c", "sleep 60"]}]}));
        let begun = std::time::Instant::now();
        rig.set(&fast).await;
        rig.wait(&fast, "running", |s| s.phase.as_deref() == Some("Running")).await;
        ours.push(begun.elapsed());
        rig.delete(&fast, 0).await;
    }
    raw.sort();
    ours.sort();
    println!("create to Running, median of 5: raw CRI {:?}, agent {:?}", raw[2], ours[2]);
    // Far above the bar of 60 ms, which the benchmark holds on a quiet machine: this only catches a poll or a sleep.
    assert!(ours[2] < raw[2] + Duration::from_millis(500), "raw {raw:?}, agent {ours:?}");
}

async fn crashes_are_counted(rig: &Rig) {
    let crash = pod("crash", json!({"containers": [{"name": "c", "args": ["-c", "exit 7"]}]}));
    rig.set(&crash).await;
    let looping = |s: &PodStatus| {
        let waiting = container(s, "c").state.as_ref().and_then(|s| s.waiting.as_ref());
        waiting.and_then(|w| w.reason.as_deref()) == Some("CrashLoopBackOff")
    };
    let status = rig.wait(&crash, "crash loop", looping).await;
    let c = container(&status, "c");
    assert_eq!(c.restart_count, 1, "the first restart is immediate");
    let last = c.last_state.as_ref().and_then(|s| s.terminated.as_ref()).expect("a last state");
    assert_eq!((last.exit_code, last.reason.as_deref()), (7, Some("Error")));
    rig.delete(&crash, 1).await;
}

async fn memory_kills_are_named(rig: &Rig) {
    let hungry = pod(
        "hungry",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "args": ["-c", "x=xxxxxxxx; while :; do x=$x$x; done"],
            "resources": {"limits": {"memory": "16Mi"}}}]}),
    );
    rig.set(&hungry).await;
    let status = rig.wait(&hungry, "killed", |s| s.phase.as_deref() == Some("Failed")).await;
    assert_eq!(terminated(&status, "c").map(|t| (t.0, t.1)), Some((137, "OOMKilled".into())));
    rig.delete(&hungry, 1).await;
}

/// A sidecar starts before the normal container, sees it end, and is stopped with its hook.
async fn sidecars_surround(rig: &Rig) {
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let job = pod(
        "sidecar",
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 2,
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": rig.path("host"), "type": "DirectoryOrCreate"}}],
        "initContainers": [{"name": "s", "restartPolicy": "Always", "args": ["-c", "echo up > /v/up; while :; do sleep 0.1; done"],
            "startupProbe": {"exec": {"command": ["cat", "/v/up"]}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo stopped > /h/stopped"]}}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "h", "mountPath": "/h"}]}],
        "containers": [{"name": "c", "args": ["-c", "cat /v/up"], "volumeMounts": mount}]}),
    );
    rig.set(&job).await;
    let status = rig.wait(&job, "succeeds", |s| s.phase.as_deref() == Some("Succeeded")).await;
    assert_eq!(terminated(&status, "c").map(|t| (t.0, t.1)), Some((0, "Completed".into())));
    assert_eq!(std::fs::read_to_string(rig.path("host/stopped")).ok().as_deref(), Some("stopped\n"));
    rig.delete(&job, 1).await;
}

async fn probes_decide(rig: &Rig) {
    let exec = |cmd: &str| json!({"exec": {"command": ["sh", "-c", cmd]}, "periodSeconds": 1, "failureThreshold": 1});
    let probed = pod(
        "probed",
        json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "args": ["-c", "while :; do sleep 1; done"],
            "readinessProbe": exec("cat /tmp/ready"), "livenessProbe": exec("! cat /tmp/dead"),
            "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo > /tmp/ready"]}}}}]}),
    );
    rig.set(&probed).await;
    let status = rig.wait(&probed, "ready", ready).await;
    let first = container(&status, "c").container_id.clone();
    let id = first.clone().unwrap_or_default().replace("containerd://", "");
    let runtime = gantry_cri::Runtime::new(&rig.path("run/containerd/containerd.sock"));
    let exec = |cmd: &str| {
        let cmd = ["sh", "-c", cmd].map(str::to_owned).to_vec();
        runtime.exec_sync(gantry_cri::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 10 })
    };
    exec("echo > /tmp/dead").await.expect("runs in the container");
    let restarted = |s: &PodStatus| container(s, "c").restart_count == 1 && ready(s);
    let status = rig.wait(&probed, "liveness restart", restarted).await;
    assert_ne!(container(&status, "c").container_id, first);
    rig.delete(&probed, 1).await;
}

async fn refusals_are_explained(rig: &Rig) {
    let huge = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "10k"}}}]});
    let huge = pod("huge", huge);
    rig.set(&huge).await;
    let status = rig.wait(&huge, "refused", |s| s.phase.as_deref() == Some("Failed")).await;
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    rig.delete(&huge, 1).await;
    let waiting = |reason: &'static str| {
        move |s: &PodStatus| {
            let waiting = container(s, "c").state.as_ref().and_then(|s| s.waiting.as_ref());
            waiting.and_then(|w| w.reason.as_deref()) == Some(reason)
        }
    };
    for (name, change, reason) in [
        (
            "never",
            json!({"image": "docker.io/test/missing:1", "imagePullPolicy": "Never"}),
            "ErrImageNeverPull",
        ),
        ("badname", json!({"image": "Not Valid"}), "InvalidImageName"),
        ("root", json!({"securityContext": {"runAsNonRoot": true}}), "CreateContainerConfigError"),
        ("pull", json!({"image": "127.0.0.1:1/missing:1", "imagePullPolicy": "Always"}), "ImagePullBackOff"),
        ("nofile", json!({"command": ["/nonexistent"]}), "RunContainerError"),
    ] {
        let mut refused = pod(name, json!({"containers": [{"name": "c"}]}));
        let container = &mut refused.spec.as_mut().expect("a spec").containers[0];
        let mut merged = serde_json::to_value(&*container).expect("JSON");
        merged.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        *container = serde_json::from_value(merged).expect("a container");
        rig.set(&refused).await;
        rig.wait(&refused, reason, waiting(reason)).await;
        rig.delete(&refused, 1).await;
    }
}

async fn survives_restarts(rig: &Rig, agent: Agent) -> Agent {
    let server = pod(
        "server",
        json!({"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "args": ["-c", "while :; do sleep 0.1; done"]}]}),
    );
    rig.set(&server).await;
    let before = rig.wait(&server, "ready", ready).await;
    let pid = rig.containerd_pid();
    agent.shutdown().await;
    let agent = rig.start().await;
    assert_eq!(rig.containerd_pid(), pid, "the running containerd is adopted");
    rig.set(&rig.stored(&server)).await;
    rig.tell(PodNews::Synced).await;
    let kill = |pid: i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
    kill(pid).expect("containerd is killed");
    let seen = || agent.api().pods.get("test", "server").and_then(|r| r.container("c").map(|c| c.id.clone()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while rig.containerd_pid() == pid || agent.health()["containerd"] != Health::Ok || seen().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "containerd is started again and the pod adopted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let id = seen().map(|id| format!("containerd://{id}"));
    assert_eq!(id, container(&before, "c").container_id, "the container was not restarted");
    assert_eq!(container(&rig.stored(&server).status.expect("stored"), "c").restart_count, 0);
    rig.delete(&server, 1).await;
    // Left over on purpose: the purge has to stop it.
    let left =
        pod("left", json!({"containers": [{"name": "c", "args": ["-c", "while :; do sleep 1; done"]}]}));
    rig.set(&left).await;
    rig.wait(&left, "ready", ready).await;
    agent
}
