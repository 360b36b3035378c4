//! What a pod's specification promises, looked at from inside its containers and from the host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gantry_testkit::{Instance, binary, eventually, eventually_some, free_port, run};
use serde_json::{Value, json};

use crate::support::{IDLE, SOON, expect_field, expect_output, has_all, tools_pod, wait_ready};

#[test]
fn a_pod_gets_what_its_specification_says() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    let health = binary("grpc-health").display().to_string();
    gantry.gantry(&["image", "pack", &health, "--tag", "demo/health:1"]).ok();
    // The slow ones first: a log has to grow, and a probe to fail.
    gantry.apply(&tools_pod("chatty", CHATTY).to_string());
    probes_begin(&gantry);
    configuration(&gantry);
    security(&gantry);
    quality_of_service(&gantry);
    host_port(&gantry);
    graceful_ends(&gantry);
    probes_end(&gantry);
    rotation(&gantry);
}

/// The output of a shell in the pod's container.
#[track_caller]
fn sh(gantry: &Instance, pod: &str, script: &str) -> String {
    gantry.kubectl(&["exec", pod, "--", "sh", "-c", script]).ok()
}

const SOURCES: &str = r#"
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: plan}, data: {color: blue, size: large, extra: x}}
---
{apiVersion: v1, kind: Secret, metadata: {name: key}, stringData: {password: "open sesame"}}
"#;

fn configured() -> Value {
    let mut pod = tools_pod("configured", IDLE);
    pod["metadata"]["labels"]["tier"] = json!("front");
    let container = &mut pod["spec"]["containers"][0];
    container["resources"] = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "1", "memory": "64Mi"}});
    container["envFrom"] = json!([{"prefix": "PLAN_", "configMapRef": {"name": "plan"}}]);
    container["env"] = json!([
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "password"}}},
        {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": true}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "GREETING", "value": "$(PLAN_color) and $(PASSWORD)"},
    ]);
    container["volumeMounts"] = json!([
        {"name": "plan", "mountPath": "/plan"},
        {"name": "key", "mountPath": "/key"},
        {"name": "all", "mountPath": "/all"},
        {"name": "self", "mountPath": "/self"},
    ]);
    pod["spec"]["volumes"] = json!([
        {"name": "plan", "configMap": {"name": "plan"}},
        {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}},
        {"name": "self", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "plan", "items": [{"key": "size", "path": "deep/size"}]}},
            {"secret": {"name": "key"}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"serviceAccountToken": {"path": "token", "audience": "somebody"}},
        ]}},
    ]);
    pod
}

/// Content of every source, and that files follow it while variables stay.
fn configuration(gantry: &Instance) {
    gantry.apply(SOURCES);
    gantry.apply(&configured().to_string());
    wait_ready(gantry, "pod/configured");
    let inside = |script: &str| sh(gantry, "configured", script);
    let ip = gantry.jsonpath(&["pod/configured"], "{.status.podIP}");
    let said = inside("echo \"$PLAN_size|$PASSWORD|$ABSENT|$POD_IP|$MEMORY|$GREETING\"");
    assert_eq!(said.trim(), format!("large|open sesame||{ip}|64|blue and open sesame"));
    let files = "cat /plan/color /key/password /all/deep/size /all/password /all/name";
    assert_eq!(inside(files), "blueopen sesamelargeopen sesameconfigured");
    has_all(&inside("cat /self/labels"), &["app=\"configured\"", "tier=\"front\""]);
    assert_eq!(inside("wc -c < /all/token | head -c 1").len(), 1, "a token was asked for");
    has_all(&inside("ls -lL /key/password"), &["-r--------"]);
    let patch = |object: &str, body: &str| {
        gantry.kubectl(&["patch", object, "--type=merge", "--patch", body]).ok();
    };
    patch("configmap/plan", r#"{"data": {"color": "green", "extra": null}}"#);
    patch("secret/key", r#"{"stringData": {"password": "changed"}}"#);
    gantry.kubectl(&["label", "pod/configured", "tier=back", "--overwrite"]).ok();
    eventually_some("files follow their sources", SOON, || {
        let now = inside("cat /plan/color /key/password /all/password; grep tier /self/labels; ls /plan");
        if now == "greenchangedchangedtier=\"back\"\ncolor\nsize\n" { Ok(()) } else { Err(now) }
    });
    assert_eq!(inside("echo $PLAN_color $PASSWORD").trim(), "blue open sesame", "variables stay");
}

fn security(gantry: &Instance) {
    let mut pod = tools_pod("guarded", IDLE);
    pod["spec"]["securityContext"] =
        json!({"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "runAsNonRoot": true});
    let container = &mut pod["spec"]["containers"][0];
    container["securityContext"] = json!({
        "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
    });
    container["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    pod["spec"]["volumes"] = json!([{"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]);
    gantry.apply(&pod.to_string());
    wait_ready(gantry, "pod/guarded");
    let inside = |script: &str| sh(gantry, "guarded", script);
    assert_eq!(inside("id -u; id -g; id -G"), "1000\n3000\n3000 2000\n");
    has_all(&inside("touch /x 2>&1 || true"), &["Read-only file system"]);
    has_all(&inside("touch /work/mine && ls -ln /work/mine"), &["1000", "2000"]);
    let status = inside("grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/1/status");
    let nothing = "0000000000000000";
    has_all(
        &status,
        &[&format!("CapEff:\t{nothing}"), &format!("CapBnd:\t{nothing}"), "NoNewPrivs:\t1", "Seccomp:\t2"],
    );
    // The image says root, and the pod says that it must not be.
    let mut refused = tools_pod("refused", IDLE);
    refused["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    gantry.apply(&refused.to_string());
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    expect_field(gantry, &["pod/refused"], reason, "CreateContainerConfigError");
    expect_output(gantry, &["describe", "pod/refused"], "image will run as root");
}

/// Directories of this name in the host's cgroup trees.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 6 {
                folders.push((entry.path(), depth + 1));
                if entry.file_name() == name {
                    found.push(entry.path());
                }
            }
        }
    }
    found
}

