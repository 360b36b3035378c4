//! A child process writes and is killed at random points; every acknowledged write must be there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gantry_store::{Expect, Key, Mutation, Options, Prefix, Store};
use rand::Rng;

const CHILD_FILE: &str = "GANTRY_STORE_CRASH_FILE";
const KILLS: usize = 300;
const WRITERS: usize = 4;

fn key(resource: &str, writer: usize) -> Key {
    Key::new("", resource, "crash", &format!("w{writer}"))
}

fn put(key: Key, sequence: u64) -> Mutation {
    let encode = Box::new(move |revision| Bytes::from(format!("{sequence} {revision} {}", "x".repeat(300))));
    Mutation::Put { key, expect: Expect::Any, encode }
}

/// Sequence and revision inside a stored value, which must be whole.
fn parse(value: &[u8]) -> (u64, u64) {
    let text = std::str::from_utf8(value).unwrap();
    let parts: Vec<_> = text.split(' ').collect();
    assert_eq!((parts.len(), parts[2].len()), (3, 300), "a half value: {text}");
    (parts[0].parse().unwrap(), parts[1].parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the crash test runs it as its child process"]
async fn child() {
    let path = std::env::var_os(CHILD_FILE).expect("set by the crash test");
    let store = Store::open(Path::new(&path), Options::default()).unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let current = store.snapshot().get(&key("left", writer));
            let floor = current.map_or(0, |it| parse(&it.value).0);
            for sequence in floor + 1.. {
                let pair = vec![put(key("left", writer), sequence), put(key("right", writer), sequence)];
                let done = store.commit(pair).await.unwrap();
                let line = format!("\nack {writer} {sequence} {}\n", done[0].revision);
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// Runs the child until a random moment after its first acknowledgement; gives what it acknowledged.
fn run_and_kill(path: &Path) -> Vec<(usize, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD_FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let (mut acknowledged, mut deadline) = (Vec::new(), None);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 {
            break;
        }
        let parts: Vec<_> = line.trim_end().split(' ').collect();
        if line.ends_with('\n') && parts.len() == 4 && parts[0] == "ack" {
            acknowledged.push((
                parts[1].parse().unwrap(),
                parts[2].parse().unwrap(),
                parts[3].parse().unwrap(),
            ));
            let pause = Duration::from_micros(rand::rng().random_range(0..30_000));
            if *deadline.get_or_insert(Instant::now() + pause) <= Instant::now() {
                // Killing twice is harmless; what the pipe still holds was acknowledged too.
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    acknowledged
}

#[tokio::test]
async fn every_acknowledged_write_survives_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let (mut last_revision, mut newest) = (0, BTreeMap::new());
    for round in 0..KILLS {
        let acknowledged = run_and_kill(&path);
        assert!(!acknowledged.is_empty(), "round {round}: the child wrote nothing");
        for (writer, sequence, revision) in acknowledged {
            assert!(revision > last_revision, "round {round}: revision {revision} was used before");
            let before = newest.insert(writer, (sequence, revision));
            assert!(
                before.is_none_or(|it| it.0 < sequence && it.1 < revision),
                "round {round}: out of order"
            );
        }
        let store = Store::open(&path, Options::default()).unwrap();
        let head = store.snapshot();
        for (writer, (sequence, revision)) in &newest.clone() {
            let left = head.get(&key("left", *writer)).unwrap();
            let right = head.get(&key("right", *writer)).unwrap();
            let (found, at) = parse(&left.value);
            assert_eq!(at, left.revision);
            assert_eq!((found, at + 1), parse(&right.value), "round {round}: half a commit");
            // One write per writer may be durable without its acknowledgement having been read.
            assert!(
                found == *sequence && at == *revision || found == sequence + 1 && at > *revision,
                "round {round}: writer {writer} acknowledged {sequence}@{revision}, found {found}@{at}"
            );
            // What a restart has shown is the floor of the next round, acknowledged or not.
            newest.insert(*writer, (found, at));
        }
        let newest_object = ["left", "right"]
            .iter()
            .flat_map(|it| head.scan(&Prefix::resource("", it), None))
            .map(|it| it.revision)
            .max();
        assert_eq!(newest_object, Some(head.revision()), "round {round}: the counter fits the objects");
        last_revision = head.revision();
        store.close().await;
    }
}
