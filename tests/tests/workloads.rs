//! Roll-outs that pause, recreate and get stuck; names that DNS knows; what `describe` tells.

use std::collections::BTreeMap;
use std::process::Command;

use gantry_testkit::{Instance, eventually_some, free_port, run, spawn};
use serde_json::{Value, json};

use crate::support::{IDLE, SOON, expect_field, expect_output, has_all, tools_pod, wait_ready};

#[test]
fn roll_outs_and_names() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.apply(&tools_pod("asks", IDLE).to_string());
    gantry.apply(&deployment("web", "one").to_string());
    gantry.apply(SERVICES);
    rolled_out(&gantry, "web");
    names(&gantry);
    forwarded_to_a_service(&gantry);
    described(&gantry);
    paused(&gantry);
    recreated(&gantry);
    stuck(&gantry);
}

/// Serves `text` on port 8080; ready once it does.
fn deployment(name: &str, text: &str) -> Value {
    let script = format!("mkdir -p /www; echo {text} > /www/index.html; exec httpd -f -p 8080 -h /www");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": "demo/tools:1", "command": ["sh", "-c", script],
                        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}

#[track_caller]
fn rolled_out(gantry: &Instance, name: &str) {
    gantry.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=80s"]).ok();
}

const SERVICES: &str = r#"
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
"#;

#[track_caller]
fn sh(gantry: &Instance, script: &str) -> String {
    gantry.kubectl(&["exec", "asks", "--", "sh", "-c", script]).ok()
}

/// As a program in a pod asks: its own resolv.conf, cluster DNS.
fn names(gantry: &Instance) {
    wait_ready(gantry, "pod/asks");
    let ips = gantry.jsonpath(&["pods", "-l", "app=web"], "{.items[*].status.podIP}");
    let ips: Vec<&str> = ips.split_whitespace().collect();
    assert_eq!(ips.len(), 2);
    // A headless Service is the addresses of its pods, an SRV record their port and names.
    has_all(&sh(gantry, "nslookup -type=a each.default.svc.cluster.local"), &ips);
    let srv = sh(gantry, "nslookup -type=srv _http._tcp.each.default.svc.cluster.local");
    has_all(&srv, &["8080", "each.default.svc.cluster.local"]);
    let cluster_ip = gantry.jsonpath(&["service/web"], "{.spec.clusterIP}");
    let alias = sh(gantry, "nslookup -type=a elsewhere.default.svc.cluster.local");
    has_all(&alias, &["canonical name = web.default.svc.cluster.local", &cluster_ip]);
    assert_eq!(sh(gantry, "wget -q -O - http://elsewhere/"), "one\n", "over the search list");
    has_all(&sh(gantry, "nslookup -type=a none.default.svc.cluster.local || true"), &["NXDOMAIN"]);
    world(gantry);
}

/// Names outside the cluster are asked of the host's resolvers, where the host has any that answer.
fn world(gantry: &Instance) {
    let Some((name, address)) = ["pypi.org", "debian.org", "crates.io"].into_iter().find_map(|name| {
        let out = run(Command::new("getent").args(["ahostsv4", name]));
        let address = out.stdout.split_whitespace().next()?.to_owned();
        Some((name, address))
    }) else {
        eprintln!("not looked at: this host resolves no name of the world, so no pod can");
        return;
    };
    let out = sh(gantry, &format!("nslookup -type=a {name}. || true"));
    assert!(
        out.contains(&address) || out.contains(&format!("Name:\t{name}")),
        "{name} is {address}, but: {out}"
    );
}

fn forwarded_to_a_service(gantry: &Instance) {
    let port = free_port();
    let mut command = gantry.kubectl_command(&["port-forward", "svc/web", &format!("{port}:80")]);
    let forward = spawn(&mut command);
    eventually_some("port-forward listens", SOON, || {
        if forward.stdout().contains("Forwarding from") { Ok(()) } else { Err(forward.stderr()) }
    });
    let got =
        run(Command::new("curl").args(["-sS", "--max-time", "10", &format!("http://127.0.0.1:{port}/")]));
    assert_eq!(got.stdout, "one\n", "{got} {}", forward.stderr());
    forward.interrupt();
}

