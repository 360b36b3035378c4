//! Packed programs really start; archives of other tools are read; hostile ones are refused.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_oci::Digest;
use gantry_oci::archive::{ArchiveLimits, contents, load, names};
use gantry_oci::image::Image;
use gantry_oci::pack::{PackOptions, pack, pack_static};

fn unpack(image: &Image, root: &Path) {
    for layer in &image.layers {
        let plain = flate2::read::GzDecoder::new(layer.source.open().expect("a layer"));
        tar::Archive::new(plain).unpack(root).expect("unpacked");
    }
}

#[test]
fn a_packed_program_starts_with_only_what_was_packed() {
    let directory = tempfile::tempdir().expect("a directory");
    for (program, args, want) in [
        ("/usr/bin/sort", vec!["--version"], "coreutils"),
        ("/usr/bin/getent", vec!["passwd", "65532"], "nonroot"),
    ] {
        let image = pack(Path::new(program), &PackOptions::default()).expect("packed");
        let root = directory.path().join(Path::new(program).file_name().expect("a name"));
        unpack(&image, &root);
        let name =
            format!("/usr/local/bin/{}", Path::new(program).file_name().expect("a name").to_string_lossy());
        let output = Command::new("/usr/sbin/chroot")
            .arg(&root)
            .arg(&name)
            .args(&args)
            .env_clear()
            .output()
            .expect("chroot");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(want), "{program}: {output:?}");
    }
}

#[test]
fn packing_twice_gives_the_same_digest() {
    let options = PackOptions {
        env: vec!["A=1".into()],
        ports: vec!["8080".into()],
        labels: (0..20).map(|i| (format!("l{i}"), "x".to_owned())).collect(),
        ..PackOptions::default()
    };
    let one = pack(Path::new("/usr/bin/sort"), &options).expect("packed");
    let two = pack(Path::new("/usr/bin/sort"), &options).expect("packed");
    assert_eq!(one.digest(), two.digest());
    let config: serde_json::Value = match &one.config.source {
        gantry_oci::image::MediaSource::Bytes(bytes) => serde_json::from_slice(bytes).expect("JSON"),
        other => panic!("{other:?}"),
    };
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/local/bin/sort"]));
    assert!(config["config"]["ExposedPorts"]["8080/tcp"].is_object());
}

#[test]
fn libraries_beside_the_program_and_in_directories_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join("app").join(name);
    std::fs::create_dir_all(at("lib")).expect("a directory");
    let write = |path: PathBuf, text: &str| {
        std::fs::File::create(path).and_then(|mut f| f.write_all(text.as_bytes())).expect("written");
    };
    write(directory.path().join("l.c"), "int answer(void) { return 42; }");
    write(directory.path().join("m.c"), "int answer(void); int main(void) { return answer(); }");
    let cc = |args: &[&str]| {
        let done = Command::new("gcc").current_dir(directory.path()).args(args).status().expect("gcc");
        assert!(done.success());
    };
    cc(&["-shared", "-fPIC", "-Wl,-soname,libanswer.so.1", "-o", "app/lib/libanswer.so.1.0", "l.c"]);
    for (link, target) in [("libanswer.so.1", "libanswer.so.1.0"), ("libanswer.so", "libanswer.so.1")] {
        std::os::unix::fs::symlink(target, at("lib").join(link)).expect("a link");
    }
    cc(&["-o", "app/main", "m.c", "-Lapp/lib", "-lanswer", "-Wl,-rpath,$ORIGIN/lib"]);
    let options = PackOptions { entrypoint: Some(vec!["/app/main".into()]), ..PackOptions::default() };
    let image = pack(&directory.path().join("app"), &options).expect("packed");
    let root = directory.path().join("root");
    unpack(&image, &root);
    assert!(root.join("app/lib/libanswer.so.1").is_symlink(), "the soname link stays a link");
    let status = Command::new("/usr/sbin/chroot")
        .arg(&root)
        .arg("/app/main")
        // There is no /proc in the tree, from which the loader would learn it.
        .env("LD_ORIGIN_PATH", "/app")
        .status()
        .expect("chroot");
    assert_eq!(status.code(), Some(42));
    let outside = directory.path().strip_prefix("/").expect("absolute");
    assert!(!root.join(outside).exists(), "where it was built stays outside");

    let image = pack(&directory.path().join("app/main"), &PackOptions::default()).expect("packed");
    let root = directory.path().join("single");
    unpack(&image, &root);
    let status = Command::new("/usr/sbin/chroot")
        .arg(&root)
        .arg("/usr/local/bin/main")
        .env("LD_ORIGIN_PATH", "/usr/local/bin")
        .status()
        .expect("chroot");
    assert_eq!(status.code(), Some(42), "a library found by $ORIGIN moves with the program");
}

