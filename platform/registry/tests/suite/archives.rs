//! Uploads of whole archives: in pieces, by whom, and what is refused.

use std::time::Duration;

use gantry_oci::Digest;
use gantry_oci::pack::{PackOptions, pack_static};
use serde_json::{Value, json};

use super::{new, place};
use crate::support::{Answer, TestRegistry, open};

/// An OCI archive of one image that is called so, and the image's digest.
fn archive(name: &str, program: u8) -> (Vec<u8>, String) {
    // Nothing that becomes smaller.
    let mut state = u32::from(program);
    let program: Vec<u8> = (0..400_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let image = pack_static(program.into(), "/pause", "amd64", &PackOptions::default()).expect("packed");
    let mut bytes = Vec::new();
    image.write_archive(name, &mut bytes).expect("written");
    (bytes, image.digest().to_string())
}

/// A tar of these files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

async fn begin(test: &TestRegistry, user: &str, query: &str) -> Answer {
    test.ask(user, "POST", &format!("/registry/v1/archives?{query}"), &[], "").await
}

async fn append(test: &TestRegistry, at: &str, from: usize, bytes: &[u8]) -> Answer {
    let range = format!("{from}-{}", from + bytes.len() - 1);
    test.ask("alice", "PATCH", at, &[("content-range", &range)], bytes.to_vec()).await
}

/// Asks until the archive is stored or refused.
async fn ended(test: &TestRegistry, at: &str) -> Value {
    for _ in 0..600 {
        let status = test.ask("alice", "GET", at, &[], "").await.json();
        if status["phase"] == "done" || status["phase"] == "failed" {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the archive does not come to an end");
}

/// Uploads an archive in one piece; what became of it.
async fn upload(test: &TestRegistry, query: &str, bytes: &[u8]) -> Value {
    let begun = begin(test, "alice", query).await;
    assert_eq!(begun.status, 201, "{}", String::from_utf8_lossy(&begun.body));
    let at = begun.header("location").to_owned();
    assert_eq!(append(test, &at, 0, bytes).await.status, 202);
    let finished = test.ask("alice", "PUT", &at, &[], "").await;
    assert_eq!(finished.status, 202, "{}", String::from_utf8_lossy(&finished.body));
    ended(test, &at).await
}

#[tokio::test]
async fn an_archive_comes_in_pieces_also_across_a_restart() {
    let test = new();
    let (bytes, digest) = archive("demo/own:1", 7);
    let size = bytes.len();
    let query = format!("name=demo/pause:2&size={size}&key=k");
    let begun = begin(&test, "alice", &query).await;
    assert_eq!((begun.status, &begun.json()["phase"]), (201, &json!("receiving")));
    let at = begun.header("location").to_owned();
    let first = append(&test, &at, 0, &bytes[..1000]).await;
    assert_eq!((first.status, first.header("range")), (202, "0-999"));
    let gap = append(&test, &at, 2000, &bytes[2000..3000]).await;
    assert_eq!((gap.status, gap.code().as_str(), gap.header("range")), (416, "RANGE_INVALID", "0-999"));
    let early = test.ask("alice", "PUT", &at, &[], "").await;
    assert_eq!((early.status, early.code().as_str()), (400, "SIZE_INVALID"));

    // Another process takes it up, and who begins the same gets the same.
    let directory = test.place();
    drop(test);
    let test = open(directory.clone(), |_| {});
    let again = begin(&test, "alice", &query).await;
    assert_eq!((again.status, again.header("location")), (200, at.as_str()));
    assert_eq!(again.json()["receivedBytes"], 1000);
    assert_eq!(begin(&test, "admin", &query).await.status, 201, "what somebody else began is not seen");
    let more = append(&test, &at, 1000, &bytes[1000..]).await;
    assert_eq!(more.json()["receivedBytes"], size);
    let over = append(&test, &at, size, b"more").await;
    assert_eq!((over.status, over.code().as_str()), (413, "SIZE_INVALID"));
    let finish = format!("{at}?digest={}", Digest::of(&bytes));
    assert_eq!(test.ask("alice", "PUT", &finish, &[], "").await.status, 202);
    let status = ended(&test, &at).await;
    assert_eq!(status["images"][0]["digest"], digest.as_str(), "{status}");
    assert_eq!(status["storedBytes"], status["totalBytes"]);
    let found = test.ask("alice", "GET", "/v2/demo/pause/manifests/2", &[], "").await;
    assert_eq!((found.status, found.header("docker-content-digest")), (200, digest.as_str()));
    assert_eq!(test.ask("alice", "GET", "/v2/demo/own/manifests/1", &[], "").await.status, 404);
    let left = std::fs::read_dir(directory.path().join("registry/uploads")).expect("a directory");
    // What the administrator began, and nothing of this.
    assert_eq!(left.count(), 2);

    // What came of it is known to the next process, too, until it is forgotten.
    drop(test);
    let test = open(directory, |_| {});
    assert_eq!(ended(&test, &at).await["phase"], "done");
    assert_eq!(
        test.ask("alice", "GET", "/registry/v1/archives", &[], "").await.json()["archives"][0]["phase"],
        "done"
    );
    assert_eq!(test.ask("alice", "DELETE", &at, &[], "").await.status, 204);
    assert_eq!(test.ask("alice", "GET", &at, &[], "").await.status, 404);
    let checked = test.registry.fsck(true, |_, _| true).await.expect("checked");
    assert_eq!(checked.problems, 0);
}

#[tokio::test]
async fn only_who_may_push_uploads_and_only_their_own() {
    let test = new();
    let (bytes, _) = archive("demo/own:1", 7);
    for (user, query, want) in [
        ("", "name=demo/x:1", 401),
        ("bob", "name=demo/x:1", 403),
        ("alice", "name=other/x:1", 403),
        ("alice", "repository=demo/x&repository=other/x", 403),
        ("alice", "", 400),
        ("alice", "name=Demo", 400),
        ("alice", "name=demo/x:1@sha256:0", 400),
        ("alice", "name=demo/x&size=-1", 400),
        ("alice", "name=demo/x&size=99999999999999", 413),
        ("alice", "name=demo/x&nothing=1", 400),
    ] {
        assert_eq!(begin(&test, user, query).await.status, want, "{user} {query}");
    }
    let at = begin(&test, "alice", "name=demo/x:1").await.header("location").to_owned();
    for method in ["GET", "HEAD", "PATCH", "PUT", "DELETE"] {
        assert_eq!(test.ask("", method, &at, &[], "").await.status, 401, "{method}");
        assert_eq!(test.ask("bob", method, &at, &[], "").await.status, 404, "{method}");
        assert_eq!(test.ask("admin", method, &at, &[], "").await.status, 404, "{method}");
    }
    assert_eq!(test.ask("alice", "DELETE", "/registry/v1/archives/../../x", &[], "").await.status, 404);
    // One that names what its uploader may not push to is not stored, in no part.
    let (other, _) = archive("other/x:1", 8);
    let status = upload(&test, "repository=demo/x", &other).await;
    assert_eq!(status["phase"], "failed");
    assert!(status["error"].as_str().expect("why").contains("other/x"), "{status}");
    let status = upload(&test, "repository=demo/own", &bytes).await;
    assert_eq!(status["images"][0]["repository"], "demo/own", "{status}");
}

#[tokio::test]
async fn bad_archives_are_refused_and_leave_nothing() {
    let test = new();
    let (good, _) = archive("demo/x:1", 7);
    let layer = good.windows(12).position(|window| window == b"blobs/sha256").expect("a blob");
    let mut changed = good.clone();
    // A byte of the last blob, far behind the manifest.
    let last = changed.len() - 20_000;
    changed[last] ^= 1;
    assert!(last > layer);
    let config = json!({ "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"layer").to_string()] } });
    let config = config.to_string();
    let docker = |layer: &str, content: &[u8]| {
        let items = json!([{ "Config": "c.json", "RepoTags": ["demo/x:1"], "Layers": [layer] }]).to_string();
        tar_of(&[("manifest.json", items.as_bytes()), ("c.json", config.as_bytes()), (layer, content)])
    };
    let deep = (0..6).fold((json!({"schemaVersion": 2, "manifests": []}).to_string(), Vec::new()), |(inner, mut all), _| {
        let outer = json!({ "schemaVersion": 2, "manifests": [{ "digest": Digest::of(inner.as_bytes()).to_string(),
            "mediaType": "application/vnd.oci.image.index.v1+json", "size": inner.len() }] });
        all.push((format!("blobs/sha256/{}", Digest::of(inner.as_bytes()).hex()), inner.into_bytes()));
        (outer.to_string(), all)
    });
    let mut nested: Vec<(&str, &[u8])> = vec![("oci-layout", b"{}"), ("index.json", deep.0.as_bytes())];
    nested.extend(deep.1.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
    let mut bomb = Vec::new();
    {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(&mut bomb, flate2::Compression::best());
        for _ in 0..300 {
            gzip.write_all(&vec![0; 1 << 20]).expect("compressed");
        }
        gzip.finish().expect("compressed");
    }
    for (what, bytes, want) in [
        ("another content", changed, "has the digest"),
        ("no archive", vec![7; 5000], ""),
        ("nothing in it", tar_of(&[]), "this is no image"),
        ("a way out", docker("../../layer", b"layer"), "leads out"),
        ("a digest that lies", docker("l", b"other"), "has the digest"),
        ("cut off", docker("l", b"layer")[..1700].to_vec(), ""),
        (
            "twice",
            [&docker("l", b"layer")[..3072], &docker("l", b"layer")].concat(),
            "is twice in the archive",
        ),
        ("a deep index", tar_of(&nested), "nested more than"),
        ("a bomb in it", docker("l", &bomb), "bytes uncompressed"),
        ("a bomb", bomb, "bytes uncompressed"),
    ] {
        let status = upload(&test, "name=demo/bad:1", &bytes).await;
        assert_eq!(status["phase"], "failed", "{what}: {status}");
        assert!(status["error"].as_str().expect("why").contains(want), "{what}: {status}");
    }
    let good = docker("l", b"layer");
    let status = upload(&test, "name=demo/good:1", &good).await;
    assert_eq!(
        (&status["phase"], &status["receivedBytes"]),
        (&json!("done"), &json!(good.len())),
        "{status}"
    );
    assert_eq!(test.ask("alice", "GET", "/v2/demo/bad/tags/list", &[], "").await.status, 404);
    let uploads = test.place().path().join("registry/uploads");
    assert_eq!(std::fs::read_dir(uploads).expect("a directory").count(), 0, "no bytes are left");

    let wrong = begin(&test, "alice", "name=demo/x:1").await.header("location").to_owned();
    append(&test, &wrong, 0, &good).await;
    let finish = format!("{wrong}?digest={}", Digest::of(b"other"));
    assert_eq!(test.ask("alice", "PUT", &finish, &[], "").await.code(), "DIGEST_INVALID");
    assert_eq!(test.ask("alice", "GET", &wrong, &[], "").await.status, 404);
}

#[tokio::test]
async fn abandoned_archives_are_collected_and_callers_have_a_bound() {
    let directory = place();
    let test = open(directory.clone(), |config| config.upload_expiry = Duration::ZERO);
    let at = begin(&test, "alice", "name=demo/x:1").await.header("location").to_owned();
    append(&test, &at, 0, b"something").await;
    let collected = test.registry.gc().await.expect("collected");
    assert_eq!(collected.uploads, 1);
    assert_eq!(test.ask("alice", "GET", &at, &[], "").await.status, 404);
    for part in ["uploads", "archives"] {
        let left = std::fs::read_dir(directory.path().join("registry").join(part)).expect("a directory");
        assert_eq!(left.count(), 0, "{part}");
    }
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(begin(&test, "alice", "name=demo/x:1").await.status);
    }
    assert_eq!(answers.iter().filter(|status| **status == 201).count(), 32);
    assert_eq!(answers.last(), Some(&429));
    assert_eq!(begin(&test, "admin", "name=demo/x:1").await.status, 201, "others have their own");
}
