//! An index that is carried to another place says the same there, and takes nothing newer away.

use std::io::Cursor;
use std::path::Path;

use gantry_scanner::advisories::{
    Changes, Given, Index, Installed, SourceUpdate, export, exported_manifest, install, update,
};
use jiff::Timestamp;

use crate::advisories::{all, is_right, report};
use crate::support::directory;

fn at(day: u8) -> Timestamp {
    format!("2026-11-{day:02}T00:00:00Z").parse().expect("a time")
}

fn bring(index: &Path, documents: &Path, day: u8) {
    let given = Given::Files(documents);
    let source = SourceUpdate { location: "test".to_owned(), given, etag: None, last_modified: None };
    update(index, &[source], at(day)).expect("updated");
}

/// What a file says, from its beginning.
fn bytes_of(file: &std::fs::File, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).expect("it is small")];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).expect("read");
    bytes
}

fn carried(from: &Path, to: &Path) -> Installed {
    let exported = export(from).expect("exported");
    let manifest = exported_manifest(&exported.manifest).expect("a manifest");
    let table = bytes_of(&exported.table, exported.table_bytes);
    install(to, manifest, &mut Cursor::new(table)).expect("installed")
}

#[test]
fn what_was_carried_says_the_same() {
    let all = all();
    let documents: Vec<(&str, &[u8])> = all.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let (_kept, documents) = directory(&documents);
    let (here, there) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    bring(here.path(), &documents, 1);
    let Installed::New(first) = carried(here.path(), there.path()) else { panic!("there was nothing") };
    let index = Index::open(there.path()).expect("opened");
    let mut report = report();
    index.compare(&mut report).expect("compared");
    is_right(report);

    // The same again, and what was looked at before that, change nothing.
    assert!(matches!(carried(here.path(), there.path()), Installed::Kept(kept) if kept == first));
    bring(there.path(), &documents, 3);
    assert!(matches!(carried(here.path(), there.path()), Installed::Kept(_)));
    // What was looked at later comes, and all of it counts as changed.
    bring(here.path(), &documents, 4);
    let before = Index::open(there.path()).expect("opened").manifest().generation;
    let Installed::New(second) = carried(here.path(), there.path()) else { panic!("it is newer") };
    assert!(second.generation > before);
    let index = Index::open(there.path()).expect("opened");
    assert_eq!(index.changes_since(before).expect("told"), Changes::All);
    let tables = std::fs::read_dir(there.path()).expect("a directory").filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".table"))
    });
    assert_eq!(tables.count(), 1, "the one before is gone");
}

#[test]
fn what_is_damaged_takes_nobodys_place() {
    let all = all();
    let documents: Vec<(&str, &[u8])> = all.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let (_kept, documents) = directory(&documents);
    let (here, there) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    bring(here.path(), &documents, 2);
    bring(there.path(), &documents, 1);
    let exported = export(here.path()).expect("exported");
    let table = bytes_of(&exported.table, exported.table_bytes);
    let before = Index::open(there.path()).expect("opened").manifest().clone();
    for bad in [&table[..table.len() - 5], &[7; 300], &[]] {
        let manifest = exported_manifest(&exported.manifest).expect("a manifest");
        assert!(install(there.path(), manifest, &mut Cursor::new(bad)).is_err());
        assert_eq!(*Index::open(there.path()).expect("opened").manifest(), before);
    }
    let text = String::from_utf8(exported.manifest).expect("text");
    let table = text.find("advisories-").expect("the table's name");
    let mut elsewhere = text.clone();
    elsewhere.replace_range(table..table, "../");
    assert!(exported_manifest(elsewhere.as_bytes()).is_err());
    assert!(
        exported_manifest(text.replace("\"formatVersion\": 1", "\"formatVersion\": 9").as_bytes()).is_err()
    );
}
