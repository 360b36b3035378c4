//! Advisories come over HTTP: whole, from who may bring them, and not in the place of newer ones; or not at all.

use std::io::{Read as _, Seek as _};

use gantry_oci::Digest;
use gantry_scanner::advisories::{export, exported_manifest};
use serde_json::{Value, json};

use super::place;
use super::scans::{SOON, advise, eventually, image, push, tasks, vulnerabilities};
use crate::support::{Answer, TestRegistry, open};

/// An index that was exported, as it is sent.
struct Index {
    line: Vec<u8>,
    table: Vec<u8>,
}

impl Index {
    async fn of(folder: &std::path::Path, packages: &[&str]) -> Self {
        let (directory, source) = (folder.join("elsewhere"), folder.join("source"));
        advise(&directory, &source, packages).await;
        let exported = export(&directory).expect("exported");
        let manifest = exported_manifest(&exported.manifest).expect("a manifest");
        let (mut table, mut bytes) = (exported.table, Vec::new());
        table.rewind().and_then(|()| table.read_to_end(&mut bytes)).expect("a table");
        let mut line = serde_json::to_vec(&manifest).expect("JSON");
        line.push(b'\n');
        Self { line, table: bytes }
    }

    fn body(&self) -> Vec<u8> {
        [self.line.as_slice(), &self.table].concat()
    }

    fn digest(&self) -> String {
        Digest::of(&self.table).to_string()
    }
}

async fn put(test: &TestRegistry, user: &str, digest: &str, body: Vec<u8>) -> Answer {
    test.ask(user, "PUT", &format!("/registry/v1/advisories?digest={digest}"), &[], body).await
}

async fn get(test: &TestRegistry, user: &str) -> Answer {
    test.ask(user, "GET", "/registry/v1/advisories", &[], Vec::new()).await
}

fn message(answer: &Answer) -> String {
    serde_json::from_slice::<Value>(&answer.body).unwrap_or_default()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn brought_advisories_are_what_images_are_compared_with() {
    let folder = place();
    let own = folder.path().join("advisories");
    let test = open(folder.clone(), |config| config.advisories = own.clone());
    let tasks = tasks();
    test.registry.scan(&tasks);
    push(&test, "demo/old:1", &image("openssl", "1")).await;
    assert_eq!(eventually(&test, "demo/old/1", |_| true).await["vulnerabilities"], Value::Null);
    assert_eq!(get(&test, "admin").await.status, 404);

    let first = Index::of(folder.path(), &["openssl"]).await;
    let (body, digest) = (first.body(), first.digest());
    for user in ["", "alice"] {
        assert_eq!(put(&test, user, &digest, body.clone()).await.status, 403, "{user:?}");
        assert_eq!(get(&test, user).await.status, 403, "{user:?}");
    }
    let answer = put(&test, "admin", &digest, body.clone()).await;
    assert_eq!(answer.status, 200, "{}", message(&answer));
    let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((&said["installed"], &said["advisoryData"]["advisories"]), (&json!(true), &json!(1)));
    let found = eventually(&test, "demo/old/1", |report| !report["vulnerabilities"].is_null()).await;
    assert_eq!(vulnerabilities(&found), ["TEST-openssl"]);

    // What is there is as new, and stays; also when what comes was looked at earlier.
    let second = Index::of(folder.path(), &["curl"]).await;
    let newer = put(&test, "admin", &second.digest(), second.body()).await;
    let said: Value = serde_json::from_slice(&newer.body).expect("JSON");
    assert_eq!((&said["installed"], &said["advisoryData"]["advisories"]), (&json!(true), &json!(2)));
    for old in [&second, &first] {
        let kept = put(&test, "admin", &old.digest(), old.body()).await;
        let said: Value = serde_json::from_slice(&kept.body).expect("JSON");
        assert_eq!((&said["installed"], &said["advisoryData"]["advisories"]), (&json!(false), &json!(2)));
    }
    assert!(tasks.drain(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_index_changes_nothing() {
    let folder = place();
    let own = folder.path().join("advisories");
    let test = open(folder.clone(), |config| config.advisories = own.clone());
    let good = Index::of(folder.path(), &["openssl"]).await;
    let digest = good.digest();
    let noise = vec![7; 100_000];
    let long = vec![b' '; 5 << 20];
    let cut = good.table[..good.table.len() / 2].to_vec();
    for (what, digest, body, status, why) in [
        ("no digest", "", good.body(), 400, "digest="),
        ("another digest", &*Digest::of(b"other").to_string(), good.body(), 400, "has the digest sha256:"),
        ("a table that was cut", &digest, [good.line.clone(), cut].concat(), 400, "has the digest sha256:"),
        (
            "noise",
            &Digest::of(&noise).to_string(),
            [good.line.clone(), noise.clone()].concat(),
            400,
            "no table",
        ),
        ("no table", &Digest::of(b"").to_string(), good.line.clone(), 400, "no table"),
        ("no manifest", &digest, good.table.clone(), 400, ""),
        ("nothing", &digest, Vec::new(), 400, "within the manifest"),
        ("an endless line", &digest, long, 413, "shorter"),
    ] {
        let answer = put(&test, "admin", digest, body).await;
        assert_eq!(answer.status, status, "{what}: {}", message(&answer));
        assert!(message(&answer).contains(why), "{what}: {}", message(&answer));
        assert_eq!(get(&test, "admin").await.status, 404, "{what}");
    }
    // Nothing of them is left, and a good one is taken after all of them.
    let left = std::fs::read_dir(&own).into_iter().flatten().filter_map(Result::ok);
    let tables = left.filter(|entry| entry.file_name().to_string_lossy().ends_with(".table"));
    assert_eq!(tables.count(), 0);
    assert_eq!(put(&test, "admin", &digest, good.body()).await.status, 200);
}
