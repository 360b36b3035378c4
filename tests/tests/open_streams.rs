//! What somebody has open ends when they sign out, and when their right to it is taken away.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_testkit::{Instance, binary, eventually_some};
use serde_json::Value;

use crate::people::Person;
use crate::support::{SOON, tools_pod};

/// Says something all the time, so that a log that is followed has begun when its first line is there.
const CHATTER: &str = "while true; do echo still here; sleep 0.1; done";

/// A command that goes on, killed where a test ends before it.
struct Open {
    what: &'static str,
    child: Child,
}

impl Open {
    /// Starts it, and comes back when it has said something.
    #[track_caller]
    fn begin(what: &'static str, command: &mut Command) -> Self {
        // Standard input stays open: a shell ends with it.
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the command starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        out.read_line(&mut first).expect("text");
        assert!(!first.is_empty(), "{what} said nothing");
        // Whatever else it says is read, so that it does not wait for us.
        std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
        Self { what, child }
    }

    fn is_open(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// How long it took to end.
    #[track_caller]
    fn ends(mut self, began: Instant) -> Duration {
        while self.is_open() {
            assert!(began.elapsed() < SOON, "{} goes on", self.what);
            std::thread::sleep(Duration::from_millis(10));
        }
        began.elapsed()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn streams(person: &Person) -> Vec<Open> {
    let kubectl = |arguments: &[&str]| person.kubectl_command(&[&["-n", "web-dev"], arguments].concat());
    let shell = ["exec", "-i", "box", "--", "sh", "-c", "echo in; cat"];
    vec![
        Open::begin("a watch", &mut kubectl(&["get", "pods", "-w", "--no-headers"])),
        Open::begin("a log", &mut kubectl(&["logs", "-f", "box"])),
        Open::begin("a shell", &mut kubectl(&shell)),
    ]
}

#[test]
fn what_is_open_ends_with_the_token_and_with_the_right() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.gantry(&["repository", "set", "demo/tools", "--visibility", "public"]).ok();
    gantry.gantry(&["domain", "create", "acme"]).ok();
    gantry.gantry(&["project", "create", "acme/web", "--environment", "dev"]).ok();
    let [alice, bob] = ["acme/alice", "acme/bob"].map(|name| Person::signed_in(&gantry, name));
    let member = |command, name| {
        gantry.gantry(&[command, "member", "--user", name, "--project", "acme/web"]).ok();
    };
    member("assign", "acme/alice");
    member("assign", "acme/bob");
    bob.run_pod("web-dev", tools_pod("box", CHATTER));

    let (mut alices, mut bobs) = (streams(&alice), streams(&bob));
    // What she does herself shows up in what she follows.
    let mut tail = alice.command(binary("gantry"));
    let tail = tail.args(["audit", "tail"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut tail = Open { what: "the trail", child: tail.expect("the command starts") };
    let said = tail.child.stdout.take().expect("piped");
    eventually_some("the trail is followed", SOON, || {
        let begun = ["audit", "search", "--user", "acme/alice", "--resource", "records", "-o", "json"];
        let records: Vec<Value> = serde_json::from_str(&gantry.gantry(&begun).ok()).expect("records");
        let begun = records.iter().any(|record| record["stage"] == "ResponseStarted");
        if begun { Ok(()) } else { Err("no record of it") }
    });
    std::thread::spawn(move || BufReader::new(said).read_to_end(&mut Vec::new()));
    alices.push(tail);

    let began = Instant::now();
    alice.gantry(&["logout"]).ok();
    for open in alices {
        let (what, took) = (open.what, open.ends(began));
        println!("{what} ended {} ms after the logout began", took.as_millis());
    }
    assert!(bobs.iter_mut().all(Open::is_open), "what is open to others goes on");
    let began = Instant::now();
    member("unassign", "acme/bob");
    for open in bobs {
        let (what, took) = (open.what, open.ends(began));
        println!("{what} ended {} ms after the right was asked to be taken away", took.as_millis());
    }
    // Each of them is on record as one that was ended.
    eventually_some("the ends are on record", SOON, || {
        let trail = gantry.gantry(&["audit", "export"]).ok();
        let ended = trail.lines().filter(|line| line.contains(r#""audit.gantry.dev/ended":"true""#)).count();
        if ended == 7 { Ok(()) } else { Err(ended.to_string()) }
    });
}
