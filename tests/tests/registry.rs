//! The registry as other OCI clients see it.

use std::process::Command;

use gantry_testkit::{Instance, Output, eventually, run};
use serde_json::{Value, json};

use crate::support::{IDLE, SOON, certificates, expect_output, has_all, tools_pod, wait_ready};

#[track_caller]
fn skopeo(words: &[&str]) -> Output {
    run(Command::new("skopeo").args(["--insecure-policy"]).args(words))
}

#[test]
fn any_oci_client_pushes_and_pulls_and_a_pod_runs_it() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    let certs = certificates(&gantry).display().to_string();
    let host = gantry.registry();
    let layout = gantry.scratch().join("layout").display().to_string();
    let archive = gantry.scratch().join("tools.tar").display().to_string();
    skopeo_both_ways(&host, &certs, &layout, &archive);
    buildah_both_ways(&gantry, &host, &certs);
    gantry_images(&gantry, &archive);
    strangers(&gantry, &host);

    let mut pod = tools_pod("from-skopeo", "echo it runs; sleep 3600");
    pod["spec"]["containers"][0]["image"] = "demo/web:1".into();
    gantry.apply(&pod.to_string());
    wait_ready(&gantry, "pod/from-skopeo");
    expect_output(&gantry, &["logs", "from-skopeo"], "it runs");
    // With the registry's own address before it, it is the same image.
    let mut named = tools_pod("with-host", IDLE);
    named["spec"]["containers"][0]["image"] = format!("{host}/demo/built:1").into();
    gantry.apply(&named.to_string());
    wait_ready(&gantry, "pod/with-host");
}

fn skopeo_both_ways(host: &str, certs: &str, layout: &str, archive: &str) {
    let (pull, push) = (format!("docker://{host}/demo/tools:1"), format!("docker://{host}/demo/web:1"));
    let oci = format!("oci:{layout}:1");
    // Root's clients find the certificates by themselves, under either name of this machine.
    run(Command::new("skopeo").args(["copy", &pull, &oci])).ok();
    run(Command::new("skopeo").args(["copy", &oci, &push.replace("127.0.0.1", "localhost")])).ok();
    skopeo(&["copy", "--dest-cert-dir", certs, &oci, &push]).ok();
    let docker = format!("docker-archive:{archive}:demo/x:1");
    skopeo(&["copy", "--src-cert-dir", certs, &push, &docker]).ok();
    let seen = skopeo(&["inspect", "--cert-dir", certs, &push]).ok();
    let seen: Value = serde_json::from_str(&seen).expect("skopeo prints JSON");
    assert_eq!(seen["RepoTags"][0], "1");
    let tags = skopeo(&["list-tags", "--cert-dir", certs, &format!("docker://{host}/demo/web")]).ok();
    has_all(&tags, &["\"1\""]);
}

/// An image is built on top of a pulled one and pushed. With storage of the test's own, and plain files
/// instead of overlays, so that it works wherever the test does.
fn buildah_both_ways(gantry: &Instance, host: &str, certs: &str) {
    let scratch = gantry.scratch();
    let buildah = |words: &[&str]| {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(scratch.join("storage")).arg("--runroot").arg(scratch.join("storage-run"));
        run(command.args(["--storage-driver", "vfs"]).args(words))
    };
    let from = format!("docker://{host}/demo/web:1");
    let container = buildah(&["from", "--cert-dir", certs, &from]).ok();
    let container = container.trim();
    std::fs::write(scratch.join("note"), "built").expect("written");
    let note = scratch.join("note").display().to_string();
    buildah(&["copy", container, &note, "/note"]).ok();
    buildah(&["commit", container, "built"]).ok();
    buildah(&["push", "--cert-dir", certs, "built", &format!("docker://{host}/demo/built:1")]).ok();
    buildah(&["rm", container]).ok();
    let podman = run(Command::new("podman")
        .arg("--root")
        .arg(scratch.join("storage"))
        .arg("--runroot")
        .arg(scratch.join("storage-run"))
        .args(["--storage-driver", "vfs", "pull", "--quiet", "--cert-dir", certs])
        .arg(format!("{host}/demo/built:1")));
    podman.ok();
}

