//! Bundles are written and read back; what was changed in one is found and named; any bytes are taken.

mod fuzz;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use gantry_bundle::{Bundle, Contents, Manifest, Pushed, Repository, Writer, blob_name};
use gantry_oci::Digest;
use gantry_oci::pack::{PackOptions, pack_static};
use gantry_signatures::PrivateKey;
use jiff::Timestamp;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A bundle of one small image; what it is made of, and the digest of its layer.
fn written(key: Option<&PrivateKey>) -> (Vec<u8>, Manifest, Digest) {
    let image =
        pack_static(vec![7_u8; 5000].into(), "/pause", "amd64", &PackOptions::default()).expect("packed");
    let mut content = BTreeMap::from([(image.digest(), image.manifest.to_vec())]);
    for blob in image.blobs() {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut blob.source.open().expect("a blob"), &mut bytes).expect("read");
        content.insert(blob.digest.clone(), bytes);
    }
    let pushed = Pushed {
        digest: image.digest(),
        media_type: MANIFEST_TYPE.to_owned(),
        tags: vec!["1".to_owned()],
        artifact_type: None,
        subject: None,
    };
    let repository = Repository {
        name: "demo/pause".to_owned(),
        blobs: image.blobs().map(|blob| blob.digest.clone()).collect(),
        manifests: vec![pushed],
    };
    let contents = Contents {
        repositories: vec![repository],
        sizes: content.iter().map(|(digest, bytes)| (digest.clone(), bytes.len() as u64)).collect(),
        advisories: None,
    };
    let manifest = Manifest::new(contents, Timestamp::UNIX_EPOCH).expect("a manifest");
    let mut writer = Writer::new(Vec::new(), &manifest, key).expect("begun");
    while let Some(digest) = writer.next().map(|entry| entry.digest.clone()) {
        writer.append(&content[&digest][..]).expect("appended");
    }
    (writer.finish().expect("written"), manifest, image.layers[0].digest.clone())
}

fn opened(directory: &Path, bytes: &[u8]) -> Result<Bundle, gantry_bundle::BundleError> {
    let path = directory.join("bundle.tar");
    std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("written");
    Bundle::open(&path)
}

#[test]
fn what_is_written_is_read_and_the_signature_is_of_all_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, other) = (PrivateKey::generate().expect("a key"), PrivateKey::generate().expect("a key"));
    let (bytes, manifest, layer) = written(Some(&key));
    assert_eq!(written(None).0, written(None).0, "the same bytes every time");
    let bundle = opened(directory.path(), &bytes).expect("a bundle");
    assert_eq!(*bundle.manifest(), manifest);
    assert_eq!(*bundle.signed_by(&[other.public(), key.public()]).expect("signed"), key.public());
    assert!(bundle.signed_by(&[other.public()]).is_err());
    let mut read = 0;
    bundle.check(&mut |n| read += n).expect("whole");
    assert_eq!(read, manifest.size_bytes());
    assert_eq!(bundle.blob(&layer).expect("a blob").digest, layer);
    assert!(bundle.blob(&Digest::of(b"x")).is_err());
    let unsigned = opened(directory.path(), &written(None).0).expect("a bundle");
    assert!(!unsigned.is_signed() && unsigned.signed_by(&[key.public()]).is_err());
}

#[test]
fn other_tools_read_the_images_and_check_the_signature() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = PrivateKey::generate().expect("a key");
    let (bytes, ..) = written(Some(&key));
    let at = |name: &str| directory.path().join(name).display().to_string();
    drop(opened(directory.path(), &bytes).expect("a bundle"));
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(directory.path()).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(
        "skopeo",
        &["copy", &format!("oci-archive:{}:demo/pause:1", at("bundle.tar")), &format!("dir:{}", at("out"))],
    );
    std::fs::File::create(at("key.pub"))
        .and_then(|mut f| f.write_all(key.public().to_pem().as_bytes()))
        .expect("a key");
    run("tar", &["-xf", "bundle.tar", "bundle.json", "bundle.json.sig"]);
    run("sh", &["-c", "base64 -d bundle.json.sig > raw.sig"]);
    run("openssl", &["dgst", "-sha256", "-verify", "key.pub", "-signature", "raw.sig", "bundle.json"]);
}

