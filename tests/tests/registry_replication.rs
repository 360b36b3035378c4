//! Replication to and from a registry of another make, and between two instances, with a crash in the middle.

use std::process::Command;

use gantry_testkit::{DockerRegistry, Instance, Output, eventually_some, run, run_with_input};
use serde_json::{Value, json};

use crate::receiver::{Receiver, webhook};
use crate::registry_upstream::robot_token;
use crate::scrape::Scraper;
use crate::support::{SOON, expect_field, has_all};

fn rule(gantry: &Instance, name: &str, spec: &Value) {
    let object = json!({
        "apiVersion": "registry.gantry.dev/v1alpha1", "kind": "Replication",
        "metadata": { "name": name }, "spec": spec,
    });
    gantry.apply(&object.to_string());
}

fn synced(gantry: &Instance, name: &str, wanted: &str) {
    let path = "{.status.conditions[?(@.type==\"Synced\")].status}";
    expect_field(gantry, &["replication", name], path, wanted);
}

/// `gantry registry replicate`, and what it says in JSON.
fn replicate(gantry: &Instance, name: &str) -> Value {
    let said = gantry.gantry(&["registry", "replicate", name, "-o", "json"]).ok();
    serde_json::from_str(&said).expect("JSON")
}

fn inspect(address: &str, name: &str, plain: bool) -> Output {
    let image = format!("docker://{address}/{name}");
    let tls = if plain { "--tls-verify=false" } else { "--tls-verify=true" };
    run(Command::new("skopeo").args(["inspect", tls, "--raw", &image]))
}

fn key(gantry: &Instance) -> (String, String) {
    let prefix = gantry.scratch().join("key").display().to_string();
    let words = ["image", "generate-key-pair", "--output-key-prefix", &prefix, "--password-stdin"];
    run_with_input(&mut gantry.gantry_command(&words), b"a password\n").ok();
    (format!("{prefix}.key"), format!("{prefix}.pub"))
}

fn sign(gantry: &Instance, key: &str, image: &str) {
    let mut command = gantry.gantry_command(&["image", "sign", "--key", key, "--password-stdin", image]);
    run_with_input(&mut command, b"a password\n").ok();
}

/// Somebody who hears of replications.
fn hears(gantry: &Instance) -> Receiver {
    let receiver = Receiver::start(gantry, "receiver");
    let secret = "--from-literal=secret=a key that has 32 bytes, exactly";
    gantry.kubectl(&["create", "secret", "generic", "hook", secret]).ok();
    let heard = receiver.spec(&json!({ "events": ["replicated"] }));
    gantry.apply(&webhook("default", "replicated", &heard).to_string());
    let accepted = "{.status.conditions[?(@.type==\"Accepted\")].status}";
    expect_field(gantry, &["registrywebhook", "replicated"], accepted, "True");
    receiver
}

fn is_told(gantry: &Instance, receiver: &Receiver) {
    let told =
        receiver.expect("the replication", |event| event["type"] == "dev.gantry.registry.replicated").event();
    assert_eq!((&told["subject"], &told["data"]["replication"]), (&"team/x".into(), &"out".into()), "{told}");
    assert_eq!(told["data"]["outcome"]["pending"], 0, "{told}");
    let records = gantry.gantry(&["audit", "search", "--verb", "images-replicated", "-o", "json"]).ok();
    has_all(&records, &["team/x", "registry.gantry.dev/replication"]);
}

const OUT: &[(&str, &str)] = &[("replication", "out")];
const LAG: &str = "gantry_registry_replication_lag_seconds";
const RUNS: &str = "gantry_registry_replication_runs_total";

