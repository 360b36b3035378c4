//! `kill -9` in the middle of pushing, deleting and collecting.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gantry_oci::Digest;
use gantry_registry::Config;
use serde_json::json;

use super::{KILLS, place};
use crate::support::{Place, TestRegistry, open, open_at};

/// Where the child works; only the parent of the test sets it.
const DIRECTORY: &str = "GANTRY_REGISTRY_TEST_DIRECTORY";
const ROUND: &str = "GANTRY_REGISTRY_TEST_ROUND";
/// The server of S3, if the blobs are there.
const ENDPOINT: &str = "GANTRY_REGISTRY_TEST_S3";
const PUSHERS: usize = 3;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn what_was_acknowledged_is_whole_after_a_kill() {
    let place = place();
    // As the test runner calls it: without the name of this program.
    let (_, module) = module_path!().split_once("::").expect("a module");
    let mut acknowledged = BTreeMap::new();
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", &format!("{module}::child_that_pushes"), "--ignored", "--nocapture"])
            .env(DIRECTORY, place.path())
            .env(ENDPOINT, place.endpoint().unwrap_or_default())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let (mut told, mut line) = (0, String::new());
        // What it said before it died counts, also what was not read yet; of a line that broke off, nothing.
        while output.read_line(&mut line).expect("a line") > 0 && line.ends_with('\n') {
            match line.trim_end().split(' ').collect::<Vec<_>>().as_slice() {
                ["pushed", path, digest] => {
                    drop(acknowledged.insert((*path).to_owned(), (*digest).to_owned()));
                    told += 1;
                }
                // Said before it is done: it may be gone, and may be there.
                ["deletes", path] => drop(acknowledged.remove(*path)),
                _ => {}
            }
            // At another point of the child's work in every round.
            if told == 20 + round * 7 {
                child.kill().expect("killed");
                told += 1;
            }
            line.clear();
        }
        child.wait().expect("gone");
        assert!(told > 20, "the child pushed nothing in round {round}");
        whole(&place, &acknowledged, round);
    }
    assert!(acknowledged.len() > KILLS * 4, "{}", acknowledged.len());
}

fn whole(place: &Arc<Place>, acknowledged: &BTreeMap<String, String>, round: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let test = open(place.clone(), |config| config.garbage_age = Duration::ZERO);
        let checked = test.registry.fsck(true, |_, _| true).await.expect("a check");
        assert_eq!(checked.problems, 0, "round {round}: {:?}", checked.listed);
        test.registry.gc().await.expect("a collection");
        let checked = test.registry.fsck(true, |_, _| true).await.expect("a check");
        assert_eq!(checked.problems, 0, "round {round}, collected: {:?}", checked.listed);
        for (path, digest) in acknowledged {
            let answer = test.ask("admin", "GET", path, &[], "").await;
            assert_eq!(answer.status, 200, "round {round}: {path}");
            assert_eq!(answer.header("docker-content-digest"), digest, "round {round}: {path}");
        }
    });
}

/// Not a test: what [`what_was_acknowledged_is_whole_after_a_kill`] kills.
#[test]
#[ignore = "the child process of another test"]
fn child_that_pushes() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let endpoint =
        std::env::var_os(ENDPOINT).and_then(|at| at.into_string().ok()).filter(|at| !at.is_empty());
    let round = std::env::var_os(ROUND).and_then(|round| round.into_string().ok()).expect("a round");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let age = |config: &mut Config| config.garbage_age = Duration::from_millis(30);
        let test = Arc::new(open_at(&directory, endpoint.as_deref(), age));
        let collector = test.registry.clone();
        tokio::spawn(async move {
            loop {
                collector.gc().await.expect("a collection");
            }
        });
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| tokio::spawn(push(test.clone(), format!("{round}-{pusher}"))))
            .collect();
        for pusher in pushers {
            pusher.await.expect("a pusher");
        }
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody listens");
}

async fn push(test: Arc<TestRegistry>, pusher: String) {
    for turn in 0_usize.. {
        let repository = ["a", "b/c"][turn % 2];
        // Layers that others have, and others delete.
        let layers = [format!("layer {}", turn % 5), format!("layer {}", turn % 7), format!("own {turn}")];
        let config = format!("{{\"of\":\"{pusher} {turn}\"}}");
        let descriptor = |content: &str| json!({ "mediaType": "text/plain", "digest": Digest::of(content.as_bytes()), "size": content.len() });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(&config),
            "layers": layers.iter().map(|l| descriptor(l)).collect::<Vec<_>>() })
        .to_string();
        for content in layers.iter().chain([&config]) {
            let path = format!("/v2/{repository}/blobs/uploads/?digest={}", Digest::of(content.as_bytes()));
            let answer = test.ask("admin", "POST", &path, &[], content.clone()).await;
            assert_eq!(answer.status, 201);
        }
        let path = format!("/v2/{repository}/manifests/t{pusher}-{turn}");
        let answer = test.ask("admin", "PUT", &path, &[("content-type", MANIFEST)], manifest).await;
        // Where the collector was quicker than a slow disk, the client is told so and pushes again.
        if answer.status != 201 {
            continue;
        }
        let digest = answer.header("docker-content-digest").to_owned();
        say(&format!("pushed {path} {digest}"));
        if turn % 3 == 0 {
            say(&format!("deletes {path}"));
            let by_digest = format!("/v2/{repository}/manifests/{digest}");
            assert_eq!(test.ask("admin", "DELETE", &by_digest, &[], "").await.status, 202);
        }
    }
}
