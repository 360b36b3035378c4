//! Real databases and programs, compared with what their own tools say of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use gantry_scanner::{Kind, Options, Report, Scanner};

use crate::support::{Layer, STATUS, now, scan};

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn of_kind(report: &Report, kind: Kind) -> BTreeSet<String> {
    let packages = report.packages.iter().map(|found| &found.package).filter(|p| p.kind == kind);
    packages.map(|package| format!("{} {}", package.name, package.version)).collect()
}

#[test]
fn this_machines_packages_are_those_that_dpkg_lists() {
    let Some(listed) = output("dpkg-query", &["-W", "-f", "${db:Status-Status} ${Package} ${Version}\\n"])
    else {
        eprintln!("skipped: there is no dpkg here");
        return;
    };
    let want: BTreeSet<String> =
        listed.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect();
    let status = std::fs::read(Path::new("/").join(STATUS)).expect("a status file");
    let report = scan(vec![Layer::default().file(STATUS, status).zstd()]).expect("scanned");
    let found = of_kind(&report, Kind::Deb);
    assert!(want.len() > 20);
    assert_eq!(found.symmetric_difference(&want).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_go_of_go_programs_is_found() {
    let Ok(program) = std::fs::read("/usr/bin/containerd") else {
        eprintln!("skipped: there is no containerd here");
        return;
    };
    let report = scan(vec![Layer::default().file("usr/bin/containerd", program).gzip()]).expect("scanned");
    // Debian builds it without modules.
    let found = of_kind(&report, Kind::Golang);
    assert!(found.iter().any(|module| module.starts_with("stdlib 1.")), "{found:?}");
    assert!(report.packages.iter().all(|found| found.locations[0].path == "usr/bin/containerd"));
}

#[test]
fn crates_of_auditable_programs_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let list = br#"{"packages":[{"name":"app","version":"0.1.0","source":"local","root":true},{"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},{"name":"serde","version":"1.0.190","source":"crates.io"}]}"#;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, list).expect("compressed");
    let section = directory.path().join("section");
    let program = directory.path().join("program");
    let written = std::fs::File::create(&section)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &encoder.finish().expect("compressed")));
    written.expect("written");
    let add = format!(".dep-v0={}", section.display());
    if output("objcopy", &["--add-section", &add, "/usr/bin/env", &program.display().to_string()]).is_none() {
        eprintln!("skipped: there is no objcopy here");
        return;
    }
    let report = Scanner::new(Options::default()).directory(directory.path(), now()).expect("scanned");
    assert_eq!(of_kind(&report, Kind::Cargo), BTreeSet::from(["app 0.1.0".into(), "serde 1.0.190".into()]));
}

/// RPM's own table, made by SQLite itself: small pages and long headers, so that rows need inner pages and chains.
const MAKE_RPM_DATABASE: &str = r#"
import sqlite3, struct, sys
def header(name, version, release, epoch, source, pad):
    entries, store = [], b""
    def add(tag, kind, data, count=1):
        nonlocal store
        if kind == 4:
            store += b"\0" * (-len(store) % 4)
        entries.append(struct.pack(">IIII", tag, kind, len(store), count))
        store += data
    text = lambda s: s.encode() + b"\0"
    add(1000, 6, text(name)); add(1001, 6, text(version)); add(1002, 6, text(release))
    if epoch is not None: add(1003, 4, struct.pack(">I", epoch))
    add(1014, 6, text("GPLv2+")); add(1022, 6, text("x86_64")); add(1044, 6, text(source))
    add(1005, 6, text("x" * pad))
    return struct.pack(">II", len(entries), len(store)) + b"".join(entries) + store
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA page_size = 1024")
db.execute("CREATE TABLE Other (a, b)")
db.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
for n in range(400):
    epoch = 1 if n % 2 else None
    source = "src%d-2.%d-3.el9.src.rpm" % (n, n)
    db.execute("INSERT INTO Packages (blob) VALUES (?)", (header("p%d" % n, "2.%d" % n, "3.el9", epoch, source, n * 37),))
db.execute("INSERT INTO Packages (blob) VALUES (?)", (header("gpg-pubkey", "1", "1", None, "", 0),))
db.commit()
"#;

#[test]
fn rpms_database_is_read_whatever_its_pages() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("var/lib/rpm/rpmdb.sqlite");
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
    if output("python3", &["-c", MAKE_RPM_DATABASE, &path.display().to_string()]).is_none() {
        eprintln!("skipped: there is no python3 with sqlite3 here");
        return;
    }
    let report = Scanner::new(Options::default()).directory(directory.path(), now()).expect("scanned");
    assert_eq!(report.packages.len(), 400, "{:?}", report.problems);
    let of = |name: &str| {
        let found = report.packages.iter().find(|found| found.package.name == name);
        found.expect("a package").clone()
    };
    let odd = of("p399");
    assert_eq!(odd.package.version, "1:2.399-3.el9");
    assert_eq!(odd.package.advisory_name(), ("src399", "1:2.399-3.el9"));
    assert_eq!(odd.package.licenses, ["GPLv2+"]);
    assert_eq!(odd.purl, "pkg:rpm/p399@2.399-3.el9?arch=x86_64&epoch=1");
    assert_eq!(of("p2").package.version, "2.2-3.el9");
}
