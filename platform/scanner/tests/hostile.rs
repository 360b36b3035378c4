//! Layers and directories that no honest tool makes: refused, or read within bounds, and never a panic.

use gantry_oci::image::Blob;
use gantry_scanner::{Limits, Options, Scanner};
use proptest::prelude::*;
use tar::EntryType;

use crate::support::{Layer, STATUS, deb, directory, image, names, now, scan, zip};

fn refusal(blob: Blob, limits: Limits) -> String {
    let mut scanner = Scanner::new(Options { limits, ..Options::default() });
    scanner.image("bad", &image(vec![blob]), now()).expect_err("refused").to_string()
}

#[test]
fn paths_and_links_that_lead_out_are_refused_or_confined() {
    for name in ["../etc/passwd", "a/../../b", "a/.."] {
        let why = refusal(Layer::default().file(name, "x").gzip(), Limits::default());
        assert!(why.contains("leads out of its layer") && why.contains("sha256:"), "{why}");
    }
    // Absolute names are seen from the root of the image, as runtimes do.
    let absolute = Layer::default().file("/var/lib/dpkg/status", deb("curl", "1")).gzip();
    assert_eq!(names(&scan(vec![absolute]).expect("scanned")), ["curl@1"]);
    // Links are never followed, whether they lead to this machine's files or in a circle.
    let links = Layer::default()
        .link(STATUS, "/var/lib/dpkg/status")
        .link("etc/os-release", "../../../../../../etc/os-release")
        .link("lib", "lib")
        .link("loop", "../loop/loop");
    let report = scan(vec![links.gzip()]).expect("scanned");
    assert!(report.packages.is_empty() && report.operating_system.is_none());
    let hard = Layer::default().raw(EntryType::Link, STATUS.as_bytes(), "../../etc/passwd", b"", 0).gzip();
    assert!(refusal(hard, Limits::default()).contains("leads out"));
}