fn measured_for_who_may(scraper: &Scraper) {
    let refused = scraper.ask().ok();
    has_all(&refused, &["HTTP/2 403", "cannot get path \\\"/metrics\\\""]);
    scraper.allow();
    let samples = eventually_some("it may", SOON, || {
        let answer = scraper.ask().ok();
        if answer.starts_with("HTTP/2 200") { Ok(scraper.samples()) } else { Err(answer) }
    });
    let out = |name: &str| samples.get(&format!("gantry_registry_replication_{name}"), OUT);
    assert_eq!((out("lag_seconds"), out("last_run_success"), out("pending_tags")), (0.0, 1.0, 0.0));
    assert!(out("last_success_timestamp_seconds") > 1.7e9, "seconds since 1970");
    // v1 and the tag of its signature; no less than the program that it holds.
    assert!(out("copied_tags_total") >= 2.0 && out("copied_blobs_total") >= 3.0, "{samples:?}");
    assert!(out("copied_bytes_total") >= 10_000.0, "{samples:?}");
    assert!(samples.get(RUNS, &[OUT[0], ("result", "success")]) >= 1.0);
    assert!(samples.get("gantry_registry_pushes_total", &[]) >= 3.0);
    assert!(samples.get("gantry_registry_blobs", &[]) >= 6.0);
    assert!(samples.get("gantry_registry_blobs_bytes", &[]) >= 30_000.0);
    assert_eq!(samples.get("gantry_part_healthy", &[("part", "api")]), 1.0);
}

/// The other side is away.
fn lags(scraper: &Scraper) {
    eventually_some("it lags", SOON, || {
        let samples = scraper.samples();
        let failures = samples.get(RUNS, &[OUT[0], ("result", "failure")]);
        if failures >= 1.0 && samples.get(LAG, OUT) >= 1.0 { Ok(()) } else { Err(samples) }
    });
    let success = "gantry_registry_replication_last_run_success";
    assert_eq!(scraper.samples().get(success, OUT), 0.0);
}

