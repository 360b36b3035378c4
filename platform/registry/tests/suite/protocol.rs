//! Behaviour of the protocol, request by request.

use std::sync::Arc;
use std::time::Duration;

use gantry_oci::Digest;
use serde_json::json;

use super::{new, place};
use crate::support::{Answer, TestRegistry, open};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

async fn push_blob(test: &TestRegistry, repository: &str, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let answer = test.ask("admin", "POST", &path, &[], content.to_vec()).await;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    digest
}

fn manifest(config: &[u8], layers: &[&[u8]]) -> serde_json::Value {
    let descriptor =
        |b: &[u8]| json!({ "mediaType": "text/plain", "digest": Digest::of(b), "size": b.len() });
    let layers: Vec<_> = layers.iter().map(|b| descriptor(b)).collect();
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config), "layers": layers })
}

async fn put(test: &TestRegistry, path: &str, value: &serde_json::Value, kind: &str) -> Answer {
    test.ask("admin", "PUT", path, &[("content-type", kind)], value.to_string()).await
}

#[tokio::test]
async fn blobs_are_read_whole_in_part_and_conditionally() {
    let test = new();
    let content: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
    let digest = push_blob(&test, "demo/a", &content).await;
    let path = format!("/v2/demo/a/blobs/{digest}");
    let whole = test.ask("admin", "GET", &path, &[], "").await;
    assert_eq!((whole.status, whole.body == content), (200, true));
    assert_eq!(whole.header("docker-content-digest"), digest.to_string());
    let part = test.ask("admin", "GET", &path, &[("range", "bytes=300000-699998")], "").await;
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 300000-699998/700000"));
    assert!(part.body == content[300_000..=699_998]);
    let outside = test.ask("admin", "GET", &path, &[("range", "bytes=700000-")], "").await;
    assert_eq!((outside.status, outside.header("content-range")), (416, "bytes */700000"));
    let same = test.ask("admin", "GET", &path, &[("if-none-match", whole.header("etag"))], "").await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let head = test.ask("admin", "HEAD", &path, &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "700000"));
    // Visible only where it was pushed.
    let other = test.ask("admin", "GET", &format!("/v2/demo/b/blobs/{digest}"), &[], "").await;
    assert_eq!((other.status, other.code().as_str()), (404, "BLOB_UNKNOWN"));
    assert_eq!(test.ask("admin", "DELETE", &path, &[], "").await.status, 202);
    assert_eq!(test.ask("admin", "GET", &path, &[], "").await.status, 404);
}

#[tokio::test]
async fn a_chunked_upload_goes_on_after_a_restart() {
    let test = new();
    let begun = test.ask("admin", "POST", "/v2/demo/a/blobs/uploads/", &[], "").await;
    assert_eq!((begun.status, begun.header("range")), (202, "0-0"));
    let at = begun.header("location").to_owned();
    let first =
        test.ask("admin", "PATCH", &at, &[("content-range", "0-4"), ("content-length", "5")], "hello").await;
    assert_eq!((first.status, first.header("range")), (202, "0-4"));
    let gap = test.ask("admin", "PATCH", &at, &[("content-range", "6-7")], "xx").await;
    assert_eq!((gap.status, gap.header("range")), (416, "0-4"));
    let lie =
        test.ask("admin", "PATCH", &at, &[("content-range", "5-9"), ("content-length", "2")], "xx").await;
    assert_eq!(lie.status, 416);

    let directory = test.place();
    drop(test);
    let test = open(directory, |_| {});
    let status = test.ask("admin", "GET", &at, &[], "").await;
    assert_eq!((status.status, status.header("range")), (204, "0-4"));
    assert_eq!(test.ask("admin", "PATCH", &at, &[], " wor").await.header("range"), "0-8");
    let other = at.replace("demo/a", "demo/b");
    assert_eq!(test.ask("admin", "GET", &other, &[], "").await.status, 404);
    let digest = Digest::of(b"hello world");
    let done = test.ask("admin", "PUT", &format!("{at}?digest={digest}"), &[], "ld").await;
    assert_eq!(done.status, 201, "{}", String::from_utf8_lossy(&done.body));
    assert_eq!(test.ask("admin", "GET", &at, &[], "").await.code(), "BLOB_UPLOAD_UNKNOWN");
    let read = test.ask("admin", "GET", done.header("location"), &[], "").await;
    assert_eq!(read.body, b"hello world");
}

