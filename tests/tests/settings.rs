//! What an operator chooses in `config.toml` is what happens.

use std::process::Command;

use gantry_testkit::{Instance, Output, eventually_some, free_port, run, run_with_input, unused_name};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{SOON, has_all};

const CONFIG: &str = r#"
[identity.security_compliance]
password_length_min = 12
password_regex = "^(?=.*[0-9]).*$"
password_regex_description = "a digit is needed"
lockout_failure_attempts = 2
lockout_duration = 600

[identity.lockout]
user = { free = 100 }

[audit]
policy = "@DATA@/policy.yaml"
when_full = "fail"

[audit.retention]
days = 30
"#;

/// Nothing of config maps, everything else by its metadata.
const QUIET: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - level: None
    resources: [{group: \"\", resources: [configmaps]}]
  - level: Metadata
";

/// Config maps and secrets with what was sent.
const LOUD: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - level: Request
    resources: [{group: \"\", resources: [configmaps, secrets]}]
  - level: Metadata
";

fn with_password(gantry: &Instance, arguments: &[&str], password: &str) -> Output {
    let mut command = gantry.gantry_command(arguments);
    command.env("HOME", gantry.scratch()).env("GANTRY_TOKEN_DIR", gantry.scratch().join("tokens"));
    run_with_input(&mut command, format!("{password}\n").as_bytes())
}

#[test]
fn what_the_operator_chose_is_what_happens() {
    let builder = Instance::builder().no_node().file("config.toml", CONFIG).file("policy.yaml", QUIET);
    let Some(gantry) = builder.start() else { return };
    passwords_and_lock_out(&gantry);
    the_audit_policy(&gantry);
}

fn passwords_and_lock_out(gantry: &Instance) {
    let create = |name: &str, password: &str| {
        with_password(gantry, &["user", "create", name, "--password-stdin"], password)
    };
    has_all(&create("Default/zoe", "short1").fails(), &["at least 12 characters"]);
    has_all(&create("Default/zoe", "long enough but").fails(), &["a digit is needed"]);
    create("Default/zoe", "long enough and 1").ok();
    let sign_in = |password: &str| {
        let kubeconfig = gantry.scratch().join("zoe.kubeconfig");
        let kubeconfig = kubeconfig.display().to_string();
        let ca = gantry.data_dir().join("pki/ca.crt").display().to_string();
        let server = gantry.registry();
        let words = ["login", &server, "-u", "Default/zoe", "--ca", &ca, "--password-stdin"];
        with_password(gantry, &[&words[..], &["--kubeconfig", &kubeconfig]].concat(), password)
    };
    sign_in("long enough and 1").ok();
    for _ in 0..2 {
        sign_in("long enough and 2").fails();
    }
    sign_in("long enough and 1").fails();
    let locked = ["audit", "search", "--event", "locked-out", "-o", "json"];
    eventually_some("the lock-out is on record", SOON, || {
        let out = gantry.gantry(&locked).stdout;
        if out.contains("zoe") { Ok(()) } else { Err(out) }
    });
}

fn the_audit_policy(gantry: &Instance) {
    let seen = |name: &str| gantry.gantry(&["audit", "search", "--name", name, "-o", "json"]).stdout;
    let records = |name: &str| {
        eventually_some("it is on record", SOON, || {
            let out = seen(name);
            if out.contains(name) { Ok(out) } else { Err(out) }
        })
    };
    let make = |kind: &[&str]| gantry.kubectl(&[&["create"], kind].concat()).ok();
    make(&["configmap", "unseen", "--from-literal=a=b"]);
    make(&["serviceaccount", "seen-1"]);
    records("seen-1");
    assert!(!seen("unseen").contains("unseen"), "the policy leaves config maps out");

    std::fs::write(gantry.data_dir().join("policy.yaml"), LOUD).expect("written");
    kill(Pid::from_raw(gantry.pid()), Signal::SIGHUP).expect("the process is ours and runs");
    eventually_some("the new policy is in force", SOON, || {
        let out = gantry.gantry(&["audit", "search", "--event", "trail-changed", "-o", "json"]).stdout;
        if out.contains("reloaded") { Ok(()) } else { Err(out) }
    });
    make(&["configmap", "seen-2", "--from-literal=word=xyzzy"]);
    has_all(&records("seen-2"), &["xyzzy"]);
    // kubectl sends it as protobuf.
    make(&["secret", "generic", "seen-secret", "--from-literal=word=xyzzy"]);
    let secret = records("seen-secret");
    has_all(&secret, &["requestObject", "REMOVED"]);
    assert!(!secret.contains("xyzzy") && !secret.contains("eHl6enk"), "{secret}");

    // A policy that is none leaves the old one in force.
    std::fs::write(gantry.data_dir().join("policy.yaml"), "kind: Nonsense\n").expect("written");
    kill(Pid::from_raw(gantry.pid()), Signal::SIGHUP).expect("the process is ours and runs");
    eventually_some("it is told", SOON, || {
        let log = gantry.log_tail();
        if log.contains("the audit policy stays as it was") { Ok(()) } else { Err(log) }
    });
    make(&["configmap", "seen-3", "--from-literal=word=plugh"]);
    has_all(&records("seen-3"), &["plugh"]);
}

#[test]
fn a_mistake_in_the_settings_is_told_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let data = folder.path().join("data");
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[audit]\nwhen_full = \"skip\"\n").expect("written");
    let listen = format!("127.0.0.1:{}", free_port());
    let start = |extra: &[&str]| {
        let mut command = Command::new(gantry_testkit::binary("gantry"));
        command.args(["up", "--detach", "--no-node", "--instance", &unused_name(), "--listen", &listen]);
        command.arg("--data-dir").arg(&data).arg("--run-dir").arg(folder.path().join("run"));
        run(command.args(extra))
    };
    let path = config.display().to_string();
    let refused = start(&["--config", &path]);
    assert_eq!(refused.code, 1, "{refused}");
    has_all(&refused.stderr, &["config.toml: line 2: unknown variant `skip`"]);
    has_all(&start(&["--config", "/not/there.toml"]).fails(), &["/not/there.toml", "No such file"]);
    assert!(!data.exists(), "{refused}");
    // The file that is in the data directory stays, alone.
    std::fs::create_dir(&data).expect("a folder");
    std::fs::rename(&config, data.join("config.toml")).expect("moved");
    start(&[]).fails();
    let left: Vec<_> = std::fs::read_dir(&data).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["config.toml"]);
}
