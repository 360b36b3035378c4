//! A shell in a project whose sessions are recorded: the user is told, it is linked from its record, and it can be
//! played again by who may see it.

use std::process::Command;

use gantry_testkit::{Instance, eventually, eventually_some, run};
use serde_json::Value;

use crate::people::Person;
use crate::support::{IDLE, SOON, has_all, tools_pod};

/// The records that a search finds, the newest first.
fn found(gantry: &Instance, arguments: &[&str]) -> Vec<Value> {
    let out = gantry.gantry(&[&["audit", "search", "-o", "json"], arguments].concat()).ok();
    serde_json::from_str(&out).expect("a list of records")
}

/// `kubectl exec -it` with a terminal around it.
fn shell(person: &Person, gantry: &Instance, namespace: &str, what: &str) -> String {
    let kubectl = gantry_testkit::kubectl_program();
    let line = format!("'{}' exec -it -n {namespace} box -- sh -c '{what}'", kubectl.display());
    let mut script = person.command("script".into());
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").current_dir(gantry.scratch());
    run(&mut script).ok()
}

#[test]
fn a_shell_in_a_recorded_project_can_be_played_again() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.gantry(&["repository", "set", "demo/tools", "--visibility", "public"]).ok();
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev", "--record-sessions"]).ok();
    gantry.gantry(&["project", "create", "acme/lab", "--environment", "dev"]).ok();
    let [bob, una] = ["acme/bob", "acme/una"].map(|name| Person::signed_in(&gantry, name));
    for project in ["acme/web", "acme/lab"] {
        gantry.gantry(&["assign", "member", "--user", "acme/bob", "--project", project]).ok();
    }
    for namespace in ["web-dev", "lab-dev"] {
        eventually_some("the pod is made", SOON, || {
            let mut pod = tools_pod("box", IDLE);
            pod["metadata"]["namespace"] = namespace.into();
            let out = bob.make(&pod);
            if out.succeeded() { Ok(()) } else { Err(out.stderr) }
        });
    }
    for namespace in ["web-dev", "lab-dev"] {
        bob.kubectl(&["wait", "-n", namespace, "--for=condition=Ready", "pod/box", "--timeout=60s"]).ok();
    }
    let said = shell(&bob, &gantry, "web-dev", "echo typed-by-bob; sleep 0.2; echo end-of-it");
    has_all(&said, &["This session is recorded.", "typed-by-bob", "end-of-it"]);
    let said = shell(&bob, &gantry, "lab-dev", "echo not-recorded");
    assert!(said.contains("not-recorded") && !said.contains("This session is recorded."), "{said}");

    eventually("the recording is closed", SOON, || {
        !found(&gantry, &["--event", "session-recorded"]).is_empty()
    });
    let closed = found(&gantry, &["--event", "session-recorded"]);
    // What lasts leaves a record when it begins and one when it ends.
    let mut opened = found(&gantry, &["--event", "exec-opened"]);
    assert_eq!(opened.len(), 4, "{opened:#?}");
    opened.retain(|record| record["stage"] == "ResponseComplete");
    assert_eq!((closed.len(), opened.len()), (1, 2), "{closed:#?} {opened:#?}");
    assert_eq!(closed[0]["user"]["username"], "acme/bob");
    let session = closed[0]["annotations"]["audit.gantry.dev/session"].as_str().expect("the session");
    let linked: Vec<&Value> =
        opened.iter().filter(|record| record["annotations"]["audit.gantry.dev/session"] == session).collect();
    assert_eq!(linked.len(), 1, "{opened:#?}");
    assert_eq!(linked[0]["objectRef"]["namespace"], "web-dev");

    let played = gantry.gantry(&["audit", "replay", session, "--speed", "8"]);
    has_all(&played.stderr, &["web-dev/box/main"]);
    has_all(&played.ok(), &["typed-by-bob", "end-of-it"]);
    let raw = gantry.gantry(&["audit", "replay", session, "--raw"]).ok();
    let header: Value = serde_json::from_str(raw.lines().next().expect("a header")).expect("JSON");
    assert_eq!(header["version"], 2, "{header}");
    has_all(&una.gantry(&["audit", "replay", session]).fails(), &["not found"]);
    let file = gantry.data_dir().join(format!("audit/sessions/{session}.cast.zst"));
    let digest = run(Command::new("sha256sum").arg(&file)).ok();
    let digest = digest.split(' ').next().unwrap_or_default();
    assert!(closed[0].to_string().contains(digest), "{digest} is not in {:#}", closed[0]);
    has_all(&gantry.gantry(&["audit", "verify"]).ok(), &["The audit trail is intact."]);
    bob.kubectl(&["delete", "pod", "box", "-n", "web-dev", "--now"]).ok();
}
