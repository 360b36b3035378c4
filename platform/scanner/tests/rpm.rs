//! RPM's older databases, as RPM and Berkeley DB themselves write them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_scanner::{Options, Report, Scanner};

use crate::support::now;

fn scanned(root: &Path) -> Report {
    Scanner::new(Options::default()).directory(root, now()).expect("scanned")
}

fn versions(report: &Report) -> BTreeSet<String> {
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    report.packages.iter().map(|found| format!("{} {}", found.package.name, found.package.version)).collect()
}

/// A header as RPM keeps it: entries, then their values.
fn header(name: &str, version: &str, pad: usize) -> Vec<u8> {
    let (mut entries, mut store) = (Vec::new(), Vec::new());
    let pad = "x".repeat(pad);
    for (tag, text) in [(1000_u32, name), (1001, version), (1002, "1.el8"), (1005, &pad)] {
        let at = u32::try_from(store.len()).expect("small");
        for number in [tag, 6, at, 1] {
            entries.extend(number.to_be_bytes());
        }
        store.extend(text.bytes().chain([0]));
    }
    let number = |n: usize| u32::try_from(n).expect("small").to_be_bytes();
    [&number(entries.len() / 16)[..], &number(store.len()), &entries, &store].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

#[test]
fn berkeley_db_is_read_in_both_orders_of_bytes() {
    let mut dump = "VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\nHEADER=END\n".to_owned();
    let mut want = BTreeSet::new();
    // Number 0 holds a counter. Long headers go on in pages of their own.
    writeln!(dump, " 00000000\n {}", hex(&300_u32.to_le_bytes())).expect("written");
    for n in 1..300_u32 {
        let value = header(&format!("p{n}"), &format!("2.{n}"), usize::try_from(n).expect("small") * 97);
        writeln!(dump, " {}\n {}", hex(&n.to_le_bytes()), hex(&value)).expect("written");
        want.insert(format!("p{n} 2.{n}-1.el8"));
    }
    dump += "DATA=END\n";
    for order in ["1234", "4321"] {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("var/lib/rpm");
        std::fs::create_dir_all(&directory).expect("directories");
        let path = directory.join("Packages");
        let child = Command::new("db5.3_load")
            .args(["-T", "-t", "hash", "-c", "db_pagesize=4096", "-c", &format!("db_lorder={order}")])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: there is no db5.3_load here (Debian: db5.3-util)");
            return;
        };
        let entries = dump.split_once("HEADER=END\n").expect("a header").1.replace("DATA=END\n", "");
        // With -T lines are texts; bytes are written as \\xx.
        let text: String = entries
            .lines()
            .map(|line| {
                let line = line.trim();
                let bytes =
                    line.as_bytes().chunks(2).map(|pair| format!("\\{}", String::from_utf8_lossy(pair)));
                bytes.collect::<String>() + "\n"
            })
            .collect();
        child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("written");
        assert!(child.wait().expect("ended").success());
        assert_eq!(versions(&scanned(root.path())), want, "{order}");

        // Cut off anywhere, or with any byte changed, it is a problem or a list, never a panic or an endless read.
        let whole = std::fs::read(&path).expect("a database");
        for at in (0..whole.len()).step_by(whole.len() / 150) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            bytes.truncate(whole.len() - at % 5000);
            std::fs::File::create(&path).and_then(|mut file| file.write_all(&bytes)).expect("written");
            scanned(root.path());
        }
    }
}

/// A database as RPM's `ndb` lays it out: a page of slots, then each header between its own marks, in blocks of 16
/// bytes. Debian's RPM is built without it, so it is written here.
fn ndb(headers: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let put = |bytes: &mut Vec<u8>, at: usize, numbers: &[u32]| {
        for (n, number) in numbers.iter().enumerate() {
            bytes[at + 4 * n..at + 4 * n + 4].copy_from_slice(&number.to_le_bytes());
        }
    };
    let mark = |text: &[u8; 4]| u32::from_le_bytes(*text);
    put(&mut bytes, 0, &[mark(b"RpmP"), 0, 7, 1, 100]);
    for slot in 2..256 {
        put(&mut bytes, slot * 16, &[mark(b"Slot")]);
    }
    // Slots are not filled in any order.
    for (n, (number, header)) in headers.iter().enumerate() {
        let at = bytes.len();
        let length = u32::try_from(header.len()).expect("small");
        let size = (16 + header.len() + 12).next_multiple_of(16);
        put(
            &mut bytes,
            (255 - 3 * n) * 16,
            &[
                mark(b"Slot"),
                *number,
                u32::try_from(at / 16).expect("small"),
                u32::try_from(size / 16).expect("small"),
            ],
        );
        bytes.resize(at + size, 0);
        put(&mut bytes, at, &[mark(b"BlbS"), *number, 7, length]);
        bytes[at + 16..at + 16 + header.len()].copy_from_slice(header);
        put(&mut bytes, at + size - 12, &[0, length, mark(b"BlbE")]);
    }
    bytes
}

#[test]
fn ndb_is_read_and_damage_is_no_panic() {
    let packages: Vec<(u32, Vec<u8>)> = (1..40)
        .map(|n| (n, header(&format!("p{n}"), &format!("1.{n}"), usize::try_from(n * 50).expect("small"))))
        .collect();
    let want: BTreeSet<String> = (1..40).map(|n| format!("p{n} 1.{n}-1.el8")).collect();
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("usr/lib/sysimage/rpm");
    std::fs::create_dir_all(&directory).expect("directories");
    let path = directory.join("Packages.db");
    let put = |bytes: &[u8]| {
        std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("written");
        scanned(root.path())
    };
    let whole = ndb(&packages);
    assert_eq!(versions(&put(&whole)), want);
    for at in (0..whole.len()).step_by(whole.len() / 300) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        bytes.truncate(whole.len() - at % 3000);
        put(&bytes);
    }
    // Every slot leads to the same long header: read once for each would be a bomb.
    let mut bomb = ndb(&[(1, header("p", "1", 200_000))]);
    let slot: Vec<u8> = bomb[255 * 16..256 * 16].to_vec();
    for n in 2..255 {
        bomb[n * 16..(n + 1) * 16].copy_from_slice(&slot);
    }
    let report = put(&bomb);
    assert!(report.problems[0].message.contains("lead to the same place"), "{:?}", report.problems);
}
