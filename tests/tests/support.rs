//! Objects and looks that several tests share.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use gantry_testkit::{Instance, eventually_some};

/// Long enough for a pull, a start and a probe on two busy cores.
pub const SOON: Duration = Duration::from_secs(45);

/// A pod of the box of tools that runs `script` with a shell.
pub fn tools_pod(name: &str, script: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "demo/tools:1", "command": ["sh", "-c", script]}],
        },
    })
}

/// A pod that waits to be looked at. `sleep` as process 1 ignores SIGTERM, so the shell stands before it.
pub const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

/// Waits until `jsonpath` of an object is what it should be.
#[track_caller]
pub fn expect_field(gantry: &Instance, object: &[&str], jsonpath: &str, wanted: &str) {
    expect_field_within(gantry, object, jsonpath, wanted, SOON);
}

#[track_caller]
pub fn expect_field_within(gantry: &Instance, object: &[&str], path: &str, wanted: &str, timeout: Duration) {
    eventually_some(&format!("{object:?} {path} is {wanted:?}"), timeout, || {
        let seen = gantry.jsonpath(object, path);
        if seen == wanted { Ok(()) } else { Err(seen) }
    });
}

/// Waits until a command's output holds `wanted`, and returns the output.
#[track_caller]
pub fn expect_output(gantry: &Instance, arguments: &[&str], wanted: &str) -> String {
    eventually_some(&format!("{arguments:?} says {wanted:?}"), SOON, || {
        let out = gantry.kubectl(arguments);
        if out.stdout.contains(wanted) {
            Ok(out.stdout)
        } else {
            Err(format!("{}{}", out.stdout, out.stderr))
        }
    })
}

/// `kubectl wait --for=condition=Ready`.
#[track_caller]
pub fn wait_ready(gantry: &Instance, pod: &str) {
    let out = gantry.kubectl(&["wait", "--for=condition=Ready", pod, "--timeout=60s"]);
    if !out.succeeded() {
        panic!("{out}\n{}", gantry.kubectl(&["describe", pod]).stdout);
    }
}

/// Asserts that a text has every one of the words.
#[track_caller]
pub fn has_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// An object of identity, as `kubectl apply` takes it.
pub fn identity_object(kind: &str, name: &str, spec: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "identity.gantry.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// The folder skopeo and buildah take the client's certificate from, made of the kubeconfig's.
pub fn certificates(gantry: &Instance) -> PathBuf {
    let folder = gantry.scratch().join("certs");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = std::fs::read(gantry.kubeconfig()).expect("the kubeconfig");
    let config: serde_json::Value = serde_json::from_slice(&text).expect("the kubeconfig is JSON");
    let put = |name: &str, value: &serde_json::Value| {
        let pem = base64::engine::general_purpose::STANDARD
            .decode(value.as_str().expect("base64"))
            .expect("base64");
        std::fs::write(folder.join(name), pem).expect("written");
    };
    put("ca.crt", &config["clusters"][0]["cluster"]["certificate-authority-data"]);
    put("client.cert", &config["users"][0]["user"]["client-certificate-data"]);
    put("client.key", &config["users"][0]["user"]["client-key-data"]);
    folder
}