/// The bundle with one byte of the entry changed, which is found behind its header.
fn tampered(bytes: &[u8], name: &str, at: usize) -> Vec<u8> {
    let header = bytes.windows(name.len()).position(|window| window == name.as_bytes());
    // The name stands in bundle.json, too: the header's is on a boundary of blocks.
    let header = header
        .into_iter()
        .chain((0..bytes.len()).step_by(512))
        .find(|at| at % 512 == 0 && bytes[*at..].starts_with(name.as_bytes()) && bytes[at + name.len()] == 0);
    let mut changed = bytes.to_vec();
    changed[header.expect("the entry") + 512 + at] ^= 1;
    changed
}

#[test]
fn what_was_changed_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = PrivateKey::generate().expect("a key");
    let (bytes, manifest, layer) = written(Some(&key));
    for entry in &manifest.entries {
        let bundle = opened(directory.path(), &tampered(&bytes, &entry.name, 3)).expect("it opens");
        bundle.signed_by(&[key.public()]).expect("bundle.json is what it was");
        let refused = bundle.check(&mut |_| {}).expect_err("changed").to_string();
        assert!(refused.contains(&entry.name) && refused.contains("has the digest"), "{refused}");
    }
    // bundle.json itself: what it says is not signed any more.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut changed = bytes.clone();
    let at = text.find("demo/pause").expect("its name");
    changed[at..at + 10].copy_from_slice(b"evil/pause");
    let bundle = opened(directory.path(), &changed).expect("it opens");
    assert!(bundle.signed_by(&[key.public()]).is_err());

    let append = |name: &str, content: &[u8]| {
        let mut tar = tar_of(&bytes);
        tar.push((name.to_owned(), content.to_vec()));
        packed(&tar)
    };
    let without =
        |name: &str| packed(&tar_of(&bytes).into_iter().filter(|(n, _)| n != name).collect::<Vec<_>>());
    let layer = blob_name(&layer);
    for (what, bytes, want) in [
        ("more than is listed", append("blobs/sha256/more", b"x"), "blobs/sha256/more is not in bundle.json"),
        ("an entry twice", append(&layer, b"x"), "is twice in the archive"),
        ("a way out", append("../../etc/passwd", b"x"), "leads out"),
        ("less than is listed", without(&layer), "is missing"),
        ("no bundle.json", without("bundle.json"), "bundle.json"),
    ] {
        let refused = opened(directory.path(), &bytes).and_then(|bundle| bundle.check(&mut |_| {}));
        let refused = refused.expect_err(what).to_string();
        assert!(refused.contains(want), "{what}: {refused}");
    }
}

fn tar_of(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let each = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("content");
        (entry.path().expect("a name").display().to_string(), content)
    });
    each.collect()
}

/// Written without the checks of the writer.
fn packed(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, &content[..]).expect("appended");
    }
    tar.into_inner().expect("a tar")
}

#[test]
fn a_manifest_that_says_what_it_cannot_is_refused() {
    let (_, manifest, _) = written(None);
    let good: serde_json::Value = serde_json::from_slice(&manifest.to_bytes().expect("bytes")).expect("JSON");
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = good.clone();
        change(&mut value);
        Manifest::parse(value.to_string().as_bytes()).is_err()
    };
    assert!(!refused(&|_| {}));
    let first = |value: &serde_json::Value| value["entries"][0].clone();
    assert!(refused(&|v| v["mediaType"] = "text/plain".into()));
    assert!(refused(&|v| v["entries"][2]["name"] = "../x".into()));
    assert!(refused(&|v| v["entries"][2]["name"] = "advisories/../x".into()));
    assert!(refused(&|v| {
        let entry = first(v);
        v["entries"].as_array_mut().expect("entries").push(entry);
    }));
    assert!(refused(&|v| v["repositories"][0]["name"] = "../x".into()));
    assert!(refused(&|v| v["repositories"][0]["blobs"][0] = Digest::of(b"elsewhere").to_string().into()));
    assert!(refused(&|v| v["repositories"][0]["manifests"][0]["tags"][0] = ".x".into()));
    assert!(refused(&|v| v["advisories"] =
        serde_json::json!({"manifest": "index.json", "table": "oci-layout", "count": 1})));
}

#[test]
fn what_is_appended_has_to_be_what_was_said() {
    let (_, manifest, _) = written(None);
    let mut writer = Writer::new(Vec::new(), &manifest, None).expect("begun");
    assert!(writer.append(&b"something else"[..]).is_err());
    let writer = Writer::new(Vec::new(), &manifest, None).expect("begun");
    let refused = writer.finish().expect_err("not all was written").to_string();
    assert!(refused.contains("was not written"), "{refused}");
}
