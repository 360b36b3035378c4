//! The README's tour: an application is packed, deployed, reached, scaled, rolled forward and back.

use std::process::Command;

use gantry_testkit::{Instance, eventually_some, free_node_port, run};

use crate::support::{SOON, expect_field, expect_output, has_all};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hello");

/// The example's manifests with a node port of this test's own.
fn example(gantry: &Instance, node_port: u16) -> String {
    let folder = gantry.scratch().join("hello");
    std::fs::create_dir_all(&folder).expect("a folder in our own directory");
    for entry in std::fs::read_dir(EXAMPLES).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).expect("a manifest");
            let text = text.replace("nodePort: 30080", &format!("nodePort: {node_port}"));
            std::fs::write(folder.join(path.file_name().expect("a file's name")), text).expect("written");
        }
    }
    folder.display().to_string()
}

/// What the demo answers at an address of this host.
#[track_caller]
fn answer(url: &str) -> String {
    eventually_some(&format!("{url} answers"), SOON, || {
        let out = run(Command::new("curl").args(["-sS", "--max-time", "3", url]));
        if out.succeeded() && !out.stdout.is_empty() { Ok(out.stdout) } else { Err(out.stderr) }
    })
}

#[track_caller]
fn rolled_out(gantry: &Instance) {
    let out = gantry.kubectl(&["-n", "hello", "rollout", "status", "deployment/hello", "--timeout=80s"]);
    if !out.succeeded() {
        let pods = gantry.kubectl(&["-n", "hello", "describe", "pods"]).stdout;
        panic!("{out}\n{pods}\n{}", gantry.log_tail());
    }
    has_all(&out.stdout, &["successfully rolled out"]);
}

#[test]
fn an_application_is_deployed_reached_scaled_and_rolled() {
    let Some(gantry) = Instance::start() else { return };
    let pushed = gantry.push_hello("demo/hello:1", &[]).ok();
    has_all(&pushed, &["demo/hello:1@sha256:"]);
    let again = gantry.push_hello("demo/hello:again", &[]).ok();
    let digest = |text: &str| text.split('@').next_back().map(str::to_owned);
    assert_eq!(digest(&pushed), digest(&again), "packing is reproducible");
    gantry.push_hello("demo/hello:2", &["--env", "VERSION=2"]).ok();

    let port = free_node_port();
    let applied = gantry.kubectl(&["apply", "-f", &example(&gantry, port)]).ok();
    has_all(&applied, &["namespace/hello created", "deployment.apps/hello created", "service/hello created"]);
    rolled_out(&gantry);
    let again = gantry.kubectl(&["apply", "-f", &example(&gantry, port)]).ok();
    // `stringData` is never in what the server returns, so kubectl sends a Secret that has it every time.
    let changed = again.lines().find(|line| !line.ends_with("unchanged") && !line.starts_with("secret/"));
    assert_eq!(changed, None, "{again}");

    reach(&gantry, port);
    scale(&gantry);
    roll(&gantry, port);
    look(&gantry);
    remove(&gantry);
}

/// By node port, by cluster address from the host, and by name from a pod.
fn reach(gantry: &Instance, port: u16) {
    has_all(&answer(&format!("http://127.0.0.1:{port}/")), &["Hello from hello-", "version 1"]);
    let ip = gantry.jsonpath(&["-n", "hello", "service/hello"], "{.spec.clusterIP}");
    has_all(&answer(&format!("http://{ip}/")), &["Hello from hello-"]);
    // A program with the C library's resolver: it reads the pod's resolv.conf and asks cluster DNS.
    gantry.gantry(&["image", "pack", "/usr/bin/curl", "--tag", "demo/curl:1"]).ok();
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asks"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "demo/curl:1", "args": [
            "-sS", "--max-time", "10", "http://hello.hello/", "http://hello.hello.svc.cluster.local/",
        ]}]},
    });
    gantry.apply(&pod.to_string());
    expect_field(gantry, &["pod/asks"], "{.status.phase}", "Succeeded");
    let said = gantry.kubectl(&["logs", "asks"]).ok();
    assert_eq!(said.matches("Hello from hello-").count(), 2, "{said}");
    let slices = gantry.jsonpath(
        &["-n", "hello", "endpointslices", "-l", "kubernetes.io/service-name=hello"],
        "{.items[*].endpoints[*].conditions.ready}",
    );
    assert_eq!(slices, "true true true");
}

fn scale(gantry: &Instance) {
    let out = gantry.kubectl(&["-n", "hello", "scale", "deployment/hello", "--replicas=5"]).ok();
    assert_eq!(out.trim(), "deployment.apps/hello scaled");
    expect_field(gantry, &["-n", "hello", "deployment/hello"], "{.status.readyReplicas}", "5");
    gantry.kubectl(&["-n", "hello", "scale", "deployment/hello", "--replicas=2"]).ok();
    expect_field(gantry, &["-n", "hello", "deployment/hello"], "{.status.replicas}", "2");
    expect_field(gantry, &["-n", "hello", "replicasets"], "{.items[*].status.replicas}", "2");
}

