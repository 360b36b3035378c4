//! A shell in a project whose sessions are recorded: the user is told, it is linked from its record, and it can be
//! played again by who may see it.

use std::io::Write as _;
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

/// The notice, as it stands where a program's errors do.
const NOTICE: &str = "This session is recorded.\n";

/// Bob's pods in a recorded project: one that waits, and one that answers at its own terminal.
fn with_pods() -> Option<(Instance, Person)> {
    let gantry = Instance::start()?;
    gantry.push_tools();
    gantry.gantry(&["repository", "set", "demo/tools", "--visibility", "public"]).ok();
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev", "--record-sessions"]).ok();
    let bob = Person::signed_in(&gantry, "acme/bob");
    gantry.gantry(&["assign", "member", "--user", "acme/bob", "--project", "acme/web"]).ok();
    let mut answers = tools_pod("answers", "while read line; do echo \"heard $line\"; done");
    for field in ["stdin", "tty"] {
        answers["spec"]["containers"][0][field] = true.into();
    }
    for pod in [tools_pod("box", IDLE), answers] {
        bob.run_pod("web-dev", pod);
    }
    Some((gantry, bob))
}

/// Every recording that is closed, as it is kept.
fn recordings(gantry: &Instance) -> Vec<String> {
    let session = |record: Value| {
        let session =
            record["annotations"]["audit.gantry.dev/session"].as_str().expect("the session").to_owned();
        gantry.gantry(&["audit", "replay", &session, "--raw"]).ok()
    };
    found(gantry, &["--event", "session-recorded"]).into_iter().map(session).collect()
}

/// One of them has all of these words.
#[track_caller]
fn is_recorded(gantry: &Instance, words: &[&str]) {
    eventually_some(&format!("a recording of {words:?}"), SOON, || {
        let all = recordings(gantry);
        let has = all.iter().any(|one| words.iter().all(|word| one.contains(word)));
        if has { Ok(()) } else { Err(format!("{all:#?}")) }
    });
}

#[test]
fn every_way_into_a_recorded_project_is_recorded_or_refused() {
    let Some((gantry, bob)) = with_pods() else { return };
    attach(&gantry, &bob);
    let annotated = ["annotate", "namespace", "web-dev", "audit.gantry.dev/record-sessions=all"];
    let plain = |what: &str| bob.kubectl(&["exec", "-n", "web-dev", "box", "--", "sh", "-c", what]);
    let out = plain("echo out; echo err >&2; exit 7");
    assert_eq!((out.code, out.stdout.as_str()), (7, "out\n"), "{out}");
    assert!(!out.stderr.contains(NOTICE), "no terminal: {out}");
    gantry.kubectl(&annotated).ok();
    let is_told = || plain("true").stderr.contains(NOTICE);
    eventually("sessions without a terminal are recorded, too", SOON, is_told);
    without_a_terminal(&gantry, &bob);
    over_spdy(&gantry, &bob);
    after_a_start(&gantry, &bob);
    bob.kubectl(&["delete", "pod", "box", "answers", "-n", "web-dev", "--now"]).ok();
}

/// Who attaches to a terminal is told, and recorded.
fn attach(gantry: &Instance, bob: &Person) {
    let kubectl = gantry_testkit::kubectl_program();
    let line = format!("'{}' attach -it -n web-dev answers", kubectl.display());
    let mut script = bob.command("script".into());
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").current_dir(gantry.scratch());
    let mut attached = gantry_testkit::spawn(&mut script);
    let mut stdin = attached.stdin().expect("a pipe");
    stdin.write_all(b"one\n").expect("written");
    eventually_some("the container answers", SOON, || {
        if attached.stdout().contains("heard one") { Ok(()) } else { Err(attached.stdout()) }
    });
    has_all(&attached.stdout(), &[NOTICE.trim_end()]);
    assert!(recordings(gantry).is_empty(), "it goes on");
    drop((stdin, attached));
    is_recorded(gantry, &["heard one"]);
}

/// What a program writes comes through as it is: the user is told beside it.
fn without_a_terminal(gantry: &Instance, bob: &Person) {
    let command = ["exec", "-i", "-n", "web-dev", "box", "--", "sh", "-c", "cat; echo err >&2; exit 7"];
    let mut kubectl = bob.command(gantry_testkit::kubectl_program());
    let out = gantry_testkit::run_with_input(kubectl.args(command), b"piped\n");
    assert_eq!((out.code, out.stdout.as_str()), (7, "piped\n"), "{out}");
    has_all(&out.stderr, &[NOTICE, "err"]);
    is_recorded(gantry, &["piped", "err"]);
}

/// What nobody here can follow does not begin.
fn over_spdy(gantry: &Instance, bob: &Person) {
    let mut programs = vec![gantry_testkit::kubectl_program()];
    programs.extend(gantry_testkit::spdy_kubectl_program());
    for program in programs {
        for words in [
            &["exec", "-n", "web-dev", "box", "--", "touch", "/tmp/unseen"][..],
            &["exec", "-i", "-n", "web-dev", "box", "--", "touch", "/tmp/unseen"],
            &["attach", "-i", "-n", "web-dev", "answers"],
        ] {
            let mut kubectl = bob.command(program.clone());
            let old = kubectl.args(words).env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
            let refused = gantry_testkit::run_with_input(old, b"two\n").fails();
            has_all(&refused, &["needs a client that speaks WebSocket"]);
        }
    }
    let out = bob.kubectl(&["exec", "-n", "web-dev", "box", "--", "sh", "-c", "echo looked; ls /tmp"]).ok();
    assert!(out.contains("looked") && !out.contains("unseen"), "{out}");
    let log = bob.kubectl(&["logs", "-n", "web-dev", "answers"]).ok();
    assert!(log.contains("heard one") && !log.contains("heard two"), "{log}");
    // What was refused before is no recording.
    is_recorded(gantry, &["looked"]);
    assert!(!recordings(gantry).iter().any(|one| one.contains("unseen")));
}

/// Until the platform knows again what the project wants, nobody comes in.
fn after_a_start(gantry: &Instance, bob: &Person) {
    gantry.kill9();
    gantry.restart();
    eventually_some("bob comes in", SOON, || {
        let out = bob.kubectl(&["exec", "-n", "web-dev", "box", "--", "true"]);
        let told = out.stderr.contains(NOTICE);
        assert!(told || !out.succeeded(), "not recorded: {out}");
        if told { Ok(()) } else { Err(out.stderr) }
    });
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
        bob.run_pod(namespace, tools_pod("box", IDLE));
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
