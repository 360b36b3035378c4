//! Every parser of bytes from outside, as a function of bytes: for `fuzz/`, and for a bounded run of random input in
//! the tests. None of them may panic, run on, or take memory beyond its bounds.

use std::io::{Seek, Write};

use gantry_oci::image::{Blob, Image};
use jiff::Timestamp;

use crate::advisories::{base_score, fuzz as advisories};
use crate::analysers::{Candidate, wanting};
use crate::compliance::{MalwareList, fuzz as compliance};
use crate::files::{Content, zip};
use crate::judgement::{Exceptions, Vex};
use crate::rating::RatingPolicy;
use crate::{Kind, Limits, Options, Scanner, versions};

/// A name, a path or an example that gets past the first check, and the parser.
pub struct Target {
    pub name: &'static str,
    pub seeds: &'static [&'static [u8]],
    pub run: fn(&[u8]),
}

macro_rules! files {
    ($($name:literal, $path:literal, $seeds:expr;)*) => {
        &[$(Target { name: $name, seeds: $seeds, run: |bytes| file($path, bytes) },)*]
    };
}

/// Files that analysers read.
pub const FILES: &[Target] = files! {
    "dpkg", "var/lib/dpkg/status", &[b"Package: a\nStatus: install ok installed\nVersion: 1\nSource: b (2)\n\n"];
    "dpkg-list", "var/lib/dpkg/info/a.list", &[b"/usr/lib/python3/dist-packages/a-1.egg-info\n"];
    "apk", "lib/apk/db/installed", &[b"P:a\nV:1-r0\nA:x86_64\no:b\nL:MIT\nF:usr/bin\nR:a\n\n"];
    "os-release", "etc/os-release", &[b"ID=debian\nVERSION_ID=\"12\"\n"];
    "rpm-sqlite", "var/lib/rpm/rpmdb.sqlite", &[b"SQLite format 3\0\x02\0\x01\x01\0"];
    "rpm-bdb", "var/lib/rpm/Packages",
        &[b"\0\0\0\0\x01\0\0\0\0\0\0\0\x61\x15\x06\0\x09\0\0\0\0\x02\0\0\0\x08\0\0\0\0\0\0\x02\0\0\0"];
    "rpm-ndb", "var/lib/rpm/Packages.db", &[b"RpmP\0\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"];
    "python", "a/x-1.dist-info/METADATA", &[b"Name: x\nVersion: 1\nLicense: MIT\n"];
    "npm", "a/node_modules/x/package.json", &[br#"{"name":"x","version":"1.0.0","license":"MIT"}"#];
    "npm-lock", "a/package-lock.json",
        &[br#"{"lockfileVersion":3,"packages":{"node_modules/x":{"version":"1.0.0"}},"dependencies":{"y":{"version":"2"}}}"#];
    "java", "a/x.jar", &[b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x10\0\0\0\0\0\0\0\0\0"];
    "gem", "a/specifications/x.gemspec", &[b"# stub: a 1 ruby lib\ns.name = \"a\".freeze\ns.version = \"1\"\n"];
    "composer", "a/composer.lock", &[br#"{"packages":[{"name":"a/b","version":"v1"}]}"#];
    "dotnet", "a/x.deps.json", &[br#"{"libraries":{"A/1.0":{"type":"package"}}}"#];
    "elf", "bin/program", &[b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x02\x01"];
};

/// Everything else.
pub const OTHERS: &[Target] = &[
    Target { name: "layer", seeds: &[b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd"], run: layer },
    Target { name: "image-config", seeds: &[br#"{"config":{"User":"0","Env":["A=b"]},"history":[{"created_by":"ADD http://a b"}]}"#], run: config },
    Target { name: "zip", seeds: &[b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x10\0\0\0\0\0\0\0\0\0"], run: archive },
    Target {
        name: "osv",
        seeds: &[br#"{"id":"A","aliases":["CVE-1"],"affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"1"}]}],"versions":["2"]}]}"#],
        run: advisories::document,
    },
    Target { name: "posting", seeds: &[b"\x08{\"i\":\"A\"}\x01\x02\x00\x010\x01\x011\x00\x00\x00\x00"], run: advisories::posting },
    Target { name: "table", seeds: &[b"GantryA1"], run: table },
    Target { name: "cvss", seeds: &[b"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", b"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H"], run: score },
    Target { name: "versions", seeds: &[b"1:2.0~rc1-3+b1\n1.0.0-alpha.1+x"], run: order },
    Target { name: "secrets", seeds: &[b"password = q8Zt3LmPw0Xc9R\nhttp://a:bcdefgh@c"], run: compliance::secrets },
    Target { name: "vex", seeds: &[br#"{"@context":"https://openvex.dev/ns/v0.2.0","author":"a","statements":[{"vulnerability":{"name":"C"},"products":[{"@id":"pkg:a/b"}],"status":"fixed"}]}"#], run: |bytes| drop(Vex::parse(bytes)) },
    Target { name: "exceptions", seeds: &[b"exceptions:\n- {vulnerability: C, author: a, reason: r, expires: 2026-01-01T00:00:00Z}\n"], run: |bytes| drop(Exceptions::parse(&text(bytes))) },
    Target { name: "policy", seeds: &[b"weights: {critical: 1}\nblockers: [{check: malware}]\n"], run: |bytes| drop(RatingPolicy::parse(&text(bytes))) },
    Target { name: "malware-list", seeds: &[b"00 x # y\n"], run: |bytes| drop(MalwareList::parse(&text(bytes))) },
];

/// All of them.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    FILES.iter().chain(OTHERS)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(path: &str, bytes: &[u8]) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let size_bytes = bytes.len() as u64;
    let candidate = Candidate { path, name, size_bytes, executable: true, nesting_max: 2 };
    let content = Content::Bytes(bytes.into());
    for analyser in wanting(&candidate, false) {
        let _ = (analyser.read)(&candidate, &content);
    }
}

fn layer(bytes: &[u8]) {
    let limits = Limits { uncompressed_max_bytes: 16 << 20, ratio_from_bytes: 1 << 20, ..Limits::default() };
    let blob = Blob::of_bytes("application/vnd.oci.image.layer.v1.tar", bytes.to_vec());
    scan(b"{}".to_vec(), vec![blob], limits);
}

fn config(bytes: &[u8]) {
    scan(bytes.to_vec(), Vec::new(), Limits::default());
}

fn scan(config: Vec<u8>, layers: Vec<Blob>, limits: Limits) {
    if let Ok(image) = Image::with_config(config.into(), layers) {
        let options = Options { limits, checks: true, ..Options::default() };
        let _ = Scanner::new(options).image("fuzz", &image, Timestamp::UNIX_EPOCH);
    }
}

fn archive(bytes: &[u8]) {
    let content = Content::Bytes(bytes.into());
    let _ = zip::entries(&content, |entry| {
        let _ = zip::read(&content, &entry, 1 << 20);
        true
    });
}

fn table(bytes: &[u8]) {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).and_then(|()| file.rewind()).is_ok() {
        advisories::table(file);
    }
}

fn score(bytes: &[u8]) {
    assert!(base_score(&text(bytes)).is_none_or(|score| (0.0..=10.0).contains(&score)));
}

/// Any two texts have an order, and it does not depend on which is named first.
fn order(bytes: &[u8]) {
    let text = text(bytes);
    let (a, b) = text.split_once('\n').unwrap_or((&text, ""));
    for kind in [Kind::Deb, Kind::Apk, Kind::Rpm, Kind::Pypi, Kind::Npm, Kind::Maven, Kind::Golang, Kind::Gem]
    {
        assert_eq!(versions::compare(kind, a, b), versions::compare(kind, b, a).reverse(), "{a:?} {b:?}");
    }
}
