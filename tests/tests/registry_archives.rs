//! Whole archives are uploaded: broken off on both sides and gone on with, stored as they are, refused where they are bad.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gantry_testkit::{Instance, eventually_some, run, spawn};
use serde_json::Value;

use crate::people::Person;
use crate::support::{SOON, has_all};

/// Large enough to be met on its way.
const LARGE_BYTES: usize = 160 << 20;

/// The caller's archives, as the server tells.
fn archives(gantry: &Instance) -> Vec<Value> {
    let pki = gantry.data_dir().join("pki");
    let file = |name: &str| pki.join(name).display().to_string();
    let url = format!("https://{}/registry/v1/archives", gantry.registry());
    let mut command = Command::new("curl");
    command.args(["-sSf", "--max-time", "30", "--cacert", &file("ca.crt"), "--cert", &file("admin.crt")]);
    let said = run(command.args(["--key", &file("admin.key"), &url])).ok();
    let said: Value = serde_json::from_str(&said).expect("JSON");
    said["archives"].as_array().cloned().expect("archives")
}

/// A folder with a file that does not compress.
fn large(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(LARGE_BYTES);
    while bytes.len() < LARGE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    std::fs::write(folder.join("data"), bytes).expect("written");
}

#[track_caller]
fn skopeo(words: &[&str]) -> String {
    run(Command::new("skopeo").arg("--insecure-policy").args(words)).ok()
}

