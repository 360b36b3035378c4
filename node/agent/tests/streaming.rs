//! The node's HTTP API against a real containerd: logs, sessions, ports and statistics, as clients use them.

mod client;
mod kubectl;

use std::time::Duration;

use gantry_agent::{PodNews, streaming};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use self::client::{Node, Session};
use crate::rig::{Rig, SHELL};

/// Nothing waits this long when all is well.
const LIMIT: Duration = Duration::from_secs(60);

fn pod(name: &str, script: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "test", "uid": format!("uid-{name}")},
        "spec": {"hostNetwork": true, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": SHELL, "args": ["-c", script], "stdin": true}]},
    }))
    .expect("a pod")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_a_real_containerd() {
    if !nix::unistd::geteuid().is_root() {
        gantry_testkit::skip("containers need root");
        return;
    }
    let rig = Rig::new();
    let agent = rig.start().await;
    rig.import_images();
    rig.tell(PodNews::Synced).await;
    let target =
        pod("target", "echo out 1; echo err 1 >&2; echo out 2; while read line; do echo got $line; done");
    rig.set(&target).await;
    rig.wait(&target, "the target runs", |s| s.phase.as_deref() == Some("Running")).await;
    let node = Node::serve(streaming::router(agent.api())).await;

    tokio::time::timeout(LIMIT, commands(&node)).await.expect("commands end");
    tokio::time::timeout(LIMIT, terminals(&node)).await.expect("terminals end");
    tokio::time::timeout(LIMIT, refusals(&node)).await.expect("refusals come");
    tokio::time::timeout(LIMIT, ports(&node)).await.expect("ports are forwarded");
    tokio::time::timeout(LIMIT, statistics(&node)).await.expect("statistics come");
    tokio::time::timeout(LIMIT, kubectl::drive(&node, &rig.stored(&target))).await.expect("kubectl ends");
    tokio::time::timeout(LIMIT, logs(&rig, &node, &target)).await.expect("logs end");

    agent.purge(true).await.expect("purged");
    rig.assert_nothing_left();
}

async fn commands(node: &Node) {
    // Half-closing stdin ends `cat`; what went in comes out, however much it is.
    let session = node.exec(&["cat"], "stdin=true&stdout=true&stderr=true", "v5.channel.k8s.io").await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let back = session.pump(&sent).await;
    assert!(back.stdout == sent, "{} bytes came back", back.stdout.len());
    assert_eq!(back.status["status"], "Success");

    // Exit codes and both outputs.
    let script = "echo o; echo e >&2; exit 7";
    let session = node.exec(&["sh", "-c", script], "output=1&error=1", "v4.channel.k8s.io").await;
    let end = session.finish().await;
    assert_eq!((end.stdout.as_slice(), end.stderr.as_slice()), (&b"o\n"[..], &b"e\n"[..]));
    assert_eq!(end.status["reason"], "NonZeroExitCode");
    assert_eq!(end.status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));

    // A client that speaks text.
    let session = node.exec(&["sh", "-c", "echo hi"], "stdout=1", "base64.channel.k8s.io").await;
    assert_eq!(session.finish().await.stdout, b"hi\n");

    // More output than fits into any buffer, read slowly at first.
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; i=$((i+1)); done";
    let session = node.exec(&["sh", "-c", script], "stdout=1", "v5.channel.k8s.io").await;
    assert_eq!(session.finish().await.stdout.len(), 20_000 * 71);

    // A command that does not exist.
    let session = node.exec(&["/nonexistent"], "stdout=1", "v5.channel.k8s.io").await;
    let status = session.finish().await.status;
    assert_eq!(status["status"], "Failure");
    assert!(status["message"].as_str().is_some_and(|m| m.contains("/nonexistent")), "{status}");
}