fn roll(gantry: &Instance, port: u16) {
    let url = format!("http://127.0.0.1:{port}/");
    let hello = |words: &[&str]| gantry.kubectl(&[&["-n", "hello"], words].concat()).ok();
    hello(&["set", "image", "deployment/hello", "hello=demo/hello:2"]);
    rolled_out(gantry);
    has_all(&answer(&url), &["version 2"]);
    let history = hello(&["rollout", "history", "deployment/hello"]);
    has_all(&history, &["REVISION", "1 ", "2 "]);
    has_all(&hello(&["rollout", "history", "deployment/hello", "--revision=2"]), &["demo/hello:2"]);
    has_all(&hello(&["rollout", "undo", "deployment/hello"]), &["rolled back"]);
    rolled_out(gantry);
    has_all(&answer(&url), &["version 1"]);
    let before = hello(&["get", "pods", "-l", "app=hello", "-o", "name"]);
    hello(&["rollout", "restart", "deployment/hello"]);
    rolled_out(gantry);
    let after =
        hello(&["get", "pods", "-l", "app=hello", "--field-selector=status.phase=Running", "-o", "name"]);
    assert_ne!(before, after, "a restart replaces every pod");
}

/// What a person types to see what is going on.
fn look(gantry: &Instance) {
    let hello = |words: &[&str]| gantry.kubectl(&[&["-n", "hello"], words].concat()).ok();
    has_all(&hello(&["get", "deployment"]), &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "2/2"]);
    has_all(
        &hello(&["get", "pods", "-o", "wide"]),
        &["NODE", "NOMINATED NODE", "READINESS GATES", "Running"],
    );
    has_all(&hello(&["get", "service"]), &["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "NodePort"]);
    has_all(&hello(&["get", "deployment/hello", "-o", "yaml"]), &["kind: Deployment", "replicas: 2"]);
    let list: serde_json::Value =
        serde_json::from_str(&hello(&["get", "pods", "-o", "json"])).expect("kubectl prints JSON");
    assert_eq!(list["kind"], "List");
    has_all(
        &hello(&["describe", "deployment/hello"]),
        &["StrategyType:", "RollingUpdate", "ScalingReplicaSet"],
    );
    let pod = hello(&["get", "pods", "-o", "name"]).lines().next().expect("a pod").to_owned();
    has_all(&hello(&["describe", &pod]), &["Scheduled", "Started", "Readiness:", "QoS Class:"]);
    has_all(&hello(&["get", "events"]), &["LAST SEEN", "TYPE", "REASON", "Scheduled", "ScalingReplicaSet"]);
    has_all(&hello(&["events"]), &["Scheduled"]);
    has_all(&gantry.gantry(&["why", &pod, "-n", "hello"]).ok(), &["NODE", "FITS", "yes"]);
    has_all(
        &gantry.kubectl(&["api-resources"]).ok(),
        &["deployments", "deploy", "apps/v1", "customresourcedefinitions", "endpointslices"],
    );
    has_all(
        &gantry.kubectl(&["explain", "deployment.spec.strategy"]).ok(),
        &["GROUP:", "apps", "rollingUpdate"],
    );
    has_all(&gantry.kubectl(&["explain", "pod.spec.containers.image"]).ok(), &["FIELD: image <string>"]);
    assert_eq!(gantry.kubectl(&["auth", "can-i", "create", "pods"]).ok().trim(), "yes");
    let account = "--as=system:serviceaccount:hello:hello";
    let can = |verb: &str, what: &str| {
        gantry.kubectl(&["-n", "hello", "auth", "can-i", verb, what, account]).stdout
    };
    assert_eq!(can("get", "configmaps").trim(), "yes");
    assert_eq!(can("get", "secrets").trim(), "no");
    expect_output(gantry, &["top", "nodes"], "MEMORY(bytes)");
    expect_output(gantry, &["-n", "hello", "top", "pods"], "hello-");
}

fn remove(gantry: &Instance) {
    let out = gantry.kubectl(&["delete", "namespace", "hello", "--timeout=60s"]).ok();
    has_all(&out, &["namespace \"hello\" deleted"]);
    let gone = gantry.kubectl(&["-n", "hello", "get", "pods"]);
    has_all(&format!("{}{}", gone.stdout, gone.stderr), &["No resources found"]);
    has_all(&gantry.kubectl(&["get", "namespace", "hello"]).fails(), &["(NotFound)", "\"hello\" not found"]);
}
