//! What is about S3 alone: a server that is away, whose bucket it is, redirects, and a death between two parts.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gantry_oci::Digest;
use gantry_registry::{Config, S3Settings};
use gantry_testkit::{S3Server, eventually};
use reqwest::redirect::Policy;

use crate::support::{Arc, PREFIX, Place, TestRegistry, client, open, open_at, try_open_at};

const REPOSITORY: &str = "/v2/demo/a/blobs";

/// What the child of a test is told.
const DIRECTORY: &str = "GANTRY_REGISTRY_TEST_DIRECTORY";
const ENDPOINT: &str = "GANTRY_REGISTRY_TEST_S3";

async fn push(test: &TestRegistry, content: &[u8]) -> u16 {
    let path = format!("{REPOSITORY}/uploads/?digest={}", Digest::of(content));
    test.ask("admin", "POST", &path, &[], content.to_vec()).await.status
}

/// An upload with all its bytes, and without its end; gives its place, and the request that ends it.
async fn staged(test: &TestRegistry, content: Vec<u8>) -> (String, String) {
    let digest = Digest::of(&content);
    let begun = test.ask("admin", "POST", &format!("{REPOSITORY}/uploads/"), &[], "").await;
    let at = begun.header("location").to_owned();
    assert_eq!(test.ask("admin", "PATCH", &at, &[], content).await.status, 202);
    let end = format!("{at}?digest={digest}");
    (at, end)
}