#[test]
fn what_cannot_run_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("run");
    std::fs::File::create(&script).and_then(|mut f| f.write_all(b"#!/bin/sh\necho hi\n")).expect("written");
    let refused = pack(&script, &PackOptions::default()).expect_err("a script alone");
    assert!(refused.to_string().contains("--with /bin/sh"), "{refused}");
    let options = PackOptions { with: vec!["/bin/sh".into()], ..PackOptions::default() };
    let image = pack(&script, &options).expect("a script with its interpreter");
    let root = directory.path().join("root");
    unpack(&image, &root);
    let output =
        Command::new("/usr/sbin/chroot").arg(&root).arg("/usr/local/bin/run").output().expect("chroot");
    assert_eq!(output.stdout, b"hi\n", "{output:?}");
    for options in [
        PackOptions { ports: vec!["x".into()], ..PackOptions::default() },
        PackOptions { env: vec!["x".into()], ..PackOptions::default() },
        PackOptions { destination: Some("/a/../../b".into()), ..PackOptions::default() },
    ] {
        assert!(pack(Path::new("/usr/bin/sort"), &options).is_err(), "{options:?}");
    }
}

fn skopeo(from: &str, to: &str) {
    let output = Command::new("skopeo").args(["copy", from, to]).output().expect("skopeo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn archives_of_skopeo_are_read_and_ours_are_read_by_skopeo() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let image =
        pack_static(vec![7_u8; 5000].into(), "/pause", "amd64", &PackOptions::default()).expect("packed");
    let file = std::fs::File::create(path("ours.tar")).expect("a file");
    image.write_archive("1", file).expect("written");
    let ours = load(Path::new(&path("ours.tar")), &ArchiveLimits::default()).expect("loaded");
    assert_eq!((ours[0].image.digest(), ours[0].names.as_slice()), (image.digest(), &["1".to_owned()][..]));
    let from = format!("oci-archive:{}:1", path("ours.tar"));
    skopeo(&from, &format!("docker-archive:{}:demo/x:1", path("docker.tar")));
    let docker = load(Path::new(&path("docker.tar")), &ArchiveLimits::default()).expect("loaded");
    assert!(docker[0].names[0].ends_with("demo/x:1"), "{:?}", docker[0].names);
    assert_eq!(docker[0].image.layers.len(), 1);
    let gzip = Command::new("gzip").arg("-k").arg(path("docker.tar")).status().expect("gzip");
    assert!(gzip.success());
    let compressed = load(Path::new(&path("docker.tar.gz")), &ArchiveLimits::default()).expect("loaded");
    assert_eq!(compressed[0].image.digest(), docker[0].image.digest());
    skopeo(&from, &format!("oci:{}:1", path("layout")));
    assert_eq!(load(Path::new(&path("layout")), &ArchiveLimits::default()).expect("loaded").len(), 1);
}

/// A tar whose entries are `(name, kind, link, content)`, written without the checks of the writer.
fn raw_tar(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, *content).expect("appended");
    }
    tar.into_inner().expect("a tar")
}

#[test]
fn hostile_archives_are_refused() {
    use tar::EntryType as T;
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = br#"[{"Config":"c.json","Layers":["l"]}]"#;
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(b"layer")
    );
    let good = |layer: (&'static str, T, &'static str, &'static [u8])| {
        raw_tar(&[
            ("manifest.json", T::Regular, "", manifest),
            ("c.json", T::Regular, "", config.as_bytes()),
            layer,
        ])
    };
    let whole = good(("l", T::Regular, "", b"layer"));
    let read = |bytes: &[u8]| {
        let path = directory.path().join("a.tar");
        std::fs::File::create(&path).and_then(|mut f| f.write_all(bytes)).expect("written");
        load(&path, &ArchiveLimits { json_max_bytes: 4096, entries_max: 10, ..ArchiveLimits::default() })
    };
    assert!(read(&whole).is_ok());
    let many: Vec<String> = (0..20).map(|i| format!("f{i}")).collect();
    let many: Vec<_> = many.iter().map(|n| (n.as_str(), T::Regular, "", &b""[..])).collect();
    for (what, bytes) in [
        ("traversal", good(("../l", T::Regular, "", b"layer"))),
        ("absolute name", good(("/etc/passwd", T::Regular, "", b"layer"))),
        ("absolute link", good(("l", T::Symlink, "/etc/passwd", b""))),
        ("escaping link", good(("l", T::Symlink, "../../etc/passwd", b""))),
        ("circular link", good(("l", T::Symlink, "l", b""))),
        ("device", good(("l", T::Char, "", b""))),
        ("wrong content", good(("l", T::Regular, "", b"other"))),
        ("duplicate", good(("c.json", T::Regular, "", b"layer"))),
        ("truncated", whole[..whole.len() - 1600].to_vec()),
        ("many entries", raw_tar(&many)),
        ("huge JSON", raw_tar(&[("manifest.json", T::Regular, "", &[b' '; 5000])])),
        ("nothing", Vec::new()),
    ] {
        assert!(read(&bytes).is_err(), "{what}");
    }
}