#[test]
fn a_directory_is_never_left() {
    let (_kept, secret) = directory(&[("status", deb("secret", "1").as_bytes())]);
    let (_kept_too, root) = directory(&[("var/lib/dpkg/x", b"")]);
    std::os::unix::fs::symlink(secret.join("status"), root.join(STATUS)).expect("a link");
    std::os::unix::fs::symlink("/", root.join("usr")).expect("a link");
    nix::unistd::mkfifo(&root.join("package-lock.json"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for os_only in [false, true] {
        let scanner = Scanner::new(Options { os_only, ..Options::default() });
        let report = scanner.directory(&root, now()).expect("scanned");
        assert!(report.packages.is_empty() && report.operating_system.is_none(), "{report:?}");
    }
}

#[test]
fn every_bound_holds() {
    let small =
        || Limits { entries_max: 10, path_max_bytes: 64, depth_max: 8, packages_max: 5, ..Limits::default() };
    let many = (0..11).fold(Layer::default(), |layer, n| layer.file(&format!("f{n}"), ""));
    assert!(refusal(many.gzip(), small()).contains("more than 10 entries"));
    let deep = Layer::default().file(&"d/".repeat(9), "");
    assert!(refusal(deep.gzip(), small()).contains("nested more than 8 deep"));
    let long = Layer::default().raw(EntryType::GNULongName, b"././@LongLink", "", &[b'a'; 100], 100);
    assert!(refusal(long.gzip(), small()).contains("a path has 100 bytes"));
    let packages: String = (0..6).map(|n| deb(&format!("p{n}"), "1")).collect();
    assert!(
        refusal(Layer::default().file(STATUS, packages).gzip(), small()).contains("more than 5 packages")
    );
    // A header that claims gigabytes of name or attributes is refused before they are read.
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let liar = Layer::default().raw(kind, b"x", "", b"", 8 << 30);
        assert!(refusal(liar.gzip(), Limits::default()).contains("are allowed"), "{kind:?}");
    }
}

#[test]
fn bombs_end_early() {
    let zeros = vec![0; 4 << 20];
    let bomb = Layer::default().file("zeros", &zeros);
    let limits = Limits { ratio_max: 100, ratio_from_bytes: 1 << 20, ..Limits::default() };
    assert!(refusal(bomb.gzip(), limits).contains("a bomb?"));
    let limits = Limits { uncompressed_max_bytes: 1 << 20, ..Limits::default() };
    assert!(
        refusal(Layer::default().file("zeros", &zeros).zstd(), limits).contains("more than 1048576 bytes")
    );
    // An archive in an archive in an archive is a problem of that file; the rest is read.
    let mut jar = zip(&[("META-INF/MANIFEST.MF", b"")]);
    for _ in 0..10 {
        jar = zip(&[("x.jar", &jar)]);
    }
    let layer = Layer::default().file("a.jar", jar).file(STATUS, deb("curl", "1")).gzip();
    let report = scan(vec![layer]).expect("scanned");
    assert_eq!(names(&report), ["curl@1"]);
    assert!(report.problems[0].message.contains("nested too deep"), "{:?}", report.problems);
}

#[test]
fn cut_and_lying_layers_are_refused() {
    let whole = Layer::default().file(STATUS, deb("curl", "1").repeat(100)).tar();
    for length in [100, 600, 1024] {
        let cut = Blob::of_bytes("application/vnd.oci.image.layer.v1.tar", whole[..length].to_vec());
        let why = refusal(cut, Limits::default());
        assert!(why.contains("ends within") || why.contains("sha256:"), "{why}");
    }
    let lies = Layer::default().raw(EntryType::Regular, b"x", "", b"", u64::MAX >> 1).gzip();
    assert!(refusal(lies, Limits::default()).contains("ends within"));
    let no_tar = Blob::of_bytes("application/vnd.oci.image.layer.v1.tar", vec![7; 4096]);
    assert!(refusal(no_tar, Limits::default()).contains("it is no tar"));
    // Devices, pipes and files of unknown kind are never opened.
    let devices = Layer::default().raw(EntryType::Char, STATUS.as_bytes(), "", b"", 0).raw(
        EntryType::Fifo,
        b"etc/os-release",
        "",
        b"",
        0,
    );
    assert!(scan(vec![devices.gzip()]).expect("scanned").packages.is_empty());
}

/// Files of every kind that is looked into.
const NAMES: &[&str] = &[
    STATUS,
    "var/lib/dpkg/info/x.list",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "var/lib/rpm/Packages.db",
    "etc/os-release",
    "a/x-1.dist-info/METADATA",
    "a/node_modules/x/package.json",
    "a/package-lock.json",
    "a/x.jar",
    "a/specifications/x.gemspec",
    "a/composer.lock",
    "a/x.deps.json",
    "bin/program",
];

/// What makes a parser go further than noise would.
const BEGINNINGS: &[&[u8]] = &[
    b"",
    b"\x7fELF\x02\x01\x01",
    b"\x7fELF\x01\x02\x01",
    b"SQLite format 3\0\x02\0\x01\x01\0",
    b"RpmP\0\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\0\0\0\0\x01\0\0\0\0\0\0\0\x61\x15\x06\0\x09\0\0\0\0\x02\0\0\0\x08\0\0\0\0\0\0\x02\0\0\0",
    b"PK\x05\x06",
    b"{\"packages\":",
    b"Package: a\nVersion: ",
    b"# stub: a 1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn noise_in_any_file_is_no_panic(
        file in 0..NAMES.len(),
        beginning in 0..BEGINNINGS.len(),
        noise in proptest::collection::vec(any::<u8>(), 0..6000),
        end in proptest::bool::ANY,
    ) {
        let mut content = BEGINNINGS[beginning].to_vec();
        content.extend(noise);
        if end {
            content.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x10\0\0\0\0\0\0\0\0\0");
        }
        let layer = Layer::default().file(NAMES[file], content).gzip();
        prop_assert!(scan(vec![layer]).is_ok());
    }

    #[test]
    fn noise_as_a_layer_is_no_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        head in 0..4_usize,
    ) {
        let heads: [&[u8]; 4] = [b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"etc/os-release"];
        bytes.splice(0..0, heads[head].iter().copied());
        let _ = scan(vec![Blob::of_bytes("application/vnd.oci.image.layer.v1.tar", bytes)]);
    }

    #[test]
    fn a_layer_with_flipped_bytes_is_no_panic(flips in proptest::collection::vec((0..4096_usize, any::<u8>()), 1..8)) {
        let mut tar = Layer::default()
            .raw(EntryType::XHeader, b"x", "", b"20 path=etc/passwd\n\n", 20)
            .file("a", "b")
            .file(STATUS, deb("curl", "1"))
            .tar();
        let length = tar.len();
        for (at, byte) in flips {
            tar[at % length] ^= byte;
        }
        let _ = scan(vec![Blob::of_bytes("application/vnd.oci.image.layer.v1.tar", tar)]);
    }
}