fn described(gantry: &Instance) {
    let node = gantry.jsonpath(&["nodes"], "{.items[0].metadata.name}");
    has_all(
        &gantry.kubectl(&["describe", "node", &node]).ok(),
        &[
            "Conditions:",
            "KubeletReady",
            "Capacity:",
            "Allocated resources:",
            "Non-terminated Pods:",
            "asks",
            "host.gantry.dev/bridge: true",
        ],
    );
    has_all(
        &gantry.kubectl(&["describe", "service", "web"]).ok(),
        &["Selector:", "app=web", "TargetPort:", "8080/TCP", "Endpoints:", ":8080"],
    );
    gantry.kubectl(&["create", "secret", "generic", "shy", "--from-literal=word=hidden"]).ok();
    let secret = gantry.kubectl(&["describe", "secret", "shy"]).ok();
    has_all(&secret, &["Type:  Opaque", "word:  6 bytes"]);
    assert!(!secret.contains("hidden"), "{secret}");
    // Everything in the CLI can be had as JSON.
    let json = |words: &[&str]| -> Value {
        serde_json::from_str(&gantry.gantry(words).ok()).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    };
    let images = json(&["image", "list", "-o", "json"]);
    let tools = images.as_array().into_iter().flatten().find(|i| i["repository"] == "demo/tools");
    assert!(
        tools.is_some_and(
            |i| i["tag"] == "1" && i["digest"].as_str().is_some_and(|d| d.starts_with("sha256:"))
        ),
        "{images}"
    );
    let why = json(&["why", "pod/asks", "-o", "json"]);
    assert!(why.to_string().contains(&node), "{why}");
    assert_eq!(json(&["doctor", "-o", "json"])["cgroup"]["available"], true);
}

/// Nothing moves while it is paused, and all changes of that time are one roll-out.
fn paused(gantry: &Instance) {
    let sets = || gantry.kubectl(&["get", "replicasets", "-l", "app=web", "-o", "name"]).ok().lines().count();
    let before = sets();
    gantry.kubectl(&["rollout", "pause", "deployment/web"]).ok();
    gantry.kubectl(&["set", "env", "deployment/web", "STEP=1"]).ok();
    gantry.kubectl(&["set", "env", "deployment/web", "STEP=2"]).ok();
    let observed = "{.status.observedGeneration} {.status.conditions[?(@.type=='Progressing')].reason}";
    let generation = gantry.jsonpath(&["deployment/web"], "{.metadata.generation}");
    expect_field(gantry, &["deployment/web"], observed, &format!("{generation} DeploymentPaused"));
    assert_eq!(sets(), before, "a paused deployment makes no set");
    gantry.kubectl(&["rollout", "resume", "deployment/web"]).ok();
    rolled_out(gantry, "web");
    assert_eq!(sets(), before + 1, "two changes, one roll-out");
}

/// All old pods end before the first new one begins.
fn recreated(gantry: &Instance) {
    let mut old = deployment("alone", "old");
    old["spec"]["strategy"] = json!({"type": "Recreate"});
    gantry.apply(&old.to_string());
    rolled_out(gantry, "alone");
    let watch =
        gantry.kubectl_spawn(&["get", "pods", "-l", "app=alone", "--watch-only", "--output-watch-events"]);
    gantry.kubectl(&["set", "env", "deployment/alone", "STEP=1"]).ok();
    rolled_out(gantry, "alone");
    let events = eventually_some("the watch saw both ends", SOON, || {
        let seen = watch.stdout();
        let count = |word: &str| seen.lines().filter(|line| line.starts_with(word)).count();
        if (count("DELETED"), count("ADDED")) == (2, 2) { Ok(seen) } else { Err(seen) }
    });
    // What every pod was last seen as when the first new one came: none of the old ones runs any more.
    let before = events.lines().take_while(|line| !line.starts_with("ADDED"));
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for line in before {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["MODIFIED" | "DELETED", name, ready, ..] = words[..] {
            last.insert(name, ready);
        }
    }
    assert!(last.len() == 2 && last.values().all(|ready| *ready == "0/1"), "{events}");
}

/// A roll-out that gets nowhere says so, and the old pods go on serving.
fn stuck(gantry: &Instance) {
    let patch = r#"{"spec": {"progressDeadlineSeconds": 4, "minReadySeconds": 0}}"#;
    gantry.kubectl(&["patch", "deployment/web", "--type=merge", "--patch", patch]).ok();
    gantry.kubectl(&["set", "image", "deployment/web", "main=demo/not-there:1"]).ok();
    let out = gantry.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    has_all(&out.fails(), &["exceeded its progress deadline"]);
    let reason = "{.status.conditions[?(@.type=='Progressing')].reason}";
    assert_eq!(gantry.jsonpath(&["deployment/web"], reason), "ProgressDeadlineExceeded");
    expect_output(gantry, &["describe", "deployment/web"], "ProgressDeadlineExceeded");
    assert_eq!(sh(gantry, "wget -q -O - http://web/"), "one\n");
    gantry.kubectl(&["rollout", "undo", "deployment/web"]).ok();
    rolled_out(gantry, "web");
}