fn object(content: &[u8]) -> String {
    let digest = Digest::of(content);
    format!("{PREFIX}/blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex())
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_that_passes() {
    let place = Place::s3();
    let test = open(place.clone(), |_| {});
    assert_eq!(push(&test, b"before").await, 201);
    let (at, end) = staged(&test, b"meanwhile".to_vec()).await;
    place.server().stop();
    let before = format!("{REPOSITORY}/{}", Digest::of(b"before"));
    for (method, path) in [("PUT", end.as_str()), ("GET", &before)] {
        let answer = test.ask("admin", method, path, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{method}");
    }
    assert_eq!(test.ask("admin", "HEAD", &before, &[], "").await.status, 200, "what it is, is known");
    assert_eq!(push(&test, b"in one request").await, 503);
    let staged = std::fs::read_dir(place.path().join("registry/uploads")).expect("a directory").count();
    assert_eq!(staged, 2, "what can be gone on with, and its session");
    let unknown = format!("{REPOSITORY}/{}", Digest::of(b"meanwhile"));
    assert_eq!(test.ask("admin", "HEAD", &unknown, &[], "").await.status, 404, "not before it is kept");

    place.server().resume();
    assert_eq!(test.ask("admin", "GET", &at, &[], "").await.header("range"), "0-8");
    assert_eq!(test.ask("admin", "PUT", &end, &[], "").await.status, 201);
    assert_eq!(test.ask("admin", "GET", &unknown, &[], "").await.body, b"meanwhile");
    assert_eq!(test.ask("admin", "GET", &before, &[], "").await.body, b"before");
    assert_eq!(test.registry.fsck(true, |_, _| true).await.expect("a check").problems, 0);
}

#[tokio::test]
async fn a_removal_that_failed_is_done_by_the_next_collection() {
    let place = Place::s3();
    let test = open(place.clone(), |config| config.garbage_age = Duration::ZERO);
    assert_eq!(push(&test, b"garbage").await, 201);
    place.server().stop();
    assert!(test.registry.gc().await.is_err());
    place.server().resume();
    assert!(place.server().objects().contains(&object(b"garbage")));
    test.registry.gc().await.expect("a collection");
    assert!(!place.server().objects().contains(&object(b"garbage")));
    // Pushed again meanwhile, it is no garbage.
    assert_eq!(push(&test, b"garbage").await, 201);
    place.server().stop();
    assert!(test.registry.gc().await.is_err());
    place.server().resume();
    assert_eq!(push(&test, b"garbage").await, 201);
    let image = serde_json::json!({ "schemaVersion": 2, "config": { "mediaType": "text/plain",
        "digest": Digest::of(b"garbage"), "size": 7 }, "layers": [] });
    let kind = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    let pushed = test.ask("admin", "PUT", "/v2/demo/a/manifests/1", &kind, image.to_string()).await;
    assert_eq!(pushed.status, 201);
    test.registry.gc().await.expect("a collection");
    assert!(place.server().objects().contains(&object(b"garbage")));
}

#[tokio::test]
async fn what_a_process_left_is_found_and_what_others_put_there_stays() {
    let place = Place::s3();
    drop(open(place.clone(), |_| {}));
    let left = place.server().object(&object(b"left"));
    std::fs::create_dir_all(left.parent().expect("a directory")).expect("made");
    let foreign = place.server().object(&format!("{PREFIX}/blobs/README"));
    for path in [&left, &foreign] {
        gantry_base::fs::write_atomic(path, b"left", 0o600).expect("an object");
    }
    let test = open(place.clone(), |config| config.garbage_age = Duration::ZERO);
    let unseen = format!("{REPOSITORY}/{}", Digest::of(b"left"));
    assert_eq!(test.ask("admin", "HEAD", &unseen, &[], "").await.status, 404);
    assert_eq!(test.registry.gc().await.expect("a collection").blobs, 1);
    assert!(!left.exists() && foreign.exists());
}

#[tokio::test]
async fn a_start_without_the_right_bucket_says_why() {
    let place = Place::s3();
    let endpoint = place.endpoint();
    let start = |directory: &Path, change: &dyn Fn(&mut Config)| {
        gantry_base::fs::create_directory(directory, 0o700).expect("a directory");
        try_open_at(directory, endpoint.as_deref(), change).err().map(|error| error.to_string())
    };
    let refused = |directory: &Path, change: &dyn Fn(&mut Config), why: &str| {
        let error = start(directory, change).unwrap_or_else(|| panic!("it starts, and not: {why}"));
        assert!(error.contains(why), "{error}");
    };
    fn s3(config: &mut Config) -> &mut S3Settings {
        config.s3.as_mut().expect("settings")
    }
    let here = place.path().join("one");
    let keys = |id: &'static str, secret: &'static str| {
        move |config: &mut Config| {
            let keys = config.s3_keys.as_mut().expect("keys");
            (keys.id, keys.secret) = (id.to_owned(), gantry_base::secret::Secret::new(secret.to_owned()));
        }
    };
    refused(&here, &keys(S3Server::KEY_ID, "wrong"), ": S3: SignatureDoesNotMatch");
    refused(&here, &keys("nobody", S3Server::SECRET_KEY), "S3: ");
    refused(&here, &|c| c.s3_keys = None, "has no credentials, and AWS_ACCESS_KEY_ID");
    refused(&here, &|c| s3(c).bucket = "no-such".to_owned(), "NoSuchBucket");
    refused(&here, &|c| s3(c).regionendpoint = Some("http://127.0.0.1:1".to_owned()), "refused");
    refused(&here, &|c| s3(c).regionendpoint = Some("http://10.0.0.1".to_owned()), "set allow_http");
    assert_eq!(start(&here, &|_| {}), None);
    assert_eq!(start(&here, &|_| {}), None, "and again");

    refused(&here, &|c| c.s3 = None, "its blobs are in the bucket images (rootdirectory \"of/the/test\")");
    refused(&here, &|c| s3(c).rootdirectory = "other".to_owned(), "has not the blobs of this registry");
    let another = place.path().join("two");
    refused(&another, &|_| {}, "has the blobs of another registry");
    assert_eq!(start(&another, &|c| s3(c).rootdirectory = "two".to_owned()), None);
    refused(&another, &|_| {}, "has the blobs of another registry");
}

/// With nothing but a tool that copies.
#[tokio::test]
async fn blobs_move_from_files_to_a_bucket_and_back() {
    let place = Place::s3();
    let registry = place.path().join("registry");
    let (blobs, away) = (registry.join("blobs"), registry.join("blobs.old"));
    let copy = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-rT").args([from, to]).status().expect("cp");
        assert!(copied.success());
    };
    let pulls = async |test: &TestRegistry| {
        let path = format!("{REPOSITORY}/{}", Digest::of(b"moved"));
        assert_eq!(test.ask("admin", "GET", &path, &[], "").await.body, b"moved");
        assert_eq!(test.registry.fsck(true, |_, _| true).await.expect("a check").bytes, 5);
    };
    assert_eq!(push(&open_at(place.path(), None, |_| {}), b"moved").await, 201);
    let refused = try_open_at(place.path(), place.endpoint().as_deref(), |_| {}).err().expect("refused");
    let why = format!("are files: copy {} to {PREFIX}/blobs there", blobs.display());
    assert!(refused.to_string().contains(&why), "{refused}");

    copy(&blobs, &{
        let there = place.server().object(&format!("{PREFIX}/blobs"));
        std::fs::create_dir_all(&there).expect("made");
        there
    });
    std::fs::rename(&blobs, &away).expect("renamed");
    pulls(&open(place.clone(), |_| {})).await;

    copy(&place.server().object(&format!("{PREFIX}/blobs")), &blobs);
    std::fs::remove_file(registry.join("CONTENT")).expect("a file");
    pulls(&open_at(place.path(), None, |_| {})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_are_sent_to_the_bucket_where_that_is_allowed() {
    let place = Place::s3();
    let allowed = |config: &mut Config| config.s3.as_mut().expect("settings").redirect = true;
    let test = open(place.clone(), allowed);
    assert_eq!(push(&test, b"somewhere else").await, 201);
    let path = format!("{REPOSITORY}/{}", Digest::of(b"somewhere else"));
    let sent = test.ask("admin", "GET", &path, &[], "").await;
    assert_eq!((sent.status, sent.header("cache-control")), (307, "no-store"));
    assert!(sent.header("location").starts_with(&place.endpoint().expect("a server")), "{:?}", sent.headers);
    let http = reqwest::Client::new();
    let fetch = async |url: &str, range: &str| {
        let answer = http.get(url).header("range", range).send().await.expect("an answer");
        (answer.status().as_u16(), answer.bytes().await.expect("a body"))
    };
    assert_eq!(fetch(sent.header("location"), "bytes=0-").await, (206, "somewhere else".into()));
    assert_eq!(fetch(sent.header("location"), "bytes=10-").await, (206, "else".into()));
    let other = sent.header("location").replace("X-Amz-Expires=1200", "X-Amz-Expires=9999");
    assert_eq!(fetch(&other, "bytes=0-").await.0, 403, "it is signed");
    assert_eq!(test.ask("admin", "HEAD", &path, &[], "").await.header("content-length"), "14");
    let etag = format!("\"{}\"", Digest::of(b"somewhere else"));
    assert_eq!(test.ask("admin", "GET", &path, &[("if-none-match", &etag)], "").await.status, 304);
    let stranger = test.ask("bob", "GET", &path, &[], "").await;
    assert!(!stranger.headers.contains_key("location"), "{}", stranger.status);
    let (_test, address) = test.serve_with(place.clone(), allowed).await;
    let name = "demo/a".parse().expect("a name");
    for client in [client(&address, Policy::default()), client(&address, Policy::none()).sent_elsewhere(http)]
    {
        let blob = client.small_blob(&name, &Digest::of(b"somewhere else")).await;
        assert_eq!(blob.expect("a blob"), "somewhere else");
    }
    let stays = client(&address, Policy::none()).small_blob(&name, &Digest::of(b"somewhere else")).await;
    assert!(stays.is_err(), "it was not sent anywhere");
}

/// Of five parts, no two alike.
fn large() -> Vec<u8> {
    let mut bytes = vec![0; 70 << 20];
    for (i, byte) in bytes.iter_mut().step_by(1021).enumerate() {
        *byte = (i % 251) as u8;
    }
    bytes
}

#[tokio::test]
async fn a_push_that_died_between_two_parts_is_gone_on_with() {
    let place = Place::s3();
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "bucket::child_that_pushes_a_large_blob", "--ignored", "--nocapture"])
        .env(DIRECTORY, place.path())
        .env(ENDPOINT, place.endpoint().expect("a server"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a child");
    let output = child.stdout.take().expect("its output").into_owned_fd().expect("a pipe");
    let mut lines = BufReader::new(std::fs::File::from(output)).lines().map_while(Result::ok);
    let at = lines.find_map(|line| Some(line.split_once("staged ")?.1.to_owned())).expect("an upload");
    // A part has come, and the server is stopped before it has all.
    eventually("a part on S3", Duration::from_secs(60), || {
        let server = place.server();
        let some = server.parts() > 0;
        if some {
            server.freeze();
        }
        some
    });
    child.kill().await.expect("killed");
    place.server().thaw();

    let test = open(place.clone(), |_| {});
    let digest = Digest::of(&large());
    let blob = format!("{REPOSITORY}/{digest}");
    assert_eq!(test.ask("admin", "HEAD", &blob, &[], "").await.status, 404, "it was not acknowledged");
    let status = test.ask("admin", "GET", &at, &[], "").await;
    assert_eq!((status.status, status.header("range")), (204, format!("0-{}", large().len() - 1).as_str()));
    assert_eq!(test.ask("admin", "PUT", &format!("{at}?digest={digest}"), &[], "").await.status, 201);
    let pulled = test.ask("admin", "GET", &blob, &[], "").await;
    assert!(pulled.status == 200 && pulled.body == large());
    let part = test.ask("admin", "GET", &blob, &[("range", "bytes=16777200-16777231")], "").await;
    assert!(part.status == 206 && part.body == large()[16_777_200..16_777_232], "over the edge of a part");
    let checked = test.registry.fsck(true, |_, _| true).await.expect("a check");
    assert_eq!((checked.problems, checked.bytes), (0, large().len() as u64));
}

/// Not a test: what [`a_push_that_died_between_two_parts_is_gone_on_with`] kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child process of another test"]
async fn child_that_pushes_a_large_blob() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let endpoint = std::env::var_os(ENDPOINT).and_then(|at| at.into_string().ok()).expect("an endpoint");
    let test = Arc::new(open_at(&directory, Some(&endpoint), |_| {}));
    let (at, end) = staged(&test, large()).await;
    println!("staged {at}");
    test.ask("admin", "PUT", &end, &[], "").await;
    println!("done");
}
