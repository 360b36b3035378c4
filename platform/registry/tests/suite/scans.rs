//! Images are scanned after they were pushed, also those that were pushed before somebody looked.

use std::path::Path;
use std::time::Duration;

use gantry_base::health::HealthBoard;
use gantry_base::tasks::Tasks;
use gantry_oci::image::Image;
use gantry_oci::layer::{Entry, Tree};
use gantry_oci::{RepositoryName, Tag};
use gantry_scanner::advisories::mirror;
use serde_json::{Value, json};

use super::place;
use crate::support::{Answer, TestRegistry, open};

pub const SOON: Duration = Duration::from_secs(60);

/// An image of a Debian with one package.
pub fn image(package: &str, version: &str) -> Image {
    let mut tree = Tree::default();
    let mut file = |path: &str, text: String| {
        tree.add(path, Entry::Bytes { content: text.into_bytes().into(), mode: 0o644 });
    };
    file("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n".to_owned());
    let status = format!(
        "Package: {package}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
    );
    file("var/lib/dpkg/status", status);
    let (layer, diff) = tree.to_layer().expect("a layer");
    let config = json!({ "os": "linux", "architecture": "amd64", "config": { "User": "1000" },
        "rootfs": { "type": "layers", "diff_ids": [diff] } });
    Image::with_config(config.to_string().into(), vec![layer]).expect("an image")
}

fn name(text: &str) -> (RepositoryName, Tag) {
    let (repository, tag) = text.split_once(':').expect("a tag");
    (repository.parse().expect("a repository"), tag.parse().expect("a tag"))
}

pub async fn push(test: &TestRegistry, text: &str, image: &Image) {
    let (repository, tag) = name(text);
    test.registry.put_image(&repository, &tag, image).await.expect("pushed");
}

/// Brings advisories about packages, each mended in version 2.
pub async fn advise(directory: &Path, source: &Path, packages: &[&str]) {
    // Another test of the process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    gantry_base::fs::create_directory(source, 0o755).expect("a directory");
    for package in packages {
        let advisory = json!({ "id": format!("TEST-{package}"), "modified": "2026-01-01T00:00:00Z", "affected": [{
            "package": { "ecosystem": "Debian:12", "name": package },
            "severity": [{ "type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" }],
            "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": "2" }] }],
        }] });
        let path = source.join(format!("{package}.json"));
        gantry_base::fs::write_atomic(&path, advisory.to_string().as_bytes(), 0o644).expect("written");
    }
    let client = reqwest::Client::new();
    let source = [source.display().to_string()];
    mirror::bring(directory, &client, &source, &|_, _, _| {}).await.expect("brought");
}

pub fn tasks() -> Tasks {
    Tasks::new(Default::default(), HealthBoard::default())
}

async fn report(test: &TestRegistry, user: &str, path: &str) -> Answer {
    test.ask(user, "GET", &format!("/registry/v1/reports/{path}"), &[], Vec::new()).await
}

/// The report, when it says what it should.
pub async fn eventually(test: &TestRegistry, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let answer = report(test, "alice", path).await;
            if answer.status == 200 && wanted(&answer.json()) {
                return answer.json();
            }
            assert!(matches!(answer.status, 200 | 503), "{}", String::from_utf8_lossy(&answer.body));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, found).await.unwrap_or_else(|_| panic!("{path} is not as it should be"))
}

pub fn vulnerabilities(report: &Value) -> Vec<&str> {
    let all = report["vulnerabilities"].as_array().into_iter().flatten();
    all.filter_map(|found| found["id"].as_str()).collect()
}

