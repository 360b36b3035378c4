//! The index on disk: the same answers as reading everything, whole updates or none, and what changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_scanner::advisories::{
    AdvisoryError, Changes, Given, Index, Inventory, Manifest, SourceUpdate, compare, update,
};
use gantry_scanner::{Options, Report, Scanner};
use proptest::prelude::*;
use serde_json::json;

use crate::advisories::{advisory, all, is_right, report};
use crate::support::{STATUS, deb, directory, now, zip};

fn files(location: &str, path: &Path) -> Vec<(String, std::path::PathBuf)> {
    vec![(location.to_owned(), path.to_owned())]
}

fn bring(index: &Path, sources: &[(String, std::path::PathBuf)]) -> Result<Manifest, AdvisoryError> {
    let updates: Vec<SourceUpdate<'_>> =
        sources.iter().map(|(name, path)| source(name, Given::Files(path))).collect();
    update(index, &updates, now())
}

fn source<'a>(name: &str, given: Given<'a>) -> SourceUpdate<'a> {
    SourceUpdate { location: name.to_owned(), given, etag: None, last_modified: None }
}

#[allow(clippy::disallowed_methods, reason = "a file of a test's own directory")]
fn put(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).expect("written");
}

fn ids(report: &Report) -> Vec<(String, String)> {
    let found = report.vulnerabilities.iter().flatten();
    found.map(|v| (v.id.clone(), v.package.clone())).collect()
}

#[test]
fn the_index_says_what_the_documents_say() {
    let all = all();
    let documents: Vec<(&str, &[u8])> = all.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let (_kept, plain) = directory(&documents);
    let packed = zip(&documents);
    let (_kept_too, packed) = directory(&[("all.zip", &packed)]);
    for path in [&*plain, &*packed, &packed.join("all.zip")] {
        let place = tempfile::tempdir().expect("a directory");
        bring(place.path(), &files("test", path)).expect("updated");
        let mut report = report();
        Index::open(place.path()).expect("opened").compare(&mut report).expect("compared");
        is_right(report);
    }
}

#[test]
fn an_update_takes_what_changed_and_says_which_packages() {
    let data = tempfile::tempdir().expect("a directory");
    let place = tempfile::tempdir().expect("a directory");
    put(data.path(), "a.json", &advisory("A-1", "Debian:12", "curl", "8", json!({})));
    put(data.path(), "b.json", &advisory("A-2", "npm", "left-pad", "9", json!({})));
    put(data.path(), "c.json", &advisory("A-3", "PyPI", "Py_YAML", "9", json!({})));
    let sources = files("dir", data.path());
    assert_eq!(bring(place.path(), &sources).expect("updated").generation, 1);
    let before = Index::open(place.path()).expect("opened");

    // Nothing changed: nothing is written, but it was looked at.
    assert_eq!(bring(place.path(), &sources).expect("updated").generation, 1);

    put(data.path(), "a.json", &advisory("A-1", "Debian:12", "curl", "7.0", json!({})));
    std::fs::remove_file(data.path().join("b.json")).expect("removed");
    put(data.path(), "d.json", &advisory("A-4", "crates.io", "serde", "2", json!({})));
    let manifest = bring(place.path(), &sources).expect("updated");
    assert_eq!((manifest.generation, manifest.sources[0].advisories), (2, 3));

    let after = Index::open(place.path()).expect("opened");
    let name = |changes: Changes| match changes {
        Changes::All => vec!["all".to_owned()],
        Changes::Packages(all) => all.iter().map(|p| format!("{}/{}", p.ecosystem, p.name)).collect(),
    };
    let changed = after.changes_since(1).expect("read");
    assert_eq!(name(changed.clone()), ["Debian/curl", "crates.io/serde", "npm/left-pad"]);
    assert_eq!(name(after.changes_since(0).expect("read")), ["all"]);
    assert_eq!(after.changes_since(2).expect("read"), Changes::Packages(BTreeSet::new()));

    // Who opened it before the update still sees what was there; a stored report follows.
    let mut old = report();
    before.compare(&mut old).expect("compared");
    assert_eq!(
        ids(&old),
        [
            ("A-3".into(), "Py_YAML".into()),
            ("A-2".into(), "left-pad".into()),
            ("A-1".into(), "libcurl4".into())
        ]
    );
    let mut inventory = Inventory::default();
    inventory.add("one", &old);
    let stored = serde_json::to_vec(&inventory).expect("JSON");
    let inventory: Inventory = serde_json::from_slice(&stored).expect("an inventory");
    let mut seen = Vec::new();
    let touched = inventory.rematch(&after, &changed, &mut |rematched| {
        seen.push(rematched.report.to_owned());
        rematched.apply(&mut old, &after);
    });
    assert_eq!((touched.expect("matched"), seen), (1, vec!["one".to_owned()]));
    let mut fresh = report();
    after.compare(&mut fresh).expect("compared");
    assert_eq!((&old.vulnerabilities, &old.advisory_data), (&fresh.vulnerabilities, &fresh.advisory_data));
    assert_eq!(ids(&old), [("A-3".into(), "Py_YAML".into())]);
}

