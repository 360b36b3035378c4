//! Into containers and out of them: logs, exec, attach, port-forward, cp.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use gantry_testkit::{Instance, eventually_some, free_port, run, spawn, spdy_kubectl_program};

use crate::support::{IDLE, SOON, expect_output, has_all, tools_pod, wait_ready};

#[test]
fn streams_reach_into_containers_and_back() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    gantry.apply(&tools_pod("box", IDLE).to_string());
    let count = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done";
    gantry.apply(&tools_pod("talker", count).to_string());
    gantry.apply(
        &tools_pod("web", "mkdir -p /www; echo served > /www/index.html; httpd -f -p 8080 -h /www")
            .to_string(),
    );
    let mut listens = tools_pod("listens", "while read line; do echo \"heard $line\"; done");
    listens["spec"]["containers"][0]["stdin"] = true.into();
    gantry.apply(&listens.to_string());
    for pod in ["pod/box", "pod/talker", "pod/web", "pod/listens"] {
        wait_ready(&gantry, pod);
    }
    logs(&gantry);
    exec(&gantry);
    terminal(&gantry);
    old_client(&gantry);
    port_forward(&gantry);
    copy(&gantry);
}

fn logs(gantry: &Instance) {
    let follow = gantry.kubectl_spawn(&["logs", "-f", "talker"]);
    let lines = |text: &str| text.lines().filter(|line| line.starts_with("line ")).count();
    let first = eventually_some("the log begins", SOON, || {
        let seen = lines(&follow.stdout());
        if seen > 0 { Ok(seen) } else { Err(follow.stderr()) }
    });
    eventually_some("the log goes on", SOON, || {
        let seen = lines(&follow.stdout());
        if seen > first + 5 { Ok(()) } else { Err(seen) }
    });
    assert!(follow.stdout().starts_with("line 0\nline 1\n"), "from the beginning: {}", follow.stdout());
    assert_eq!(lines(&gantry.kubectl(&["logs", "talker", "--tail=3"]).ok()), 3);
    has_all(&gantry.kubectl(&["logs", "talker", "--timestamps", "--tail=1"]).ok(), &["T", "Z line "]);
    has_all(
        &gantry.kubectl(&["logs", "talker", "-c", "nobody"]).fails(),
        &["container nobody is not valid for pod talker"],
    );
    has_all(&gantry.kubectl(&["logs", "absent"]).fails(), &["pods \"absent\" not found"]);
}

fn exec(gantry: &Instance) {
    let out = gantry.kubectl(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((out.code, out.stdout.as_str()), (7, "out\n"), "{out}");
    has_all(&out.stderr, &["err", "exit code 7"]);
    // `cat` ends when its input does, and its output must still arrive.
    let text: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    let echoed = gantry.kubectl_with_input(&["exec", "-i", "box", "--", "cat"], text.as_bytes()).ok();
    assert_eq!(echoed.len(), text.len());
    assert_eq!(echoed, text);
    has_all(&gantry.kubectl(&["exec", "box", "--", "no-such-program"]).fails(), &["no-such-program"]);
    let mut spdy = gantry.kubectl_command(&["exec", "-i", "box", "--", "cat"]);
    spdy.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
    assert_eq!(gantry_testkit::run_with_input(&mut spdy, b"over SPDY").ok(), "over SPDY");
}

/// `-it` wants a terminal; `script` gives it one. The size arrives after the program has started, as with
/// every Kubernetes, so it is asked for until it is there.
fn terminal(gantry: &Instance) {
    let kubectl = gantry_testkit::kubectl_program();
    const ASK: &str =
        r#"i=0; until test "$(stty size)" = "31 97" || test $i -gt 3000; do i=$((i+1)); done; stty size"#;
    let line = format!("{} exec -it box -- sh -c '{ASK}; test -t 0 && echo a terminal'", kubectl.display());
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty rows 31 cols 97; {line}"), "/dev/null"]);
    let out =
        run(script.env("KUBECONFIG", gantry.kubeconfig()).env("HOME", gantry.scratch()).env("TERM", "xterm"));
    assert_eq!(out.code, 0, "{out}");
    has_all(&out.stdout, &["31 97", "a terminal"]);
}

/// A kubectl from before WebSocket speaks SPDY whatever it is told.
fn old_client(gantry: &Instance) {
    let Some(program) = spdy_kubectl_program() else {
        eprintln!("not looked at: there is no old kubectl for this machine");
        return;
    };
    let old = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).env("KUBECONFIG", gantry.kubeconfig()).env("HOME", gantry.scratch());
        command
    };
    let out = gantry_testkit::run_with_input(&mut old(&["exec", "-i", "box", "--", "cat"]), b"from long ago");
    assert_eq!(out.ok(), "from long ago");
    let out = run(&mut old(&["exec", "box", "--", "sh", "-c", "echo out; exit 7"]));
    assert_eq!((out.code, out.stdout.as_str()), (7, "out\n"), "{out}");
    let mut attached = spawn(&mut old(&["attach", "-i", "listens"]));
    let mut stdin = attached.stdin().expect("a pipe");
    stdin.write_all(b"one\n").expect("written");
    eventually_some("the container answers over SPDY", SOON, || {
        if attached.stdout().contains("heard one") { Ok(()) } else { Err(attached.stderr()) }
    });
    let port = free_port();
    let forward = spawn(&mut old(&["port-forward", "pod/web", &format!("{port}:8080")]));
    eventually_some("the old port-forward listens", SOON, || {
        if forward.stdout().contains("Forwarding from") { Ok(()) } else { Err(forward.stderr()) }
    });
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(run(Command::new("curl").args(["-sS", "--max-time", "10", &url])).stdout, "served\n");
    forward.interrupt();
}