async fn referrers(test: &TestRegistry, repository: &str, image: &Image) -> Vec<Value> {
    let path = format!("/v2/{repository}/referrers/{}", image.digest());
    let answer = test.ask("alice", "GET", &path, &[], Vec::new()).await;
    answer.json()["manifests"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_scanned_described_and_compared_again() {
    let folder = place();
    let (index, source) = (folder.path().join("advisories"), folder.path().join("source"));
    advise(&index, &source, &["openssl"]).await;
    let test = open(folder.clone(), |config| config.advisories = index.clone());
    let tasks = tasks();
    let early = image("curl", "1");
    push(&test, "demo/early:1", &early).await;
    assert_eq!(report(&test, "alice", "demo/early/1").await.status, 422, "nobody scans yet");
    test.registry.scan(&tasks);
    let vulnerable = image("openssl", "1");
    push(&test, "demo/old:latest", &vulnerable).await;
    push(&test, "demo/copy:1", &vulnerable).await;
    push(&test, "demo/new:1", &image("openssl", "2")).await;

    let found = eventually(&test, "demo/old/latest", |_| true).await;
    assert_eq!(vulnerabilities(&found), ["TEST-openssl"]);
    assert_eq!(found["rating"]["grade"], "F");
    assert_eq!(found["target"]["name"], "demo/old:latest");
    assert_eq!(found["target"]["digest"], json!(vulnerable.digest()));
    assert!(found["advisoryData"]["newestModified"].is_string(), "the age of the data is shown: {found}");
    let failed = |report: &Value, id: &str| {
        let checks = report["compliance"]["checks"].as_array().expect("checks").clone();
        checks.iter().any(|check| check["id"] == id && check["outcome"] == "failed")
    };
    let copy = eventually(&test, "demo/copy/1", |_| true).await;
    assert!(failed(&found, "latest-tag") && !failed(&copy, "latest-tag"), "by the name that was asked for");
    assert_eq!(vulnerabilities(&eventually(&test, "demo/new/1", |_| true).await), Vec::<&str>::new());
    let before = eventually(&test, "demo/early/1", |_| true).await;
    assert_eq!(vulnerabilities(&before), Vec::<&str>::new());

    described_and_shown(&test, &vulnerable).await;

    // New advisories: the layers are gone by now, and are not needed.
    folder.lose(&early.layers[0].digest);
    advise(&index, &source, &["curl"]).await;
    let again = eventually(&test, "demo/early/1", |report| !vulnerabilities(report).is_empty()).await;
    assert_eq!(vulnerabilities(&again), ["TEST-curl"]);
    assert!(again["advisoryData"]["generation"].as_u64() > before["advisoryData"]["generation"].as_u64());
    // What is not concerned was compared as well, and says so.
    let other = eventually(&test, "demo/old/latest", |r| r["advisoryData"] == again["advisoryData"]).await;
    assert_eq!(vulnerabilities(&other), ["TEST-openssl"]);
    assert!(tasks.drain(SOON).await);
}

/// The bill of materials is beside the image in every repository, and reports come in every form, to who may pull.
async fn described_and_shown(test: &TestRegistry, vulnerable: &Image) {
    for repository in ["demo/old", "demo/copy"] {
        let sboms = tokio::time::timeout(SOON, async {
            loop {
                let found = referrers(test, repository, vulnerable).await;
                if !found.is_empty() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let sboms = sboms.await.expect("a bill of materials");
        assert_eq!((sboms.len(), &sboms[0]["artifactType"]), (1, &json!("application/vnd.cyclonedx+json")));
    }
    for (query, kind, word) in [
        ("format=html&lang=zh", "text/html; charset=utf-8", "<html lang=\"zh"),
        ("format=sarif", "application/sarif+json", "2.1.0"),
        ("format=cyclonedx", "application/vnd.cyclonedx+json", "CycloneDX"),
        ("format=spdx", "application/spdx+json", "SPDX-2.3"),
    ] {
        let answer = report(test, "alice", &format!("demo/old/latest?{query}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind));
        assert!(String::from_utf8_lossy(&answer.body).contains(word), "{query}");
    }
    for (user, path, status) in [
        ("bob", "demo/old/latest", 404),
        ("alice", "demo/old/nothing", 404),
        ("alice", "demo/old/latest?format=pdf", 400),
        ("alice", "demo/old", 404),
    ] {
        assert_eq!(report(test, user, path).await.status, status, "{user} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_when_the_process_ended_is_scanned_by_the_next() {
    let folder = place();
    let images: Vec<Image> = (0..20).map(|n| image("openssl", &format!("1.{n}"))).collect();
    {
        let test = open(folder.clone(), |_| {});
        for (n, image) in images.iter().enumerate() {
            push(&test, &format!("demo/x:{n}"), image).await;
        }
        let first = tasks();
        test.registry.scan(&first);
        eventually(&test, "demo/x/0", |_| true).await;
        assert!(first.drain(SOON).await);
    }
    // A report that broke off while it was written is none.
    let reports = std::fs::read_dir(folder.path().join("registry/scans")).expect("scans");
    let reports =
        reports.filter_map(Result::ok).find(|e| e.file_name().to_string_lossy().starts_with("reports"));
    let path = reports.expect("reports").path().join(format!("sha256-{}.json", images[0].digest().hex()));
    let whole = std::fs::read(&path).expect("a report");
    gantry_base::fs::write_atomic(&path, &whole[..whole.len() / 2], 0o600).expect("written");

    let test = open(folder.clone(), |_| {});
    let second = tasks();
    test.registry.scan(&second);
    for n in 0..images.len() {
        let found = eventually(&test, &format!("demo/x/{n}"), |_| true).await;
        assert_eq!(found["packages"][0]["version"], format!("1.{n}"));
        assert_eq!(found["vulnerabilities"], Value::Null, "there are no advisories to compare with");
    }
    tokio::time::timeout(SOON, async {
        for image in &images {
            while referrers(&test, "demo/x", image).await.len() != 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    })
    .await
    .expect("one bill of materials each");
    // One that is damaged while it runs is made again.
    gantry_base::fs::write_atomic(&path, b"{", 0o600).expect("written");
    let found = eventually(&test, "demo/x/0", |_| true).await;
    assert_eq!(found["packages"][0]["version"], "1.0");
    assert!(second.drain(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_image_go_its_report_and_its_bill_of_materials() {
    let folder = place();
    let test = open(folder.clone(), |config| config.garbage_age = Duration::ZERO);
    let tasks = tasks();
    test.registry.scan(&tasks);
    let (kept, gone) = (image("kept", "1"), image("gone", "1"));
    push(&test, "demo/x:1", &kept).await;
    push(&test, "demo/x:2", &gone).await;
    for tag in ["1", "2"] {
        eventually(&test, &format!("demo/x/{tag}"), |_| true).await;
    }
    // Idle: nothing is put beside the images any more.
    tokio::time::timeout(SOON, async {
        while referrers(&test, "demo/x", &gone).await.is_empty()
            || referrers(&test, "demo/x", &kept).await.is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("bills of materials");
    let path = format!("/v2/demo/x/manifests/{}", gone.digest());
    assert_eq!(test.ask("admin", "DELETE", &path, &[], Vec::new()).await.status, 202);
    test.registry.gc().await.expect("collected");
    assert_eq!(report(&test, "alice", "demo/x/2").await.status, 404);
    assert!(referrers(&test, "demo/x", &gone).await.is_empty());
    assert_eq!(referrers(&test, "demo/x", &kept).await.len(), 1);
    assert_eq!(report(&test, "alice", "demo/x/1").await.status, 200);
    let files = |part: &str| -> usize {
        let scans = std::fs::read_dir(folder.path().join("registry/scans")).expect("scans");
        let part = scans.filter_map(Result::ok).find(|e| e.file_name().to_string_lossy().starts_with(part));
        std::fs::read_dir(part.expect("a directory").path()).expect("files").count()
    };
    assert_eq!(files("reports"), 1);
    let checked = test.registry.fsck(true, |_, _| true).await.expect("checked");
    assert_eq!((checked.problems, checked.manifests), (0, 2), "{checked:?}");
    assert!(tasks.drain(SOON).await);
}