async fn terminals(node: &Node) {
    let mut session = node.exec(&["sh"], "stdin=1&stdout=1&stderr=1&tty=1", "v5.channel.k8s.io").await;
    session.expect(b"# ").await;
    // The size arrives on a stream of its own, so what is typed after it may overtake it.
    session.send(4, br#"{"Width":5,"Height":45}"#).await;
    for round in 0.. {
        session.send(0, format!("ls -C /bin; echo listed$(({round}))\n").as_bytes()).await;
        session.expect(format!("listed{round}\r\n").as_bytes()).await;
        if session.has_seen(b"cat\r\nls\r\n") {
            break;
        }
    }
    // Once its answer is there, `cat` is in the foreground for certain.
    session.send(0, b"cat\nword$\n").await;
    session.expect(b"\nword$\r\nword$\r\n").await;
    session.send(0, b"\x03").await;
    session.expect(b"^C").await;
    session.send(0, b"echo $((40+2))\n").await;
    session.expect(b"42\r\n").await;
    session.send(0, b"exit 3\n").await;
    let end = session.finish().await;
    assert_eq!(end.status["details"]["causes"][0]["message"], "3");

    // Attach reaches the first process.
    let query = "stdin=true&stdout=true";
    let mut session =
        Session::open(node, "/attach/test/target/c", query, "v5.channel.k8s.io").await.expect("open");
    session.send(0, b"attached\n").await;
    session.expect(b"got attached\n").await;
}

async fn refusals(node: &Node) {
    for (path, want) in [
        ("/containerLogs/test/none/c", (404, r#"pod "none" does not exist"#)),
        ("/containerLogs/test/target/none", (404, r#"container "none" not found in pod "target""#)),
        (
            "/containerLogs/test/target/c?previous=true",
            (400, r#"previous terminated container "c" in pod "target" not found"#),
        ),
        ("/exec/test/target/c?command=x&stdout=1", (400, "Upgrade request required")),
        ("/exec/test/target/c?stdout=1", (400, "you must specify at least 1 command")),
        ("/exec/test/target/none?command=x&stdout=1", (500, r#"container not found ("none")"#)),
        ("/portForward/test/target", (400, "Upgrade request required")),
        ("/healthz", (200, "ok")),
    ] {
        let (status, body) = node.get(path).await;
        assert_eq!((status, body.as_str()), want, "{path}");
    }
    let path = "/exec/test/target/c";
    let refused = Session::open(node, path, "command=x&stdout=1", "v9.channel.k8s.io").await;
    assert_eq!(refused.err(), Some(400));
    let (_, pods) = node.get("/pods").await;
    let pods: Value = serde_json::from_str(&pods).expect("JSON");
    assert_eq!((&pods["kind"], &pods["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("target")));
}

async fn ports(node: &Node) {
    // The pod is on the host's network, so a listener of the test is a port of the pod.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.expect("a connection");
        let mut word = [0; 5];
        peer.read_exact(&mut word).await.expect("five bytes");
        peer.write_all(b"world").await.expect("sent");
    });
    let path = "/portForward/test/target";
    let query = format!("ports={port}");
    let mut session = Session::open(node, path, &query, "v4.channel.k8s.io").await.expect("open");
    session.send(0, b"hello").await;
    let (little, big) = (port.to_le_bytes(), session.finish_raw().await);
    let of = |channel: u8| -> Vec<u8> {
        big.iter().filter(|(c, _)| *c == channel).flat_map(|(_, b)| b.clone()).collect()
    };
    assert_eq!(of(0), [&little[..], b"world"].concat());
    assert_eq!(of(1), little);
    server.await.expect("served");
}

async fn statistics(node: &Node) {
    let (status, body) = node.get("/stats/summary").await;
    assert_eq!(status, 200, "{body}");
    let summary: Value = serde_json::from_str(&body).expect("JSON");
    let positive = |value: &Value| value.as_u64().is_some_and(|n| n > 0);
    assert_eq!(summary["node"]["nodeName"], "node");
    for pointer in [
        "/node/cpu/usageCoreNanoSeconds",
        "/node/cpu/usageNanoCores",
        "/node/memory/workingSetBytes",
        "/node/fs/capacityBytes",
        "/pods/0/cpu/usageCoreNanoSeconds",
        "/pods/0/memory/workingSetBytes",
        "/pods/0/containers/0/cpu/usageCoreNanoSeconds",
        "/pods/0/containers/0/memory/workingSetBytes",
    ] {
        assert!(positive(&summary.pointer(pointer).cloned().unwrap_or_default()), "{pointer}: {summary:#}");
    }
    let container = &summary["pods"][0]["containers"][0];
    assert_eq!((&container["name"], &summary["pods"][0]["podRef"]["name"]), (&json!("c"), &json!("target")));
    assert!(container["cpu"]["usageNanoCores"].is_u64(), "a rate of two samples: {container:#}");

    let (_, text) = node.get("/metrics/resource").await;
    let labels = r#"{container="c",namespace="test",pod="target"}"#;
    for name in ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"] {
        assert!(text.contains(&format!("{name}{labels} ")), "{name}: {text}");
    }
    assert!(text.contains("# TYPE node_memory_working_set_bytes gauge"), "{text}");
}

async fn logs(rig: &Rig, node: &Node, target: &Pod) {
    let log = "/containerLogs/test/target/c";
    let first = node.get(&format!("{log}?limitBytes=5&stream=Stdout")).await;
    assert_eq!(first, (200, "out 1".to_owned()));
    let stderr = node.get(&format!("{log}?stream=Stderr")).await.1;
    assert_eq!(stderr, "err 1\n");
    let stamped = node.get(&format!("{log}?timestamps=true&stream=Stderr")).await.1;
    let (time, text) = stamped.trim_end().split_once(' ').expect("a time");
    assert!(time.parse::<jiff::Timestamp>().is_ok() && text == "err 1", "{stamped}");

    // A follower sees lines as they come, and ends with the container.
    let mut follower = node.follow(&format!("{log}?follow=true&tailLines=1&stream=Stdout")).await;
    let query = "stdin=true&stdout=true";
    let path = "/attach/test/target/c";
    let mut session = Session::open(node, path, query, "v5.channel.k8s.io").await.expect("open");
    session.send(0, b"for the follower\n").await;
    follower.until("got for the follower\n").await;
    rig.delete(target, 1).await;
    follower.end().await;
}