/// The pod's class decides where its cgroup lies, and its limits what is written there.
fn quality_of_service(gantry: &Instance) {
    let limits = json!({"cpu": "100m", "memory": "32Mi"});
    for (name, resources, class, path) in [
        ("sure", json!({"requests": limits, "limits": limits}), "Guaranteed", ""),
        ("likely", json!({"requests": {"cpu": "50m"}}), "Burstable", "/burstable"),
        ("maybe", json!({}), "BestEffort", "/besteffort"),
    ] {
        let mut pod = tools_pod(name, IDLE);
        pod["spec"]["containers"][0]["resources"] = resources;
        gantry.apply(&pod.to_string());
        wait_ready(gantry, &format!("pod/{name}"));
        let pod = format!("pod/{name}");
        assert_eq!(gantry.jsonpath(&[&pod], "{.status.qosClass}"), class);
        let group = format!("pod{}", gantry.jsonpath(&[&pod], "{.metadata.uid}"));
        let wanted = format!("/gantry-{}/kubepods{path}/{group}", gantry.name());
        let found = cgroups(&group);
        assert!(!found.is_empty(), "{name} has no cgroup");
        for directory in &found {
            assert!(
                directory.to_string_lossy().ends_with(&wanted),
                "{} is not {wanted}",
                directory.display()
            );
        }
        if class == "Guaranteed" {
            let limit = |file: &str| found.iter().find_map(|d| std::fs::read_to_string(d.join(file)).ok());
            let bytes = limit("memory.max").or_else(|| limit("memory.limit_in_bytes")).unwrap_or_default();
            assert_eq!(bytes.trim(), (32 << 20).to_string());
        }
    }
    gantry.kubectl(&["delete", "pod", "sure", "likely", "maybe", "--grace-period=0", "--force"]).ok();
}

fn host_port(gantry: &Instance) {
    let port = free_port();
    let serves = |name: &str| {
        let script = "mkdir -p /www; echo from the host > /www/index.html; exec httpd -f -p 8080 -h /www";
        let mut pod = tools_pod(name, script);
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": port}]);
        pod.to_string()
    };
    gantry.apply(&serves("first"));
    wait_ready(gantry, "pod/first");
    let url = format!("http://127.0.0.1:{port}/");
    eventually_some("the host's port leads to the pod", SOON, || {
        let out = run(Command::new("curl").args(["-sS", "--max-time", "3", &url]));
        if out.stdout == "from the host\n" { Ok(()) } else { Err(out.stderr) }
    });
    gantry.apply(&serves("second"));
    expect_output(gantry, &["describe", "pod/second"], "didn't have free ports for the requested pod ports");
    gantry.kubectl(&["delete", "pod", "first", "--grace-period=1"]).ok();
    // The port is free again, and nobody has to ask.
    wait_ready(gantry, "pod/second");
}