/// The files of an image layout with an index of two images, a signature of the first, and what attests to it.
fn layout(without: Option<usize>) -> Vec<(String, Vec<u8>)> {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let put = |files: &mut Vec<(String, Vec<u8>)>, media_type: &str, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let descriptor =
            serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        descriptor
    };
    let mut parts = Vec::new();
    for (n, architecture) in ["amd64", "arm64", "unknown"].into_iter().enumerate() {
        let config = put(&mut files, "application/vnd.oci.image.config.v1+json", architecture.into());
        let layer = put(&mut files, "application/vnd.oci.image.layer.v1.tar", vec![n as u8; 100]);
        let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let mut part = put(&mut files, MANIFEST, manifest.to_string().into());
        if without == Some(n) {
            files.pop();
        }
        part["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
        parts.push(part);
    }
    let config = put(&mut files, "application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let signature =
        serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [], "subject": parts[0] });
    let signature = put(&mut files, MANIFEST, signature.to_string().into());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": parts });
    let mut index = put(&mut files, INDEX, index.to_string().into());
    index["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "demo/x:1" });
    let top = serde_json::json!({ "schemaVersion": 2, "manifests": [index, signature] });
    files.push(("index.json".to_owned(), top.to_string().into()));
    files.push(("oci-layout".to_owned(), b"{}".to_vec()));
    files
}

#[test]
fn all_platforms_of_an_archive_are_read_with_what_refers_to_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.tar");
    let read = |without| {
        let files = layout(without);
        let entries: Vec<_> =
            files.iter().map(|(n, c)| (n.as_str(), tar::EntryType::Regular, "", c.as_slice())).collect();
        std::fs::File::create(&path).and_then(|mut f| f.write_all(&raw_tar(&entries))).expect("written");
        contents(&path, &ArchiveLimits::default())
    };
    let all = read(None).expect("read");
    let shown: Vec<_> =
        all.iter().map(|m| (m.names.join(","), m.is_part, m.parts.len(), m.blobs.len())).collect();
    let part = || (String::new(), true, 0, 2);
    assert_eq!(shown[..4], [part(), part(), part(), ("demo/x:1".to_owned(), false, 3, 0)]);
    assert_eq!(all[4].subject.as_ref(), Some(&all[0].digest));
    assert_eq!(names(&path, &ArchiveLimits::default()).expect("names"), ["demo/x:1"]);
    // As `docker save` writes it: the index of all, and the image of one platform, which has the name then.
    let one = read(Some(1)).expect("read");
    let named: Vec<_> = one.iter().filter(|m| !m.names.is_empty()).collect();
    assert_eq!((named.len(), &named[0].digest, named[0].is_part), (1, &all[0].digest, false));
    // Of few manifests, more than fits in memory.
    let limits = ArchiveLimits { json_total_max_bytes: 500, ..ArchiveLimits::default() };
    assert!(contents(&path, &limits).is_err());
}

#[test]
fn arbitrary_bytes_never_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let image = pack_static(vec![1_u8; 50].into(), "/p", "amd64", &PackOptions::default()).expect("packed");
    let mut archive = Vec::new();
    image.write_archive("1", &mut archive).expect("written");
    let elf = std::fs::read("/usr/bin/sort").expect("a program");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let path = directory.path().join("x");
    for _ in 0..300 {
        for original in [&archive, &elf] {
            let mut bytes = original.clone();
            for _ in 0..1 + next() % 8 {
                // The head is where the structure is.
                let at = (next() % (bytes.len() as u64).min(4096)) as usize;
                bytes[at] = next() as u8;
            }
            bytes.truncate((next() % (bytes.len() as u64 + 1)) as usize);
            std::fs::File::create(&path).and_then(|mut f| f.write_all(&bytes)).expect("written");
            let _ = load(&path, &ArchiveLimits::default());
            let _ = contents(&path, &ArchiveLimits::default());
            let _ = names(&path, &ArchiveLimits::default());
            let _ = gantry_oci::pack::elf::parse(&bytes);
        }
    }
}