fn port_forward(gantry: &Instance) {
    for websocket in ["true", "false"] {
        let port = free_port();
        let mut command = gantry.kubectl_command(&["port-forward", "pod/web", &format!("{port}:8080")]);
        let forward = spawn(command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket));
        eventually_some("port-forward listens", SOON, || {
            if forward.stdout().contains("Forwarding from") { Ok(()) } else { Err(forward.stderr()) }
        });
        let url = format!("http://127.0.0.1:{port}/");
        // The same forward serves many connections, one after the other.
        for _ in 0..3 {
            let got = run(Command::new("curl").args(["-sS", "--max-time", "10", &url]));
            assert_eq!(got.stdout, "served\n", "WebSocket {websocket}: {got} {}", forward.stderr());
        }
        forward.interrupt();
    }
}

fn copy(gantry: &Instance) {
    let from = gantry.scratch().join("there");
    std::fs::create_dir_all(from.join("sub")).expect("a folder");
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(from.join("sub/data.bin"), &bytes).expect("written");
    let local = from.display().to_string();
    gantry.kubectl(&["cp", &local, "box:/tmp/there"]).ok();
    has_all(&gantry.kubectl(&["exec", "box", "--", "wc", "-c", "/tmp/there/sub/data.bin"]).ok(), &["300000"]);
    let back = gantry.scratch().join("back");
    gantry.kubectl(&["cp", "box:/tmp/there", &back.display().to_string()]).ok();
    assert!(std::fs::read(back.join("sub/data.bin")).expect("copied back") == bytes, "the copy differs");
}

#[test]
fn a_container_that_reads_its_input_is_attached_to() {
    let Some(gantry) = Instance::start() else { return };
    gantry.push_tools();
    let mut pod = tools_pod("reader", "while read line; do echo \"heard $line\"; done; echo done");
    pod["spec"]["containers"][0]["stdin"] = true.into();
    pod["spec"]["containers"][0]["stdinOnce"] = true.into();
    pod["spec"]["restartPolicy"] = "Never".into();
    gantry.apply(&pod.to_string());
    wait_ready(&gantry, "pod/reader");
    let mut attach = gantry.kubectl_spawn(&["attach", "-i", "reader"]);
    let mut stdin = attach.stdin().expect("a pipe");
    stdin.write_all(b"one\n").expect("written");
    eventually_some("the container answers", SOON, || {
        if attach.stdout().contains("heard one") { Ok(()) } else { Err(attach.stderr()) }
    });
    // End of input here is end of input there: the loop ends, and with it the pod.
    drop(stdin);
    has_all(&attach.wait(Duration::from_secs(30)).stdout, &["done"]);
    expect_output(&gantry, &["get", "pod/reader"], "Completed");
    has_all(&gantry.kubectl(&["logs", "reader"]).ok(), &["heard one", "done"]);
}