#[test]
fn sources_come_and_go_and_an_empty_one_changes_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let (_one, one) =
        directory(&[("a.json", advisory("A-1", "Debian:12", "curl", "8", json!({})).as_bytes())]);
    let (_two, two) = directory(&[("a.json", advisory("A-2", "npm", "left-pad", "9", json!({})).as_bytes())]);
    assert!(matches!(Index::open(place.path()), Err(AdvisoryError::NoIndex { .. })));
    bring(place.path(), &[("one".into(), one.to_path_buf()), ("two".into(), two.to_path_buf())])
        .expect("updated");
    let compared = || {
        let mut report = report();
        Index::open(place.path()).expect("opened").compare(&mut report).expect("compared");
        ids(&report).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(compared(), ["A-2", "A-1"]);
    let empty = tempfile::tempdir().expect("a directory");
    let failed = bring(place.path(), &files("one", empty.path()));
    assert!(matches!(failed, Err(AdvisoryError::Empty { .. })), "{failed:?}");
    assert_eq!(compared(), ["A-2", "A-1"]);
    update(place.path(), &[source("one", Given::Gone)], now()).expect("updated");
    assert_eq!(compared(), ["A-2"]);
    let failed = update(place.path(), &[source("one", Given::Gone)], now());
    assert!(matches!(failed, Err(AdvisoryError::NoSource { .. })), "{failed:?}");
}

#[test]
fn one_update_at_a_time() {
    let place = tempfile::tempdir().expect("a directory");
    let lock = std::fs::File::create(place.path().join("lock")).expect("a lock");
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).expect("locked");
    let failed = update(place.path(), &[], now());
    assert!(matches!(failed, Err(AdvisoryError::Busy { .. })), "{failed:?}");
    drop(held);
    update(place.path(), &[], now()).expect("updated");
}