#[test]
fn archives_are_uploaded_across_kills_and_pulled_by_others() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let at = |name: &str| gantry.scratch().join(name).display().to_string();
    large(Path::new(&at("large")));
    let pack =
        ["image", "pack", &at("large"), "--tag", "demo/own:1", "--cmd", "/none", "--output", &at("oci.tar")];
    gantry.gantry(&pack).ok();
    let digest = broken_off_and_gone_on_with(&gantry, &at("oci.tar"));

    let from = format!("docker://{}/demo/large:1", gantry.registry());
    skopeo(&["copy", &from, &format!("oci:{}:1", at("layout"))]);
    let index = std::fs::read(gantry.scratch().join("layout/index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!(index["manifests"][0]["digest"], digest.as_str(), "the image is the archive's, byte by byte");

    let records = gantry.gantry(&["audit", "search", "--verb", "image-uploaded", "-o", "json"]).ok();
    has_all(&records, &["\"name\":\"demo/large\"", &digest, "\"registry.gantry.dev/tag\":\"1\""]);

    small_archives(&gantry);
    bad_archives(&gantry);
    has_all(&gantry.gantry(&["registry", "fsck"]).ok(), &["repositories"]);
}

/// The client is killed, then the server; then all of it comes. Returns the image's digest.
fn broken_off_and_gone_on_with(gantry: &Instance, archive: &str) -> String {
    let words = ["image", "upload", archive, "demo/large:1"];
    let size = std::fs::metadata(archive).expect("an archive").len();
    let client = spawn(&mut gantry.gantry_command(&words));
    let begun = eventually_some("something has come", Duration::from_secs(60), || {
        let status = archives(gantry).into_iter().next();
        status.filter(|status| status["receivedBytes"].as_u64() > Some(0)).ok_or("nothing")
    });
    gantry.kill_process(i32::try_from(client.pid()).expect("a process"));
    assert_eq!(begun["phase"], "receiving");
    let received = archives(gantry)[0]["receivedBytes"].as_u64().expect("a number");
    assert!(received > 0 && received < size, "{received} of {size}");

    gantry.kill9();
    gantry.restart();
    let after = archives(gantry);
    assert_eq!((after.len(), &after[0]["id"]), (1, &begun["id"]));
    // The connection of the client that is gone may have brought some more.
    let received = after[0]["receivedBytes"].as_u64().expect("a number");
    assert!(received > 0 && received < size, "{received} of {size}");
    has_all(&gantry.gantry(&["image", "list"]).ok(), &["REPOSITORY"]);

    let out = gantry.gantry(&words);
    has_all(&out.stderr, &["Going on at"]);
    let said = out.ok();
    let digest = said.trim().strip_prefix("demo/large:1@").expect("the image").to_owned();
    let done = &archives(gantry)[0];
    assert_eq!((&done["id"], &done["phase"]), (&begun["id"], &"done".into()), "{done}");
    digest
}

/// A docker-archive with its own names, compressed; several images in one; a name without a tag.
fn small_archives(gantry: &Instance) {
    let at = |name: &str| gantry.scratch().join(name).display().to_string();
    gantry.gantry(&["image", "pack", "/bin/true", "--tag", "demo/true:1"]).ok();
    let from = format!("docker://{}/demo/true:1", gantry.registry());
    let docker = format!("docker-archive:{}:demo/named:7", at("docker.tar"));
    skopeo(&["copy", "--additional-tag", "demo/more:8", &from, &docker]);
    run(Command::new("gzip").arg("-k").arg(at("docker.tar"))).ok();
    let said = gantry.gantry(&["image", "upload", &at("docker.tar.gz")]).ok();
    has_all(&said, &["demo/named:7@sha256:", "demo/more:8@sha256:"]);
    for name in ["demo/named:7", "demo/more:8"] {
        let image = format!("docker://{}/{name}", gantry.registry());
        has_all(&skopeo(&["inspect", &image]), &["\"Digest\""]);
        skopeo(&["copy", &image, &format!("dir:{}", at("pulled"))]);
    }
    let said = gantry.gantry(&["image", "upload", &at("docker.tar"), "demo/elsewhere"]).ok();
    has_all(&said, &["demo/elsewhere:7@sha256:", "demo/elsewhere:8@sha256:"]);
    let anew = gantry.gantry(&["image", "upload", "--no-resume", &at("docker.tar"), "demo/elsewhere"]).ok();
    assert_eq!(anew, said, "twice is the same as once");
}

fn bad_archives(gantry: &Instance) {
    let at = |name: &str| gantry.scratch().join(name).display().to_string();
    let attack = "import tarfile, io, sys
tar = tarfile.open(sys.argv[1], 'w')
for name in sys.argv[2:]:
    info = tarfile.TarInfo(name)
    info.size = 2
    tar.addfile(info, io.BytesIO(b'[]'))
tar.close()";
    for (name, files, want) in [
        ("out.tar", &["manifest.json", "../../../etc/cron.d/x"][..], "leads out of it"),
        ("twice.tar", &["manifest.json", "manifest.json"], "is twice in the archive"),
        ("none.tar", &["readme"], "this is no image"),
        ("empty.tar", &["manifest.json"], "holds no image"),
    ] {
        run(Command::new("python3").args(["-c", attack, &at(name)]).args(files)).ok();
        let out = gantry.gantry(&["image", "upload", &at(name), "demo/bad:1"]);
        has_all(&out.fails(), &["cannot upload", want]);
    }
    let list = gantry.gantry(&["image", "list"]).ok();
    assert!(!list.contains("demo/bad"), "{list}");
    let left = std::fs::read_dir(gantry.data_dir().join("registry/uploads")).expect("a directory");
    assert_eq!(left.count(), 0, "no bytes are left");
}

#[test]
fn rights_and_rules_hold_for_what_an_archive_holds() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    for words in [
        &["domain", "create", "acme"][..],
        &["project", "create", "acme/web", "--environment", "dev"],
        &["project", "create", "acme/ops", "--environment", "dev"],
    ] {
        gantry.gantry(words).ok();
    }
    let (alice, eve) = (Person::signed_in(&gantry, "acme/alice"), Person::signed_in(&gantry, "acme/eve"));
    for (role, user, project) in [
        ("admin", "acme/alice", "acme/web"),
        ("reader", "acme/alice", "acme/ops"),
        ("reader", "acme/eve", "acme/web"),
    ] {
        gantry.gantry(&["assign", role, "--user", user, "--project", project]).ok();
    }
    let at = |name: &str| gantry.scratch().join(name).display().to_string();
    let (mine, other) = (at("true.tar"), at("ls.tar"));
    for (program, file) in [("/bin/true", &mine), ("/bin/ls", &other)] {
        gantry.gantry(&["image", "pack", program, "--tag", "x:1", "--output", file]).ok();
    }
    alice.gantry(&["image", "upload", &mine, "acme/web/front:1"]).ok();
    has_all(&alice.gantry(&["image", "upload", &mine]).fails(), &["may be a tag: say where it goes"]);
    for (person, name) in [(&eve, "acme/web/front:1"), (&alice, "acme/ops/front:1"), (&alice, "elsewhere:1")]
    {
        let refused = person.gantry(&["image", "upload", &other, name]).fails();
        has_all(&refused, &["cannot push", name.split_once(':').expect("a tag").0]);
    }

    // What a quota refuses is kept, and stored when there is room: nothing is sent again.
    alice.gantry(&["repository", "set", "acme/web/front", "--quota", "10Ki"]).ok();
    let words = ["image", "upload", &other, "acme/web/front:2"];
    let refused = eventually_some("the quota is known and refuses it", SOON, || {
        let out = alice.gantry(&words);
        if out.stderr.contains("quota of repository acme/web/front") { Ok(out) } else { Err(out) }
    });
    has_all(&refused.fails(), &["cannot upload", "10.0 KiB"]);
    alice.gantry(&["repository", "set", "acme/web/front", "--quota", ""]).ok();
    let out = eventually_some("there is room", SOON, || {
        let out = alice.gantry(&words);
        if out.succeeded() { Ok(out) } else { Err(out) }
    });
    has_all(&out.stderr, &["Going on at"]);
    has_all(&out.ok(), &["acme/web/front:2@sha256:"]);
    // A tag that stays is not moved by an archive either.
    alice.gantry(&["repository", "set", "acme/web/front", "--immutable-tags", "v*"]).ok();
    alice.gantry(&["image", "upload", &mine, "acme/web/front:v1"]).ok();
    eventually_some("the tag is immutable", SOON, || {
        let out = alice.gantry(&["image", "upload", &other, "acme/web/front:v1"]);
        if out.stderr.contains("is immutable") { Ok(()) } else { Err(out) }
    });
}