/// SIGTERM and the hooks come, in their order; a shorter grace period on the command line is what counts.
fn graceful_ends(gantry: &Instance) {
    let shared = gantry.scratch().join("ends");
    std::fs::create_dir_all(&shared).expect("a folder");
    let script = "trap 'echo term >> /shared/story; exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    let mut polite = tools_pod("polite", script);
    polite["spec"]["terminationGracePeriodSeconds"] = json!(60);
    polite["spec"]["volumes"] =
        json!([{"name": "shared", "hostPath": {"path": shared.display().to_string(), "type": "Directory"}}]);
    let container = &mut polite["spec"]["containers"][0];
    container["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let hook =
        |word: &str| json!({"exec": {"command": ["sh", "-c", format!("echo {word} >> /shared/story")]}});
    container["lifecycle"] = json!({"postStart": hook("start"), "preStop": hook("stop")});
    // Nothing catches SIGTERM here, and process 1 is not ended by it either.
    let mut stubborn = tools_pod("stubborn", "trap '' TERM; while :; do sleep 1; done");
    stubborn["spec"]["terminationGracePeriodSeconds"] = json!(600);
    gantry.apply(&format!("{polite}\n{stubborn}"));
    wait_ready(gantry, "pod/polite");
    wait_ready(gantry, "pod/stubborn");
    let began = Instant::now();
    gantry.kubectl(&["delete", "pod", "polite", "--timeout=60s"]).ok();
    let story = std::fs::read_to_string(shared.join("story")).unwrap_or_default();
    assert_eq!(story, "start\nstop\nterm\n");
    gantry.kubectl(&["delete", "pod", "stubborn", "--grace-period=2", "--timeout=60s"]).ok();
    let taken = began.elapsed();
    assert!(taken > Duration::from_secs(2) && taken < Duration::from_secs(45), "it took {taken:?}");
}

/// Probes over the network and in the container, some that turn and some that fail for good.
fn probes_begin(gantry: &Instance) {
    let probed = |mut pod: Value, kind: &str, probe: Value| {
        pod["spec"]["containers"][0][kind] = probe;
        pod["spec"]["containers"][0][kind]["periodSeconds"] = json!(1);
        pod
    };
    let web = || tools_pod("tcp", "mkdir -p /www; exec httpd -f -p 8080 -h /www");
    let health = |name: &str| {
        let mut pod = tools_pod(name, "");
        pod["spec"]["containers"][0] = json!({"name": "main", "image": "demo/health:1"});
        pod
    };
    let grpc = |service: &str| json!({"grpc": {"port": 9000, "service": service}});
    let mut named = probed(web(), "readinessProbe", json!({"tcpSocket": {"port": "web"}}));
    named["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    let mut closed = probed(tools_pod("closed", IDLE), "livenessProbe", json!({"tcpSocket": {"port": 8081}}));
    closed["spec"]["containers"][0]["livenessProbe"]["failureThreshold"] = json!(2);
    let started = probed(health("serving"), "startupProbe", grpc("ready"));
    let pods = [
        named,
        closed,
        probed(started, "readinessProbe", grpc("ready")),
        probed(health("not-serving"), "readinessProbe", grpc("unready")),
        probed(
            tools_pod("turning", IDLE),
            "readinessProbe",
            json!({"exec": {"command": ["test", "-f", "/tmp/ready"]}}),
        ),
    ];
    gantry.apply(&pods.map(|pod| pod.to_string()).join("\n"));
}

fn probes_end(gantry: &Instance) {
    wait_ready(gantry, "pod/tcp");
    wait_ready(gantry, "pod/serving");
    expect_output(gantry, &["describe", "pod/not-serving"], "Readiness probe failed: service unhealthy");
    let ready = "{.status.conditions[?(@.type=='Ready')].status}";
    assert_eq!(gantry.jsonpath(&["pod/not-serving"], ready), "False");
    expect_field(gantry, &["pod/turning"], ready, "False");
    sh(gantry, "turning", "touch /tmp/ready");
    expect_field(gantry, &["pod/turning"], ready, "True");
    sh(gantry, "turning", "rm /tmp/ready");
    expect_field(gantry, &["pod/turning"], ready, "False");
    let restarts = "{.status.containerStatuses[0].restartCount}";
    eventually("a container whose port is closed is restarted", SOON, || {
        gantry.jsonpath(&["pod/closed"], restarts).parse::<u32>().is_ok_and(|count| count > 0)
    });
    expect_output(gantry, &["describe", "pod/closed"], "Liveness probe failed: dial tcp");
}

/// More than a log file may hold, and then a little for ever.
const CHATTY: &str = "seq 1 260000; while :; do echo tick; sleep 0.2; done";

fn rotation(gantry: &Instance) {
    let uid = gantry.jsonpath(&["pod/chatty"], "{.metadata.uid}");
    let folder = gantry.data_dir().join(format!("log/pods/default_chatty_{uid}/main"));
    let files = || {
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    eventually_some("the log is rotated", SOON, || {
        let seen = files();
        if seen.len() > 1 && size(&folder.join("0.log")) < 1 << 20 { Ok(()) } else { Err(seen) }
    });
    // The runtime writes into the new file, and readers see one log.
    eventually("the new file is written", SOON, || size(&folder.join("0.log")) > 0);
    // Another one may be written while the last one is read.
    let last = gantry.kubectl(&["logs", "chatty", "--tail=1"]).ok();
    assert!(matches!(last.as_str(), "tick\n" | "tick\ntick\n"), "{last:?}");
    let status = gantry.jsonpath(&["pod/chatty"], "{.status.containerStatuses[0].restartCount}");
    assert_eq!(status, "0");
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}