#[test]
fn damage_is_found_and_a_newer_format_is_left_alone() {
    let place = tempfile::tempdir().expect("a directory");
    let (_kept, data) =
        directory(&[("a.json", advisory("A-1", "npm", "left-pad", "9", json!({})).as_bytes())]);
    bring(place.path(), &files("x", &data)).expect("updated");
    let table = place.path().join("advisories-1.table");
    let whole = std::fs::read(&table).expect("a table");
    let answer = |bytes: &[u8]| {
        put(place.path(), "advisories-1.table", "");
        let mut file = std::fs::File::options().write(true).open(&table).expect("opened");
        std::io::Write::write_all(&mut file, bytes).expect("written");
        let mut report = report();
        Index::open(place.path()).and_then(|index| index.compare(&mut report)).map(|()| ids(&report))
    };
    let want = answer(&whole).expect("compared");
    // A checksum stands over every block, so that no flipped bit gives another answer.
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        match answer(&bytes) {
            Ok(found) => assert_eq!(found, want, "byte {at}"),
            Err(AdvisoryError::Damaged { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    for length in 0..whole.len() {
        assert!(matches!(answer(&whole[..length]), Err(AdvisoryError::Damaged { .. })), "{length}");
    }
    put(place.path(), "manifest.json", r#"{"formatVersion": 99}"#);
    assert!(matches!(Index::open(place.path()), Err(AdvisoryError::Newer { .. })));
    put(
        place.path(),
        "manifest.json",
        r#"{"formatVersion":1,"generation":1,"table":"../../x","changesSince":0,"sources":[]}"#,
    );
    assert!(matches!(Index::open(place.path()), Err(AdvisoryError::Damaged { .. })));
}

const PACKAGES: usize = 400;

/// Every package is mended in version `generation + 1`: a mixture of two states shows.
fn state(data: &Path, generation: usize) {
    let fixed = format!("{}", generation + 1);
    let documents: Vec<(String, String)> = (0..PACKAGES)
        .map(|n| {
            (
                format!("{n}.json"),
                advisory(&format!("A-{n}"), "Debian:12", &format!("p{n}"), &fixed, json!({})),
            )
        })
        .collect();
    let entries: Vec<(&str, &[u8])> =
        documents.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let temporary = data.join("next");
    std::fs::File::create(&temporary)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &zip(&entries)))
        .expect("written");
    std::fs::rename(temporary, data.join("all.zip")).expect("renamed");
}

fn installed() -> Report {
    let status: String = (0..PACKAGES).map(|n| deb(&format!("p{n}"), "0.1")).collect();
    let (_kept, root) =
        directory(&[("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n"), (STATUS, status.as_bytes())]);
    Scanner::new(Options::default()).directory(&root, now()).expect("scanned")
}

/// The one version that all of them are mended in.
fn whole(index: &Path, report: &mut Report) -> String {
    Index::open(index).expect("opened").compare(report).expect("compared");
    let found = report.vulnerabilities.as_ref().expect("compared");
    assert_eq!(found.len(), PACKAGES);
    let versions: BTreeSet<_> = found.iter().map(|v| v.fixed_version.clone().expect("a version")).collect();
    assert_eq!(versions.len(), 1, "half of an update is seen: {versions:?}");
    versions.into_iter().next().expect("one")
}

const CHILD: &str = "GANTRY_TEST_INDEX_CHILD";

#[test]
#[ignore = "the process that updates_that_are_killed_leave_the_old_or_the_new kills"]
fn child_that_updates() {
    #[expect(clippy::disallowed_methods, reason = "a test that starts itself again")]
    let Ok(place) = std::env::var(CHILD) else { return };
    let place = Path::new(&place);
    for generation in 0.. {
        state(&place.join("data"), generation);
        bring(&place.join("index"), &files("data", &place.join("data/all.zip"))).expect("updated");
        println!("updated");
    }
}

#[test]
fn updates_that_are_killed_leave_the_old_or_the_new() {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(place.path().join("data")).expect("a directory");
    let index = place.path().join("index");
    let mut report = installed();
    for round in 0..6_usize {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "index::child_that_updates", "--ignored", "--nocapture"])
            .env(CHILD, place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        // Some updates are seen to end, then it is killed within a later one, at a moment that each round moves.
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("its output")));
        let mut ended = 0;
        while ended < 2 {
            let line = lines.next().expect("it goes on").expect("a line");
            ended += usize::from(line.contains("updated"));
        }
        // Reading beside a writer that does not stop: never a mixture.
        for _ in 0..=round {
            whole(&index, &mut report);
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        whole(&index, &mut report);
        // Who comes next clears away what the killed one left.
        state(&place.path().join("data"), 1000 + round);
        bring(&index, &files("data", &place.path().join("data/all.zip"))).expect("updated");
        assert_eq!(whole(&index, &mut report), (1001 + round).to_string());
        let names = std::fs::read_dir(&index).expect("listed").map(|e| e.expect("an entry").file_name());
        let names: BTreeSet<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever changes from one update to the next, the index says what its documents say.
    #[test]
    fn any_history_gives_what_the_documents_say(
        history in proptest::collection::vec(
            proptest::collection::vec((0..12_usize, 0..6_usize, 1..4_usize), 1..10),
            1..5,
        ),
    ) {
        let data = tempfile::tempdir().expect("a directory");
        let place = tempfile::tempdir().expect("a directory");
        put(data.path(), "base.json", &advisory("BASE", "npm", "other", "9", json!({})));
        let names = [("Debian:12", "curl"), ("Debian", "curl"), ("PyPI", "py-yaml"), ("npm", "left-pad")];
        let mut inventory = Inventory::default();
        let mut followed = report();
        inventory.add("r", &followed);
        let mut seen = 0;
        for steps in history {
            for (document, name, version) in steps {
                let file = format!("{document}.json");
                match names.get(name) {
                    Some((ecosystem, package)) => {
                        let more = json!({"aliases": [format!("CVE-{}", document / 2)]});
                        let id = format!("A-{document}");
                        put(data.path(), &file, &advisory(&id, ecosystem, package, &format!("{version}.9"), more));
                    }
                    None => drop(std::fs::remove_file(data.path().join(&file))),
                }
            }
            bring(place.path(), &files("d", data.path())).expect("updated");
            let index = Index::open(place.path()).expect("opened");
            let changes = index.changes_since(seen).expect("read");
            seen = index.manifest().generation;
            inventory.rematch(&index, &changes, &mut |r| r.apply(&mut followed, &index)).expect("matched");
            let (mut indexed, mut direct) = (report(), report());
            index.compare(&mut indexed).expect("compared");
            compare(&mut direct, data.path()).expect("compared");
            prop_assert_eq!(&indexed.vulnerabilities, &direct.vulnerabilities);
            prop_assert_eq!(followed.vulnerabilities.as_deref().unwrap_or_default(), indexed.vulnerabilities.as_deref().unwrap_or_default());
        }
    }
}

#[test]
fn lists_of_versions_count_beside_ranges() {
    let listed = |versions: &[&str]| {
        let affected = json!([{
            "package": {"ecosystem": "npm", "name": "left-pad"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0.5.0"}, {"fixed": "1.0.0"}]}],
            "versions": versions,
        }]);
        json!({"id": "A-1", "affected": affected}).to_string()
    };
    for (versions, want) in [
        (&["2.0.0", "1.3.0", "0.6.0", "1.10.0", "1.2.0"][..], 1),
        (&["1.10.0", "2.0.0", "1.2.0", "0.1.0"], 0),
        (&["1.3.0"], 1),
        (&[], 0),
    ] {
        let (_kept, data) = directory(&[("a.json", listed(versions).as_bytes())]);
        let place = tempfile::tempdir().expect("a directory");
        bring(place.path(), &files("x", &data)).expect("updated");
        let (mut indexed, mut direct) = (report(), report());
        Index::open(place.path()).expect("opened").compare(&mut indexed).expect("compared");
        compare(&mut direct, &data).expect("compared");
        assert_eq!(ids(&indexed).len(), want, "{versions:?}");
        assert_eq!(indexed.vulnerabilities, direct.vulnerabilities);
    }
}