/// Writes an OCI archive with an index of two platforms, named `multi`.
const MULTI: &str = "import tarfile, io, sys, json, hashlib
tar = tarfile.open(sys.argv[1], 'w')
def file(name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
def blob(media, content):
    digest = hashlib.sha256(content).hexdigest()
    file('blobs/sha256/' + digest, content)
    return {'mediaType': media, 'digest': 'sha256:' + digest, 'size': len(content)}
def dump(value):
    return json.dumps(value).encode()
kind = 'application/vnd.oci.image.'
parts = []
for arch in ['amd64', 'arm64']:
    data = io.BytesIO()
    inner = tarfile.open(fileobj=data, mode='w')
    info = tarfile.TarInfo('arch')
    info.size = len(arch)
    inner.addfile(info, io.BytesIO(arch.encode()))
    inner.close()
    layer = blob(kind + 'layer.v1.tar', data.getvalue())
    config = blob(kind + 'config.v1+json', dump({'architecture': arch, 'os': 'linux',
        'rootfs': {'type': 'layers', 'diff_ids': [layer['digest']]}}))
    part = blob(kind + 'manifest.v1+json', dump({'schemaVersion': 2, 'mediaType': kind + 'manifest.v1+json',
        'config': config, 'layers': [layer]}))
    part['platform'] = {'os': 'linux', 'architecture': arch}
    parts.append(part)
index = blob(kind + 'index.v1+json', dump({'schemaVersion': 2, 'mediaType': kind + 'index.v1+json', 'manifests': parts}))
print(index['digest'])
print(parts[1]['digest'])
index['annotations'] = {'org.opencontainers.image.ref.name': 'multi'}
file('index.json', dump({'schemaVersion': 2, 'manifests': [index]}))
file('oci-layout', dump({'imageLayoutVersion': '1.0.0'}))
tar.close()";

#[test]
fn all_platforms_are_kept_by_archives_and_bundles() {
    let Some(gantry) = Instance::builder().no_node().start() else { return };
    let at = |name: &str| gantry.scratch().join(name).display().to_string();
    let digests = run(Command::new("python3").args(["-c", MULTI, &at("multi.tar")])).ok();
    let (index, arm) = digests.trim().split_once('\n').expect("two digests");
    let said = gantry.gantry(&["image", "upload", &at("multi.tar"), "demo/multi"]).ok();
    assert_eq!(said.trim(), format!("demo/multi:multi@{index}"));
    let pulled = |name: &str, arch: &str| {
        let image = format!("docker://{}/{name}", gantry.registry());
        skopeo(&["--override-arch", arch, "copy", &image, &format!("dir:{}", at(&format!("pulled-{arch}")))]);
    };
    pulled("demo/multi:multi", "amd64");
    pulled("demo/multi:multi", "arm64");

    // All of it, and the image of one platform, through bundles that nobody signed.
    for (platform, into, wanted) in [(None, "all", index), (Some("linux/arm64"), "one", arm)] {
        let (bundle, image) = (at(&format!("{into}.tar")), "demo/multi:multi");
        let mut words = vec!["bundle", "create", "-o", &bundle, image];
        words.extend(platform.iter().flat_map(|platform| ["--platform", platform]));
        let out = gantry.gantry(&words);
        has_all(&out.stderr, &["is not signed"]);
        out.ok();
        has_all(&gantry.gantry(&["bundle", "load", &bundle, "--key", "none.pub"]).fails(), &["none.pub"]);
        let load = ["bundle", "load", &bundle, "--insecure-skip-signature", "--into", into];
        assert_eq!(gantry.gantry(&load).ok().trim(), format!("{into}/demo/multi:multi@{wanted}"));
        pulled(&format!("{into}/demo/multi:multi"), "arm64");
    }
    let none = ["bundle", "create", "-o", &at("x.tar"), "--platform", "linux/s390x", "demo/multi:multi"];
    has_all(&gantry.gantry(&none).fails(), &["has no image of the platform linux/s390x"]);
    has_all(&gantry.gantry(&["registry", "fsck"]).ok(), &["repositories"]);
}