#[tokio::test]
async fn wrong_digests_are_refused_and_leave_nothing() {
    let test = new();
    let wrong = Digest::of(b"something else");
    let answer = test.ask("admin", "POST", &format!("/v2/a/blobs/uploads/?digest={wrong}"), &[], "x").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "DIGEST_INVALID"));
    let begun = test.ask("admin", "POST", "/v2/a/blobs/uploads/", &[], "").await;
    let at = begun.header("location").to_owned();
    for query in ["", "?digest=sha256:1", "?digest=md5:00"] {
        assert_eq!(test.ask("admin", "PUT", &format!("{at}{query}"), &[], "").await.code(), "DIGEST_INVALID");
    }
    assert_eq!(test.ask("admin", "DELETE", &at, &[], "").await.status, 204);
    let uploads = test.place().path().join("registry/uploads");
    assert_eq!(std::fs::read_dir(uploads).expect("a directory").count(), 0);
}

#[tokio::test]
async fn sha512_is_verified() {
    let test = new();
    let mut hasher = gantry_oci::Hasher::new(gantry_oci::Algorithm::Sha512);
    hasher.update(b"x");
    let digest = hasher.finish();
    let pushed = test.ask("admin", "POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], "x").await;
    assert_eq!(pushed.status, 201);
    assert_eq!(test.ask("admin", "GET", pushed.header("location"), &[], "").await.body, b"x");
    let wrong = test.ask("admin", "POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], "y").await;
    assert_eq!(wrong.code(), "DIGEST_INVALID");
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_and_keeps_its_type() {
    let test = new();
    let image = manifest(b"{}", &[b"layer"]);
    let missing = put(&test, "/v2/demo/a/manifests/1", &image, MANIFEST).await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    push_blob(&test, "demo/a", b"{}").await;
    push_blob(&test, "demo/a", b"layer").await;
    let pushed = put(&test, "/v2/demo/a/manifests/1", &image, MANIFEST).await;
    assert_eq!(pushed.status, 201);
    let digest = Digest::of(image.to_string().as_bytes());
    assert_eq!(pushed.header("docker-content-digest"), digest.to_string());
    let directory = test.place();
    drop(test);
    let test = open(directory, |_| {});
    for reference in ["1".to_owned(), digest.to_string()] {
        let read = test.ask("admin", "GET", &format!("/v2/demo/a/manifests/{reference}"), &[], "").await;
        assert_eq!((read.status, read.header("content-type")), (200, MANIFEST));
        assert_eq!(read.body, image.to_string().as_bytes());
    }
    let wrong = put(&test, &format!("/v2/demo/a/manifests/{}", Digest::of(b"")), &image, MANIFEST).await;
    assert_eq!(wrong.code(), "DIGEST_INVALID");
    let index =
        json!({ "schemaVersion": 2, "manifests": [{ "mediaType": MANIFEST, "digest": digest, "size": 1 }] });
    assert_eq!(put(&test, "/v2/demo/a/manifests/all", &index, INDEX).await.status, 201);
    assert_eq!(put(&test, "/v2/demo/b/manifests/all", &index, INDEX).await.code(), "MANIFEST_BLOB_UNKNOWN");
    let big = vec![b' '; (4 << 20) + 1];
    let big = test.ask("admin", "PUT", "/v2/demo/a/manifests/big", &[("content-type", MANIFEST)], big).await;
    assert_eq!(big.status, 413);
    assert_eq!(test.ask("admin", "DELETE", "/v2/demo/a/manifests/1", &[], "").await.status, 202);
    assert_eq!(test.ask("admin", "HEAD", "/v2/demo/a/manifests/1", &[], "").await.status, 404);
    let by_digest = format!("/v2/demo/a/manifests/{digest}");
    // What an index or a manifest names goes after it.
    let refused = test.ask("admin", "DELETE", &by_digest, &[], "").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "DENIED"));
    let blob = format!("/v2/demo/a/blobs/{}", Digest::of(b"{}"));
    assert_eq!(test.ask("admin", "DELETE", &blob, &[], "").await.status, 409);
    let index = Digest::of(index.to_string().as_bytes());
    let index = format!("/v2/demo/a/manifests/{index}");
    assert_eq!(test.ask("admin", "DELETE", &index, &[], "").await.status, 202);
    assert_eq!(test.ask("admin", "DELETE", &by_digest, &[], "").await.status, 202);
    assert_eq!(test.ask("admin", "GET", &by_digest, &[], "").await.code(), "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let test = new();
    push_blob(&test, "a", b"{}").await;
    let image = manifest(b"{}", &[]);
    let subject = Digest::of(image.to_string().as_bytes());
    for kind in ["text/sbom", "text/signature"] {
        let mut referrer = image.clone();
        referrer["artifactType"] = kind.into();
        referrer["annotations"] = json!({ "kind": kind });
        referrer["subject"] = json!({ "mediaType": MANIFEST, "digest": subject, "size": 1 });
        let digest = Digest::of(referrer.to_string().as_bytes());
        let pushed = put(&test, &format!("/v2/a/manifests/{digest}"), &referrer, MANIFEST).await;
        assert_eq!((pushed.status, pushed.header("oci-subject")), (201, subject.to_string().as_str()));
    }
    let all = test.ask("admin", "GET", &format!("/v2/a/referrers/{subject}"), &[], "").await;
    assert_eq!(all.header("content-type"), INDEX);
    assert_eq!(all.json()["manifests"].as_array().expect("a list").len(), 2);
    let path = format!("/v2/a/referrers/{subject}?artifactType=text%2Fsbom");
    let some = test.ask("admin", "GET", &path, &[], "").await;
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
    assert_eq!(some.json()["manifests"][0]["annotations"]["kind"], "text/sbom");
    assert_eq!(some.json()["manifests"].as_array().expect("a list").len(), 1);
    let paged = test.ask("admin", "GET", &format!("/v2/a/referrers/{subject}?n=1"), &[], "").await;
    let next = paged.header("link").trim_start_matches('<').split('>').next().expect("a link").to_owned();
    let rest = test.ask("admin", "GET", &next, &[], "").await.json();
    assert_ne!(rest["manifests"][0]["digest"], paged.json()["manifests"][0]["digest"]);
    let none = test.ask("admin", "GET", &format!("/v2/b/referrers/{subject}"), &[], "").await;
    assert_eq!((none.status, none.json()["manifests"].as_array().map(Vec::len)), (200, Some(0)));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let test = new();
    let image = manifest(b"{}", &[]);
    for repository in ["a", "b/c", "d"] {
        push_blob(&test, repository, b"{}").await;
        for tag in ["1", "2", "3"] {
            put(&test, &format!("/v2/{repository}/manifests/{tag}"), &image, MANIFEST).await;
        }
    }
    for (start, key, want) in [
        ("/v2/b/c/tags/list?n=2", "tags", json!(["1", "2", "3"])),
        ("/v2/_catalog?n=2", "repositories", json!(["a", "b/c", "d"])),
    ] {
        let (mut path, mut all) = (start.to_owned(), Vec::new());
        loop {
            let page = test.ask("admin", "GET", &path, &[], "").await;
            assert_eq!(page.status, 200);
            all.extend(page.json()[key].as_array().expect("a list").clone());
            match page.header("link").split_once('>') {
                Some((next, _)) => path = next.trim_start_matches('<').to_owned(),
                None => break,
            }
        }
        assert_eq!(json!(all), want);
    }
    assert_eq!(test.ask("admin", "GET", "/v2/none/tags/list", &[], "").await.code(), "NAME_UNKNOWN");
    assert_eq!(test.ask("admin", "GET", "/v2/a/tags/list?n=x", &[], "").await.status, 400);
    // Each sees what they may pull; who is not signed in sees nothing.
    let seen = test.ask("alice", "GET", "/v2/_catalog", &[], "").await;
    assert_eq!((seen.status, seen.json()["repositories"].clone()), (200, json!([])));
    assert_eq!(test.ask("", "GET", "/v2/_catalog", &[], "").await.status, 401);
}

#[tokio::test]
async fn rights_are_asked_and_strangers_sent_to_the_token_server() {
    let test = new();
    let digest = push_blob(&test, "secret/a", b"x").await;
    let stranger = test.ask("", "GET", "/v2/secret/a/tags/list", &[], "").await;
    assert_eq!(stranger.status, 401);
    assert_eq!(
        stranger.header("www-authenticate"),
        r#"Bearer realm="https://registry.test/token",service="gantry",scope="repository:secret/a:pull""#
    );
    for path in ["/v2/", "https://registry.test/v2/"] {
        let stranger = test.ask("", "GET", path, &[], "").await;
        let realm = r#"Bearer realm="https://registry.test/token",service="gantry""#;
        assert_eq!((stranger.status, stranger.header("www-authenticate")), (401, realm), "{path}");
    }
    assert_eq!(test.ask("alice", "GET", "/v2/", &[], "").await.status, 200);
    assert_eq!(test.ask("", "POST", "/v2/public/a/blobs/uploads/", &[], "").await.status, 401);
    assert_eq!(
        test.ask("alice", "GET", &format!("/v2/secret/a/blobs/{digest}"), &[], "").await.code(),
        "DENIED"
    );
    // A mount needs the right to read the source; without it the upload begins and tells nothing.
    let mount = format!("/v2/demo/a/blobs/uploads/?mount={digest}&from=secret/a");
    assert_eq!(test.ask("alice", "POST", &mount, &[], "").await.status, 202);
    assert_eq!(test.ask("admin", "POST", &mount, &[], "").await.status, 201);
    assert_eq!(test.ask("alice", "GET", &format!("/v2/demo/a/blobs/{digest}"), &[], "").await.body, b"x");
}

#[tokio::test]
async fn answers_say_for_the_trail_what_was_done_with_what_and_by_whom() {
    let test = new();
    let digest = push_blob(&test, "demo/a", b"x").await;
    let blob = format!("/v2/demo/a/blobs/{digest}");
    for (user, method, path, want) in [
        ("alice", "GET", blob.as_str(), "200 pull demo/a blobs"),
        ("bob", "HEAD", &blob, "403 pull demo/a blobs"),
        ("alice", "GET", "/v2/demo/a/manifests/none", "404 pull demo/a manifests"),
        ("alice", "POST", "/v2/demo/a/blobs/uploads/", "202 push demo/a uploads"),
        ("alice", "DELETE", &blob, "202 delete demo/a blobs"),
    ] {
        let answer = test.ask(user, method, path, &[], "").await;
        let notes = answer.notes.expect("notes");
        let object = notes.object.expect("an object");
        let verb = notes.verb.unwrap_or_default();
        assert_eq!(
            format!("{} {verb} {} {}", answer.status, object.name, object.subresource),
            want,
            "{path}"
        );
        assert_eq!(
            (object.group.as_str(), object.resource.as_str()),
            ("registry.gantry.dev", "repositories")
        );
    }
    assert!(test.ask("alice", "GET", "/v2/", &[], "").await.notes.is_none());
    // Nobody is known before the form is read.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = "grant_type=refresh_token&refresh_token=alice-token&service=gantry";
    let notes = test.ask("", "POST", "/token", &form, body).await.notes.expect("notes");
    assert_eq!(notes.user.expect("a user").username, "alice");
    assert_eq!(notes.credential.as_deref(), Some("token"));
    let refused = test.ask("", "POST", "/token", &form, "grant_type=refresh_token&refresh_token=x").await;
    assert!(refused.status == 401 && refused.notes.is_none());
}

#[tokio::test]
async fn garbage_goes_and_what_is_used_or_new_stays() {
    let directory = place();
    let test = open(directory.clone(), |_| {});
    push_blob(&test, "a", b"{}").await;
    let garbage = push_blob(&test, "a", b"garbage").await;
    assert_eq!(put(&test, "/v2/a/manifests/1", &manifest(b"{}", &[]), MANIFEST).await.status, 201);
    assert_eq!(test.registry.gc().await.expect("a collection"), gantry_registry::Collected::default());
    drop(test);
    let test = open(directory, |config| config.garbage_age = Duration::ZERO);
    let collected = test.registry.gc().await.expect("a collection");
    assert_eq!((collected.links, collected.blobs, collected.bytes), (1, 1, 7));
    assert_eq!(test.ask("admin", "GET", &format!("/v2/a/blobs/{garbage}"), &[], "").await.status, 404);
    let kept = format!("/v2/a/blobs/{}", Digest::of(b"{}"));
    assert_eq!(test.ask("admin", "GET", &kept, &[], "").await.body, b"{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pushes_at_once() {
    let test = Arc::new(new());
    let tasks = (0..100_u32).map(|i| {
        let test = test.clone();
        tokio::spawn(async move {
            let repository = format!("demo/r{}", i % 7);
            let own = format!("layer {i}");
            push_blob(&test, &repository, b"{}").await;
            push_blob(&test, &repository, own.as_bytes()).await;
            let image = manifest(b"{}", &[own.as_bytes()]);
            put(&test, &format!("/v2/{repository}/manifests/t{i}"), &image, MANIFEST).await.status
        })
    });
    for status in futures::future::join_all(tasks).await {
        assert_eq!(status.expect("a push"), 201);
    }
    let directory = test.place();
    drop(test);
    let test = open(directory, |_| {});
    for i in 0..100 {
        let path = format!("/v2/demo/r{}/manifests/t{i}", i % 7);
        assert_eq!(test.ask("admin", "GET", &path, &[], "").await.status, 200, "{path}");
    }
}