#[test]
fn images_and_their_signatures_go_to_docker_registry_and_come_from_it() {
    let config = "[registry]\nwebhooks_may_reach = [\"127.0.0.0/8\"]\n";
    let builder = Instance::builder().no_node().file("config.toml", config);
    let (Some(mut docker), Some(gantry)) = (DockerRegistry::start(), builder.start()) else {
        return;
    };
    let (private, public) = key(&gantry);
    for (program, name) in [("/bin/true", "team/x:v1"), ("/bin/cat", "team/x:dev"), ("/bin/ls", "other/y:v1")]
    {
        gantry.gantry(&["image", "pack", program, "--tag", name]).ok();
    }
    sign(&gantry, &private, "team/x:v1");
    let endpoint = json!({ "endpoint": format!("http://{}", docker.address()) });
    let receiver = hears(&gantry);
    let spec = json!({ "direction": "push", "remote": endpoint, "repositories": ["team/*"], "tags": ["v*"],
        "prefix": "backup/", "onChange": true, "deletes": true });
    rule(&gantry, "out", &spec);
    synced(&gantry, "out", "True");
    let raw = inspect(&docker.address(), "backup/team/x:v1", true).ok();
    assert_eq!(raw, inspect(&gantry.registry(), "team/x:v1", false).ok());
    for missing in ["backup/team/x:dev", "backup/other/y:v1"] {
        inspect(&docker.address(), missing, true).fails();
    }
    is_told(&gantry, &receiver);
    let Some(scraper) = Scraper::new(&gantry) else { return };
    measured_for_who_may(&scraper);
    // What is there is not sent again.
    let again = replicate(&gantry, "out");
    assert_eq!((&again["tags"], &again["blobs"]), (&0.into(), &0.into()), "{again}");
    // A push, a later signature and a deletion are copied as they happen.
    gantry.gantry(&["image", "pack", "/bin/cat", "--tag", "team/x:v2"]).ok();
    sign(&gantry, &private, "team/x:v2");
    gantry.gantry(&["image", "rm", "team/x:v1"]).ok();
    eventually_some("v2 is there", SOON, || {
        let out = inspect(&docker.address(), "backup/team/x:v2", true);
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    eventually_some("v1 is gone", SOON, || {
        let out = inspect(&docker.address(), "backup/team/x:v1", true);
        if out.succeeded() { Err(out.to_string()) } else { Ok(()) }
    });

    // And back under another name: the signature still counts.
    let back = json!({ "direction": "pull", "remote": endpoint, "repositories": ["backup/team/x"], "prefix": "again/" });
    rule(&gantry, "back", &back);
    synced(&gantry, "back", "True");
    eventually_some("it is signed there, too", SOON, || {
        replicate(&gantry, "back");
        let out = gantry.gantry(&["image", "verify", "--key", &public, "again/backup/team/x:v2"]);
        if out.succeeded() { Ok(()) } else { Err(out.to_string()) }
    });
    // The other side goes away and comes back.
    docker.stop();
    gantry.gantry(&["image", "pack", "/bin/ls", "--tag", "team/x:v3"]).ok();
    synced(&gantry, "out", "False");
    has_all(&gantry.gantry(&["registry", "replicate", "out"]).fails(), &["not everything was copied"]);
    eventually_some("an event tells", SOON, || {
        let said =
            gantry.kubectl(&["get", "events", "--field-selector", "reason=ReplicationFailed", "-A"]).ok();
        if said.contains("Not everything is copied") { Ok(()) } else { Err(said) }
    });
    lags(&scraper);
    docker.resume();
    synced(&gantry, "out", "True");
    inspect(&docker.address(), "backup/team/x:v3", true).ok();
    assert_eq!(scraper.samples().get(LAG, OUT), 0.0);
    has_all(&gantry.gantry(&["registry", "replicate", "nothing"]).fails(), &["no replication \"nothing\""]);
    gantry.gantry(&["registry", "fsck"]).ok();
}

#[test]
fn a_second_gantry_follows_also_after_a_crash() {
    let (Some(first), Some(second)) =
        (Instance::builder().no_node().start(), Instance::builder().no_node().start())
    else {
        return;
    };
    let (private, public) = key(&first);
    for (program, name) in [("/bin/true", "team/a:1"), ("/bin/cat", "team/b:1"), ("/bin/ls", "team/c:1")] {
        first.gantry(&["image", "pack", program, "--tag", name]).ok();
    }
    sign(&first, &private, "team/a:1");
    let ca = std::fs::read_to_string(second.data_dir().join("pki/ca.crt")).expect("an authority");
    let password = format!("--from-literal=password={}", robot_token(&second));
    let secret = ["create", "secret", "generic", "second", "--from-literal=username=any", &password];
    first.kubectl(&secret).ok();
    let spec = |bandwidth: &str| {
        json!({ "direction": "push", "repositories": ["team/*"], "onChange": true, "bandwidth": bandwidth,
            "remote": { "endpoint": format!("https://{}", second.registry()), "certificateAuthority": ca,
                "credentials": { "namespace": "default", "name": "second" } } })
    };
    // So slow that it is in the middle when it is cut off.
    rule(&first, "follow", &spec("200Ki"));
    eventually_some("something is there", SOON, || {
        let out = second.gantry(&["image", "list", "-o", "json"]);
        if out.stdout.contains("team/a") { Ok(()) } else { Err(out.to_string()) }
    });
    first.kill9();
    let before = second.gantry(&["image", "list", "-o", "json"]).ok();
    assert!(!before.contains("team/c"), "too fast to be cut off: {before}");
    second.gantry(&["registry", "fsck"]).ok();
    first.restart();
    rule(&first, "follow", &spec("1Gi"));
    eventually_some("everything is there", SOON, || {
        let out = second.gantry(&["image", "list", "-o", "json"]);
        if out.stdout.contains("team/c") { Ok(()) } else { Err(out.to_string()) }
    });
    synced(&first, "follow", "True");
    for name in ["team/a:1", "team/b:1", "team/c:1"] {
        let digest = |gantry: &Instance| {
            let said = gantry.gantry(&["image", "inspect", name]).ok();
            let said: Value = serde_json::from_str(&said).expect("JSON");
            said[0]["digest"].as_str().expect("a digest").to_owned()
        };
        assert_eq!(digest(&first), digest(&second), "{name}");
    }
    second.gantry(&["image", "verify", "--key", &public, "team/a:1"]).ok();
    second.gantry(&["registry", "fsck"]).ok();
    // Rules that cannot be kept say why.
    rule(
        &first,
        "wrong",
        &json!({ "direction": "pull", "repositories": ["x"], "schedule": "every day",
        "remote": { "endpoint": "https://127.0.0.1:1" } }),
    );
    let path = "{.status.conditions[?(@.type==\"Accepted\")].message}";
    let said = eventually_some("it is refused", SOON, || {
        let said = first.jsonpath(&["replication", "wrong"], path);
        if said.is_empty() { Err(said) } else { Ok(said) }
    });
    has_all(&said, &["schedule", "five fields of cron"]);
}