fn gantry_images(gantry: &Instance, archive: &str) {
    has_all(
        &gantry.gantry(&["image", "load", archive, "--tag", "demo/loaded:1"]).ok(),
        &["demo/loaded:1@sha256:"],
    );
    let list = gantry.gantry(&["image", "list"]).ok();
    has_all(&list, &["REPOSITORY", "DIGEST", "demo/loaded", "demo/web", "demo/tools"]);
    let inspected = gantry.gantry(&["image", "inspect", "demo/loaded:1"]).ok();
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected[0]["config"]["config"]["Entrypoint"][0], "/bin/sh");
    scanned(gantry, archive, &inspected[0]);
    gantry.gantry(&["image", "rm", "demo/loaded:1"]).ok();
    has_all(
        &gantry.gantry(&["image", "inspect", "demo/loaded:1"]).fails(),
        &["no such image: demo/loaded:1"],
    );
    has_all(&gantry.gantry(&["image", "load", "/etc/hostname"]).fails(), &["cannot load /etc/hostname"]);
    // The name in a layout may be a tag: it is no repository's.
    let layout = format!("{archive}.oci");
    skopeo(&["copy", &format!("docker-archive:{archive}"), &format!("oci-archive:{layout}:1.0")]).ok();
    let refused = gantry.gantry(&["image", "load", &layout]).fails();
    has_all(&refused, &["calls its image \"1.0\", which may be a tag", "--tag REPOSITORY:TAG"]);
    has_all(
        &gantry.gantry(&["image", "load", &layout, "--tag", "demo/layout:1.0"]).ok(),
        &["demo/layout:1.0@sha256:"],
    );
}

/// What is in the registry and what is in the archive is the same image; only the first needs the server.
fn scanned(gantry: &Instance, archive: &str, inspected: &Value) {
    let scan = |target: &str| -> Value {
        let text = gantry.gantry(&["image", "scan", target, "--no-advisories", "--format", "json"]).ok();
        serde_json::from_str(&text).expect("JSON")
    };
    let (here, there) = (scan(archive), scan("demo/loaded:1"));
    assert_eq!(there["target"]["digest"], inspected["digest"]);
    let urls = |report: &Value| -> Vec<Value> {
        report["packages"].as_array().into_iter().flatten().map(|package| package["purl"].clone()).collect()
    };
    assert_eq!(urls(&here), urls(&there));
    assert!(there["packages"].is_array() && there["vulnerabilities"].is_null(), "{there}");
    has_all(&gantry.gantry(&["image", "scan", "demo/none:1"]).fails(), &["no file or directory here"]);
}

/// Without credentials nothing is told, not even what exists.
fn strangers(gantry: &Instance, host: &str) {
    // An empty folder hides the host's.
    let nothing = gantry.scratch().join("no-certs");
    std::fs::create_dir_all(&nothing).expect("a folder");
    let nothing = nothing.display().to_string();
    for repository in ["demo/web", "no/such"] {
        let out = skopeo(&[
            "inspect",
            "--tls-verify=false",
            "--no-creds",
            "--cert-dir",
            &nothing,
            &format!("docker://{host}/{repository}:1"),
        ]);
        has_all(&out.fails().to_lowercase(), &["auth"]);
    }
}

/// Nodes fetch with their own certificates; that pods of a project also show its pull secret is in nobody's way, and
/// neither is a secret of that name that is no longer good.
#[test]
fn a_pod_of_a_project_runs_its_image_whatever_its_pull_secret_says() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
    let (host, certs) = (gantry.registry(), certificates(&gantry).display().to_string());
    let (from, to) = (format!("docker://{host}/demo/tools:1"), format!("docker://{host}/acme/web/tools:1"));
    skopeo(&["copy", "--src-cert-dir", &certs, "--dest-cert-dir", &certs, &from, &to]).ok();
    eventually("pods get the pull secret", SOON, || {
        let account = ["serviceaccount", "default", "-n", "web-dev"];
        gantry.jsonpath(&account, "{.imagePullSecrets[*].name}") == "gantry-registry"
    });
    let worthless = format!(r#"{{"auths":{{"{host}":{{"auth":"Z2FudHJ5LXJlZ2lzdHJ5Om5vdGhpbmc="}}}}}}"#);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "worthless", "namespace": "web-dev"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": worthless},
    });
    gantry.apply(&secret.to_string());
    for (name, secrets) in [("with-the-platforms", None), ("with-a-worthless-one", Some("worthless"))] {
        let mut pod = tools_pod(name, IDLE);
        pod["metadata"]["namespace"] = "web-dev".into();
        pod["spec"]["containers"][0]["image"] = format!("{host}/acme/web/tools:1").into();
        pod["spec"]["containers"][0]["imagePullPolicy"] = "Always".into();
        if let Some(secret) = secrets {
            pod["spec"]["imagePullSecrets"] = json!([{"name": secret}]);
        }
        gantry.apply(&pod.to_string());
        let shown = gantry.jsonpath(&["pod", name, "-n", "web-dev"], "{.spec.imagePullSecrets[*].name}");
        assert_eq!(shown, secrets.unwrap_or("gantry-registry"));
        let pod = format!("pod/{name}");
        let ready = ["wait", "--for=condition=Ready", &pod, "-n", "web-dev", "--timeout=60s"];
        gantry.kubectl(&ready).ok();
    }
}
